package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// Build is a build as stored: what people see of it, without steps and log size,
// and what the scheduler keeps besides.
type Build struct {
	*schedulerv1.Build
	Number      int64
	Config      *configv1.BuildConfig
	Due         time.Time
	Tries       int
	Cancel      Cancel
	Traceparent string
	// Group is the concurrency group that a new build is stored in, with its tier; "" for none.
	Group string

	publishedState   schedulerv1.Build_State
	publishedMessage string
}

// Cancel is that somebody asked for a running build to stop; the zero time says
// that nobody did.
type Cancel struct {
	Time    time.Time
	Reason  schedulerv1.Build_Reason
	Message string
}

// BuildColumns are what ScanBuild reads.
const BuildColumns = `number, due_time, tries, cancel_time, cancel_reason, cancel_message, traceparent, build, config`

// ScanBuild reads a build from BuildColumns.
func ScanBuild(row sqldb.Row) (*Build, error) {
	b := &Build{Build: &schedulerv1.Build{}, Config: &configv1.BuildConfig{}}
	var dueAt, cancelAt int64
	var seen, config []byte
	err := row.Scan(&b.Number, &dueAt, &b.Tries, &cancelAt, &b.Cancel.Reason, &b.Cancel.Message, &b.Traceparent, &seen, &config)
	if err != nil {
		return nil, err
	}
	b.Due, b.Cancel.Time = DueTime(dueAt), sqldb.Time(cancelAt)
	if err := errors.Join(proto.Unmarshal(seen, b.Build), proto.Unmarshal(config, b.Config)); err != nil {
		return nil, err
	}
	if of := trigger.ActionOf(b.GetAction()); of.Environment != "" { // those stored by an older Forge have none
		b.Environment = of.Environment
	}
	b.publishedState, b.publishedMessage = b.GetState(), b.GetMessage()
	return b, nil
}

// ReadBuild is fault.NotFound, with a text for people, where there is none.
func ReadBuild(ctx context.Context, q sqldb.Querier, id, locked string) (*Build, error) {
	b, err := ScanBuild(q.QueryRowContext(ctx, `SELECT `+BuildColumns+` FROM builds WHERE id = $1`+locked, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Newf(fault.NotFound, "no build %s: there never was one, or it was pruned since", id)
	}
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", id, sqldb.Kind(err))
	}
	return b, nil
}

// Build locks a build. Of a job its build is locked first, so that everybody locks
// in one order.
func (t *Tx) Build(ctx context.Context, id string) (*Build, error) {
	if whole := WholeID(id); whole != id && t.Locked != "" {
		if _, err := sqldb.Collect(ctx, t, scanID, `SELECT id FROM builds WHERE id = $1`+t.Locked, whole); err != nil {
			return nil, err
		}
	}
	return ReadBuild(ctx, t, id, t.Locked)
}

// AddBuild stores a new build and gives it its number.
func (t *Tx) AddBuild(ctx context.Context, b *Build) error {
	config, err := proto.Marshal(b.Config)
	if err != nil {
		return err
	}
	err = t.QueryRowContext(ctx, `INSERT INTO builds (id, repository_id, repository, pull_request, sha, action, state, priority,
			due_time, tries, cancel_time, cancel_reason, cancel_message, traceparent, build, config, jobs, branch, base_ref, actor, environment, concurrency)
		VALUES ($1, $2, $3, $4, $5, $6, 0, $7, 0, 0, 0, 0, '', $8, $9, $10, $11, $12, $13, $14, $15, $16) RETURNING number`,
		b.GetId(), b.GetRepository().GetId(), b.RepositoryKey(), b.GetPullRequest(), b.GetSha(), int32(b.GetAction()),
		b.priority(), b.Traceparent, []byte{}, config, b.GetJobCount(), b.branch(), b.GetBaseRef(), strings.ToLower(b.GetActor()), b.GetEnvironment(), b.Group).Scan(&b.Number)
	if err != nil {
		return err
	}
	return t.SaveBuild(ctx, b)
}

// RepositoryKey is what builds are found by.
func (b *Build) RepositoryKey() string { return strings.ToLower(wording.FullName(b.GetRepository())) }

// AddJobs stores the new jobs of a build, in the order of the file. GitHub hears of
// those that have ended already: of the others once they run.
func (t *Tx) AddJobs(ctx context.Context, jobs []*Build) error {
	const columns = 19
	var args []any
	for _, b := range jobs {
		b.noteWait(t.Now)
		seen, err := proto.Marshal(b.Build)
		if err != nil {
			return err
		}
		config, err := proto.Marshal(b.Config)
		if err != nil {
			return err
		}
		args = append(args, b.GetId(), b.GetRepository().GetId(), b.RepositoryKey(), b.GetPullRequest(), b.GetSha(), int32(b.GetAction()),
			int32(b.GetState()), b.priority(), DueMicros(b.Due), b.Traceparent, seen, config, endMicros(b), b.GetPartOf(),
			b.GetJob(), b.branch(), b.GetBaseRef(), strings.ToLower(b.GetActor()), b.GetEnvironment())
	}
	rows := strings.ReplaceAll(sqldb.RowMarks(len(jobs), columns), ")", ", 0, 0, 0, '')")
	err := t.Exec(ctx, `INSERT INTO builds (id, repository_id, repository, pull_request, sha, action, state, priority, due_time,
			traceparent, build, config, end_time, part_of, job, branch, base_ref, actor, environment, tries, cancel_time, cancel_reason, cancel_message) VALUES `+rows, args...)
	if err != nil {
		return err
	}
	t.Wake(StartQueue)
	for _, b := range jobs {
		if Ended(b.GetState()) {
			err = errors.Join(err, t.enqueueReport(ctx, b))
		}
	}
	return err
}

// SaveBuild stores a build as it is now and, where that is news, has GitHub told
// of it.
func (t *Tx) SaveBuild(ctx context.Context, b *Build) error {
	b.noteWait(t.Now)
	seen, err := proto.Marshal(b.Build)
	if err != nil {
		return err
	}
	if b.HasJobs() { // it is never placed itself
		b.Due = time.Time{}
	}
	day, took := b.ended()
	err = t.Exec(ctx, `UPDATE builds SET state = $2, due_time = $3, tries = $4,
			cancel_time = $5, cancel_reason = $6, cancel_message = $7, build = $8, end_time = $9, end_day = $10, duration = $11, priority = $12 WHERE id = $1`,
		b.GetId(), int32(b.GetState()), DueMicros(b.Due), b.Tries,
		sqldb.Micros(b.Cancel.Time), int32(b.Cancel.Reason), b.Cancel.Message, seen, endMicros(b), day, took, b.priority())
	if err != nil {
		return err
	}
	t.Notify(BuildTopic(b.GetId()))
	if b.IsJob() {
		t.Notify(BuildTopic(b.GetPartOf()))
	}
	if b.GetState() == schedulerv1.Build_STATE_QUEUED || Ended(b.GetState()) {
		t.Wake(StartQueue)
	}
	// That a container is asked for is over in a moment, and no news to GitHub, nor what
	// the engine waits for. Nor is what a job waits for: its build tells of that.
	moved := b.GetState() != b.publishedState && b.GetState() != schedulerv1.Build_STATE_STARTING
	told := moved || b.GetMessage() != b.publishedMessage && (b.GetState() != schedulerv1.Build_STATE_STARTING || b.GetMessage() == "")
	if b.IsJob() {
		told = moved && b.GetState() >= schedulerv1.Build_STATE_RUNNING
	}
	if !told {
		return nil
	}
	if moved && Ended(b.GetState()) && b.GetAction() == schedulerv1.Build_ACTION_MANUAL && !b.IsJob() {
		if err := t.Exec(ctx, forgetSecretInputs, b.GetId()); err != nil {
			return err
		}
	}
	if moved && Ended(b.GetState()) && t.store.OnEnd != nil {
		t.OnCommit(func() { t.store.OnEnd(context.WithoutCancel(ctx), b) })
	}
	if b.IsRemote() {
		b.publishedState, b.publishedMessage = b.GetState(), b.GetMessage()
		return nil
	}
	if moved && !b.IsJob() && t.store.OnMove != nil {
		if err := t.store.OnMove(ctx, t, b); err != nil {
			return err
		}
	}
	b.publishedState, b.publishedMessage = b.GetState(), b.GetMessage()
	return t.enqueueReport(ctx, b)
}

// endMicros is when a build has ended; 0 where it has not.
func endMicros(b *Build) int64 {
	if b.GetEndTime() == nil {
		return 0
	}
	return sqldb.Micros(b.GetEndTime().AsTime())
}

// perDay is how many microseconds a day has.
const perDay = int64(24 * time.Hour / time.Microsecond)

// ended says of a build that has ended on which day since 1970 that was, and how many
// microseconds after its first command; 0 for none.
func (b *Build) ended() (day, took int64) {
	end := endMicros(b)
	if end > 0 && b.GetStartTime() != nil {
		took = max(0, end-sqldb.Micros(b.GetStartTime().AsTime()))
	}
	return end / perDay, took
}

// branch is what lists find a build by. One of an older Forge does not say it of the
// head of a pull request.
func (b *Build) branch() string {
	if b.GetBranch() != "" {
		return b.GetBranch()
	}
	return trigger.BranchOfRef(b.GetRef())
}

// SameContent finds the newest build of what an intent wants built; nil when
// there is none, or it was cancelled.
func (t *Tx) SameContent(ctx context.Context, i trigger.Intent) (*Build, error) {
	newest, err := t.NewestContent(ctx, i)
	if newest != nil && newest.GetState() == schedulerv1.Build_STATE_CANCELLED {
		return nil, err
	}
	return newest, err
}

// NewestContent is the newest build of what an intent wants built, whatever
// became of it; nil when there is none. A push, and a release, is of its ref too: a tag is built
// though the branch it lies on was.
func (t *Tx) NewestContent(ctx context.Context, i trigger.Intent) (*Build, error) {
	all, err := t.BuildsOf(ctx, i.Event.GetRepository().GetId(), i.Pull.GetNumber(), i.Sha, "")
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(all, func(b *Build) bool {
		if b.IsRemote() { // whoever pushes that commit has it built
			return false
		}
		ofRef := i.Action == schedulerv1.Build_ACTION_PUSH || i.Action == schedulerv1.Build_ACTION_RELEASE
		return b.GetAction() == i.Action && b.GetEnvironment() == i.DeploysTo() && b.GetRollBackOf() == "" && b.GetSchedule() == i.Schedule && (!ofRef || b.GetRef() == i.Ref)
	})
	if at < 0 {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return all[at], nil
}

// BuildsOf are the builds of a commit for a pull request, newest first.
func (t *Tx) BuildsOf(ctx context.Context, repositoryID int64, pullRequest int32, sha, locked string) ([]*Build, error) {
	return sqldb.Collect(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND pull_request = $2 AND sha = $3 AND part_of = '' ORDER BY number DESC`+locked, repositoryID, pullRequest, sha)
}

// NewerDeploy names the newest deploy to the environment of an intent's build
// that came after it; "" for none. What was cancelled changed nothing, or was
// stopped by a person who knows.
func (t *Tx) NewerDeploy(ctx context.Context, i trigger.Intent) (id string, err error) {
	return sqldb.First(ctx, t, scanID, `SELECT id FROM builds
		WHERE repository_id = $1 AND environment = $2 AND state NOT IN ($3, $5) AND part_of = '' AND number > (SELECT number FROM builds WHERE id = $4)
		ORDER BY number DESC LIMIT 1`,
		i.Event.GetRepository().GetId(), i.DeploysTo(), int32(schedulerv1.Build_STATE_CANCELLED), i.Build, int32(schedulerv1.Build_STATE_BLOCKED))
}

// UnfinishedTests locks the builds of a pull request that have not ended, deploys
// left out but for those to its previews.
func (t *Tx) UnfinishedTests(ctx context.Context, repositoryID int64, pullRequest int32) ([]*Build, error) {
	return sqldb.Collect(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND pull_request = $2 AND action IN ($3, $4, $5, $6, $7) AND state < $8 AND part_of = ''
		ORDER BY number`+t.Locked,
		repositoryID, pullRequest, int32(schedulerv1.Build_ACTION_TEST), int32(schedulerv1.Build_ACTION_STAGING),
		int32(schedulerv1.Build_ACTION_PUSH), int32(schedulerv1.Build_ACTION_MANUAL), int32(schedulerv1.Build_ACTION_PREVIEW), int32(firstEnded))
}

// Overdue names the builds whose attempt should have ended by now, and those
// that were asked to stop before the given time and have not.
func (s *Store) Overdue(ctx context.Context, cancelledBefore time.Time) ([]string, error) {
	ids, err := sqldb.Collect(ctx, s.DB.Read(), scanID, `SELECT a.build_id FROM attempts a JOIN builds b ON b.id = a.build_id
		WHERE NOT a.ended AND (a.deadline <= $1 OR (b.cancel_time > 0 AND b.cancel_time <= $2))`,
		sqldb.Micros(s.Now()), sqldb.Micros(cancelledBefore))
	return ids, sqldb.Kind(err)
}

func scanID(row sqldb.Row) (string, error) {
	var id string
	err := row.Scan(&id)
	return id, err
}
