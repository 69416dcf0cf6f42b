package wire

import (
	"context"
	"io"

	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/bulletin"
	"github.com/forge-ci/forge/services/scheduler/content"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engines"
	"github.com/forge-ci/forge/services/scheduler/registry"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/settings"
)

// SchedulerSettings are those of the scheduler in a process of its own.
type SchedulerSettings struct {
	Process
	settings.Links
	settings.GitHub
	settings.Scheduler
	settings.ConfigAddress
	settings.ReporterAddress

	local bool // it builds a working tree
}

func (s SchedulerSettings) siblings() map[string]string {
	return map[string]string{"config": s.ConfigURL, "reporter": s.ReporterURL}
}

// Scheduler assembles the scheduler, which calls config and the reporter.
// Runners reach it at an address of their own.
func Scheduler(ctx context.Context, s SchedulerSettings, tel *telemetry.Telemetry, peers Peers) (_ *Room, err error) {
	var opened closers
	defer opened.closeIf(&err)
	keys, err := s.Keys(s.Common)
	if err != nil {
		return nil, err
	}
	if err := s.CheckEngine(); err != nil {
		return nil, err
	}
	if err := s.CheckExternalURL(); err != nil {
		return nil, err
	}
	commands, err := registry.ParseCommands(s.RegistryCommands)
	if err != nil {
		return nil, err
	}
	runners, err := s.ListenRunner(ctx, s.DataDir, s.Certificate) // before the database is opened: another Forge may hold the address, and it
	if err != nil {
		return nil, err
	}
	opened.add(runners.Close)
	db, err := sqldb.Open(ctx, s.Database("scheduler", scheduler.Migrations(), tel.Log))
	if err != nil {
		return nil, err
	}
	opened.add(db.Close)
	if err := db.Observe(tel.Meter, "scheduler", tel.Log); err != nil {
		return nil, err
	}
	if err := certify(ctx, s, &runners, db, keys); err != nil {
		return nil, err
	}
	instance, err := scheduler.Instance(ctx, db)
	if err != nil {
		return nil, err
	}
	logs, err := openBlobs(ctx, s.Common, "scheduler/"+instance) // apart from other Forges that share a bucket
	if err != nil {
		return nil, err
	}
	opened.add(logs.Close)
	waiting, err := s.Waiting()
	if err != nil {
		return nil, err
	}
	alone := db.Dialect == sqldb.SQLite
	containers, err := engines.New(ctx, engines.Config{
		Name: s.Engine, DataDir: s.DataDir, Instance: instance, Waiting: waiting, Sparing: s.Sparing(), Alone: alone, Log: tel.Log,
		Swarm: engines.Swarm{ForgexecImage: s.Forgexec(), Constraints: s.Swarm.Constraints, ForkConstraints: s.Swarm.ForkConstraints, MTU: s.Swarm.MTU},
		Build: engines.Build(s.Build),
	})
	if err != nil {
		return nil, err
	}
	if held, ok := containers.(io.Closer); ok {
		opened.add(held.Close)
	}
	capacity, err := capacity(ctx, s, containers, tel)
	if err != nil {
		return nil, err
	}
	images, err := images(ctx, s, containers, instance, alone, tel)
	if err != nil {
		return nil, err
	}
	if closer, ok := images.(interface{ Close() }); ok {
		opened.add(func() error { closer.Close(); return nil })
	}
	if s.local && images != nil {
		images = unpushed{images}
	}
	service, err := scheduler.New(scheduler.Deps{
		DB: db, Blobs: logs, Config: peers["config"], Reporter: peers["reporter"], Engine: containers, Images: images, GitHubURL: s.GitHubURL,
		Capacity: capacity, ExternalURL: s.ExternalURL, SecretsKeys: keys, RegistryCommands: commands,
		Policy: trigger.Policy{IntegrationBranches: s.IntegrationBranches, ProductionBranches: s.ProductionBranches, Forks: s.ForkPolicy, TrustedBots: s.TrustedBots},
		Limits: attempt.Limits{
			Timeout: s.Timeout, MaxTimeout: s.MaxTimeout,
			CPUs: s.CPUs, MaxCPUs: s.MaxCPUs, Memory: int64(s.Memory), MaxMemory: int64(s.MaxMemory),
			Keep: s.Keep, MaxKeep: s.MaxKeep,
			Log: int64(s.LogLimit), Disk: s.Build.Disk, PortAllowed: s.PortAllowed,
		},
		Contents: content.Limits{
			Cache: int64(s.CacheLimit), CacheAge: s.CacheRetention, Artifact: int64(s.ArtifactLimit), ArtifactAge: s.ArtifactRetention,
		},
		Runners:   attempt.Runners{URL: runners.URL, CA: runners.CA, MachineGrace: s.MachineGrace, StartTimeout: s.StartTimeout},
		Trust:     attempt.Trust{Repositories: s.TrustedRepositories, Volumes: s.BuildVolumes},
		Retention: scheduler.Retention{Logs: s.LogRetention, Builds: s.BuildRetention, Audit: s.AuditRetention},
		Log:       tel.Log, Tracer: tel.Tracer, ToolTracer: tel.Tools, Meter: tel.Meter,
		Chats:       bulletin.Chats{Channels: s.NotifyChannels, Private: s.NotifyPrivate},
		WebhooksOut: bulletin.Webhooks{Addresses: s.WebhooksOut, Secret: s.WebhooksOutSecret, TryFor: s.WebhooksOutTryFor},
	})
	if err != nil {
		return nil, err
	}
	// The runners' server has no tracer: a span as long as its build says nothing,
	// and the scheduler makes those of the steps.
	runner := rpc.NewServer(rpc.Config{Name: "runner", Access: scheduler.Access(), Bare: true, TLS: runners.TLS, Log: tel.Log, Meter: tel.Meter})
	service.RegisterRunner(runner)
	return &Room{
		Register: service.Register,
		Access:   scheduler.Access(),
		Bound:    service.Bound,
		Parts: []daemon.Part{
			daemon.Background("runner", func(ctx context.Context) error { return runner.Serve(ctx, runners) }),
			daemon.Background("scheduler", service.Run),
			daemon.Background("garbage", daemon.BoundGarbage), // of thousands of runners
		},
		Close:  opened.close,
		Ready:  answers("scheduler", db),
		Schema: db.Schema,
		Engine: s.Engine, containers: containers, instance: instance,
	}, nil
}

// certify gives the runner address the certificate that is kept: on PostgreSQL, which
// several schedulers may share, in the database. What this process has used before is
// handed on there, since builds trust it.
func certify(ctx context.Context, s SchedulerSettings, runners *settings.Runner, db *sqldb.DB, keys [][]byte) error {
	files := settings.InDataDir(s.DataDir)
	if db.Dialect != sqldb.Postgres {
		return runners.Certify(files.Keep)
	}
	return runners.Certify(func(host string, fresh func() (cert, key []byte, err error)) (cert, key []byte, err error) {
		return scheduler.RunnerCertificate(ctx, db, keys, host, func() (cert, key []byte, err error) {
			if cert, key, err = files.Find(host); cert != nil || err != nil {
				return cert, key, err
			}
			return fresh()
		})
	})
}

// capacity is how many builds run at once: what is set, else one for each CPU, as
// far as the engine can carry them.
func capacity(ctx context.Context, s SchedulerSettings, containers engine.Engine, tel *telemetry.Telemetry) (int, error) {
	builds := s.Builds()
	bounded, ok := containers.(interface {
		MostBuilds(ctx context.Context) (int, error)
	})
	if !ok {
		return builds, nil
	}
	most, err := bounded.MostBuilds(ctx)
	switch {
	case err != nil:
		return 0, err
	case builds <= most:
		return builds, nil
	case s.Capacity == 0:
		return most, nil
	}
	tel.Log.WarnContext(ctx, "FORGE_CAPACITY is more than the networks that the engine has addresses for; builds beyond that wait", "capacity", builds, "networks", most)
	return builds, nil
}
