package attempt

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// Trust says whose builds may have the host at their mercy, and what of it.
type Trust struct {
	// Repositories are patterns of owner/name. What is merged or pushed there may run
	// privileged and have Volumes.
	Repositories []string
	// Volumes are folders of the host by name.
	Volumes map[string]string
}

// covers reports whether a build may have the host at its mercy: that of a merged
// or pushed commit of a repository that the server trusts. Whoever opens a pull
// request must gain nothing by it before somebody has merged it, not by a merge
// group or a rebuild either; a fork's commit is nobody's whom the server knows.
func (t Trust) covers(b *store.Build) bool {
	name := strings.ToLower(wording.FullName(b.GetRepository()))
	if !slices.ContainsFunc(t.Repositories, func(pattern string) bool {
		return doublestar.MatchUnvalidated(strings.ToLower(pattern), name)
	}) {
		return false
	}
	return ofRepository(b)
}

// ofRepository reports whether a build is of what somebody with write access has merged
// or pushed: no pull request, its merge group and preview included, no fork, and no
// working tree.
func ofRepository(b *store.Build) bool {
	if b.GetFork() || b.IsRemote() {
		return false
	}
	switch b.GetAction() {
	case schedulerv1.Build_ACTION_DEPLOY_STAGING, schedulerv1.Build_ACTION_DEPLOY_PRODUCTION, schedulerv1.Build_ACTION_DEPLOY:
		return true
	case schedulerv1.Build_ACTION_PUSH, schedulerv1.Build_ACTION_RELEASE: // a push that an admin's call imagines is none
		return b.GetPullRequest() == 0 && (b.GetDeliveryId() != "" || b.GetRetryOf() != "")
	case schedulerv1.Build_ACTION_MANUAL: // what a branch or a tag of the repository holds
		return b.GetPullRequest() == 0
	case schedulerv1.Build_ACTION_SCHEDULE: // what a branch of the repository holds
		return b.GetSchedule() != ""
	default:
		return false
	}
}

// privilege grants what .forge.yml asks for of the host, or takes it out of the spec
// and says so in the log.
func (s *Service) privilege(b *store.Build, spec *engine.Spec) {
	const why = "only merged and pushed commits of repositories that this server trusts may (FORGE_TRUSTED_REPOSITORIES)"
	trusted := s.trust.covers(b)
	switch asked := b.ConfigJob().GetPrivileged(); {
	case asked && trusted:
		spec.Privileged = true
	case asked:
		spec.Sayf("the build does not run privileged: %s", why)
	}
	spec.Sidecars = slices.DeleteFunc(spec.Sidecars, func(one engine.Sidecar) bool {
		refused := one.Privileged && !trusted
		if refused {
			spec.Sayf("service %s is left out, for it would run privileged: %s", one.Name, why)
		}
		return refused
	})
	for _, name := range slices.Sorted(maps.Keys(b.ConfigJob().GetVolumes())) {
		switch source := s.trust.Volumes[name]; {
		case !trusted:
			spec.Sayf("volume %s is left out: %s", name, why)
		case source == "":
			spec.Sayf("volume %s is left out: this server has none of that name (FORGE_BUILD_VOLUMES)", name)
		default:
			spec.Volumes = append(spec.Volumes, engine.Volume{Source: source, Target: b.ConfigJob().GetVolumes()[name]})
		}
	}
}

// Check refuses patterns that could match no repository, or any by mistake, and
// volumes that are no folders.
func (t Trust) Check() error {
	for _, pattern := range t.Repositories {
		if !doublestar.ValidatePattern(pattern) || strings.Count(pattern, "/") != 1 || strings.Contains(pattern, "**") {
			return fmt.Errorf("FORGE_TRUSTED_REPOSITORIES: %q is not a pattern of repositories: write owner/name, such as acme/shop or acme/*", pattern)
		}
	}
	for name, source := range t.Volumes {
		if name == "" || !strings.HasPrefix(source, "/") || source == "/" {
			return fmt.Errorf("FORGE_BUILD_VOLUMES: %s=%s is not the name of a folder: write name=/path", name, source)
		}
	}
	return nil
}
