package trigger

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// pullRequestHole stands for the number of the pull request in the name of a preview.
const pullRequestHole = "${pull_request}"

// IsPreview reports whether an action deploys to the preview of a pull request, or takes
// that down. What it runs nobody has merged: it is trusted as a test is.
func IsPreview(action schedulerv1.Build_Action) bool {
	return action == schedulerv1.Build_ACTION_PREVIEW || action == schedulerv1.Build_ACTION_STOP
}

// HasPreviews reports whether a file has previews for its pull requests.
func HasPreviews(c *configv1.BuildConfig) bool {
	return slices.ContainsFunc(c.GetEnvironments(), func(e *configv1.Destination) bool { return e.GetPreview() != "" })
}

// ruleOf is what the default branch's file says of a preview of another file; nil where
// it has none of that key.
func ruleOf(standard *configv1.BuildConfig, e *configv1.Destination) *configv1.Destination {
	for _, rule := range standard.GetEnvironments() {
		if rule.GetName() == e.GetName() && rule.GetPreview() != "" && e.GetPreview() != "" {
			return rule
		}
	}
	return nil
}

// PreviewLabels are those that the previews of a file need, by the default branch's.
func PreviewLabels(c, standard *configv1.BuildConfig) []string {
	var all []string
	for _, e := range c.GetEnvironments() {
		all = append(all, ruleOf(standard, e).GetLabels()...)
	}
	return all
}

// Previews are those that a pull request is to have, under the names that they have for
// it. Its own file says what they run. The default branch's says which there are, how
// they are called and which labels they need, so that nobody takes with a pull request
// the name of another environment.
func Previews(c, standard *configv1.BuildConfig, pull *eventv1.PullRequest) []*configv1.Destination {
	var all []*configv1.Destination
	number := strconv.Itoa(int(pull.GetNumber()))
	for _, e := range c.GetEnvironments() {
		rule := ruleOf(standard, e)
		name := strings.Replace(rule.GetPreview(), pullRequestHole, number, 1)
		labels := rule.GetLabels()
		unlabelled := len(labels) > 0 && !slices.ContainsFunc(labels, func(label string) bool { return slices.Contains(pull.GetLabels(), label) })
		if rule == nil || unlabelled || !IsEnvironment(name) {
			continue
		}
		e = proto.CloneOf(e)
		e.Name, e.Preview = name, rule.GetPreview()
		e.Execute.Url = strings.ReplaceAll(e.GetExecute().GetUrl(), pullRequestHole, number)
		all = append(all, e)
	}
	return all
}

// stopped is what takes a preview down, in a file that holds its environment alone.
func stopped(c *configv1.BuildConfig) *configv1.Pipeline {
	if len(c.GetEnvironments()) != 1 {
		return nil
	}
	return c.GetEnvironments()[0].GetStop()
}
