package wire

import (
	"context"

	"github.com/forge-ci/forge/services/backup"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
)

// Process is what every process with one room is told.
type Process struct {
	settings.Common
	settings.Rooms
	settings.GRPC
	settings.HealthFlags
	Verb string `arg:"" optional:"" enum:"serve,health" default:"serve" help:"serve, or health: ask the one that runs here whether it serves, and exit with 0 or 1."`
}

func (p Process) process() Process { return p }

// alone is the settings of a room in a process of its own.
type alone interface {
	process() Process
	siblings() map[string]string // addresses of the rooms that it calls, by their names
}

// Apart runs the room of this name until SIGINT or SIGTERM, or asks the one that
// runs for its health.
func Apart[S alone](ctx context.Context, name string, all S, assemble assemble[S]) error {
	s := all.process()
	if s.Verb == "health" {
		return s.Health(ctx, s.GRPCAddress, s.Ready)
	}
	return run(ctx, name, s.Debug, func(tel *telemetry.Telemetry, opened *closers) ([]daemon.Part, error) {
		if err := backup.Finish(s.DataDir); err != nil {
			return nil, err
		}
		admin, err := s.Admin()
		if err != nil {
			return nil, err
		}
		serving, err := s.Server(name, s.GRPCAddress, admin, tel)
		if err != nil {
			return nil, err
		}
		pipe := rpc.NewPipe()
		peers, err := dial(name, all, pipe, tel, opened)
		if err != nil {
			return nil, err
		}
		room, err := assemble(ctx, all, tel, peers)
		if err != nil {
			return nil, err
		}
		opened.add(room.Close)
		serving.Access, serving.Bound, serving.Behalf, serving.Ready = room.Access, room.Bound, behalf(), room.Ready
		serving.About = aboutThem(room)
		serving.HTTP = beside(tel, admin, room)
		if err := observe(tel, s.Common, s.Certificate); err != nil {
			return nil, err
		}
		server := rpc.NewServer(serving)
		room.Register(server)
		public, err := s.Listen(ctx)
		if err != nil {
			return nil, err
		}
		opened.add(public.Close)
		logUp(ctx, tel.Log, public.Addr(), room)

		serve := daemon.Background("gRPC", func(ctx context.Context) error { return server.Serve(ctx, public, pipe) })
		if !room.CallsItself {
			return append(room.Parts, serve), nil
		}
		parts := append([]daemon.Part{serve}, room.Parts...)
		return append(parts, daemon.Background("health", server.TurnAway)), nil
	})
}

// dial connects a room to the others and to itself, as this room.
func dial(name string, s alone, itself *rpc.Pipe, tel *telemetry.Telemetry, opened *closers) (Peers, error) {
	peer, err := s.process().Peer(name, tel)
	if err != nil {
		return nil, err
	}
	peers := Peers{}
	for room, address := range s.siblings() {
		conn, err := rpc.Dial(address, peer)
		if err != nil {
			return nil, err
		}
		opened.add(conn.Close)
		peers[room] = conn
	}
	conn, err := itself.Dial(name, tel.Tracer)
	if err != nil {
		return nil, err
	}
	opened.add(conn.Close)
	peers[name] = conn
	return peers, nil
}
