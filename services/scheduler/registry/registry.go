package registry

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Service says what builds may show to registries.
type Service struct {
	store    *store.Store
	secrets  *secrets.Service
	commands map[string]*Command // by host
}

// Deps is what the service needs.
type Deps struct {
	Store   *store.Store
	Secrets *secrets.Service
	// Commands print what the server itself may show.
	Commands []*Command
	Log      *slog.Logger
}

// New returns what says what builds may show.
func New(d Deps) *Service {
	s := &Service{store: d.Store, secrets: d.Secrets, commands: map[string]*Command{}}
	for _, command := range d.Commands {
		command.log, command.now = d.Log, d.Store.Now
		s.commands[command.host] = command
	}
	return s
}

// For is what a build may show.
func (s *Service) For(b *store.Build) engine.Registries { return &build{s, b} }

// Credentials is what a build may show to a registry; both are empty for nothing.
func (s *Service) Credentials(ctx context.Context, b *store.Build, host string) (user, password string, err error) {
	login, err := s.For(b).Login(ctx, host)
	return login.Username, login.Password, err
}

// build is one, as its engine sees it.
type build struct {
	*Service
	of *store.Build
}

// Login is what the build may show to a registry: what its repository has, else what the
// server has for it.
func (b *build) Login(ctx context.Context, host string) (engine.Login, error) {
	own, err := b.secrets.RegistryFor(ctx, b.of, host)
	servers := b.commands[host]
	if err != nil || own.Password != "" || servers == nil {
		return engine.Login(own), err
	}
	if why := servers.barred(b.of); why != "" {
		return engine.Login{Withheld: cmp.Or(own.Withheld, why)}, nil
	}
	return servers.login(ctx)
}

// Private is when an image of this name was marked last; zero where it is not.
func (b *build) Private(ctx context.Context, name string) (time.Time, error) {
	var marked int64
	err := b.store.DB.Read().QueryRowContext(ctx, `SELECT mark_time FROM private_images WHERE name = $1`, name).Scan(&marked)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("whose image %s is: %w", name, sqldb.Kind(err))
	}
	return sqldb.Time(marked), nil
}

// Mark has images of this name be private.
func (b *build) Mark(ctx context.Context, name string) error {
	return b.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return t.Exec(ctx, `INSERT INTO private_images (name, mark_time) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET mark_time = excluded.mark_time`, name, sqldb.Micros(t.Now))
	})
}

// Unmark ends that, unless one was marked anew since then.
func (b *build) Unmark(ctx context.Context, name string, since time.Time) error {
	return b.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return t.Exec(ctx, `DELETE FROM private_images WHERE name = $1 AND mark_time = $2`, name, sqldb.Micros(since))
	})
}
