package secrets

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/keyring"
	"github.com/forge-ci/forge/services/kit/mask"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// keysSetting names what holds the keys of secrets.
const keysSetting = "FORGE_SECRETS_KEY"

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// setByOthers are variables that a secret would not reach, or would break the
// shell by.
var setByOthers = []string{
	"CI", "FORGE", "TRACEPARENT", "TRACESTATE", "BAGGAGE",
	"PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "IFS", "ENV", "PS4", "LD_PRELOAD", "LD_LIBRARY_PATH",
}

// Service keeps secrets, and serves SecretService.
type Service struct {
	schedulerv1.UnimplementedSecretServiceServer
	store        *store.Store
	keyring      *keyring.Ring
	repositories configv1.RepositoryServiceClient
	now          func() time.Time
	log          *slog.Logger
}

// Deps is what the secrets need.
type Deps struct {
	Store *store.Store
	// Config tells which repository a name is.
	Config grpc.ClientConnInterface
	// Keys are of 32 bytes each: secrets are encrypted with the first and decrypted
	// with any.
	Keys   [][]byte
	Random io.Reader
	Log    *slog.Logger
}

// New returns what keeps secrets; Renew encrypts with the first key what is
// encrypted with another.
func New(d Deps) (*Service, error) {
	ring, err := keyring.New(keysSetting, d.Keys, d.Random)
	if err != nil {
		return nil, err
	}
	return &Service{
		store: d.Store, keyring: ring, repositories: configv1.NewRepositoryServiceClient(d.Config), now: d.Store.Now, log: d.Log,
	}, nil
}

// repository is a repository as it is now.
func (v *Service) repository(ctx context.Context, owner, name string) (*eventv1.Repository, error) {
	answer, err := v.repositories.GetRepository(ctx, &configv1.GetRepositoryRequest{Owner: owner, Name: name})
	return answer.GetRepository(), err
}

// shownRepository is a repository that GitHub shows Forge.
func (v *Service) shownRepository(ctx context.Context, fullName string) (*eventv1.Repository, error) {
	owner, name, err := store.SplitRepository(fullName)
	if err != nil {
		return nil, err
	}
	repository, err := v.repository(ctx, owner, name)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Newf(fault.NotFound, "GitHub shows Forge no repository %s: is it the right name, and is the App installed there?", fullName)
	}
	return repository, err
}

// SetSecret stores a secret.
func (v *Service) SetSecret(ctx context.Context, req *schedulerv1.SetSecretRequest) (*schedulerv1.SetSecretResponse, error) {
	set, err := v.set(ctx, &secret, req, asked{name: req.GetName(), value: req.GetValue()})
	if err != nil {
		return nil, err
	}
	return &schedulerv1.SetSecretResponse{Secret: set.secret(), Warning: warning(strings.TrimSpace(req.GetValue()))}, nil
}

// plainWord is a value that ordinary output holds, too.
var plainWord = regexp.MustCompile(`^(?:[a-z]{1,12}|[A-Z][a-z]{0,11}|[A-Z]{1,12}|[0-9]{1,6})$`)

// warning says of a value what its masking in logs is worth; "" where it is worth
// all.
func warning(value string) string {
	switch {
	case len(value) < mask.Shortest:
		return fmt.Sprintf("a value of under %d bytes is not masked in logs", mask.Shortest)
	case plainWord.MatchString(value):
		return "this value is a plain word or a short number: logs show *** wherever they hold it, and whoever counts on that can guess it"
	default:
		return ""
	}
}

func checkSecret(of asked) error {
	switch {
	case !secretName.MatchString(of.name):
		return fault.New(fault.Invalid, "name: letters, digits and _, no digit first")
	case len(of.name) > longestName:
		return fault.Newf(fault.Invalid, "name: at most %d characters", longestName)
	case setElsewhere(of.name):
		return fault.Newf(fault.Invalid, "name: %s is set by Forge or the shell, choose another", of.name)
	case strings.Contains(of.value, "\x00"):
		return fault.New(fault.Invalid, "value: a variable cannot hold a NUL; encode it, in base64 for instance")
	}
	return nil
}

func setElsewhere(name string) bool {
	return strings.HasPrefix(name, "FORGE_") || slices.Contains(setByOthers, name)
}

// ListSecrets lists secrets.
func (v *Service) ListSecrets(ctx context.Context, req *schedulerv1.ListSecretsRequest) (*schedulerv1.ListSecretsResponse, error) {
	found, next, err := v.list(ctx, &secret, req)
	if err != nil {
		return nil, err
	}
	answer := &schedulerv1.ListSecretsResponse{NextPageToken: next}
	for _, s := range found {
		answer.Secrets = append(answer.Secrets, s.secret())
	}
	return answer, nil
}

// DeleteSecret removes a secret.
func (v *Service) DeleteSecret(ctx context.Context, req *schedulerv1.DeleteSecretRequest) (*schedulerv1.DeleteSecretResponse, error) {
	return &schedulerv1.DeleteSecretResponse{}, v.delete(ctx, &secret, req, req.GetName())
}

func (s kept) secret() *schedulerv1.Secret {
	return &schedulerv1.Secret{
		Repository: s.repository, Environment: s.environment, Name: s.name,
		UpdateTime: timestamppb.New(s.updated), Uses: s.shownUses(), Branches: s.branches,
	}
}

// UnavailableError is why a build does not get what it needs, for people.
type UnavailableError string

func (n UnavailableError) Error() string { return string(n) }

// SecretsFor are the secrets that a build gets, and what its log says of those it does
// not get. A build never runs without one that is meant for it: the error, then,
// is an UnavailableError.
func (v *Service) SecretsFor(ctx context.Context, b *store.Build) (secrets map[string]string, notices []string, err error) {
	if b.GetSecretsWithheld() {
		notice := "forge: a bot's pull request gets no secrets, unless the server trusts the bot by name (FORGE_TRUSTED_BOTS)"
		if b.GetFork() {
			notice = "forge: .forge.yml names secrets; a fork's build gets none"
		}
		notices = append(notices, notice)
	}
	names := b.ConfigJob().GetSecrets()
	if b.GetFork() || len(names) == 0 {
		return nil, notices, nil
	}
	all, err := v.of(ctx, &secret, b.GetRepository().GetId())
	if err != nil {
		return nil, nil, fmt.Errorf("secrets of %s: %w", wording.FullName(b.GetRepository()), err)
	}
	secrets = map[string]string{}
	var missing, barred []string
	for _, name := range names {
		found, bound := pick(all, name, environmentOf(b))
		why := ""
		if found != nil {
			why = found.bars(b)
		}
		switch {
		case why != "":
			barred = append(barred, why)
		case found != nil:
			if secrets[name], err = v.open(found); err != nil {
				return nil, nil, err
			}
		case len(bound) > 0:
			notices = append(notices, "forge: "+secret.elsewhere(name, bound))
		default:
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		reach := ""
		if use := UseOf(b); !unasked().has(use) {
			reach = " --for " + (unasked() | 1<<use).words()
		}
		return nil, nil, UnavailableError(fmt.Sprintf("no secret %s: forge secrets set %s --repo %s%s",
			strings.Join(missing, ", "), missing[0], wording.FullName(b.GetRepository()), reach))
	}
	if len(barred) > 0 {
		return nil, nil, UnavailableError(barred[0])
	}
	return secrets, notices, nil
}

// Plain is a secret of a repository that is bound to no environment, for what Forge itself
// does with it, or why there is none.
func (v *Service) Plain(ctx context.Context, repositoryID int64, name string) (value, why string, err error) {
	all, err := v.of(ctx, &secret, repositoryID)
	if err != nil {
		return "", "", fmt.Errorf("secrets of repository %d: %w", repositoryID, err)
	}
	found, bound := pick(all, name, "")
	switch {
	case found == nil && len(bound) > 0:
		return "", secret.elsewhere(name, bound), nil
	case found == nil:
		return "", "no secret " + name, nil
	}
	if value, err = v.open(found); err != nil {
		return "", err.Error(), nil //nolint:nilerr // it says why there is none
	}
	return value, "", nil
}
