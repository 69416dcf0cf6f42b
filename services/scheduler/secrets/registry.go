package secrets

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

const longestHost = 253 + len(":65535")

// registryHost is a host as names of images have it: one with a dot or a port, or
// localhost, since what stands before the first / is else a part of the path.
var registryHost = regexp.MustCompile(`^(?:localhost|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?:[0-9]{1,5}|localhost:[0-9]{1,5}|\[[0-9a-f:]+\](?::[0-9]{1,5})?)$`)

// RegistryHost is a registry's host as names of images have it, whatever people call it.
// "" is for what cannot be one.
func RegistryHost(host string) string {
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	if len(host) > longestHost || !registryHost.MatchString(host) {
		return ""
	}
	return host
}

// SetRegistryCredentials stores what a repository shows to a registry.
func (v *Service) SetRegistryCredentials(ctx context.Context, req *schedulerv1.SetRegistryCredentialsRequest) (*schedulerv1.SetRegistryCredentialsResponse, error) {
	host, err := checkRegistry(req)
	if err != nil {
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
	r := storedRegistry{
		registrySlot: registrySlot{repository.GetId(), req.GetEnvironment(), host}, reach: reach,
		repository: wording.FullName(repository), username: req.GetUsername(), updated: v.now(),
	}
	if r.keyID, r.sealed, err = v.keyring.Seal(r.registrySlot, req.GetPassword()); err != nil {
		return nil, err
	}
	if err := v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if err := saveRegistry(ctx, t, r); err != nil {
			return err
		}
		return auditedRegistry(ctx, t, schedulerv1.AuditEntry_ACTION_SET_REGISTRY, r.registrySlot, r.repository)
	}); err != nil {
		return nil, fmt.Errorf("set credentials of %s for %s: %w", r.host, r.repository, err)
	}
	return &schedulerv1.SetRegistryCredentialsResponse{Credentials: r.shown()}, nil
}

func checkRegistry(req *schedulerv1.SetRegistryCredentialsRequest) (host string, err error) {
	host = RegistryHost(req.GetHost())
	switch {
	case host == "":
		return "", fault.Newf(fault.Invalid, "host: %q is not the host of a registry, such as ghcr.io, registry.example.com:5000 or docker.io", req.GetHost())
	case req.GetPassword() == "":
		return "", fault.New(fault.Invalid, "password: it is empty")
	case len(req.GetPassword()) > largestSecret:
		return "", fault.Newf(fault.Invalid, "password: at most %d KiB", largestSecret>>10)
	case len(req.GetUsername()) > longestName || strings.ContainsAny(req.GetUsername(), ":\n\r\x00"):
		return "", fault.Newf(fault.Invalid, "username: at most %d characters, without a colon and line ends", longestName)
	case strings.ContainsAny(req.GetPassword(), "\n\r\x00"):
		return "", fault.New(fault.Invalid, "password: one line, without NUL")
	case req.GetEnvironment() != "":
		return host, trigger.CheckEnvironment(req.GetEnvironment())
	}
	return host, nil
}

// ListRegistryCredentials lists them.
func (v *Service) ListRegistryCredentials(ctx context.Context, req *schedulerv1.ListRegistryCredentialsRequest) (*schedulerv1.ListRegistryCredentialsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var after registrySlot
	if err := rpc.ParsePageToken(req.GetPageToken(), &after.repositoryID, &after.environment, &after.host); err != nil {
		return nil, err
	}
	var of int64
	if req.GetRepository() != "" {
		if of, err = v.secretsOwner(ctx, req.GetRepository()); err != nil {
			return nil, err
		}
	}
	found, err := v.listRegistries(ctx, of, after, size+1)
	if err != nil {
		return nil, fmt.Errorf("list credentials of registries: %w", err)
	}
	answer := &schedulerv1.ListRegistryCredentialsResponse{}
	if len(found) > size {
		found = found[:size]
		last := found[size-1]
		answer.NextPageToken = rpc.PageToken(last.repositoryID, last.environment, last.host)
	}
	for _, r := range found {
		answer.Credentials = append(answer.Credentials, r.shown())
	}
	return answer, nil
}

// DeleteRegistryCredentials removes what a repository shows to a registry.
func (v *Service) DeleteRegistryCredentials(ctx context.Context, req *schedulerv1.DeleteRegistryCredentialsRequest) (*schedulerv1.DeleteRegistryCredentialsResponse, error) {
	of, err := v.secretsOwner(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	slot := registrySlot{of, req.GetEnvironment(), RegistryHost(req.GetHost())}
	err = v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		found, err := deleteRegistry(ctx, t, slot)
		if err == nil && !found {
			return fault.Newf(fault.NotFound, "%s has no credentials of %s%s", req.GetRepository(), req.GetHost(), onlyFor(req.GetEnvironment()))
		}
		if err != nil {
			return err
		}
		return auditedRegistry(ctx, t, schedulerv1.AuditEntry_ACTION_DELETE_REGISTRY, slot, req.GetRepository())
	})
	return &schedulerv1.DeleteRegistryCredentialsResponse{}, err
}

// auditedRegistry writes into the audit log what was done: never the password.
func auditedRegistry(ctx context.Context, t *store.Tx, action schedulerv1.AuditEntry_Action, slot registrySlot, repository string) error {
	return audit.Add(ctx, t, slot.repositoryID, &schedulerv1.AuditEntry{
		Action: action, Repository: repository, Environment: slot.environment, Subject: slot.host,
	})
}

func (r storedRegistry) shown() *schedulerv1.RegistryCredentials {
	shown := &schedulerv1.RegistryCredentials{
		Repository: r.repository, Environment: r.environment, Host: r.host, Username: r.username, UpdateTime: timestamppb.New(r.updated), Branches: r.branches,
	}
	if r.environment == "" {
		shown.Uses = r.uses.list()
	}
	return shown
}

// RegistryLogin is what a build of a repository may show to a registry.
type RegistryLogin struct {
	Username, Password string
	// Withheld is why the build has nothing to show though there is something; "" where
	// it has it, and where there is nothing.
	Withheld string
}

// RegistryFor is what the repository has for a registry and this build may show. A
// fork's build has nothing, nor that of a bot which the server does not trust: as with
// secrets.
func (v *Service) RegistryFor(ctx context.Context, b *store.Build, host string) (RegistryLogin, error) {
	all, err := v.registriesOf(ctx, b.GetRepository().GetId(), host)
	if err != nil {
		return RegistryLogin{}, fmt.Errorf("credentials of %s for %s: %w", wording.FullName(b.GetRepository()), host, err)
	}
	if len(all) == 0 {
		return RegistryLogin{}, nil
	}
	switch {
	case b.GetFork():
		return RegistryLogin{Withheld: fmt.Sprintf("the credentials for %s are not for builds of forks", host)}, nil
	case b.GetSecretsWithheld():
		return RegistryLogin{Withheld: fmt.Sprintf("the credentials for %s are not for a bot's pull request, unless the server trusts the bot by name (FORGE_TRUSTED_BOTS)", host)}, nil
	}
	environment := environmentOf(b)
	at := slices.IndexFunc(all, func(r storedRegistry) bool { return r.environment == environment })
	if at < 0 {
		at = slices.IndexFunc(all, func(r storedRegistry) bool { return r.environment == "" })
	}
	if at < 0 {
		return RegistryLogin{Withheld: fmt.Sprintf("the credentials for %s are only for deploys to %s", host, all[0].environment)}, nil
	}
	r := all[at]
	command := fmt.Sprintf("forge secrets registry set %s --repo %s", host, wording.FullName(b.GetRepository()))
	if why := r.bars(b, r.environment, "what is set for "+host, command); why != "" {
		return RegistryLogin{Withheld: why}, nil
	}
	password, err := v.keyring.Open(r.registrySlot, r.keyID, r.sealed)
	if err != nil {
		return RegistryLogin{}, UnavailableError(fmt.Sprintf("the credentials for %s cannot be decrypted: %v; or set them again", host, err))
	}
	return RegistryLogin{Username: r.username, Password: password}, nil
}

// renewRegistries is Renew for what is shown to registries.
func (v *Service) renewRegistries(ctx context.Context, lost map[string]int) (renewed int, err error) {
	outdated, err := v.outdatedRegistries(ctx, v.keyring.First())
	if err != nil {
		return 0, fmt.Errorf("credentials of registries of other keys: %w", err)
	}
	for _, r := range outdated {
		password, err := v.keyring.Open(r.registrySlot, r.keyID, r.sealed)
		if err != nil {
			lost[r.keyID]++
			continue
		}
		keyID, sealed, err := v.keyring.Seal(r.registrySlot, password)
		if err != nil {
			return renewed, err
		}
		if err := v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return resealRegistry(ctx, t, r, keyID, sealed) }); err != nil {
			return renewed, fmt.Errorf("credentials of %s for %s with key %s: %w", r.repository, r.host, keyID, err)
		}
		renewed++
	}
	return renewed, nil
}
