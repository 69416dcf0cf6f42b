package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/kit/fault"
)

// Deps is what access is decided with.
type Deps struct {
	People    *signin.Service
	Config    grpc.ClientConnInterface // asked what is public
	Scheduler grpc.ClientConnInterface // asked whose a build is
	// Admins are who runs this Forge: logins, and teams as org/team.
	Admins []string
	// Address says which repository, or else which build, an address is about.
	Address func(address string) (repository, build string, err error)
	// OpenLinks is that a build's address is enough to see the build.
	OpenLinks bool
	// Refused is told of calls that people who have signed in were denied; nil: nobody is.
	Refused func(ctx context.Context, person int64, login, method string, request proto.Message)
	Log     *slog.Logger
	Now     func() time.Time
}

// Control decides who may make a call.
type Control struct {
	deps         Deps
	rules        map[string]Rule
	builds       schedulerv1.BuildServiceClient
	repositories configv1.RepositoryServiceClient

	roles  *memory[Role]                // of a person in a repository
	public *memory[bool]                // whether a repository is
	teams  *memory[bool]                // whether a person is in one
	owners *memory[*eventv1.Repository] // of builds
}

// New checks the settings.
func New(deps Deps) (*Control, error) {
	for _, admin := range deps.Admins {
		if parts := strings.Split(admin, "/"); len(parts) > 2 || slices.Contains(parts, "") {
			return nil, fmt.Errorf("FORGE_ADMINS: %q is neither a login nor a team as org/team", admin)
		}
	}
	return &Control{
		deps: deps, rules: Rules(),
		builds: schedulerv1.NewBuildServiceClient(deps.Scheduler), repositories: configv1.NewRepositoryServiceClient(deps.Config),
		roles: newMemory[Role](deps.Now), public: newMemory[bool](deps.Now), teams: newMemory[bool](deps.Now),
		owners: newMemory[*eventv1.Repository](deps.Now),
	}, nil
}

// refusals, in words for whoever asks.
func unknown() error {
	return fault.New(fault.Unauthenticated, "sign in to see this: who can read the repository on GitHub may")
}

func denied(role Role) error {
	switch role {
	case Writer:
		return fault.New(fault.Denied, "this needs write access to the repository on GitHub")
	case Manager:
		return fault.New(fault.Denied, "this needs to be done by an admin of the repository on GitHub")
	case Operator:
		return fault.New(fault.Denied, "this is for those who run this Forge: FORGE_ADMINS names them, and the admin token opens it")
	case Anyone, SignedIn, Reader:
	}
	return fault.New(fault.Denied, "who can read the repository on GitHub may see this; you cannot, or it is not there any more")
}

// refuse is why somebody may not make a call that a role may.
func refuse(v signin.Viewer, role Role) error {
	switch {
	case v.ID != 0:
		return denied(role)
	case v.Ended:
		return fault.New(fault.Unauthenticated, "your session has ended: sign in again")
	}
	return unknown()
}

// Check is nil where a viewer may make a call with this request, apart from items of the
// answer.
func (c *Control) Check(ctx context.Context, v signin.Viewer, method string, request proto.Message) error {
	rule, has := c.rules[method]
	if !has {
		rule = Rule{Role: Operator}
	}
	switch {
	case rule.Role == Anyone, v.Admin, rule.bound && v.Bound, rule.link && c.deps.OpenLinks:
		return nil
	case rule.Role == SignedIn && v.ID != 0:
		return nil
	case rule.Role == SignedIn:
		return refuse(v, rule.Role)
	}
	began := c.deps.Now()
	operator, err := c.Operator(ctx, v)
	if !operator && err == nil && rule.Role == Operator {
		operator, err = c.inTeams(v, func(key string, ask func(context.Context) (bool, error)) (bool, error) {
			return c.teams.again(ctx, key, began, ask)
		})
	}
	if operator || err != nil && rule.Role == Operator {
		return err
	}
	switch rule.of {
	case ofNone:
		return refuse(v, rule.Role)
	case ofBuild:
		of, err := c.owner(ctx, field(request, "build_id"))
		if err != nil {
			return err
		}
		return c.require(ctx, v, rule.Role, of)
	case ofAddress:
		named, build, err := c.deps.Address(field(request, "address"))
		if err != nil {
			return err
		}
		if build == "" {
			return c.requireNamed(ctx, v, rule.Role, named)
		}
		of, err := c.owner(ctx, build)
		if err != nil {
			return err
		}
		return c.require(ctx, v, rule.Role, of)
	case ofEach, ofRepository:
		named := field(request, "repository")
		switch {
		case named == "" && rule.of == ofEach:
			return nil
		case named == "" && v.ID == 0: // who may name one is asked to sign in first
			return refuse(v, rule.Role)
		}
		return c.requireNamed(ctx, v, rule.Role, named)
	}
	return refuse(v, rule.Role)
}

// requireNamed is require of a repository that is named as owner/name.
func (c *Control) requireNamed(ctx context.Context, v signin.Viewer, role Role, named string) error {
	owner, name, ok := strings.Cut(named, "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return fault.New(fault.Invalid, "name the repository as owner/name")
	}
	return c.require(ctx, v, role, &eventv1.Repository{Owner: owner, Name: name})
}

// Operator reports whether a viewer runs this Forge. It is Unavailable where GitHub does
// not say who is in a team.
func (c *Control) Operator(ctx context.Context, v signin.Viewer) (bool, error) {
	if v.Admin || v.ID == 0 {
		return v.Admin, nil
	}
	return c.inTeams(v, func(key string, ask func(context.Context) (bool, error)) (bool, error) {
		return c.teams.get(ctx, key, ask)
	})
}

// inTeams reports whether a person is one of those who run this Forge, or is in one of
// their teams, by what member answers.
func (c *Control) inTeams(v signin.Viewer, member func(key string, ask func(context.Context) (bool, error)) (bool, error)) (bool, error) {
	var unsure error
	for _, admin := range c.deps.Admins {
		org, team, isTeam := strings.Cut(admin, "/")
		if !isTeam {
			if strings.EqualFold(admin, v.Login) {
				return true, nil
			}
			continue
		}
		isMember, err := member(fmt.Sprintf("%d %s", v.ID, strings.ToLower(admin)), func(ctx context.Context) (bool, error) {
			return c.deps.People.InTeam(ctx, v.ID, v.Login, org, team)
		})
		if isMember {
			return true, nil
		}
		unsure = errors.Join(unsure, err)
	}
	return false, unsure
}

// require is nil where a viewer has a role in a repository. Who was given it a moment ago
// has it: what is remembered may grant something, and refuses nothing by itself.
func (c *Control) require(ctx context.Context, v signin.Viewer, role Role, of *eventv1.Repository) error {
	began := c.deps.Now()
	has, err := c.roleOf(ctx, v, of)
	if err == nil && has < role && v.ID != 0 {
		has, err = c.roles.again(ctx, roleKey(v, of), began, func(ctx context.Context) (Role, error) { return c.ask(ctx, v.ID, of) })
	}
	if err != nil {
		return err
	}
	if has < role {
		return refuse(v, role)
	}
	return nil
}

// roleOf is what a viewer is in a repository; below Reader they may not see it.
func (c *Control) roleOf(ctx context.Context, v signin.Viewer, of *eventv1.Repository) (Role, error) {
	if v.ID != 0 {
		return c.roles.get(ctx, roleKey(v, of), func(ctx context.Context) (Role, error) { return c.ask(ctx, v.ID, of) })
	}
	public, err := c.Public(ctx, of)
	if public {
		return Reader, err
	}
	return Anyone, err
}

// roleKey finds what is remembered of a person in a repository.
func roleKey(v signin.Viewer, of *eventv1.Repository) string {
	return fmt.Sprintf("%d %s", v.ID, keyOf(of))
}

// ask asks GitHub what a person is in a repository.
func (c *Control) ask(ctx context.Context, person int64, of *eventv1.Repository) (Role, error) {
	found, err := c.deps.People.Repository(ctx, person, of.GetId(), of.GetOwner(), of.GetName())
	switch {
	case fault.Is(err, fault.NotFound):
		return Anyone, nil
	case err != nil:
		return Anyone, err
	case found.Admin:
		return Manager, nil
	case found.Write:
		return Writer, nil
	case found.Read:
		return Reader, nil
	}
	return Anyone, nil
}

// Public reports whether anybody can read a repository on GitHub.
func (c *Control) Public(ctx context.Context, of *eventv1.Repository) (bool, error) {
	return c.public.get(ctx, keyOf(of), func(ctx context.Context) (bool, error) { return c.isPublic(ctx, of) })
}

// keyOf finds what is remembered of a repository.
func keyOf(of *eventv1.Repository) string {
	if of.GetId() != 0 {
		return strconv.FormatInt(of.GetId(), 10)
	}
	return fmt.Sprintf("0 %s/%s", strings.ToLower(of.GetOwner()), strings.ToLower(of.GetName()))
}

// isPublic asks config, which asks as the App. A repository that is another by its id is
// not the one that is meant.
func (c *Control) isPublic(ctx context.Context, of *eventv1.Repository) (bool, error) {
	answer, err := c.repositories.GetRepository(ctx, &configv1.GetRepositoryRequest{Owner: of.GetOwner(), Name: of.GetName()})
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied) {
		return false, nil
	}
	if err != nil {
		return false, fault.Newf(fault.Unavailable, "GitHub does not say whether this is public, so it is not shown; try again in a moment: %w", err)
	}
	found := answer.GetRepository()
	return !found.GetPrivate() && (of.GetId() == 0 || found.GetId() == of.GetId()), nil
}

// owner is the repository of a build.
func (c *Control) owner(ctx context.Context, build string) (*eventv1.Repository, error) {
	return c.owners.get(ctx, build, func(ctx context.Context) (*eventv1.Repository, error) {
		answer, err := c.builds.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: build})
		return answer.GetBuild().GetRepository(), err
	})
}

// field is a text of a request; empty where it has no such.
func field(request proto.Message, name string) string {
	if request == nil {
		return ""
	}
	m := request.ProtoReflect()
	f := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if f == nil || f.Kind() != protoreflect.StringKind || f.IsList() {
		return ""
	}
	return m.Get(f).String()
}
