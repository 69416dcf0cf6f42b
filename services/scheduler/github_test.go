package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// fakeGitHub is what config has to tell of people and pull requests.
type fakeGitHub struct {
	configv1.UnimplementedCollaboratorServiceServer
	configv1.UnimplementedPullRequestServiceServer
	configv1.UnimplementedRepositoryServiceServer

	mu    sync.Mutex
	down  bool
	gone  bool                                                 // the repository is
	may   map[string]configv1.GetPermissionResponse_Permission // by login
	teams map[string][]string                                  // members, by org/team; nil: the App may not read them
	pulls map[int32]*eventv1.PullRequest                       // by number
	asked []string                                             // whose permission

	successor int64 // the id of another repository that has its name now
}

func newGitHub() *fakeGitHub {
	return &fakeGitHub{
		pulls: map[int32]*eventv1.PullRequest{}, may: map[string]configv1.GetPermissionResponse_Permission{
			"ada": configv1.GetPermissionResponse_PERMISSION_WRITE, "root": configv1.GetPermissionResponse_PERMISSION_ADMIN,
			"eve": configv1.GetPermissionResponse_PERMISSION_READ,
		},
	}
}

func (g *fakeGitHub) set(change func(*fakeGitHub)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(g)
}

func (g *fakeGitHub) up() error {
	if g.down {
		return fault.New(fault.Unavailable, "GitHub does not answer")
	}
	return nil
}

func (g *fakeGitHub) GetPermission(_ context.Context, req *configv1.GetPermissionRequest) (*configv1.GetPermissionResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, req.GetLogin())
	permission := configv1.GetPermissionResponse_PERMISSION_NONE
	if may, known := g.may[req.GetLogin()]; known {
		permission = may
	}
	return &configv1.GetPermissionResponse{Permission: permission}, g.up()
}

func (g *fakeGitHub) GetTeamMembership(_ context.Context, req *configv1.GetTeamMembershipRequest) (*configv1.GetTeamMembershipResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.teams == nil {
		return nil, fault.New(fault.Conflict, "the App may not read the teams of acme")
	}
	return &configv1.GetTeamMembershipResponse{Member: slices.Contains(g.teams[req.GetTeam()], req.GetLogin())}, g.up()
}

func (g *fakeGitHub) GetPullRequest(_ context.Context, req *configv1.GetPullRequestRequest) (*configv1.GetPullRequestResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pulls[req.GetNumber()] == nil {
		return nil, fault.New(fault.NotFound, "GitHub does not have it")
	}
	return &configv1.GetPullRequestResponse{PullRequest: g.pulls[req.GetNumber()]}, g.up()
}

func (g *fakeGitHub) GetRepository(_ context.Context, req *configv1.GetRepositoryRequest) (*configv1.GetRepositoryResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone || !strings.EqualFold(req.GetOwner()+"/"+req.GetName(), wording.FullName(repository())) {
		return nil, fault.New(fault.NotFound, "GitHub does not have it")
	}
	shown := repository()
	shown.Id = cmp.Or(g.successor, shown.GetId())
	return &configv1.GetRepositoryResponse{Repository: shown}, g.up()
}

// shows makes an event's pull request what GitHub shows, too.
func (g *fakeGitHub) shows(e *eventv1.Event) *eventv1.Event {
	g.set(func(g *fakeGitHub) { g.pulls[pull(e).GetNumber()] = pull(e) })
	return e
}

// fromFork is an event of a pull request from a fork.
func fromFork(author string, e *eventv1.Event) *eventv1.Event {
	pull(e).Author = &eventv1.Account{Login: author, Type: eventv1.Account_TYPE_USER}
	pull(e).Head.Repository = &eventv1.Repository{Id: 8, Owner: author, Name: "shop", Fork: true}
	return e
}

func sentBy(login string, e *eventv1.Event) *eventv1.Event {
	e.Sender = &eventv1.Account{Login: login, Type: eventv1.Account_TYPE_USER}
	return e
}

// An event of a repository, with what its kind has.
func happened(name, action string, payload any) *eventv1.Event {
	e := &eventv1.Event{
		Name: name, Action: action, InstallationId: 3, Repository: repository(),
		Sender: &eventv1.Account{Login: "ada", Type: eventv1.Account_TYPE_USER},
	}
	switch p := payload.(type) {
	case *eventv1.PushEvent:
		e.Payload = &eventv1.Event_Push{Push: p}
	case *eventv1.ReleaseEvent:
		e.Payload = &eventv1.Event_Release{Release: p}
	case *eventv1.MergeGroupEvent:
		e.Payload = &eventv1.Event_MergeGroup{MergeGroup: p}
	case *eventv1.CheckRunEvent:
		e.Payload = &eventv1.Event_CheckRun{CheckRun: p}
	case *eventv1.CheckSuiteEvent:
		e.Payload = &eventv1.Event_CheckSuite{CheckSuite: p}
	case *eventv1.IssueCommentEvent:
		e.Payload = &eventv1.Event_IssueComment{IssueComment: p}
	}
	e.DeliveryId = fmt.Sprintf("%s-%s-%v", name, action, payload)
	return e
}

// again is the same event in another delivery.
func (r *rig) again(e *eventv1.Event) *eventv1.Decision {
	r.t.Helper()
	e.DeliveryId += "'"
	return r.send(e)
}

// all lists every build, the newest first.
func (r *rig) all() []*schedulerv1.Build {
	r.t.Helper()
	answer, err := r.builds.ListBuilds(r.t.Context(), &schedulerv1.ListBuildsRequest{PageSize: 500})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetBuilds()
}

func TestEventIsNotDecidedWhileGitHubDoesNotSayWhoMayWrite(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		fork, comment := fromFork("ada", opened(1, "aaa")), commentBy("ada", "/forge cancel")
		r.github.set(func(g *fakeGitHub) { g.down = true })
		for _, e := range []*eventv1.Event{fork, comment} {
			_, err := r.events.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
			if code := status.Code(err); code != codes.Unavailable {
				t.Errorf("%s: %v, want Unavailable", e.GetName(), err)
			}
		}
		r.github.set(func(g *fakeGitHub) { g.down = false })
		r.built(fork)
		if d := r.send(comment); d.GetReason() != eventv1.Reason_REASON_CANCELLED {
			t.Errorf("%v", d)
		}
	})
}
