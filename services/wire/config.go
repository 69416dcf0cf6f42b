package wire

import (
	"context"
	"path/filepath"

	"github.com/forge-ci/forge/services/config"
	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
)

// ConfigSettings are those of config in a process of its own.
type ConfigSettings struct {
	Process
	settings.GitHub
	settings.App
}

func (ConfigSettings) siblings() map[string]string { return nil }

// Config assembles config, which calls no other room.
func Config(ctx context.Context, s ConfigSettings, tel *telemetry.Telemetry, _ Peers) (_ *Room, err error) {
	var opened closers
	defer opened.closeIf(&err)
	app, err := s.Key()
	if err != nil {
		return nil, err
	}
	sources, err := openBlobs(ctx, s.Common, "config") // the same for all Forges that share a bucket
	if err != nil {
		return nil, err
	}
	opened.add(sources.Close)
	mirrors, err := mirror.New(ctx, mirror.Config{Dir: filepath.Join(s.DataDir, "mirrors"), MaxBytes: int64(s.MirrorsDisk), Tracer: tel.Tracer, Log: tel.Log})
	if err != nil {
		return nil, err
	}
	service, err := config.New(config.Deps{
		GitHub: config.GitHub{App: app, APIURL: s.GitHubAPIURL, PagesURL: s.GitHubURL},
		Blobs:  sources, Mirrors: mirrors,
		Log: tel.Log, Tracer: tel.Tracer,
	})
	if err != nil {
		return nil, err
	}
	return &Room{
		Register: service.Register,
		Access:   config.Access(),
		Parts:    []daemon.Part{daemon.Background("config", service.Run)},
		Close:    opened.close,
	}, nil
}
