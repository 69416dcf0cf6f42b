package wire

import (
	"context"
	"maps"

	"github.com/forge-ci/forge/services/backup"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
)

// Settings are those of all four rooms in one process.
type Settings struct {
	settings.Common
	settings.GRPC
	settings.Certificate
	settings.Links
	settings.GitHub
	settings.Gateway
	settings.App
	settings.Scheduler
	settings.Reporter
}

// row is a room by its name, and how it is assembled.
type row struct {
	name     string
	assemble func(context.Context, *telemetry.Telemetry, Peers) (*Room, error)
}

// rooms are in the order in which they are assembled and their parts start.
func (s Settings) rooms() []row {
	process := Process{Common: s.Common, Rooms: settings.Rooms{Certificate: s.Certificate}}
	return []row{
		{"config", of(Config, ConfigSettings{Process: process, GitHub: s.GitHub, App: s.App})},
		{"reporter", of(Reporter, ReporterSettings{Process: process, GitHub: s.GitHub, Reporter: s.Reporter})},
		{"scheduler", of(Scheduler, SchedulerSettings{Process: process, Links: s.Links, GitHub: s.GitHub, Scheduler: s.Scheduler})},
		{"gateway", of(Gateway, GatewaySettings{Process: process, Links: s.Links, GitHub: s.GitHub, Gateway: s.Gateway})},
	}
}

// of is a room's function with the room's settings.
func of[S any](room assemble[S], s S) func(context.Context, *telemetry.Telemetry, Peers) (*Room, error) {
	return func(ctx context.Context, tel *telemetry.Telemetry, peers Peers) (*Room, error) {
		return room(ctx, s, tel, peers)
	}
}

// Together runs all rooms in one process until SIGINT or SIGTERM.
func Together(ctx context.Context, s Settings) error {
	return run(ctx, "forge", s.Debug, func(tel *telemetry.Telemetry, opened *closers) ([]daemon.Part, error) {
		if err := s.missing(); err != nil {
			return nil, err
		}
		if err := backup.Finish(s.DataDir); err != nil {
			return nil, err
		}
		admin, err := s.Admin()
		if err != nil {
			return nil, err
		}
		public, err := s.Listen(ctx) // before the stores are opened: another Forge may hold it, and them
		if err != nil {
			return nil, err
		}
		opened.add(public.Close)

		pipe := rpc.NewPipe()
		var rooms []*Room
		access := map[string]rpc.Access{}
		var parts []daemon.Part
		for _, r := range s.rooms() {
			conn, err := pipe.Dial(r.name, tel.Tracer)
			if err != nil {
				return nil, err
			}
			opened.add(conn.Close)
			room, err := r.assemble(ctx, tel, Peers{"config": conn, "reporter": conn, "scheduler": conn, "gateway": conn})
			if err != nil {
				return nil, err
			}
			opened.add(room.Close)
			rooms = append(rooms, room)
			maps.Copy(access, room.Access)
			parts = append(parts, room.Parts...)
		}
		if err := observe(tel, s.Common, settings.Certificate{}); err != nil {
			return nil, err
		}
		server := rpc.NewServer(rpc.Config{
			Name: "forge", Access: access, AdminToken: admin, Bound: bound(rooms), Behalf: behalf(), Ready: allReady(rooms), About: aboutThem(rooms...),
			HTTP: beside(tel, admin, rooms...),
			Log:  tel.Log, Tracer: tel.Tracer, Meter: tel.Meter,
		})
		for _, room := range rooms {
			room.Register(server)
		}
		logUp(ctx, tel.Log, public.Addr(), rooms...)

		serve := daemon.Background("gRPC", func(ctx context.Context) error { return server.Serve(ctx, public, pipe) })
		parts = append([]daemon.Part{serve}, parts...)
		return append(parts, daemon.Background("health", server.TurnAway)), nil
	})
}

// bound is how tokens are found that are bound to a repository: one of the rooms has them.
func bound(rooms []*Room) func(ctx context.Context, token string) (rpc.Bound, error) {
	for _, room := range rooms {
		if room.Bound != nil {
			return room.Bound
		}
	}
	return nil
}

// allReady says what is missing that calls of any of the rooms need.
func allReady(rooms []*Room) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, room := range rooms {
			if room.Ready == nil {
				continue
			}
			if err := room.Ready(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

// missing is the first setting that has no default and was not made, told before
// anything else: these are what a first start lacks.
func (s Settings) missing() error {
	if _, err := s.Key(); err != nil {
		return err
	}
	_, err := s.Secrets()
	return err
}
