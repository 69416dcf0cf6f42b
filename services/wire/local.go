package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/config/worktree"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engines"
	"github.com/forge-ci/forge/services/settings"
)

// LocalSettings are those of a Forge that builds one working tree and then ends.
type LocalSettings struct {
	settings.Local
	// Dir keeps what the next one finds again: caches. Where it is in use, or "", there
	// are none.
	Dir string
	// Temporary is a folder with a short name, for this one alone. The caller removes it
	// after Close.
	Temporary string
	Log       *slog.Logger // nil: none
}

// LocalForge is the scheduler in this process, with a working tree in the place of
// GitHub and nobody to tell.
type LocalForge struct {
	Conn   grpc.ClientConnInterface // to the scheduler, as who works here
	Engine string                   // what runs the commands
	Caches bool                     // there are caches, and what is cached is kept

	state  *localState
	room   *Room
	opened closers
	end    []func() error // parts, the last one started first
}

// Local starts one.
func Local(ctx context.Context, s LocalSettings, source *worktree.Server) (_ *LocalForge, err error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	f := &LocalForge{}
	defer func() { f.opened.closeIf(&err) }()
	if f.state, err = openLocalState(ctx, s); err != nil {
		return nil, err
	}
	f.opened.add(f.state.close)
	name, err := localEngine(ctx, s.Local.Engine)
	if err != nil {
		return nil, err
	}
	f.Engine, f.Caches = name, f.state.kept
	tel := &telemetry.Telemetry{Log: s.Log, Tracer: tracenoop.NewTracerProvider(), Meter: metricnoop.NewMeterProvider()}
	pipe := rpc.NewPipe()
	peers := Peers{}
	for _, peer := range []string{"scheduler", "gateway"} {
		conn, err := pipe.Dial(peer, tel.Tracer)
		if err != nil {
			return nil, err
		}
		f.opened.add(conn.Close)
		peers[peer] = conn
	}
	f.Conn = peers["gateway"]
	f.room, err = Scheduler(ctx, localScheduler(s, f.state.dir, name), tel, Peers{"config": peers["scheduler"], "reporter": peers["scheduler"]})
	if err != nil {
		return nil, err
	}
	f.opened.add(f.room.Close)
	if err := f.state.begin(name, f.room.instance); err != nil {
		return nil, err
	}
	access := maps.Clone(f.room.Access)
	maps.Copy(access, worktree.Access())
	for _, method := range []string{
		reporterv1.ReportService_Report_FullMethodName, reporterv1.ReportService_Promote_FullMethodName, reporterv1.ReportService_Answer_FullMethodName,
	} {
		access[method] = rpc.Access{Rooms: []string{"scheduler"}}
	}
	server := rpc.NewServer(rpc.Config{Name: "forge run", Access: access, Behalf: behalf(), Log: tel.Log})
	f.room.Register(server)
	source.Register(server)
	reporterv1.RegisterReportServiceServer(server, untold{})
	f.run(ctx, func(ctx context.Context) error { return server.Serve(ctx, pipe) })
	for _, part := range f.room.Parts {
		f.run(ctx, func(ctx context.Context) error { return part.Run(ctx, func() {}) })
	}
	return f, nil
}

// run starts a part, which ends with Close, whatever becomes of ctx.
func (f *LocalForge) run(ctx context.Context, part func(context.Context) error) {
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	var running errgroup.Group
	running.Go(func() error { return part(ctx) })
	f.end = append([]func() error{func() error {
		end()
		if err := running.Wait(); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}}, f.end...)
}

// localScheduler are the scheduler's settings.
func localScheduler(s LocalSettings, dir, name string) SchedulerSettings {
	var all SchedulerSettings
	all.local = true
	all.DataDir = dir
	all.ExternalURL = "http://localhost"
	all.RunnerAddress = "unix://" + filepath.Join(s.Temporary, "runner", "runner.sock")
	all.Engine, all.Capacity, all.Limits, all.Grants, all.Build = name, s.Capacity, s.Limits, s.Grants, s.Build
	all.IntegrationBranches, all.ProductionBranches, all.ForkPolicy = s.IntegrationBranches, s.ProductionBranches, "approve"
	all.StartTimeout, all.MachineGrace = 15*time.Minute, 2*time.Minute
	all.SecretsKey = settings.NewSecret() // what is kept of secrets opens to nobody later
	all.LogRetention, all.BuildRetention, all.ArtifactRetention = 24*time.Hour, 24*time.Hour, 24*time.Hour
	all.CacheLimit, all.CacheRetention, all.ArtifactLimit = 10<<30, 14*24*time.Hour, 2<<30
	return all
}

// localEngine is what runs the commands: what is set, else Docker where it answers.
func localEngine(ctx context.Context, set string) (string, error) {
	switch set {
	case "docker", "process":
		return set, nil
	case "":
	default:
		return "", fmt.Errorf("FORGE_ENGINE is %q: a working tree is built by docker or process", set)
	}
	if !engines.DockerAnswers(ctx) {
		return "process", nil
	}
	return "docker", nil
}

func closeEngine(e engine.Engine) error {
	if open, ok := e.(interface{ Close() error }); ok {
		return open.Close()
	}
	return nil
}

// Close ends all that still runs, and waits until no container is left: those of builds
// that have ended go by themselves, unless now ends first. Images of builds go last.
func (f *LocalForge) Close(now context.Context) error {
	err := f.state.sweep(now, f.room.containers)
	for _, end := range f.end {
		err = errors.Join(err, end())
	}
	// Between the two a container may have been started anew.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(now), sweepWithin)
	defer cancel()
	err = errors.Join(err, f.state.removeAll(ctx, f.room.containers), forgetImages(ctx, f.room.containers, f.room.instance))
	if err == nil {
		err = f.state.ended()
	}
	return errors.Join(err, closeEngine(f.room.containers), f.opened.close())
}

// untold takes what the reporter is told, and tells nobody.
type untold struct {
	reporterv1.UnimplementedReportServiceServer
}

// Report implements reporterv1.ReportServiceServer.
func (untold) Report(context.Context, *reporterv1.ReportRequest) (*reporterv1.ReportResponse, error) {
	return &reporterv1.ReportResponse{}, nil
}

// Promote implements reporterv1.ReportServiceServer.
func (untold) Promote(context.Context, *reporterv1.PromoteRequest) (*reporterv1.PromoteResponse, error) {
	return &reporterv1.PromoteResponse{}, nil
}

// Answer implements reporterv1.ReportServiceServer.
func (untold) Answer(context.Context, *reporterv1.AnswerRequest) (*reporterv1.AnswerResponse, error) {
	return &reporterv1.AnswerResponse{}, nil
}
