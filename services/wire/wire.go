// Package wire assembles the rooms. Each room is assembled by one function,
// whichever process it runs in:
//
//   - Config, Gateway, Reporter and Scheduler open what their room needs and
//     return the room, ready to be served and run.
//   - Apart runs one room in a process of its own, which calls the others at
//     their addresses.
//   - Together runs all four in one process, where they call each other through
//     one pipe: the same calls, the same checks, the same trace.
package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/settings"
)

// stopGrace is how long each part of a process gets to stop.
const stopGrace = 10 * time.Second

// Peers leads to the rooms that a room calls, by their names, and to itself. The
// connections belong to whoever assembles the room.
type Peers map[string]grpc.ClientConnInterface

// Room is a room that has been assembled.
type Room struct {
	Register func(grpc.ServiceRegistrar) // its services
	Access   map[string]rpc.Access       // who may call them
	Parts    []daemon.Part               // what runs, in the order in which it starts
	Close    func() error                // closes what the room has opened, once Parts have stopped

	Bound       func(ctx context.Context, token string) (rpc.Bound, error) // finds tokens that are bound to a repository; nil: it has none
	Ready       func(context.Context) error                                // what is missing that its calls need; nil: nothing ever is
	Schema      func(context.Context) (sqldb.Schema, error)                // how the room's is; nil: it has none
	CallsItself bool                                                       // Parts call the room's own services, which so are served first.
	HTTP        net.Addr                                                   // where the room serves HTTP; nil: it does not
	Spans       sdktrace.SpanExporter                                      // keeps the spans of its process; nil: it does not
	OTLP        http.Handler                                               // takes spans over HTTP from who shows the admin token; nil: it takes none
	Engine      string                                                     // what runs the room's builds; "": it has none

	containers engine.Engine // that engine
	instance   string        // how it knows this Forge
}

// assemble is the function of a room whose settings are S. What it has opened
// before an error it has closed.
type assemble[S any] func(context.Context, S, *telemetry.Telemetry, Peers) (*Room, error)

// run assembles a process of this name and runs it until SIGINT or SIGTERM.
func run(ctx context.Context, name string, debug bool, assemble func(*telemetry.Telemetry, *closers) ([]daemon.Part, error)) (err error) {
	tel, flush, err := telemetry.Start(ctx, telemetry.Config{Service: name, Version: settings.Version, Debug: debug})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush(ctx)) }()
	var opened closers
	parts, err := assemble(tel, &opened)
	if err != nil {
		return errors.Join(err, opened.close())
	}
	stores := daemon.Background("stores", func(ctx context.Context) error {
		<-ctx.Done()
		return opened.close()
	})
	return daemon.Run(ctx, tel.Log, stopGrace, append([]daemon.Part{stores}, parts...)...)
}

// logUp says that a process with these rooms serves, and where.
func logUp(ctx context.Context, log *slog.Logger, public net.Addr, rooms ...*Room) {
	facts := []any{"version", settings.Version}
	for _, room := range rooms {
		if room.HTTP != nil {
			facts = append(facts, "http", room.HTTP.String())
		}
	}
	facts = append(facts, "grpc", public.String())
	for _, room := range rooms {
		if room.Engine != "" {
			facts = append(facts, "engine", room.Engine)
		}
	}
	log.InfoContext(ctx, "up", facts...)
}

// openBlobs opens what keeps a room's blobs. The caller closes it.
func openBlobs(ctx context.Context, s settings.Common, room string) (*blobs.Store, error) {
	store, err := blobs.Open(ctx, blobs.Config{URL: s.BlobURL, Dir: filepath.Join(s.DataDir, "blobs"), Room: room})
	if err != nil {
		return nil, fmt.Errorf("FORGE_BLOB_URL: %w", err)
	}
	return store, nil
}

// behalf are the rooms that call the others for people: the one where people sign in.
func behalf() []string { return []string{"gateway"} }

// answers says that a room's database does not answer, in words for anybody.
func answers(room string, db *sqldb.DB) func(context.Context) error {
	return func(ctx context.Context) error {
		if db.Answers(ctx) != nil {
			return fmt.Errorf("the database of %s does not answer", room)
		}
		return nil
	}
}

// closers are closed last first. What its user has closed already is fine.
type closers []func() error

func (c *closers) add(closeOne func() error) { *c = append(*c, closeOne) }

func (c *closers) close() error {
	var errs []error
	for _, closeOne := range slices.Backward(*c) {
		if err := closeOne(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// closeIf closes where *err says that the room could not be assembled.
func (c *closers) closeIf(err *error) {
	if *err != nil {
		*err = errors.Join(*err, c.close())
	}
}
