package shell

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

const (
	// mostShells are open at once in a container.
	mostShells = 4
	// mostUnread is how many bytes wait in each direction of a shell, about.
	mostUnread = 256 << 10
	// largestInput is in bytes.
	largestInput = 32 << 10
	mostWords    = 100
	longestWords = 64 << 10
	// idleFor is how long a shell stays open in which nothing is typed or printed.
	idleFor = 15 * time.Minute
	// aliveEvery is how often who has opened a shell is noted as being there, and
	// aliveFor how long that is believed.
	aliveEvery = 5 * time.Second
	aliveFor   = 30 * time.Second
	// answersWithin is how long a container has to begin a shell.
	answersWithin = 30 * time.Second
	// closedFor is how long a closed shell is kept, for who reads the rest of it.
	closedFor = time.Minute
)

// Deps is what shells need.
type Deps struct {
	Store   *store.Store
	Secrets *secrets.Service
	// Config tells what people may do.
	Config grpc.ClientConnInterface
	Log    *slog.Logger
	Random io.Reader
}

// Service serves ShellService, and the runners whose containers are kept.
type Service struct {
	schedulerv1.UnimplementedShellServiceServer
	store         *store.Store
	secrets       *secrets.Service
	collaborators configv1.CollaboratorServiceClient
	log           *slog.Logger
	random        io.Reader
}

// New returns what opens shells; Run looks after them.
func New(d Deps) *Service {
	return &Service{store: d.Store, secrets: d.Secrets, collaborators: configv1.NewCollaboratorServiceClient(d.Config), log: d.Log, random: d.Random}
}

// Run closes the shells of who is not heard of any more, and removes those that were
// closed, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "shells not looked after", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) look(ctx context.Context) error {
	left, err := s.abandoned(ctx)
	if err != nil {
		return err
	}
	for _, id := range left {
		if err := s.close(ctx, id, noCode, "who has opened it is not heard of any more"); err != nil {
			return err
		}
	}
	return s.removeClosed(ctx)
}

// maySetSecrets reports whether who makes a call may set the secrets of a repository.
func (s *Service) maySetSecrets(ctx context.Context, b *store.Build) (bool, error) {
	person := rpc.Caller(ctx).Person
	if person == "" {
		return rpc.Caller(ctx).Admin, nil
	}
	answer, err := s.collaborators.GetPermission(ctx, &configv1.GetPermissionRequest{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(), Login: person,
	})
	return answer.GetPermission() >= configv1.GetPermissionResponse_PERMISSION_ADMIN, err
}

// mayBeLeft reports whether the commands had secrets that not anybody's pull request can
// have: they may lie in files.
func (s *Service) mayBeLeft(ctx context.Context, b *store.Build) (bool, error) {
	switch b.GetAction() {
	case schedulerv1.Build_ACTION_TEST, schedulerv1.Build_ACTION_STAGING:
		return false, nil
	case schedulerv1.Build_ACTION_MANUAL:
		whole, err := store.ReadBuild(ctx, s.store.DB.Read(), store.WholeID(b.GetId()), "")
		if err != nil || slices.ContainsFunc(whole.GetInputs(), (*schedulerv1.Input).GetSecret) {
			return true, err
		}
	default:
	}
	return len(b.ConfigJob().GetSecrets()) > 0, nil
}

// RemoveContainer has a kept container removed.
func (s *Service) RemoveContainer(ctx context.Context, req *schedulerv1.RemoveContainerRequest) (*schedulerv1.RemoveContainerResponse, error) {
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		b, err := t.Build(ctx, req.GetBuildId())
		if err != nil {
			return err
		}
		removed, err := store.RemoveKept(ctx, t, b)
		if err == nil && !removed {
			err = notKept(b, t.Now)
		}
		if err != nil {
			return err
		}
		return audit.Add(ctx, t, b.GetRepository().GetId(), entry(schedulerv1.AuditEntry_ACTION_REMOVE_CONTAINER, b))
	})
	return &schedulerv1.RemoveContainerResponse{}, err
}

func entry(action schedulerv1.AuditEntry_Action, b *store.Build) *schedulerv1.AuditEntry {
	return &schedulerv1.AuditEntry{Action: action, Repository: wording.FullName(b.GetRepository()), BuildId: b.GetId(), Environment: b.GetEnvironment()}
}

// notKept is why no shell is to be had of a build, for people.
func notKept(b *store.Build, now time.Time) error {
	why := ".forge.yml does not ask for that (keep: 15m), nor does the server (FORGE_KEEP)"
	switch until := b.GetKeptUntilTime(); {
	case b.HasJobs():
		return fault.Newf(fault.Conflict, "build %s has jobs, each with a container of its own: name one of them", b.GetId())
	case !store.Ended(b.GetState()):
		return fault.Newf(fault.Conflict, "build %s has not ended: shells are for what has failed", b.GetId())
	case b.GetState() != schedulerv1.Build_STATE_FAILED && b.GetState() != schedulerv1.Build_STATE_TIMED_OUT:
		why = "only that of what has failed is, or ran into its timeout"
	case until != nil:
		why = "it was until " + until.AsTime().UTC().Format("2006-01-02 15:04:05 MST") + ", and it is " + now.UTC().Format("15:04:05")
	case b.GetNotKept() != "":
		why = b.GetNotKept()
	}
	return fault.Newf(fault.Conflict, "the container of build %s is not kept: %s", b.GetId(), why)
}

// often is how often it is looked whether another replica has written something.
func (s *Service) often() time.Duration {
	if s.store.DB.Dialect == sqldb.Postgres {
		return 50 * time.Millisecond
	}
	return time.Second
}

func errOver(id string) error { return fault.Newf(fault.Conflict, "shell %s is closed", id) }

// stopped is the problem of a shell whose runner was served by a scheduler that stopped.
const stopped = "the scheduler stopped"

func errStops() error { return fault.New(fault.Unavailable, "the scheduler stops: open a new shell") }
