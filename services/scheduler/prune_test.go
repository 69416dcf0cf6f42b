package scheduler

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

func TestLogsAndBuildsGoWhenTheyAreOld(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Retention.Logs, r.deps.Retention.Builds = time.Hour, 10*time.Hour
		r.deps.Runners.Heartbeat = time.Hour // or a sweep finds what runs overdue when the clock jumps
		r.start()
		const day = 24 * time.Hour
		outdated, newest := r.built(mergedInto(1, "main", "m1")), r.built(mergedInto(2, "main", "m2"))
		r.pass(outdated)
		r.pass(newest)
		old, running := r.built(opened(11, "aaa")), r.built(opened(12, "bbb"))
		r.pass(old)
		r.attach(r.spec(running, 1).Runner.Token)
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED)
		r.deployed(newest)
		version := r.reporter.shows("aaa", "forge/test").GetVersion()

		r.clock.Advance(2 * time.Hour)
		r.settled()
		r.pruned()
		stream, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: old})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "the log is gone: logs are kept for 1h0m0s after the end of a build" {
			t.Errorf("the log: %v", err)
		}
		if b := r.build(old); b.GetState() != schedulerv1.Build_STATE_PASSED || len(b.GetSteps()) != 2 {
			t.Errorf("%v", b)
		}

		r.clock.Advance(day)
		r.pruned()
		for _, id := range []string{old, outdated} {
			if _, err := r.builds.GetBuild(t.Context(), &schedulerv1.GetBuildRequest{BuildId: id}); status.Code(err) != codes.NotFound {
				t.Errorf("build %s: %v", id, err)
			}
		}
		r.becomes(newest, schedulerv1.Build_STATE_PASSED) // staging runs it
		r.becomes(running, schedulerv1.Build_STATE_RUNNING)

		// What is told of the commit again is newer than what was told of it before.
		e := opened(13, "aaa")
		e.GetPullRequest().GetPullRequest().UpdateTime = timestamppb.New(r.clock.Now())
		r.built(e)
		kittest.Eventually(t, patience, func() error {
			if report := r.reporter.shows("aaa", "forge/test"); report.GetVersion() <= version || report.GetBuild().GetPullRequest() != 13 {
				return fmt.Errorf("shown: %v", report)
			}
			return nil
		})
		if d := r.send(e); d.GetReason() != eventv1.Reason_REASON_BUILT {
			t.Errorf("a decision that is not old: %v", d)
		}
	})
}

// What is forgotten of them must not make them new.
func TestWishesThatAreForgottenAreNotCarriedOutAgain(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Retention.Builds = 10 * time.Hour
		r.start()
		r.pass(r.built(r.github.shows(opened(1, "aaa"))))
		all := happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{CheckSuiteId: 5, HeadSha: "aaa", UpdateTime: timestamppb.New(noon)})
		r.pass(r.built(all))
		comment := commentBy("ada", "/forge retest")
		comment.GetIssueComment().CreateTime = timestamppb.New(noon)
		r.pass(r.built(comment))
		r.answered(1)
		r.settled()
		r.clock.Advance(10 * time.Hour)
		r.pruned()
		for e, text := range map[*eventv1.Event]string{
			all: "ignored: nothing was built of aaa", comment: "ignored: the comment is older than what is kept here",
		} {
			if d := r.again(e); d.GetText() != text {
				t.Errorf("%s: %v, want %s", e.GetName(), d, text)
			}
		}
		var suites int
		if err := r.deps.DB.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM check_suites`).Scan(&suites); suites != 0 || err != nil {
			t.Errorf("%d suites are left, %v", suites, err)
		}
	})
}

// What is known of a pull request goes once it was closed and nothing of it is left,
// with the approvals of its forks' commits; the count of a merge group goes by its age.
// An event that comes again after that is too old to be taken for news.
func TestWhatIsKnownOfPullRequestsAndMergeGroupsGoesWhenItIsOld(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Retention.Builds = 10 * time.Hour
		r.deps.Policy.Forks = trigger.ForkApprove
		r.start()
		offered, closed := opened(21, "aaa"), opened(21, "aaa")
		offered.GetPullRequest().GetPullRequest().Head.Repository = &eventv1.Repository{Id: 8, Owner: "mallory", Name: "shop"}
		closed.DeliveryId, closed.Action = "closed-aaa", "closed"
		closed.GetPullRequest().GetPullRequest().Open = false
		closed.GetPullRequest().GetPullRequest().UpdateTime = timestamppb.New(noon.Add(time.Minute))
		stays := opened(22, "bbb")
		r.send(offered)
		r.send(closed)
		r.pass(r.built(stays))
		r.pass(r.built(group("checks_requested", "main", "ccc")))
		r.settled()
		known := func(pulls, forks, groups int) {
			t.Helper()
			r.pruned()
			got := []int{r.count(`SELECT count(*) FROM pull_requests WHERE number > 0`), r.count(`SELECT count(*) FROM fork_heads`), r.count(`SELECT count(*) FROM merge_groups`)}
			kittest.Want(t, got, []int{pulls, forks, groups})
		}
		r.clock.Advance(9 * time.Hour)
		known(2, 1, 1)
		r.send(group("destroyed", "main", "ccc")) // so it is younger than its build
		r.clock.Advance(2 * time.Hour)
		known(1, 0, 1) // what is open is known for as long as it is
		r.clock.Advance(8 * time.Hour)
		known(1, 0, 0)
		for e, text := range map[*eventv1.Event]string{
			offered: "ignored: what is told of #21 is older than what is kept here",
			closed:  "ignored: what is told of #21 is older than what is kept here",
		} {
			kittest.Want(t, r.again(e).GetText(), text, e.GetAction())
		}
		reopened := opened(21, "aaa")
		reopened.DeliveryId, reopened.Action = "reopened-aaa", "reopened"
		reopened.GetPullRequest().GetPullRequest().UpdateTime = timestamppb.New(r.clock.Now())
		r.pass(r.built(reopened))
	})
}

// settled waits until the reporter has been told everything and every container
// that is over is gone.
func (r *rig) settled() {
	r.t.Helper()
	kittest.Eventually(r.t, patience, func() error {
		var targets, stops int
		err := r.deps.DB.Read().QueryRowContext(r.t.Context(), `SELECT (SELECT count(*) FROM targets WHERE due_time < 9223372036854775807) +
			(SELECT count(*) FROM answers WHERE due_time < 9223372036854775807),
			(SELECT count(*) FROM attempts WHERE stop_time < 9223372036854775807)`).Scan(&targets, &stops)
		if err == nil && targets+stops > 0 {
			err = fmt.Errorf("%d targets or answers and %d containers are left", targets, stops)
		}
		return err
	})
}

func (r *rig) pruned() {
	r.t.Helper()
	if err := r.service.prune(r.t.Context()); err != nil {
		r.t.Fatalf("prune: %v", err)
	}
}

func TestResourcesAreBoundedByTheServer(t *testing.T) {
	for _, c := range []struct{ asked, usual, most, want int64 }{
		{0, 0, 0, 0},
		{0, 2, 0, 2},
		{3, 2, 0, 3},
		{0, 0, 4, 4},
		{0, 8, 4, 4},
		{9, 2, 4, 4},
		{3, 2, 4, 3},
	} {
		if got := attempt.Bound(c.asked, c.usual, c.most); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	each(t, func(t *testing.T, r *rig) {
		r.service.attempts.Limits.MaxCPUs, r.service.attempts.Limits.Memory = 1.5, 1<<30
		spec := r.spec(r.built(opened(1, "aaa")), 1)
		if spec.CPUs != 1.5 || spec.Memory != 1<<30 {
			t.Errorf("%v cores, %d bytes", spec.CPUs, spec.Memory)
		}
	})
}
