package scheduler

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
)

// build is a build as stored: what people see of it, without steps and log size,
// and what the scheduler keeps besides.
type build struct {
	*schedulerv1.Build
	number      int64
	config      *configv1.BuildConfig
	due         time.Time
	tries       int
	cancel      cancel
	traceparent string

	toldState   schedulerv1.Build_State
	toldMessage string
}

// cancel is that somebody asked for a running build to stop; the zero time says
// that nobody did.
type cancel struct {
	time    time.Time
	reason  schedulerv1.Build_Reason
	message string
}

const buildColumns = `number, due_time, tries, cancel_time, cancel_reason, cancel_message, traceparent, build, config`

func scanBuild(row scanner) (*build, error) {
	b := &build{Build: &schedulerv1.Build{}, config: &configv1.BuildConfig{}}
	var dueAt, cancelAt int64
	var seen, config []byte
	err := row.Scan(&b.number, &dueAt, &b.tries, &cancelAt, &b.cancel.reason, &b.cancel.message, &b.traceparent, &seen, &config)
	if err != nil {
		return nil, err
	}
	b.due, b.cancel.time = dueTime(dueAt), sqldb.Time(cancelAt)
	if err := errors.Join(proto.Unmarshal(seen, b.Build), proto.Unmarshal(config, b.config)); err != nil {
		return nil, err
	}
	b.Environment = purposeOf(b.GetAction()).environment // those stored by an older Forge have none
	b.toldState, b.toldMessage = b.GetState(), b.GetMessage()
	return b, nil
}

// readBuild is fault.NotFound, with a text for people, where there is none.
func readBuild(ctx context.Context, q querier, id, locked string) (*build, error) {
	b, err := scanBuild(q.QueryRowContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE id = $1`+locked, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Newf(fault.NotFound, "no build %s: there never was one, or it was pruned since", id)
	}
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", id, sqldb.Kind(err))
	}
	return b, nil
}

// build locks a build.
func (t *tx) build(ctx context.Context, id string) (*build, error) {
	return readBuild(ctx, t, id, t.locked)
}

// addBuild stores a new build and gives it its number.
func (t *tx) addBuild(ctx context.Context, b *build) error {
	config, err := proto.Marshal(b.config)
	if err != nil {
		return err
	}
	repository := strings.ToLower(b.GetRepository().GetOwner() + "/" + b.GetRepository().GetName())
	err = t.QueryRowContext(ctx, `INSERT INTO builds (id, repository_id, repository, pull_request, sha, action, state, priority,
			due_time, tries, cancel_time, cancel_reason, cancel_message, traceparent, build, config)
		VALUES ($1, $2, $3, $4, $5, $6, 0, $7, 0, 0, 0, 0, '', $8, $9, $10) RETURNING number`,
		b.GetId(), b.GetRepository().GetId(), repository, b.GetPullRequest(), b.GetSha(), int32(b.GetAction()),
		b.priority(), b.traceparent, []byte{}, config).Scan(&b.number)
	if err != nil {
		return err
	}
	return t.saveBuild(ctx, b)
}

// saveBuild stores a build as it is now and, where that is news, has GitHub told
// of it.
func (t *tx) saveBuild(ctx context.Context, b *build) error {
	seen, err := proto.Marshal(b.Build)
	if err != nil {
		return err
	}
	err = t.exec(ctx, `UPDATE builds SET state = $2, due_time = $3, tries = $4,
			cancel_time = $5, cancel_reason = $6, cancel_message = $7, build = $8, end_time = $9 WHERE id = $1`,
		b.GetId(), int32(b.GetState()), dueMicros(b.due), b.tries,
		sqldb.Micros(b.cancel.time), int32(b.cancel.reason), b.cancel.message, seen, endMicros(b))
	if err != nil {
		return err
	}
	t.news.topics = append(t.news.topics, buildTopic(b.GetId()))
	t.news.starts = t.news.starts || b.GetState() == schedulerv1.Build_STATE_QUEUED || ended(b.GetState())
	// That a container is asked for is over in a moment, and no news to GitHub.
	moved := b.GetState() != b.toldState && b.GetState() != schedulerv1.Build_STATE_STARTING
	if !moved && b.GetMessage() == b.toldMessage {
		return nil
	}
	b.toldState, b.toldMessage = b.GetState(), b.GetMessage()
	return t.tell(ctx, b)
}

// endMicros is when a build has ended; 0 where it has not.
func endMicros(b *build) int64 {
	if b.GetEndTime() == nil {
		return 0
	}
	return sqldb.Micros(b.GetEndTime().AsTime())
}

// sameContent finds the newest build of what an intent wants built; nil when
// there is none, or it was cancelled.
func (t *tx) sameContent(ctx context.Context, i intent) (*build, error) {
	newest, err := t.newestContent(ctx, i)
	if newest != nil && newest.GetState() == schedulerv1.Build_STATE_CANCELLED {
		return nil, err
	}
	return newest, err
}

// newestContent is the newest build of what an intent wants built, whatever
// became of it; nil when there is none. A push is of its ref too: a tag is built
// though the branch it lies on was.
func (t *tx) newestContent(ctx context.Context, i intent) (*build, error) {
	all, err := t.buildsOf(ctx, i.event.GetRepository().GetId(), i.pull.GetNumber(), i.sha, "")
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(all, func(b *build) bool {
		return b.GetAction() == i.action && b.GetRollBackOf() == "" && (i.action != schedulerv1.Build_ACTION_PUSH || b.GetRef() == i.ref)
	})
	if at < 0 {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return all[at], nil
}

// buildsOf are the builds of a commit for a pull request, newest first.
func (t *tx) buildsOf(ctx context.Context, repositoryID int64, pullRequest int32, sha, locked string) ([]*build, error) {
	return collect(ctx, t, scanBuild, `SELECT `+buildColumns+` FROM builds
		WHERE repository_id = $1 AND pull_request = $2 AND sha = $3 ORDER BY number DESC`+locked, repositoryID, pullRequest, sha)
}

// newerDeploy names the newest deploy to the environment of an intent's build
// that came after it; "" for none. What was cancelled changed nothing, or was
// stopped by a person who knows.
func (t *tx) newerDeploy(ctx context.Context, i intent) (id string, err error) {
	err = t.QueryRowContext(ctx, `SELECT id FROM builds
		WHERE repository_id = $1 AND action = $2 AND state <> $3 AND number > (SELECT number FROM builds WHERE id = $4)
		ORDER BY number DESC LIMIT 1`,
		i.event.GetRepository().GetId(), int32(i.action), int32(schedulerv1.Build_STATE_CANCELLED), i.build).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return id, err
}

// unfinishedTests locks the builds of a pull request that have not ended, deploys
// left out.
func (t *tx) unfinishedTests(ctx context.Context, repositoryID int64, pullRequest int32) ([]*build, error) {
	return collect(ctx, t, scanBuild, `SELECT `+buildColumns+` FROM builds
		WHERE repository_id = $1 AND pull_request = $2 AND action IN ($3, $4, $5) AND state < $6
		ORDER BY number`+t.locked,
		repositoryID, pullRequest, int32(schedulerv1.Build_ACTION_TEST), int32(schedulerv1.Build_ACTION_STAGING),
		int32(schedulerv1.Build_ACTION_PUSH), int32(firstEnded))
}

// overdue names the builds whose attempt should have ended by now, and those
// that were asked to stop before the given time and have not.
func (s *store) overdue(ctx context.Context, cancelledBefore time.Time) ([]string, error) {
	ids, err := collect(ctx, s.db.Read(), scanID, `SELECT a.build_id FROM attempts a JOIN builds b ON b.id = a.build_id
		WHERE NOT a.ended AND (a.deadline <= $1 OR (b.cancel_time > 0 AND b.cancel_time <= $2))`,
		sqldb.Micros(s.now()), sqldb.Micros(cancelledBefore))
	return ids, sqldb.Kind(err)
}

func scanID(row scanner) (string, error) {
	var id string
	err := row.Scan(&id)
	return id, err
}
