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
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

const (
	// MostSecrets is per repository and environment, and bounds a plan.
	MostSecrets = 100
	// largestSecret is in bytes, and well below what Linux lets a variable hold.
	largestSecret = 48 << 10
	longestName   = 100
)

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
	if err := checkSecret(req); err != nil {
		return nil, err
	}
	reach, err := reachOf(req)
	if err != nil {
		return nil, err
	}
	repository, err := v.shownRepository(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	secret := storedSecret{
		secretSlot: secretSlot{repository.GetId(), req.GetEnvironment(), req.GetName()}, reach: reach, repository: wording.FullName(repository), updated: v.now(),
	}
	if secret.keyID, secret.sealed, err = v.keyring.Seal(secret.secretSlot, req.GetValue()); err != nil {
		return nil, err
	}
	if err := v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if err := saveSecret(ctx, t, secret); err != nil {
			return err
		}
		return audited(ctx, t, schedulerv1.AuditEntry_ACTION_SET_SECRET, secret.secretSlot, secret.repository)
	}); err != nil {
		return nil, fmt.Errorf("set secret %s of %s: %w", secret.name, secret.repository, err)
	}
	answer := &schedulerv1.SetSecretResponse{Secret: secret.shown()}
	answer.Warning = warning(strings.TrimSpace(req.GetValue()))
	return answer, nil
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

func checkSecret(req *schedulerv1.SetSecretRequest) error {
	name := req.GetName()
	switch {
	case !secretName.MatchString(name):
		return fault.New(fault.Invalid, "name: letters, digits and _, no digit first")
	case len(name) > longestName:
		return fault.Newf(fault.Invalid, "name: at most %d characters", longestName)
	case setElsewhere(name):
		return fault.Newf(fault.Invalid, "name: %s is set by Forge or the shell, choose another", name)
	case req.GetValue() == "":
		return fault.New(fault.Invalid, "value: it is empty")
	case len(req.GetValue()) > largestSecret:
		return fault.Newf(fault.Invalid, "value: at most %d KiB", largestSecret>>10)
	case strings.Contains(req.GetValue(), "\x00"):
		return fault.New(fault.Invalid, "value: a variable cannot hold a NUL; encode it, in base64 for instance")
	case req.GetEnvironment() != "":
		return trigger.CheckEnvironment(req.GetEnvironment())
	}
	return nil
}

func setElsewhere(name string) bool {
	return strings.HasPrefix(name, "FORGE_") || slices.Contains(setByOthers, name)
}

// ListSecrets lists secrets.
func (v *Service) ListSecrets(ctx context.Context, req *schedulerv1.ListSecretsRequest) (*schedulerv1.ListSecretsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var after secretSlot
	if err := rpc.ParsePageToken(req.GetPageToken(), &after.repositoryID, &after.environment, &after.name); err != nil {
		return nil, err
	}
	var of int64
	if req.GetRepository() != "" {
		if of, err = v.secretsOwner(ctx, req.GetRepository()); err != nil {
			return nil, err
		}
	}
	found, err := v.listSecrets(ctx, of, after, size+1)
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	answer := &schedulerv1.ListSecretsResponse{}
	if len(found) > size {
		found = found[:size]
		last := found[size-1]
		answer.NextPageToken = rpc.PageToken(last.repositoryID, last.environment, last.name)
	}
	for _, secret := range found {
		answer.Secrets = append(answer.Secrets, secret.shown())
	}
	return answer, nil
}

// DeleteSecret removes a secret.
func (v *Service) DeleteSecret(ctx context.Context, req *schedulerv1.DeleteSecretRequest) (*schedulerv1.DeleteSecretResponse, error) {
	of, err := v.secretsOwner(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	err = v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		found, err := deleteSecret(ctx, t, secretSlot{of, req.GetEnvironment(), req.GetName()})
		if err == nil && !found {
			return fault.Newf(fault.NotFound, "%s has no secret %s%s", req.GetRepository(), req.GetName(), onlyFor(req.GetEnvironment()))
		}
		if err != nil {
			return err
		}
		return audited(ctx, t, schedulerv1.AuditEntry_ACTION_DELETE_SECRET, secretSlot{of, req.GetEnvironment(), req.GetName()}, req.GetRepository())
	})
	return &schedulerv1.DeleteSecretResponse{}, err
}

// audited writes into the audit log what was done with a secret: never its value.
func audited(ctx context.Context, t *store.Tx, action schedulerv1.AuditEntry_Action, slot secretSlot, repository string) error {
	return audit.Add(ctx, t, slot.repositoryID, &schedulerv1.AuditEntry{
		Action: action, Repository: repository, Environment: slot.environment, Subject: slot.name,
	})
}

func onlyFor(environment string) string {
	if environment == "" {
		return ""
	}
	return " for " + environment
}

// secretsOwner is the id of a repository: GitHub's word counts. Of what GitHub
// does not show any more, or under another name, the secrets can still be found.
func (v *Service) secretsOwner(ctx context.Context, repository string) (int64, error) {
	owner, name, err := store.SplitRepository(repository)
	if err != nil {
		return 0, err
	}
	shown, err := v.repository(ctx, owner, name)
	if !fault.Is(err, fault.NotFound) {
		return shown.GetId(), err
	}
	id, err := v.secretsRepository(ctx, repository)
	if err == nil && id == 0 {
		err = fault.Newf(fault.NotFound, "GitHub shows Forge no repository %s, and no secret is kept for one of that name", repository)
	}
	return id, err
}

func (s storedSecret) shown() *schedulerv1.Secret {
	shown := &schedulerv1.Secret{
		Repository: s.repository, Environment: s.environment, Name: s.name, UpdateTime: timestamppb.New(s.updated), Branches: s.branches,
	}
	if s.environment == "" {
		shown.Uses = s.uses.list()
	}
	return shown
}

// UnavailableError is why a build does not get what it needs, for people.
type UnavailableError string

func (n UnavailableError) Error() string { return string(n) }

// SecretsFor are the secrets that a build gets, and what its log says of those it does
// not get. A build never runs without one that is meant for it: the error, then,
// is noSecretsError.
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
	all, err := v.secretsOf(ctx, b.GetRepository().GetId())
	if err != nil {
		return nil, nil, fmt.Errorf("secrets of %s: %w", wording.FullName(b.GetRepository()), err)
	}
	secrets = map[string]string{}
	var missing, barred []string
	for _, name := range names {
		secret, bound := pick(all, name, environmentOf(b))
		why := ""
		if secret != nil {
			why = secret.barred(b)
		}
		switch {
		case why != "":
			barred = append(barred, why)
		case secret != nil:
			if secrets[name], err = v.keyring.Open(secret.secretSlot, secret.keyID, secret.sealed); err != nil {
				return nil, nil, UnavailableError(fmt.Sprintf("secret %s cannot be decrypted: %v; or set it again", name, err))
			}
		case len(bound) > 0:
			notices = append(notices, fmt.Sprintf("forge: secret %s is only for deploys to %s", name, strings.Join(bound, " and ")))
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
	all, err := v.secretsOf(ctx, repositoryID)
	if err != nil {
		return "", "", fmt.Errorf("secrets of repository %d: %w", repositoryID, err)
	}
	secret, bound := pick(all, name, "")
	switch {
	case secret == nil && len(bound) > 0:
		return "", fmt.Sprintf("secret %s is only for deploys to %s", name, strings.Join(bound, " and ")), nil
	case secret == nil:
		return "", "no secret " + name, nil
	}
	if value, err = v.keyring.Open(secret.secretSlot, secret.keyID, secret.sealed); err != nil {
		return "", fmt.Sprintf("secret %s cannot be decrypted: %v; or set it again", name, err), nil
	}
	return value, "", nil
}

// pick finds the secret of a name that counts for an environment: its own, else
// the repository's. Without one, it names the environments that have one.
func pick(all []storedSecret, name, environment string) (secret *storedSecret, bound []string) {
	for i := range all {
		switch s := &all[i]; {
		case s.name != name:
		case s.environment == environment:
			return s, nil
		case s.environment == "":
			secret = s
		default:
			bound = append(bound, s.environment)
		}
	}
	slices.Sort(bound)
	return secret, bound
}

// Renew encrypts with the first key what is encrypted with another, and
// says which keys are missing.
func (v *Service) Renew(ctx context.Context) error {
	outdated, err := v.outdatedSecrets(ctx, v.keyring.First())
	if err != nil {
		return fmt.Errorf("secrets of other keys: %w", err)
	}
	renewed, lost := 0, map[string]int{}
	for _, secret := range outdated {
		value, err := v.keyring.Open(secret.secretSlot, secret.keyID, secret.sealed)
		if err != nil {
			lost[secret.keyID]++
			continue
		}
		keyID, sealed, err := v.keyring.Seal(secret.secretSlot, value)
		if err != nil {
			return err
		}
		if err := v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return resealSecret(ctx, t, secret, keyID, sealed) }); err != nil {
			return fmt.Errorf("secret %s of %s with key %s: %w", secret.name, secret.repository, keyID, err)
		}
		renewed++
	}
	registries, err := v.renewRegistries(ctx, lost)
	if err != nil {
		return err
	}
	renewed += registries
	if renewed > 0 {
		v.log.InfoContext(ctx, "secrets were encrypted anew", "key", v.keyring.First(), "secrets", renewed)
	}
	for keyID, count := range lost {
		v.log.ErrorContext(ctx, "secrets cannot be decrypted, and builds that need them do not run: "+
			"add their key to FORGE_SECRETS_KEY, or set them again", "key", keyID, "secrets", count)
	}
	return nil
}
