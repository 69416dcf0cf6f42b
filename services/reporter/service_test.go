package reporter

import (
	"slices"
	"strings"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func wantFault(t *testing.T, err error, kind fault.Kind, says string) {
	t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Errorf("error %v, want %v with %q", err, kind, says)
	}
}

func TestIncompleteRequestsAreRefused(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		_, err := s.Report(t.Context(), &reporterv1.ReportRequest{})
		wantFault(t, err, fault.Invalid, "the report lacks its repository, sha, context, state, version")
		_, err = s.Report(t.Context(), &reporterv1.ReportRequest{Build: w.build(queued)})
		wantFault(t, err, fault.Invalid, "the report lacks its version")
		_, err = s.Promote(t.Context(), &reporterv1.PromoteRequest{Repository: w.repository})
		wantFault(t, err, fault.Invalid, "the promotion lacks its sha, head, base")
		_, err = s.ReceiveEvent(t.Context(), &reporterv1.ReceiveEventRequest{})
		wantFault(t, err, fault.Invalid, "lacks its event")
		_, err = s.ListTargets(t.Context(), &reporterv1.ListTargetsRequest{PageToken: "x"})
		wantFault(t, err, fault.Invalid, "page_token is not one of ours")
		_, err = s.ListTargets(t.Context(), &reporterv1.ListTargetsRequest{Repository: "shop"})
		wantFault(t, err, fault.Invalid, "owner/name")
		_, err = s.ListTargets(t.Context(), &reporterv1.ListTargetsRequest{PageSize: -1})
		wantFault(t, err, fault.Invalid, "page_size")
		_, err = s.GetTarget(t.Context(), &reporterv1.GetTargetRequest{TargetId: "nope"})
		wantFault(t, err, fault.NotFound, "no target nope")
	})
}

func TestTargetsAreListedLatestFirst(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		for _, context := range []string{"forge/a", "forge/b", "forge/c", "forge/d", "forge/e"} {
			b := w.build(queued)
			b.Context = context
			w.report(s, 1, b)
			if context != "forge/c" { // changed in the same moment as the one after it
				w.clock.Advance(time.Second)
			}
		}
		var listed []string
		req := &reporterv1.ListTargetsRequest{PageSize: 2, Repository: "Octo/SHOP", Sha: w.sha, States: []reporterv1.Target_State{reporterv1.Target_STATE_PENDING, kept}}
		for {
			resp, err := s.ListTargets(t.Context(), req)
			w.must(err)
			for _, one := range resp.GetTargets() {
				listed = append(listed, one.GetContext())
			}
			if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
		}
		if len(listed) != 5 || listed[0] != "forge/e" || listed[4] != "forge/a" {
			t.Errorf("listed %v", listed)
		}
		slices.Sort(listed)
		if len(slices.Compact(listed)) != 5 {
			t.Errorf("some are listed twice: %v", listed)
		}
		for _, other := range []*reporterv1.ListTargetsRequest{{Repository: "octo/other"}, {Sha: "0"}, {States: []reporterv1.Target_State{kept}}} {
			resp, err := s.ListTargets(t.Context(), other)
			w.must(err)
			if len(resp.GetTargets()) > 0 {
				t.Errorf("%v lists %v", other, resp.GetTargets())
			}
		}
	})
}

func TestUninstalledAppLeavesTargetsToAPerson(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.report(s, 1, w.build(queued))
		install := &eventv1.Event_Installation{Installation: &eventv1.InstallationEvent{Account: &eventv1.Account{Login: "octo"}}}
		w.event(s, "deleted", &eventv1.Event{Payload: install})
		if got := w.target(s); got.GetState() != kept || got.GetError() != "the GitHub App was uninstalled from octo" || got.GetNextTryTime() != nil {
			t.Errorf("target is %v", got)
		}
		w.event(s, "new_permissions_accepted", &eventv1.Event{Payload: install})
		if got := w.target(s); got.GetState() != reporterv1.Target_STATE_PENDING || got.GetNextTryTime() == nil {
			t.Errorf("target is %v", got)
		}
	})
}

func TestEventsOfNoConcernAreIgnored(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		for _, c := range []struct {
			action string
			event  *eventv1.Event
			reason eventv1.Reason
			text   string
		}{
			{"created", &eventv1.Event{Payload: &eventv1.Event_Installation{}}, eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action created"},
			{"archived", &eventv1.Event{Payload: &eventv1.Event_RepositoryChanged{}}, eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action archived"},
			{"", &eventv1.Event{Name: "push", Payload: &eventv1.Event_Push{}}, eventv1.Reason_REASON_EVENT_IGNORED, "ignored: event push"},
			{"suspend", &eventv1.Event{Payload: &eventv1.Event_Installation{}}, eventv1.Reason_REASON_NOTED, "waits until it is back"},
		} {
			d := w.event(s, c.action, c.event)
			if d.GetReason() != c.reason || !strings.Contains(d.GetText(), c.text) {
				t.Errorf("%s: decided %v", c.action, d)
			}
		}
	})
}

func TestOnlyTheSchedulerReports(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		for room, want := range map[string]error{"scheduler": nil, "gateway": fault.New(fault.Denied, "")} {
			server := rpc.NewServer(rpc.Config{Name: "reporter", Access: Access()})
			s.Register(server)
			conn := w.serve(server, room, nil)
			_, err := reporterv1.NewReportServiceClient(conn).Report(t.Context(), &reporterv1.ReportRequest{Build: w.build(schedulerv1.Build_STATE_QUEUED), Version: 1})
			if fault.KindOf(err) != fault.KindOf(want) || (err == nil) != (want == nil) {
				t.Errorf("%s reports: %v", room, err)
			}
			if _, err := reporterv1.NewReporterServiceClient(conn).ListTargets(t.Context(), &reporterv1.ListTargetsRequest{}); err == nil {
				t.Errorf("%s lists targets without the admin token", room)
			}
		}
	})
}
