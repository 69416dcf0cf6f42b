package web

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/traces"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

//go:embed page
var pageFiles embed.FS

// Deps is what the pages work with.
type Deps struct {
	Scheduler  grpc.ClientConnInterface            // whose calls are made for who looks
	Config     grpc.ClientConnInterface            // likewise
	Rooms      map[string]grpc.ClientConnInterface // config, scheduler and reporter, asked how they are
	Deliveries grpc.ClientConnInterface            // likewise; the gateway's own service
	People     *signin.Service                     // nil: nobody can sign in
	// May reports whether who looks may make a call; nil: nobody is known.
	May func(ctx context.Context, method string, request proto.Message) bool
	// Engine is what the scheduler said last of its engine; nil: it does not answer.
	Engine func(context.Context) *schedulerv1.GetEngineResponse
	// Outside is how receivers outside do; nil: there are none.
	Outside     func(context.Context) ([]Outsider, error)
	GitHubURL   string // of the pages of GitHub that people see, without a slash at the end
	ExternalURL string // how people reach this Forge
	Base        string // the path that links begin with; "": the root
	// Traces is what is kept of traces; nil: nothing is.
	Traces *traces.Store
	// TraceURL is where traces are shown instead, with {trace_id} in it; "": here.
	TraceURL string
	Version  string
	Log      *slog.Logger
	Now      func() time.Time
	// BadgeToken opens the badge of a repository that is not public.
	BadgeToken func(owner, name string) string
}

// A page runs and shows nothing that is not Forge's own.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// Pages shows people what they follow links to.
type Pages struct {
	templates    *template.Template
	builds       schedulerv1.BuildServiceClient
	environments schedulerv1.EnvironmentServiceClient
	tests        schedulerv1.TestServiceClient
	deliveries   gatewayv1.DeliveryServiceClient
	artifacts    *artifacts
	logs         *logs
	rooms        *health
	links        links
	deps         Deps
}

// New assembles the pages.
func New(deps Deps) (*Pages, error) {
	templates, err := template.New("").Funcs(template.FuncMap{
		"trace":    func(id, build string) string { return traceAddress(deps, id, build) },
		"state":    func(b *schedulerv1.Build) string { return wording.Value(b.GetState()) },
		"because":  wording.Because,
		"ended":    ended,
		"isKept":   func(until *timestamppb.Timestamp) bool { return until.AsTime().After(deps.Now()) },
		"step":     func(s *schedulerv1.Step) string { return wording.Value(s.GetState()) },
		"duration": func(s *schedulerv1.Step) string { return duration(s.GetStartTime(), s.GetEndTime(), deps.Now()) },
		"test":     func(t *schedulerv1.Test) string { return wording.Value(t.GetState()) },
		"level":    func(f *schedulerv1.Finding) string { return wording.Value(f.GetLevel()) },
		"job":      func(j *schedulerv1.Job) string { return wording.Value(j.GetState()) },
		"jobTook":  func(j *schedulerv1.Job) string { return duration(j.GetStartTime(), j.GetEndTime(), deps.Now()) },
		"line":     wording.Line,
		"took": func(b *schedulerv1.Build) string {
			return duration(b.GetStartTime(), b.GetEndTime(), deps.Now())
		},
		"short":   wording.Short,
		"action":  actionName,
		"confirm": confirmText,
		"github": func(b *schedulerv1.Build, parts ...any) string {
			return address(deps.GitHubURL, append([]any{b.GetRepository().GetOwner(), b.GetRepository().GetName()}, parts...)...)
		},
		"artifact": func(a *schedulerv1.Artifact, file ...string) string {
			return artifactAddress(deps.Base, a, file...)
		},
		"size":    func(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) },
		"count":   count,
		"day":     func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") },
		"until":   func(t *timestamppb.Timestamp) string { return t.AsTime().Format("2006-01-02 15:04 UTC") },
		"stamp":   func(t *timestamppb.Timestamp) string { return t.AsTime().Format(time.RFC3339) },
		"failing": func(state string) bool { return state == "failed" || state == "errored" || state == "timed out" },
		"target": func(f *schedulerv1.FileEntry) string { // of a symbolic link
			if f.GetType() != schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK {
				return ""
			}
			return "→ " + f.GetTarget()
		},
		"use":  func(u schedulerv1.Secret_Use) string { return wording.Value(u) },
		"page": func(parts ...any) string { return address(deps.Base, parts...) },
		"history": func(repository string, t *schedulerv1.FlakyTest) string {
			return historyAddress(deps.Base, repository) + "?" + url.Values{"test": {t.GetName()}, "class": {t.GetClass()}, "suite": {t.GetSuite()}}.Encode()
		},
		"base": func() string { return deps.Base },
		"unix": func(t *timestamppb.Timestamp) int64 { return t.AsTime().UnixMilli() },
	}).Funcs(listFuncs(deps.Base)).ParseFS(pageFiles, "page/*.html")
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	p := &Pages{
		templates: templates, builds: schedulerv1.NewBuildServiceClient(deps.Scheduler), tests: schedulerv1.NewTestServiceClient(deps.Scheduler),
		environments: schedulerv1.NewEnvironmentServiceClient(deps.Scheduler), deliveries: gatewayv1.NewDeliveryServiceClient(deps.Deliveries),
		deps: deps, links: links{deps.GitHubURL}, rooms: &health{rooms: deps.Rooms, engine: deps.Engine, others: deps.Outside, now: deps.Now},
	}
	p.artifacts, p.logs = newArtifacts(p), newLogs(p)
	return p, nil
}

// Register adds the pages to a mux.
func (p *Pages) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /icon.svg", icon)
	mux.HandleFunc("GET /health", p.health)
	p.logs.register(mux)
	lists, deliveries, environments := buildLists{p}, deliveryPages{p}, environmentPages{p}
	for pattern, page := range map[string]http.HandlerFunc{
		"GET /{$}":                                        p.home,
		"GET /builds":                                     lists.buildsPage,
		"GET /builds/{id}":                                p.build,
		"GET /repositories/{owner}/{name}":                lists.repository,
		"GET /deliveries":                                 deliveries.deliveriesPage,
		"GET /deliveries/{id}":                            deliveries.delivery,
		"GET /deliveries/{id}/payload":                    deliveries.payload,
		"GET /traces/{id}":                                p.trace,
		"GET /why":                                        deliveries.why,
		"GET /audit":                                      newAudit(p).list,
		"GET /environments":                               environments.environmentList,
		"GET /environments/{owner}/{repo}/{name}":         environments.environment,
		"POST /builds/{id}/{wish}":                        p.act(p.steerBuild),
		"POST /deliveries/{id}/redeliver":                 p.act(deliveries.redeliver),
		"POST /environments/{owner}/{repo}/{name}/{wish}": p.act(environments.steerEnvironment),
	} {
		mux.HandleFunc(pattern, page)
	}
	mux.HandleFunc("GET /builds/{id}/tests", p.testsOf)
	mux.HandleFunc("GET /builds/{id}/findings", p.findingsOf)
	p.artifacts.register(mux)
	newRepositories(p).register(mux)
	p.registerAccount(mux)
	if !p.peopleSignIn() {
		mux.HandleFunc("POST /sign-in", p.adminSignIn)
		mux.HandleFunc("POST /sign-out", p.act(p.adminSignOut))
	}
	const script = "text/javascript; charset=utf-8"
	for name, kind := range map[string]string{
		"forge.css": "text/css; charset=utf-8", "forge.js": script, "build.js": script, "log.js": script,
	} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			secure(w, kind)
			w.Header().Set("Cache-Control", "max-age=300")
			http.ServeFileFS(w, r, pageFiles, "page/"+name)
		})
	}
}

func secure(w http.ResponseWriter, kind string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer") // a build's address is its key
	h.Set("Cache-Control", "no-store")
}

// address is that of a page below base; what its parts hold cannot leave it.
func address(base string, parts ...any) string {
	all := make([]string, 0, len(parts))
	for _, part := range parts {
		all = append(all, url.PathEscape(fmt.Sprint(part)))
	}
	if slices.Contains(all, "") || slices.Contains(all, ".") || slices.Contains(all, "..") {
		return "" // there is no such page
	}
	return base + "/" + strings.Join(all, "/")
}

// steps are the parts of an address that lead to a file.
func steps(file string) (parts []any) {
	for part := range strings.SplitSeq(file, "/") {
		parts = append(parts, part)
	}
	return parts
}

// errorPage is a page that says why there is no other.
type errorPage struct {
	Title, Text string
	SignIn      string // where to go once one has signed in; empty: that would not help
	Login       string // who is refused
}

func (p *Pages) showError(w http.ResponseWriter, r *http.Request, call string, err error) {
	if fault.Is(err, fault.Unauthenticated) || fault.Is(err, fault.Denied) {
		p.Refuse(w, r, err)
		return
	}
	code, shown := http.StatusServiceUnavailable, errorPage{
		Title: "Builds cannot be shown right now",
		Text:  "The part of Forge that knows about builds does not answer. Builds that run go on; try again in a moment.",
	}
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
		code, shown = http.StatusNotFound, errorPage{
			Title: "There is no such build",
			Text:  "The address may be incomplete, or the build was removed because it was old.",
		}
	} else if !errors.Is(err, context.Canceled) {
		p.deps.Log.WarnContext(r.Context(), "a call failed; the page is not shown", "call", call, "error", err)
	}
	p.render(w, r, code, "error.html", shown)
}

// flushing sends on what is written at once.
type flushing struct{ http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return n, err
}

func actionName(b *schedulerv1.Build) string {
	if b.GetRemoteBy() != "" {
		return "REMOTE run by " + b.GetRemoteBy()
	}
	return wording.Value(b.GetAction())
}

// confirmText is what a button at a build asks about before it is believed; empty for
// what changes nothing out there.
func confirmText(b *schedulerv1.Build) string {
	if b.GetEnvironment() == "" {
		return ""
	}
	return "deploy to " + b.GetEnvironment()
}

func ended(b *schedulerv1.Build) bool { return b.GetEndTime() != nil }

// duration is from start to end, or to now while there is no end; empty before
// the start.
func duration(start, end *timestamppb.Timestamp, now time.Time) string {
	if start == nil {
		return ""
	}
	if end != nil {
		now = end.AsTime()
	}
	return took(now.Sub(start.AsTime()))
}

// took is a time that something took, as people say it; 0 where a clock went back.
func took(d time.Duration) string {
	d = max(0, d)
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
