package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/wording"
)

// Schedule is what the file of a default branch has run again and again, as the file
// was when it could last be read.
type Schedule struct {
	RepositoryID int64
	Name         string
	// Config holds this schedule alone.
	Config *configv1.BuildConfig
	// Next is the time that it is to run for next, and Due when that is looked at; the
	// zero time is never.
	Next, Due time.Time
	Tries     int
	// Last is the time that it was run for last, by the build LastBuild.
	Last      time.Time
	LastBuild string
	Message   string // what became of that time, or what it waits for
}

// Asked is what the file has of it.
func (c *Schedule) Asked() *configv1.Schedule { return c.Config.GetSchedules()[0] }

// ScheduleFile is a repository whose default branch is looked at for schedules, and for
// whom to tell of builds.
type ScheduleFile struct {
	Repository     *eventv1.Repository
	InstallationID int64
	Tries          int
	Problem        string // why it cannot be read now
	Notify         []*configv1.Notify
}

// Timetable is a change of schedules.
type Timetable struct{ *Tx }

const (
	scheduleColumns     = `repository_id, name, config, next_time, due_time, tries, last_time, last_build, message`
	scheduleFileColumns = `repository, installation_id, tries, problem, notify`
)

func scanSchedule(row sqldb.Row) (*Schedule, error) {
	c := &Schedule{Config: &configv1.BuildConfig{}}
	var config []byte
	var next, dueAt, last int64
	if err := row.Scan(&c.RepositoryID, &c.Name, &config, &next, &dueAt, &c.Tries, &last, &c.LastBuild, &c.Message); err != nil {
		return nil, err
	}
	c.Next, c.Due, c.Last = DueTime(next), DueTime(dueAt), sqldb.Time(last)
	return c, proto.Unmarshal(config, c.Config)
}

func scanScheduleFile(row sqldb.Row) (*ScheduleFile, error) {
	f := &ScheduleFile{Repository: &eventv1.Repository{}}
	var repository, notify []byte
	if err := row.Scan(&repository, &f.InstallationID, &f.Tries, &f.Problem, &notify); err != nil {
		return nil, err
	}
	config := &configv1.BuildConfig{}
	err := errors.Join(proto.Unmarshal(repository, f.Repository), proto.Unmarshal(notify, config))
	f.Notify = config.GetNotify()
	return f, err
}

// NoticeRepository has the schedules of an event's repository read, where they were
// never; of one whose default branch was pushed to, again.
func (t Timetable) NoticeRepository(ctx context.Context, event *eventv1.Event) error {
	of := event.GetRepository()
	if of.GetId() == 0 || of.GetDefaultBranch() == "" {
		return nil
	}
	raw, err := proto.Marshal(of)
	if err != nil {
		return err
	}
	again := `DO NOTHING`
	if event.GetPush().GetRef() == "refs/heads/"+of.GetDefaultBranch() {
		again = `(repository_id) DO UPDATE SET repository = excluded.repository, installation_id = excluded.installation_id, due_time = excluded.due_time, tries = 0`
		t.Wake(ScheduleFileQueue)
	}
	return t.Exec(ctx, `INSERT INTO schedule_files (repository_id, repository, installation_id, due_time, tries, problem)
		VALUES ($1, $2, $3, $4, 0, '') ON CONFLICT `+again, of.GetId(), raw, event.GetInstallationId(), sqldb.Micros(t.Now))
}

// ClaimScheduleFiles leases the repositories whose file is to be read.
func (s *Store) ClaimScheduleFiles(ctx context.Context, limit int) ([]*ScheduleFile, error) {
	return Claim(ctx, s, limit, scanScheduleFile, `SELECT `+scheduleFileColumns+` FROM schedule_files
		WHERE due_time <= $1 ORDER BY due_time LIMIT $2`, func(ctx context.Context, t *Tx, f *ScheduleFile, until time.Time) error {
		return Timetable{t}.SaveScheduleFile(ctx, f, until)
	})
}

// ScheduleFile locks a repository whose schedules are read; nil where it is none.
func (t Timetable) ScheduleFile(ctx context.Context, repositoryID int64) (*ScheduleFile, error) {
	return scheduleFile(ctx, t, repositoryID, t.Locked)
}

// ReadScheduleFile is a repository whose schedules are read; nil where it is none.
func (s *Store) ReadScheduleFile(ctx context.Context, repositoryID int64) (*ScheduleFile, error) {
	f, err := scheduleFile(ctx, s.DB.Read(), repositoryID, "")
	return f, sqldb.Kind(err)
}

func scheduleFile(ctx context.Context, q sqldb.Querier, repositoryID int64, locked string) (*ScheduleFile, error) {
	return sqldb.First(ctx, q, scanScheduleFile, `SELECT `+scheduleFileColumns+` FROM schedule_files WHERE repository_id = $1`+locked, repositoryID)
}

// SaveScheduleFile stores how the reading of a file went, and when it is read again.
func (t Timetable) SaveScheduleFile(ctx context.Context, f *ScheduleFile, again time.Time) error {
	raw, err := proto.Marshal(f.Repository)
	if err != nil {
		return err
	}
	notify, err := proto.Marshal(&configv1.BuildConfig{Notify: f.Notify})
	if err != nil {
		return err
	}
	return t.Exec(ctx, `UPDATE schedule_files SET repository = $2, due_time = $3, tries = $4, problem = $5, notify = $6 WHERE repository_id = $1`,
		f.Repository.GetId(), raw, DueMicros(again), f.Tries, f.Problem, notify)
}

// ClaimSchedules leases the schedules that are due.
func (s *Store) ClaimSchedules(ctx context.Context, limit int) ([]*Schedule, error) {
	return Claim(ctx, s, limit, scanSchedule, `SELECT `+scheduleColumns+` FROM schedules
		WHERE due_time <= $1 ORDER BY due_time LIMIT $2`, func(ctx context.Context, t *Tx, c *Schedule, until time.Time) error {
		return t.Exec(ctx, `UPDATE schedules SET due_time = $3 WHERE repository_id = $1 AND name = $2`, c.RepositoryID, c.Name, sqldb.Micros(until))
	})
}

// Schedule locks a schedule; nil where there is none any more.
func (t Timetable) Schedule(ctx context.Context, repositoryID int64, name string) (*Schedule, error) {
	return sqldb.First(ctx, t, scanSchedule, `SELECT `+scheduleColumns+` FROM schedules WHERE repository_id = $1 AND name = $2`+t.Locked, repositoryID, name)
}

// SchedulesOf locks the schedules of a repository.
func (t Timetable) SchedulesOf(ctx context.Context, repositoryID int64) ([]*Schedule, error) {
	return sqldb.Collect(ctx, t, scanSchedule, `SELECT `+scheduleColumns+` FROM schedules WHERE repository_id = $1 ORDER BY name`+t.Locked, repositoryID)
}

// SaveSchedule stores a schedule, new or not.
func (t Timetable) SaveSchedule(ctx context.Context, of *eventv1.Repository, c *Schedule) error {
	config, err := proto.Marshal(c.Config)
	if err != nil {
		return err
	}
	return t.Exec(ctx, `INSERT INTO schedules (repository_id, name, repository, config, next_time, due_time, tries, last_time, last_build, message)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (repository_id, name) DO UPDATE SET repository = excluded.repository,
			config = excluded.config, next_time = excluded.next_time, due_time = excluded.due_time, tries = excluded.tries,
			last_time = excluded.last_time, last_build = excluded.last_build, message = excluded.message`,
		c.RepositoryID, c.Name, strings.ToLower(wording.FullName(of)), config, DueMicros(c.Next), DueMicros(c.Due), c.Tries,
		sqldb.Micros(c.Last), c.LastBuild, c.Message)
}

// RemoveSchedule forgets a schedule that its file has no more.
func (t Timetable) RemoveSchedule(ctx context.Context, c *Schedule) error {
	return t.Exec(ctx, `DELETE FROM schedules WHERE repository_id = $1 AND name = $2`, c.RepositoryID, c.Name)
}

// UnfinishedOf names the build of a schedule that has not ended; empty for none.
func (t Timetable) UnfinishedOf(ctx context.Context, repositoryID int64, name string) (string, error) {
	all, err := sqldb.Collect(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND action = $2 AND state < $3 AND part_of = '' ORDER BY number`,
		repositoryID, int32(schedulerv1.Build_ACTION_SCHEDULE), int32(firstEnded))
	for _, b := range all {
		if b.GetSchedule() == name {
			return b.GetId(), err
		}
	}
	return "", err
}

// ScheduleKey is where a page of schedules ended.
type ScheduleKey struct {
	RepositoryID int64
	Name         string
}

// ListedSchedule is a schedule with its repository.
type ListedSchedule struct {
	*Schedule
	File *ScheduleFile
}

// ListSchedules are those after the given one, of all repositories or of one.
func (s *Store) ListSchedules(ctx context.Context, repository string, after ScheduleKey, limit int) ([]ListedSchedule, error) {
	found, err := sqldb.Collect(ctx, s.DB.Read(), scanSchedule, `SELECT `+scheduleColumns+` FROM schedules
		WHERE ($1 = '' OR repository = $1) AND (repository_id > $2 OR (repository_id = $2 AND name > $3))
		ORDER BY repository_id, name LIMIT $4`, strings.ToLower(repository), after.RepositoryID, after.Name, limit)
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	var all []ListedSchedule
	files := map[int64]*ScheduleFile{}
	for _, c := range found {
		if files[c.RepositoryID] == nil {
			if files[c.RepositoryID], err = s.ReadScheduleFile(ctx, c.RepositoryID); err != nil {
				return nil, err
			}
		}
		all = append(all, ListedSchedule{c, files[c.RepositoryID]})
	}
	return all, nil
}
