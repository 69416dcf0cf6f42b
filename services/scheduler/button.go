package scheduler

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// buttons is what those at a check run ask for.
func buttons() map[eventv1.Button]moment {
	return map[eventv1.Button]moment{
		eventv1.Button_BUTTON_RERUN: asked, eventv1.Button_BUTTON_CANCEL: halted, eventv1.Button_BUTTON_APPROVE: approved,
	}
}

// intendButton reads a button that somebody pressed at a check run, which names
// its build, or at all checks of a commit.
func (s *Service) intendButton(ctx context.Context, event *eventv1.Event) ([]intent, *eventv1.Decision, error) {
	if event.GetRepository().GetId() == 0 {
		return nil, malformed("a button without a repository"), nil
	}
	wish, found, decided, err := s.pressed(ctx, event)
	if decided != nil || err != nil {
		return nil, decided, err
	}
	tests := slices.DeleteFunc(found, deploys)
	if len(tests) == 0 {
		return nil, ignored(eventv1.Reason_REASON_DEPLOY_IGNORED, "deploys are steered by administrators, not by buttons"), nil
	}
	if decided, err := s.mustWrite(ctx, event, event.GetSender()); decided != nil || err != nil {
		return nil, decided, err
	}
	var intents []intent
	for _, b := range tests {
		i := again(event, b)
		i.moment, i.build = wish, b.GetId()
		switch wish {
		case approved:
			decided = s.needsApproval(b.GetFork(), "build "+b.GetId())
		case asked:
			decided = s.forkDecision(b.GetFork())
		default: // what is stopped may be of any kind
		}
		if decided != nil {
			return nil, decided, nil
		}
		intents = append(intents, i)
	}
	return intents, nil, nil
}

// pressed is what is wanted, and of which builds.
func (s *Service) pressed(ctx context.Context, event *eventv1.Event) (moment, []*build, *eventv1.Decision, error) {
	pool, repository := s.store.db.Read(), event.GetRepository().GetId()
	if suite := event.GetCheckSuite(); suite != nil {
		found, err := newestBuilds(ctx, pool, repository, suite.GetHeadSha())
		if err == nil && len(found) == 0 {
			return 0, nil, ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "nothing was built of %s", short(suite.GetHeadSha())), nil
		}
		return asked, found, nil, sqldb.Kind(err)
	}
	run := event.GetCheckRun()
	wish := asked
	if event.GetAction() == "requested_action" {
		if wish = buttons()[run.GetButton()]; wish == 0 {
			return 0, nil, ignored(eventv1.Reason_REASON_ACTION_IGNORED, "there is no button %q", run.GetRequestedAction()), nil
		}
	}
	b, err := readBuild(ctx, pool, run.GetExternalId(), "")
	if fault.Is(err, fault.NotFound) || (err == nil && (b.GetRepository().GetId() != repository || b.GetSha() != run.GetHeadSha())) {
		return 0, nil, ignored(eventv1.Reason_REASON_GONE, "the check run is of no build that is known here"), nil
	}
	return wish, []*build{b}, nil, err
}

// replayed decides about a press at all checks of a commit that was heard of
// before, by another delivery: only a delivery's body is signed. A press at a
// single check run needs no such memory, since it names the build.
func (t *tx) replayed(ctx context.Context, event *eventv1.Event, of []planned) (*eventv1.Decision, error) {
	suite := event.GetCheckSuite()
	if suite.GetUpdateTime() == nil {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	known, err := t.knowsSuite(ctx, event)
	if !known || err != nil {
		return nil, err
	}
	decided := ignored(eventv1.Reason_REASON_DUPLICATE, "all checks of %s were run again already", short(suite.GetHeadSha()))
	for _, p := range of {
		decided.BuildIds = append(decided.BuildIds, p.build)
	}
	return decided, nil
}

// knowsSuite reports whether a check suite was heard of as it is in the event, or
// later, and else remembers it for as long as there are builds of its commit.
func (t *tx) knowsSuite(ctx context.Context, event *eventv1.Event) (bool, error) {
	suite := event.GetCheckSuite()
	var id int64
	err := t.QueryRowContext(ctx, `INSERT INTO check_suites (repository_id, suite_id, sha, update_time) VALUES ($1, $2, $3, $4)
		ON CONFLICT (repository_id, suite_id) DO UPDATE SET update_time = excluded.update_time
		WHERE check_suites.update_time < excluded.update_time RETURNING suite_id`,
		event.GetRepository().GetId(), suite.GetCheckSuiteId(), suite.GetHeadSha(), sqldb.Micros(suite.GetUpdateTime().AsTime())).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return false, err
}

// again is the intent that a build was made for, asked for once more.
func again(event *eventv1.Event, b *build) intent {
	return intent{
		event: event, moment: asked, action: b.GetAction(), sha: b.GetSha(), ref: b.GetRef(), fork: b.GetFork(),
		pull: &eventv1.PullRequest{
			Number: b.GetPullRequest(), Title: b.GetTitle(), CommitCount: b.GetCommitCount(),
			Base: &eventv1.PullRequestBranch{Ref: b.GetBaseRef()},
		},
	}
}

func deploys(b *build) bool { return b.GetEnvironment() != "" }

// newestBuilds are those of a commit that no newer one repeats, by pull request.
func newestBuilds(ctx context.Context, q querier, repositoryID int64, sha string) ([]*build, error) {
	all, err := collect(ctx, q, scanBuild, `SELECT `+buildColumns+` FROM builds WHERE sha = $1 AND repository_id = $2
		ORDER BY number DESC`, sha, repositoryID)
	if err != nil {
		return nil, fmt.Errorf("builds of %s: %w", short(sha), err)
	}
	type content struct {
		pull   int32
		action schedulerv1.Build_Action
		ref    string
	}
	seen := map[content]bool{}
	newest := slices.DeleteFunc(all, func(b *build) bool {
		c := content{b.GetPullRequest(), b.GetAction(), b.GetRef()}
		older := seen[c]
		seen[c] = true
		return older
	})
	slices.SortFunc(newest, func(a, b *build) int { return cmp.Compare(a.GetPullRequest(), b.GetPullRequest()) })
	return newest, nil
}
