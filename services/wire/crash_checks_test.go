package wire_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// everyDeliveryIsDecided: all that was answered 200 is known, once, and decided
// by every receiver.
func (s *storm) everyDeliveryIsDecided() {
	undecided := []eventv1.Reason{eventv1.Reason_REASON_UNSPECIFIED, eventv1.Reason_REASON_MALFORMED, eventv1.Reason_REASON_GAVE_UP}
	known := map[string]bool{}
	for _, d := range s.deliveries() {
		if known[d.GetId()] || len(d.GetForwards()) == 0 {
			s.t.Errorf("delivery %s is known twice or has no receiver: %v", d.GetId(), d)
		}
		known[d.GetId()] = true
		for _, f := range d.GetForwards() {
			if slices.Contains(undecided, f.GetDecision().GetReason()) {
				s.t.Errorf("delivery %s: %s decided %v", d.GetId(), f.GetReceiver(), f.GetDecision())
			}
		}
	}
	for guid := range s.accepted() {
		if !known[guid] {
			s.t.Errorf("delivery %s was answered 200 and is not known", guid)
		}
	}
}

// deliveries are all there are.
func (s *storm) deliveries() (all []*gatewayv1.Delivery) {
	s.t.Helper()
	request := &gatewayv1.ListDeliveriesRequest{PageSize: 500}
	client := gatewayv1.NewDeliveryServiceClient(s.dial(s.t, "gateway"))
	for more := true; more; more = request.GetPageToken() != "" {
		page, err := client.ListDeliveries(asAdmin(s.t.Context()), request)
		if err != nil {
			s.t.Fatal(err)
		}
		request.PageToken = page.GetNextPageToken()
		all = append(all, page.GetDeliveries()...)
	}
	return all
}

// everyBuildIsRight compares the builds, and what GitHub shows of them and was told before,
// with what the authors know.
func (s *storm) everyBuildIsRight() []*schedulerv1.Build {
	all := s.everyBuildShowsRight()
	for sha := range s.outcomes {
		s.neverPendingAgain(sha)
	}
	return all
}

// everyBuildShowsRight compares the builds, and what GitHub shows of them, with what the
// authors know.
func (s *storm) everyBuildShowsRight() []*schedulerv1.Build {
	all := s.builds()
	late := s.lateMerges(all)
	for _, p := range s.proposals {
		switch {
		case p.merged == "":
			s.shows(s.t, p.head, "forge/test", states()[p.outcome()])
		case !late[p.merged] && !s.lost[p.merged]: // its test counts no more, if the news of the merge came first
			s.shows(s.t, p.merged, "forge/deploy-staging", states()[schedulerv1.Build_STATE_PASSED])
		}
	}
	if len(s.merges) > 0 { // a short story may have none
		s.shows(s.t, s.promotion(s.t).HeadSHA, "forge/staging", "success")
	}

	told := map[string]bool{}
	for _, b := range all { // newest first
		superseded := b.GetReason() == schedulerv1.Build_REASON_SUPERSEDED && b.GetAction() != schedulerv1.Build_ACTION_DEPLOY_STAGING
		contained := b.GetReason() == schedulerv1.Build_REASON_ALREADY_CONTAINED && late[b.GetSha()]
		if b.GetState() != s.outcomes[b.GetSha()] && !superseded && !contained && !s.lost[b.GetId()] {
			s.t.Errorf("%s of %.7s is %s, want %s: %s %s", b.GetContext(), b.GetSha(), b.GetState(), s.outcomes[b.GetSha()], b.GetReason(), b.GetMessage())
		}
		if target := b.GetSha() + b.GetContext(); !told[target] {
			told[target] = true
			s.shows(s.t, b.GetSha(), b.GetContext(), states()[b.GetState()])
		}
	}
	return all
}

// lateMerges are the merge commits whose news came when a newer one had been
// deployed. Whether before or after a build was made for it, the reason names a
// deploy that passed, of a later merge.
func (s *storm) lateMerges(builds []*schedulerv1.Build) map[string]bool {
	s.t.Helper()
	contains := map[string]string{} // by merge commit, the build that is said to contain it
	byID := map[string]*schedulerv1.Build{}
	for _, b := range builds {
		byID[b.GetId()] = b
		if b.GetReason() == schedulerv1.Build_REASON_ALREADY_CONTAINED {
			contains[b.GetSha()] = strings.TrimPrefix(b.GetMessage(), "already contained in build ")
		}
	}
	client := gatewayv1.NewDeliveryServiceClient(s.dial(s.t, "gateway"))
	for _, d := range s.deliveries() {
		for _, f := range d.GetForwards() {
			if f.GetDecision().GetReason() != eventv1.Reason_REASON_ALREADY_CONTAINED {
				continue
			}
			whole, err := client.GetDelivery(asAdmin(s.t.Context()), &gatewayv1.GetDeliveryRequest{DeliveryId: d.GetId()})
			if err != nil {
				s.t.Fatal(err)
			}
			var event github.PullRequestEvent
			if err := json.Unmarshal(whole.GetDelivery().GetPayload(), &event); err != nil {
				s.t.Fatalf("delivery %s: %v", d.GetId(), err)
			}
			contains[event.GetPullRequest().GetMergeCommitSHA()] = f.GetDecision().GetBuildIds()[0]
		}
	}
	late := map[string]bool{}
	for sha, id := range contains {
		b := byID[id]
		earlier, later := slices.Index(s.merges, sha), slices.Index(s.merges, b.GetSha())
		if earlier < 0 || later < earlier || b.GetState() != schedulerv1.Build_STATE_PASSED {
			s.t.Errorf("%.7s, merge %d, is said to be contained in %s, which %s merge %d", sha, earlier, id, b.GetState(), later)
		}
		late[sha] = later > earlier // the very same commit is told of twice
	}
	return late
}

// states are those of builds as statuses on GitHub.
func states() map[schedulerv1.Build_State]string {
	return map[schedulerv1.Build_State]string{
		schedulerv1.Build_STATE_PASSED: "success", schedulerv1.Build_STATE_FAILED: "failure", schedulerv1.Build_STATE_CANCELLED: "error", schedulerv1.Build_STATE_ERRORED: "error",
	}
}

// builds are all there are, the newest first.
func (s *storm) builds() (all []*schedulerv1.Build) {
	s.t.Helper()
	request := &schedulerv1.ListBuildsRequest{PageSize: 500}
	client := schedulerv1.NewBuildServiceClient(s.dial(s.t, "scheduler"))
	for more := true; more; more = request.GetPageToken() != "" {
		page, err := client.ListBuilds(asAdmin(s.t.Context()), request)
		if err != nil {
			s.t.Fatal(err)
		}
		request.PageToken = page.GetNextPageToken()
		all = append(all, page.GetBuilds()...)
	}
	return all
}

// neverPendingAgain: GitHub was not told that a build is pending after it was
// told how it ended.
func (s *storm) neverPendingAgain(sha string) {
	s.t.Helper()
	history, err := s.sim.StatusHistory(owner, repo, sha)
	if err != nil {
		s.t.Fatal(err)
	}
	ended := map[string]string{}
	for _, status := range history {
		build := status.Context + " " + status.TargetURL
		if status.State == "pending" && ended[build] != "" {
			s.t.Errorf("%s of %.7s went from %s to pending", build, sha, ended[build])
		}
		if status.State != "pending" {
			ended[build] = status.State
		}
	}
}

// everyCommandRanOnce: in its attempt; and what passed has run them all, in order.
func (s *storm) everyCommandRanOnce(builds []*schedulerv1.Build) {
	text, err := os.ReadFile(s.ledger)
	if err != nil {
		s.t.Fatal(err)
	}
	ran := map[string]string{} // steps by attempt
	for line := range strings.Lines(string(text)) {
		attempt, step, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.Contains(ran[attempt], step) {
			s.t.Errorf("step %s ran twice in attempt %s", step, attempt)
		}
		ran[attempt] += step + " "
	}
	for _, b := range builds {
		all := "one two "
		if b.GetAction() == schedulerv1.Build_ACTION_TEST {
			all += "three "
		}
		if got := ran[b.GetId()+"-1"]; b.GetState() != schedulerv1.Build_STATE_CANCELLED && got != all {
			s.t.Errorf("%s of %.7s is %s in attempt %d; its first ran the steps %q", b.GetContext(), b.GetSha(), b.GetState(), b.GetAttempt(), got)
		}
	}
}

// nothingIsLeft: no process of a build runs and no folder of an attempt is there.
func (s *storm) nothingIsLeft() {
	kittest.Eventually(s.t, patience, func() error {
		running, err := processesUnder(s.dir)
		if err != nil {
			return err
		}
		folders, err := os.ReadDir(filepath.Join(s.dir, "forge-data", "process"))
		if err != nil {
			return err
		}
		if len(running) > len(s.processes) || len(folders) > 0 {
			return fmt.Errorf("these run, and none but Forge's should: %v; these folders are left: %v", running, folders)
		}
		return nil
	})
}

// processesUnder are those that stand in a folder or carry its name in their
// environment: their command lines by their ids.
func processesUnder(dir string) (map[int]string, error) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := map[int]string{}
	for _, entry := range all {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		folder, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd")) // what cannot be read has ended
		environ, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if strings.HasPrefix(folder, dir) || strings.Contains(string(environ), dir) {
			command, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
			found[pid] = strings.ReplaceAll(string(command), "\x00", " ")
		}
	}
	return found, nil
}
