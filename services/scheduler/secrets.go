package scheduler

import (
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/mask"
)

const (
	// mostSecrets is per repository and environment, and bounds a plan.
	mostSecrets = 100
	// largestSecret is in bytes, and well below what Linux lets a variable hold.
	largestSecret = 48 << 10
	longestName   = 100
)

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// setByOthers are variables that a secret would not reach, or would break the
// shell by.
var setByOthers = []string{
	"CI", "FORGE", "TRACEPARENT",
	"PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "IFS", "ENV", "PS4", "LD_PRELOAD", "LD_LIBRARY_PATH",
}

// SetSecret stores a secret.
func (s *Service) SetSecret(ctx context.Context, req *schedulerv1.SetSecretRequest) (*schedulerv1.SetSecretResponse, error) {
	if err := checkSecret(req); err != nil {
		return nil, err
	}
	owner, name, err := splitRepository(req.GetRepository())
	if err != nil {
		return nil, err
	}
	repository, err := s.repository(ctx, owner, name)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Newf(fault.NotFound, "GitHub shows Forge no repository %s: is it the right name, and is the App installed there?", req.GetRepository())
	}
	if err != nil {
		return nil, err
	}
	secret := storedSecret{
		secretSlot: secretSlot{repository.GetId(), req.GetEnvironment(), req.GetName()}, repository: fullName(repository), updated: s.Now(),
	}
	if secret.keyID, secret.sealed, err = s.keyring.seal(secret.secretSlot, req.GetValue()); err != nil {
		return nil, err
	}
	if err := s.write(ctx, func(ctx context.Context, t *tx) error { return t.saveSecret(ctx, secret) }); err != nil {
		return nil, fmt.Errorf("set secret %s of %s: %w", secret.name, secret.repository, err)
	}
	answer := &schedulerv1.SetSecretResponse{Secret: secret.shown()}
	if len(strings.TrimSpace(req.GetValue())) < mask.Shortest {
		answer.Warning = fmt.Sprintf("a value of under %d bytes is not masked in logs", mask.Shortest)
	}
	return answer, nil
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
		return checkEnvironment(req.GetEnvironment())
	}
	return nil
}

func setElsewhere(name string) bool {
	return strings.HasPrefix(name, "FORGE_") || slices.Contains(setByOthers, name)
}

// ListSecrets lists secrets.
func (s *Service) ListSecrets(ctx context.Context, req *schedulerv1.ListSecretsRequest) (*schedulerv1.ListSecretsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parseSecretToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	var of int64
	if req.GetRepository() != "" {
		if of, err = s.secretsOwner(ctx, req.GetRepository()); err != nil {
			return nil, err
		}
	}
	found, err := s.store.listSecrets(ctx, of, after, size+1)
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	answer := &schedulerv1.ListSecretsResponse{}
	if len(found) > size {
		found = found[:size]
		answer.NextPageToken = found[size-1].token()
	}
	for _, secret := range found {
		answer.Secrets = append(answer.Secrets, secret.shown())
	}
	return answer, nil
}

// DeleteSecret removes a secret.
func (s *Service) DeleteSecret(ctx context.Context, req *schedulerv1.DeleteSecretRequest) (*schedulerv1.DeleteSecretResponse, error) {
	of, err := s.secretsOwner(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		found, err := t.deleteSecret(ctx, secretSlot{of, req.GetEnvironment(), req.GetName()})
		if err == nil && !found {
			return fault.Newf(fault.NotFound, "%s has no secret %s%s", req.GetRepository(), req.GetName(), onlyFor(req.GetEnvironment()))
		}
		return err
	})
	return &schedulerv1.DeleteSecretResponse{}, err
}

func onlyFor(environment string) string {
	if environment == "" {
		return ""
	}
	return " for " + environment
}

// secretsOwner is the id of a repository: GitHub's word counts. Of what GitHub
// does not show any more, or under another name, the secrets can still be found.
func (s *Service) secretsOwner(ctx context.Context, repository string) (int64, error) {
	owner, name, err := splitRepository(repository)
	if err != nil {
		return 0, err
	}
	shown, err := s.repository(ctx, owner, name)
	if !fault.Is(err, fault.NotFound) {
		return shown.GetId(), err
	}
	id, err := s.store.secretsRepository(ctx, repository)
	if err == nil && id == 0 {
		err = fault.Newf(fault.NotFound, "GitHub shows Forge no repository %s, and no secret is kept for one of that name", repository)
	}
	return id, err
}

func (s storedSecret) shown() *schedulerv1.Secret {
	return &schedulerv1.Secret{Repository: s.repository, Environment: s.environment, Name: s.name, UpdateTime: timestamppb.New(s.updated)}
}

// token is that of a page which ended with this slot.
func (s secretSlot) token() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(s.repositoryID, 10) + "/" + s.environment + "/" + s.name))
}

func parseSecretToken(token string) (secretSlot, error) {
	if token == "" {
		return secretSlot{}, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	parts := strings.Split(string(text), "/")
	if err != nil || len(parts) != 3 {
		return secretSlot{}, fault.New(fault.Invalid, "page_token is not one of ours")
	}
	id, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return secretSlot{}, fault.New(fault.Invalid, "page_token is not one of ours")
	}
	return secretSlot{id, parts[1], parts[2]}, nil
}

// noSecretsError is why a build does not get what it needs, for people.
type noSecretsError string

func (n noSecretsError) Error() string { return string(n) }

// handed are the secrets that a build gets, and what its log says of those it does
// not get. A build never runs without one that is meant for it: the error, then,
// is noSecretsError.
func (s *Service) handed(ctx context.Context, b *build) (secrets map[string]string, notices []string, err error) {
	if b.GetSecretsWithheld() {
		notices = append(notices, "forge: .forge.yml names secrets; a fork's build gets none")
	}
	names := b.config.GetSecrets()
	if b.GetFork() || len(names) == 0 {
		return nil, notices, nil
	}
	all, err := s.store.secretsOf(ctx, b.GetRepository().GetId())
	if err != nil {
		return nil, nil, fmt.Errorf("secrets of %s: %w", fullName(b.GetRepository()), err)
	}
	secrets = map[string]string{}
	var missing []string
	for _, name := range names {
		secret, bound := meant(all, name, b.GetEnvironment())
		switch {
		case secret != nil:
			if secrets[name], err = s.keyring.open(secret.secretSlot, secret.keyID, secret.sealed); err != nil {
				return nil, nil, noSecretsError(fmt.Sprintf("secret %s cannot be decrypted: %v", name, err))
			}
		case len(bound) > 0:
			notices = append(notices, fmt.Sprintf("forge: secret %s is only for deploys to %s", name, strings.Join(bound, " and ")))
		default:
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, nil, noSecretsError(fmt.Sprintf("no secret %s: forge secrets set %s --repo %s",
			strings.Join(missing, ", "), missing[0], fullName(b.GetRepository())))
	}
	return secrets, notices, nil
}

// meant finds the secret of a name that counts for an environment: its own, else
// the repository's. Without one, it names the environments that have one.
func meant(all []storedSecret, name, environment string) (secret *storedSecret, bound []string) {
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

// renewSecrets encrypts with the first key what is encrypted with another, and
// says which keys are missing.
func (s *Service) renewSecrets(ctx context.Context) error {
	outdated, err := s.store.outdatedSecrets(ctx, s.keyring.keys[0].id)
	if err != nil {
		return fmt.Errorf("secrets of other keys: %w", err)
	}
	renewed, lost := 0, map[string]int{}
	for _, secret := range outdated {
		value, err := s.keyring.open(secret.secretSlot, secret.keyID, secret.sealed)
		if err != nil {
			lost[secret.keyID]++
			continue
		}
		keyID, sealed, err := s.keyring.seal(secret.secretSlot, value)
		if err != nil {
			return err
		}
		if err := s.write(ctx, func(ctx context.Context, t *tx) error { return t.resealSecret(ctx, secret, keyID, sealed) }); err != nil {
			return fmt.Errorf("secret %s of %s with key %s: %w", secret.name, secret.repository, keyID, err)
		}
		renewed++
	}
	if renewed > 0 {
		s.Log.InfoContext(ctx, "secrets were encrypted anew", "key", s.keyring.keys[0].id, "secrets", renewed)
	}
	for keyID, count := range lost {
		s.Log.ErrorContext(ctx, "secrets cannot be decrypted, and builds that need them do not run: "+
			"add their key to FORGE_SECRETS_KEY, or set them again", "key", keyID, "secrets", count)
	}
	return nil
}
