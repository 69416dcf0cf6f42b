package secrets

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

const (
	longestHost = 253 + len(":65535")
	largestPort = 65535
)

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
	if at := strings.LastIndexByte(host, ':'); at > strings.LastIndexByte(host, ']') {
		if port, err := strconv.Atoi(host[at+1:]); err != nil || port < 1 || port > largestPort {
			return ""
		}
	}
	return host
}

// SetRegistryCredentials stores what a repository shows to a registry.
func (v *Service) SetRegistryCredentials(ctx context.Context, req *schedulerv1.SetRegistryCredentialsRequest) (*schedulerv1.SetRegistryCredentialsResponse, error) {
	set, err := v.set(ctx, &credentials, req, asked{req.GetHost(), req.GetUsername(), req.GetPassword()})
	if err != nil {
		return nil, err
	}
	return &schedulerv1.SetRegistryCredentialsResponse{Credentials: set.credentials()}, nil
}

func checkRegistry(of asked) error {
	switch {
	case RegistryHost(of.name) == "":
		return fault.Newf(fault.Invalid, "host: %q is not the host of a registry, such as ghcr.io, registry.example.com:5000 or docker.io", of.name)
	case of.username == "":
		return fault.New(fault.Invalid, "username: whose password is it? A registry that goes by a token alone takes any name")
	case len(of.username) > longestName || strings.ContainsAny(of.username, ":\n\r\x00"):
		return fault.Newf(fault.Invalid, "username: at most %d characters, without a colon and line ends", longestName)
	case strings.ContainsAny(of.value, "\n\r\x00"):
		return fault.New(fault.Invalid, "password: one line, without NUL")
	}
	return nil
}

// ListRegistryCredentials lists them.
func (v *Service) ListRegistryCredentials(ctx context.Context, req *schedulerv1.ListRegistryCredentialsRequest) (*schedulerv1.ListRegistryCredentialsResponse, error) {
	found, next, err := v.list(ctx, &credentials, req)
	if err != nil {
		return nil, err
	}
	answer := &schedulerv1.ListRegistryCredentialsResponse{NextPageToken: next}
	for _, s := range found {
		answer.Credentials = append(answer.Credentials, s.credentials())
	}
	return answer, nil
}

// DeleteRegistryCredentials removes what a repository shows to a registry.
func (v *Service) DeleteRegistryCredentials(ctx context.Context, req *schedulerv1.DeleteRegistryCredentialsRequest) (*schedulerv1.DeleteRegistryCredentialsResponse, error) {
	return &schedulerv1.DeleteRegistryCredentialsResponse{}, v.delete(ctx, &credentials, req, req.GetHost())
}

func (s kept) credentials() *schedulerv1.RegistryCredentials {
	return &schedulerv1.RegistryCredentials{
		Repository: s.repository, Environment: s.environment, Host: s.name, Username: s.username,
		UpdateTime: timestamppb.New(s.updated), Uses: s.shownUses(), Branches: s.branches,
	}
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
	all, err := v.of(ctx, &credentials, b.GetRepository().GetId())
	if err != nil {
		return RegistryLogin{}, fmt.Errorf("credentials of %s for %s: %w", wording.FullName(b.GetRepository()), host, err)
	}
	found, bound := pick(all, host, environmentOf(b))
	var why string
	switch {
	case found == nil && len(bound) == 0:
		return RegistryLogin{}, nil
	case b.GetFork():
		why = fmt.Sprintf("the credentials for %s are not for builds of forks", host)
	case b.GetSecretsWithheld():
		why = fmt.Sprintf("the credentials for %s are not for a bot's pull request, unless the server trusts the bot by name (FORGE_TRUSTED_BOTS)", host)
	case found == nil:
		why = credentials.elsewhere(host, bound)
	default:
		why = found.bars(b)
	}
	if why != "" {
		return RegistryLogin{Withheld: why}, nil
	}
	password, err := v.open(found)
	if err != nil {
		return RegistryLogin{}, err
	}
	return RegistryLogin{Username: found.username, Password: password}, nil
}
