package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// fakeGitHub answers what the scheduler asks, about shas of a test's own making,
// and hands out the tokens for it.
type fakeGitHub struct {
	configv1.UnimplementedTokenServiceServer
	url string

	mu       sync.Mutex
	down     bool
	gone     bool                            // the repository is
	may      map[string]string               // login: permission
	pulls    map[string]*eventv1.PullRequest // by number
	branches map[string][]string             // their commits, the newest first
	asked    []string                        // whose permission
}

func newGitHub(t *testing.T) *fakeGitHub {
	g := &fakeGitHub{
		may: map[string]string{"ada": "write", "root": "admin", "eve": "read"}, pulls: map[string]*eventv1.PullRequest{},
		branches: map[string][]string{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /repos/Acme/shop", g.answer(func(*http.Request) any {
		if g.gone {
			return nil
		}
		return map[string]any{"id": 7, "name": "shop", "default_branch": "main", "owner": map[string]any{"login": "Acme"}}
	}))
	mux.HandleFunc("GET /repos/Acme/shop/collaborators/{user}/permission", g.answer(g.permission))
	mux.HandleFunc("GET /repos/Acme/shop/pulls/{number}", g.answer(func(r *http.Request) any { return g.pull(r.PathValue("number")) }))
	mux.HandleFunc("GET /repos/Acme/shop/git/ref/heads/{branch}", g.answer(func(r *http.Request) any {
		if commits := g.branches[r.PathValue("branch")]; commits != nil {
			return map[string]any{"object": map[string]any{"sha": commits[0]}}
		}
		return nil
	}))
	mux.HandleFunc("GET /repos/Acme/shop/compare/{range}", g.answer(func(r *http.Request) any {
		tip, sha, _ := strings.Cut(r.PathValue("range"), "...")
		for _, commits := range g.branches {
			if commits[0] == tip && slices.Contains(commits, sha) {
				return map[string]any{"status": "behind"}
			}
		}
		return map[string]any{"status": "diverged"}
	}))
	mux.HandleFunc("GET /repos/Acme/shop/commits/{sha}", g.answer(func(r *http.Request) any { return commitOf(r.PathValue("sha")) }))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	g.url = server.URL
	return g
}

func (g *fakeGitHub) CreateToken(context.Context, *configv1.CreateTokenRequest) (*configv1.CreateTokenResponse, error) {
	return &configv1.CreateTokenResponse{Token: "token"}, nil
}

func (g *fakeGitHub) set(change func(*fakeGitHub)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(g)
}

// answer is 404 for nil.
func (g *fakeGitHub) answer(of func(*http.Request) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		body := of(r)
		switch {
		case g.down:
			w.WriteHeader(http.StatusForbidden)
			body = map[string]any{"message": "Resource not accessible by integration"}
		case body == nil:
			w.WriteHeader(http.StatusNotFound)
			body = map[string]any{"message": "Not Found"}
		}
		_ = json.NewEncoder(w).Encode(body)
	}
}

func (g *fakeGitHub) permission(r *http.Request) any {
	g.asked = append(g.asked, r.PathValue("user"))
	if level := g.may[r.PathValue("user")]; level != "" {
		return map[string]any{"permission": level}
	}
	return nil
}

func (g *fakeGitHub) pull(number string) any {
	p := g.pulls[number]
	if p == nil {
		return nil
	}
	state := map[bool]string{true: "open", false: "closed"}[p.GetOpen()]
	head := map[string]any{"ref": p.GetHead().GetRef(), "sha": p.GetHead().GetSha()}
	if from := p.GetHead().GetRepository(); from != nil {
		head["repo"] = map[string]any{"id": from.GetId()}
	}
	return map[string]any{
		"number": p.GetNumber(), "title": p.GetTitle(), "state": state, "head": head, "commits": p.GetCommitCount(),
		"base": map[string]any{"ref": p.GetBase().GetRef()}, "user": map[string]any{"login": p.GetAuthor().GetLogin()},
	}
}

func commitOf(sha string) any {
	return map[string]any{"sha": sha, "commit": map[string]any{"message": "Commit " + sha[:3] + "\n\nAt length"}}
}

// shows makes an event's pull request what GitHub shows, too.
func (g *fakeGitHub) shows(e *eventv1.Event) *eventv1.Event {
	g.set(func(g *fakeGitHub) { g.pulls[strconv.Itoa(int(pull(e).GetNumber()))] = pull(e) })
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
			if code := status.Code(err); code != codes.PermissionDenied {
				t.Errorf("%s: %v, want PermissionDenied", e.GetName(), err)
			}
		}
		r.github.set(func(g *fakeGitHub) { g.down = false })
		r.built(fork)
		if d := r.send(comment); d.GetReason() != eventv1.Reason_REASON_CANCELLED {
			t.Errorf("%v", d)
		}
	})
}
