package web

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// lists is a scheduler that lists these builds, or answers with an error.
type lists struct {
	says

	builds []*schedulerv1.Build
	err    error
}

func (l lists) Invoke(_ context.Context, _ string, request, reply any, _ ...grpc.CallOption) error {
	answer := &schedulerv1.ListBuildsResponse{}
	for _, b := range l.builds {
		if wanted := request.(*schedulerv1.ListBuildsRequest).GetStates(); len(wanted) == 0 || slices.Contains(wanted, b.GetState()) {
			answer.Builds = append(answer.Builds, b)
		}
	}
	proto.Merge(reply.(proto.Message), answer)
	return l.err
}

func home(t *testing.T, scheduler lists) string {
	t.Helper()
	p, err := New(Deps{Scheduler: scheduler, Now: func() time.Time { return at(100).AsTime() }, Log: slog.New(slog.DiscardHandler), Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	p.home(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if answer.Code != http.StatusOK {
		t.Errorf("code %d", answer.Code)
	}
	return answer.Body.String()
}

func TestHomeShowsWhatRunsAndWhatWaits(t *testing.T) {
	shop := &eventv1.Repository{Owner: "acme", Name: "shop"}
	body := home(t, lists{builds: []*schedulerv1.Build{
		{Id: "b3", Repository: shop, Title: "third", State: schedulerv1.Build_STATE_RUNNING, StartTime: at(40), CreateTime: at(30), JobCount: 3},
		{Id: "b2", Repository: shop, Title: "<b>second", State: schedulerv1.Build_STATE_WAITING, Message: "waits for staging", CreateTime: at(20), PullRequest: 7},
		{Id: "b1", Repository: shop, Title: "first", State: schedulerv1.Build_STATE_FAILED, Message: "step 1 failed", CreateTime: at(10), StartTime: at(11), EndTime: at(12)},
	}})
	part := func(name string) string {
		_, rest, _ := strings.Cut(body, `<section aria-label="`+name+`">`)
		section, _, _ := strings.Cut(rest, "</section>")
		return section
	}
	for name, want := range map[string][]string{
		"Running": {`href="/builds/b3">third</a>`, "3 jobs", `data-since="1800000040000"`},
		"Waiting": {"&lt;b&gt;second", "waits for staging", "acme/shop #7"},
		"Newest":  {"third", "second", "first", "step 1 failed", "1.0 s"},
	} {
		for _, text := range want {
			if !strings.Contains(part(name), text) {
				t.Errorf("%s has no %s: %s", name, text, part(name))
			}
		}
	}
	if strings.Contains(part("Running"), "first") || strings.Contains(part("Waiting"), "third") {
		t.Error("a build is where it does not belong")
	}
}

func TestHomeSaysWhatToDoWhereItShowsNoBuilds(t *testing.T) {
	for name, test := range map[string]struct {
		scheduler lists
		want      string
	}{
		"none yet":  {lists{}, "Nothing was built yet"},
		"strangers": {lists{err: fault.New(fault.Unauthenticated, "no token")}, "shown to those who may see it"},
		"away":      {lists{err: fault.New(fault.Unavailable, "refused")}, "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			if body := home(t, test.scheduler); !strings.Contains(body, test.want) || !strings.Contains(body, "This is Forge v1") {
				t.Error(body)
			}
		})
	}
}
