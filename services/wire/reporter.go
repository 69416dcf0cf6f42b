package wire

import (
	"context"

	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/settings"
)

// ReporterSettings are those of the reporter in a process of its own.
type ReporterSettings struct {
	Process
	settings.GitHub
	settings.Reporter
	settings.ConfigAddress
}

func (s ReporterSettings) siblings() map[string]string {
	return map[string]string{"config": s.ConfigURL}
}

// Reporter assembles the reporter, which calls config.
func Reporter(ctx context.Context, s ReporterSettings, tel *telemetry.Telemetry, peers Peers) (_ *Room, err error) {
	var opened closers
	defer opened.closeIf(&err)
	db, err := sqldb.Open(ctx, s.Database("reporter", reporter.Migrations(), tel.Log))
	if err != nil {
		return nil, err
	}
	opened.add(db.Close)
	if err := db.Observe(tel.Meter, "reporter", tel.Log); err != nil {
		return nil, err
	}
	service, err := reporter.New(reporter.Deps{
		DB: db, Config: peers["config"], GitHubAPIURL: s.GitHubAPIURL,
		Report: s.Report, Retention: s.ReportRetention,
		Log: tel.Log, Tracer: tel.Tracer, Meter: tel.Meter,
	})
	if err != nil {
		return nil, err
	}
	return &Room{
		Register: service.Register,
		Access:   reporter.Access(),
		Parts:    []daemon.Part{daemon.Background("reporter", service.Run)},
		Close:    opened.close,
		Ready:    answers("reporter", db),
		Schema:   db.Schema,
	}, nil
}
