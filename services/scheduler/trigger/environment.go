package trigger

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// The environments that merges deploy to where the file says nothing else.
const (
	toStaging    = "staging"
	toProduction = "production"
)

// environmentName is what a .forge.yml can call an environment.
var environmentName = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?$`)

// CheckEnvironment is fault.Invalid for a name that no environment has.
func CheckEnvironment(name string) error {
	if !IsEnvironment(name) {
		return fault.Newf(fault.Invalid, "environment %q: expected a name such as staging or production: small letters, digits and -, 50 at most", name)
	}
	return nil
}

// IsEnvironment reports whether an environment may have such a name.
func IsEnvironment(name string) bool { return environmentName.MatchString(name) }

// DeployTo is the action that deploys to an environment; unspecified for none.
func DeployTo(environment string) schedulerv1.Build_Action {
	switch environment {
	case "":
		return schedulerv1.Build_ACTION_UNSPECIFIED
	case toStaging:
		return schedulerv1.Build_ACTION_DEPLOY_STAGING
	case toProduction:
		return schedulerv1.Build_ACTION_DEPLOY_PRODUCTION
	default:
		return schedulerv1.Build_ACTION_DEPLOY
	}
}

// ActionName is FORGE_ACTION, and the commit status after "forge/".
func ActionName(action schedulerv1.Build_Action, environment string) string {
	switch action { //nolint:exhaustive // the others have one name each
	case schedulerv1.Build_ACTION_DEPLOY, schedulerv1.Build_ACTION_PREVIEW:
		return "deploy-" + environment
	case schedulerv1.Build_ACTION_STOP:
		return "stop-" + environment
	}
	return ActionOf(action).Name
}

// deployed is what a deploy runs, in a file that holds its environment alone.
func deployed(c *configv1.BuildConfig) *configv1.Pipeline {
	if len(c.GetEnvironments()) != 1 {
		return nil
	}
	return c.GetEnvironments()[0].GetExecute()
}

// Environments are all that a file deploys to but previews, in its order, staging and production
// first where it says of them no more than what they run.
func Environments(c *configv1.BuildConfig) []*configv1.Destination {
	var all []*configv1.Destination
	for name, pipeline := range map[string]*configv1.Pipeline{toStaging: c.GetDeployStaging(), toProduction: c.GetDeployProduction()} {
		said := slices.ContainsFunc(c.GetEnvironments(), func(e *configv1.Destination) bool { return e.GetName() == name })
		if Runs(pipeline) && !said {
			all = append(all, &configv1.Destination{Name: name})
		}
	}
	slices.SortFunc(all, func(a, b *configv1.Destination) int { return strings.Compare(b.GetName(), a.GetName()) })
	return append(all, slices.DeleteFunc(slices.Clone(c.GetEnvironments()), func(e *configv1.Destination) bool { return e.GetPreview() != "" })...)
}

// EnvironmentOf is what a file says of an environment; nil where it has nothing for it.
func EnvironmentOf(c *configv1.BuildConfig, name string) *configv1.Destination {
	all := Environments(c)
	at := slices.IndexFunc(all, func(e *configv1.Destination) bool { return e.GetName() == name })
	if at < 0 {
		return nil
	}
	return all[at]
}

// Alone leaves one of a file's environments in it.
func Alone(c *configv1.BuildConfig, name string) {
	c.Environments = slices.DeleteFunc(c.GetEnvironments(), func(e *configv1.Destination) bool { return e.GetName() != name })
}

// ByMerge reports whether merges deploy to an environment.
func ByMerge(e *configv1.Destination) bool {
	return (e.GetName() == toStaging || e.GetName() == toProduction) && !byPush(e) && e.GetAfter() == ""
}

func byPush(e *configv1.Destination) bool { return len(e.GetBranches())+len(e.GetTags()) > 0 }

// ByPush reports whether a push to a ref deploys to an environment.
func ByPush(e *configv1.Destination, ref string) bool {
	if branch, isBranch := strings.CutPrefix(ref, BranchRef); isBranch {
		return MatchAny(e.GetBranches(), branch)
	}
	tag, isTag := strings.CutPrefix(ref, TagRef)
	return isTag && MatchAny(e.GetTags(), tag)
}

// Takes reports whether what is at a ref can come to an environment, by a push or
// after another.
func Takes(e *configv1.Destination, ref string) bool {
	return ByPush(e, ref) || (e.GetAfter() != "" && !byPush(e))
}

// Following are the environments of a file that whatever is deployed to the named one
// goes on to.
func Following(c *configv1.BuildConfig, name string) []*configv1.Destination {
	return slices.DeleteFunc(Environments(c), func(e *configv1.Destination) bool { return e.GetAfter() != name || byPush(e) })
}

// Narrow has a file ask of each environment what the default branch's file asks of it
// besides. Whoever may push to some branch may not change with it what holds for an
// environment, nor have one of his own, whose secrets may be there: a branch's own file
// can ask for more, and not for less. It returns why an environment is out of the ref's
// reach, by name.
func Narrow(c, standard *configv1.BuildConfig, ref, standardBranch string) map[string]*eventv1.Decision {
	out := map[string]*eventv1.Decision{}
	for _, e := range c.GetEnvironments() {
		if e.GetPreview() != "" { // no push deploys to one
			continue
		}
		rule := EnvironmentOf(standard, e.GetName())
		if rule == nil {
			out[e.GetName()] = wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, ".forge.yml of %s has no environment %s, or errors", cmp.Or(standardBranch, "the default branch"), e.GetName())
			continue
		}
		if !Takes(rule, ref) {
			out[e.GetName()] = wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "deploy.%s in .forge.yml of %s does not name %s",
				e.GetName(), standardBranch, strings.TrimPrefix(strings.TrimPrefix(ref, BranchRef), TagRef))
			continue
		}
		if rule.GetAfter() != "" {
			e.After = rule.GetAfter()
		}
		if !byPush(rule) { // no push deploys there by itself
			e.Branches, e.Tags = nil, nil
		}
		if e.Approval = e.GetApproval() || rule.GetApproval(); len(rule.GetApprovers()) > 0 {
			e.Approvers = rule.GetApprovers()
		}
	}
	return out
}
