package access_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/gateway/access"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/signin/signintest"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a GitHub with acme/shop, which is private, and acme/site, which is not, and
// the guarded rooms of a Forge.
type world struct {
	t       *testing.T
	sim     *githubsim.Sim
	clock   *kittest.Clock
	people  *signin.Service
	control *access.Control
	rooms   *rooms
	conn    grpc.ClientConnInterface
	ids     map[string]int64 // of repositories
}

func newWorld(t *testing.T, change func(*access.Deps)) *world {
	t.Helper()
	key := kittest.AppKey(t)
	w := &world{t: t, clock: kittest.NewClock(time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)), ids: map[string]int64{}}
	w.sim = githubsim.New(githubsim.Config{
		AppID: 7, AppKey: &key.PublicKey, Now: w.clock.Now, Permissions: map[string]string{"contents": "read", "members": "read"},
		OAuth: githubsim.OAuth{ClientID: "Iv1.forge", ClientSecret: "hush", CallbackURLs: []string{"http://forge.example/sign-in/callback"}},
	})
	server := httptest.NewServer(w.sim)
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: kittest.SQLiteDir(t, "gateway", gateway.Migrations()), Room: "gateway", Migrations: gateway.Migrations()})
	w.must(err)
	w.people, err = signin.New(signin.Deps{
		Config: signin.Config{ClientID: "Iv1.forge", ClientSecret: "hush", Keys: [][]byte{bytes.Repeat([]byte{1}, 32)}, Idle: 1000 * time.Hour},
		DB:     db, AdminToken: "adm", ExternalURL: "http://forge.example", GitHubURL: server.URL, GitHubAPIURL: server.URL,
		Log: kittest.Log(t), Tracer: noop.NewTracerProvider(), Now: w.clock.Now,
	})
	w.must(err)
	t.Cleanup(func() {
		w.people.Close()
		server.Close()
		w.sim.Close()
		http.DefaultClient.CloseIdleConnections()
		db.Close()
	})
	w.rooms = &rooms{w: w}
	w.addRepository("acme", "shop", false)
	w.addRepository("acme", "site", true)
	w.sim.AddInstallation("acme")
	for login, role := range map[string]string{"rita": "read", "wes": "write", "ada": "admin"} {
		w.must(w.sim.SetPermission("acme", "shop", login, role))
		w.must(w.sim.SetPermission("acme", "site", login, role))
	}
	w.sim.SetTeamMember("acme", "ops", "olga", true)
	deps := access.Deps{
		People: w.people, Config: w.rooms, Scheduler: w.rooms, Admins: []string{"Boss", "acme/ops"}, Log: kittest.Log(t), Now: w.clock.Now,
		Address: func(address string) (repository, build string, err error) {
			if build, isBuild := strings.CutPrefix(address, "build "); isBuild {
				return "", build, nil
			}
			return address, "", nil
		},
	}
	if change != nil {
		change(&deps)
	}
	w.control, err = access.New(deps)
	w.must(err)
	w.conn = w.control.Guard(w.rooms)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) addRepository(owner, name string, public bool) {
	w.t.Helper()
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: owner, Name: name, Public: public, Files: map[string]string{"a": "a"}}))
	id, _, err := w.sim.Identify(owner, name)
	w.must(err)
	w.ids[owner+"/"+name] = id
}

// as is a context of a request that somebody makes: "" a stranger, "admin" who has the
// admin token, else who has that login.
func (w *world) as(login string) context.Context {
	w.t.Helper()
	switch login {
	case "":
		return w.t.Context()
	case "ended":
		return signin.With(w.t.Context(), signin.Viewer{Ended: true})
	case "admin":
		return signin.With(w.t.Context(), signin.Viewer{Admin: true})
	}
	return signin.With(w.t.Context(), signintest.Seen(w.t, w.people, signintest.Cookie(w.t, w.people, login)))
}

// rooms play config and scheduler. A build's id is a number, owner/name of the
// repository that it is of, such as 7:acme/shop.
type rooms struct {
	w      *world
	mu     sync.Mutex
	called []string // but for whose a build is, and what is public
	away   bool     // config does not answer
	listed []string
	last   context.Context //nolint:containedctx // of the stream that was opened last
}

func (r *rooms) repository(full string) *eventv1.Repository {
	owner, name, _ := strings.Cut(full, "/")
	return &eventv1.Repository{Id: r.w.ids[full], Owner: owner, Name: name}
}

func (r *rooms) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch answer := reply.(type) {
	case *schedulerv1.GetBuildResponse:
		_, full, ok := strings.Cut(args.(*schedulerv1.GetBuildRequest).GetBuildId(), ":")
		if !ok {
			return fault.New(fault.NotFound, "no such build")
		}
		answer.Build = &schedulerv1.Build{Repository: r.repository(full)}
		return ctx.Err()
	case *configv1.GetRepositoryResponse:
		req := args.(*configv1.GetRepositoryRequest)
		if r.away {
			return fault.New(fault.Unavailable, "GitHub is away")
		}
		id, public, err := r.w.sim.Identify(req.GetOwner(), req.GetName())
		if err != nil {
			return fault.New(fault.NotFound, "not installed")
		}
		answer.Repository = &eventv1.Repository{Id: id, Owner: req.GetOwner(), Name: req.GetName(), Private: !public}
		return ctx.Err()
	case *schedulerv1.ListBuildsResponse:
		r.list(args.(*schedulerv1.ListBuildsRequest), answer)
	case *schedulerv1.ListEnvironmentsResponse:
		for _, full := range r.listed {
			answer.Environments = append(answer.Environments, &schedulerv1.Environment{Repository: full})
		}
	}
	r.called = append(r.called, method)
	return nil
}

func (r *rooms) list(req *schedulerv1.ListBuildsRequest, answer *schedulerv1.ListBuildsResponse) {
	from, _ := strconv.Atoi(req.GetPageToken())
	size := int(req.GetPageSize())
	if size == 0 {
		size = 3
	}
	for n := from; n < min(from+size, len(r.listed)); n++ {
		answer.Builds = append(answer.Builds, &schedulerv1.Build{Id: strconv.Itoa(n), Repository: r.repository(r.listed[n])})
	}
	if from+size < len(r.listed) {
		answer.NextPageToken = strconv.Itoa(from + size)
	}
}

func (r *rooms) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.called = append(r.called, method)
	r.last = ctx
	return &stream{ctx: ctx}, nil
}

// stream sends one message each time it is asked.
type stream struct {
	grpc.ClientStream
	ctx context.Context //nolint:containedctx // of the call
}

func (s *stream) SendMsg(any) error { return nil }
func (s *stream) CloseSend() error  { return nil }
func (s *stream) RecvMsg(m any) error {
	switch answer := m.(type) {
	case *schedulerv1.WatchLogResponse:
		answer.Data = []byte("a line\n")
	case *schedulerv1.OpenShellResponse: // nothing is printed, and it goes on
		answer.Message = &schedulerv1.OpenShellResponse_Output{Output: &schedulerv1.ShellOutput{}}
	}
	return s.ctx.Err()
}

func (r *rooms) calls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.called)
}
