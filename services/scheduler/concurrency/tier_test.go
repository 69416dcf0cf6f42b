package concurrency

import (
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// of is a build with a ref, as changes leave it.
func of(action schedulerv1.Build_Action, ref string, changes ...func(*store.Build)) *store.Build {
	b := &store.Build{
		Build:  &schedulerv1.Build{Action: action, Ref: ref, Sha: "abc", Repository: &eventv1.Repository{Id: 1, DefaultBranch: "trunk"}},
		Config: &configv1.BuildConfig{Concurrency: &configv1.Concurrency{Group: "refs/heads/main"}},
	}
	for _, change := range changes {
		change(b)
	}
	return b
}

func pull(number int32) func(*store.Build) {
	return func(b *store.Build) { b.PullRequest, b.BaseRef = number, "main" }
}

func fork(b *store.Build) { b.Fork = true }

func bot(b *store.Build) { b.SecretsWithheld = true }

func in(environment string) func(*store.Build) {
	return func(b *store.Build) { b.Environment = environment }
}

// Whoever names a group, whatever its name, shares it with none of another tier.
func TestTiersOfBuilds(t *testing.T) {
	const (
		test, push, closed = schedulerv1.Build_ACTION_TEST, schedulerv1.Build_ACTION_PUSH, schedulerv1.Build_ACTION_CLOSED
		head, queue        = "refs/pull/7/head", "refs/heads/gh-readonly-queue/main/pr-7-0123"
		manual, nightly    = schedulerv1.Build_ACTION_MANUAL, schedulerv1.Build_ACTION_SCHEDULE
		release            = schedulerv1.Build_ACTION_RELEASE
	)
	s := &Service{Trusted: []string{"main", "production"}}
	for name, c := range map[string]struct {
		build *store.Build
		want  string
	}{
		"fork": {of(test, head, pull(7), fork), "strange/7"}, "another fork": {of(test, head, pull(8), fork), "strange/8"}, "closed fork": {of(closed, head, pull(7), fork), "strange/7"},
		"bot": {of(test, head, pull(7), bot), "strange/7"}, "fork that names main": {of(test, "refs/heads/main", pull(7), fork), "strange/7"},
		"pull request": {of(test, head, pull(7)), "proposed"}, "closed": {of(closed, head, pull(7)), "proposed"}, "queue": {of(test, queue), "proposed"}, "queue, pushed": {of(push, queue), "proposed"},
		"pull request at main": {of(push, "refs/heads/main", pull(7)), "proposed"},
		"main":                 {of(push, "refs/heads/main"), "merged"}, "default branch": {of(push, "refs/heads/trunk"), "merged"}, "production": {of(push, "refs/heads/production"), "merged"},
		"other branch": {of(push, "refs/heads/fix"), "proposed"}, "branch that begins so": {of(push, "refs/heads/main2"), "proposed"}, "branch like a tag": {of(push, "refs/heads/refs/tags/v1"), "proposed"},
		"tag": {of(push, "refs/tags/v1"), "merged"}, "release": {of(release, "refs/tags/v1"), "merged"},
		"nightly": {of(nightly, "refs/heads/main"), "merged"}, "nightly of a branch": {of(nightly, "refs/heads/fix"), "proposed"},
		"by hand": {of(manual, "refs/heads/main"), "merged"}, "by hand at a branch": {of(manual, "refs/heads/fix"), "proposed"}, "by hand at a tag": {of(manual, "refs/tags/v1"), "merged"},
		"test by hand": {of(test, "refs/heads/main"), "proposed"},
		"deploy":       {of(schedulerv1.Build_ACTION_DEPLOY_STAGING, "refs/heads/main", pull(7), in("staging")), ""},
	} {
		want := ""
		if c.want != "" {
			want = c.want + " refs/heads/main"
		}
		if _, key := s.groupOf(c.build); key != want {
			t.Errorf("%s: %q, want %q", name, key, want)
		}
	}
}

func TestVariablesOfAGroup(t *testing.T) {
	s := &Service{}
	for group, want := range map[string]string{
		"deploy":                       "deploy",
		"${FORGE_REF}":                 "refs/pull/7/head",
		"${FORGE_ACTION} ${FORGE_REF}": "test refs/pull/7/head",
		"#${FORGE_PULL_REQUEST}":       "#7",
		"${FORGE_TAG}":                 "", "${FORGE_SCHEDULE}": "", "": "",
		"${FORGE_TAG} ${FORGE_SCHEDULE}": "",
		"of ${FORGE_BASE_REF}":           "of ${FORGE_SHA}", // a branch can be called so, and is not looked into
		"${FORGE_DEFAULT_BRANCH}":        "trunk",
		"${FORGE_SHA}":                   "abc",
	} {
		b := of(schedulerv1.Build_ACTION_TEST, "refs/pull/7/head", pull(7), func(b *store.Build) { b.BaseRef = "${FORGE_SHA}" })
		b.Config.Concurrency.Group = group
		name, key := s.groupOf(b)
		if name != want || key != strings.TrimSpace(strings.Repeat("proposed ", min(len(want), 1))+want) {
			t.Errorf("%q: %q, %q, want %q", group, name, key, want)
		}
	}
	tag := of(schedulerv1.Build_ACTION_PUSH, "refs/tags/v1")
	tag.Config.Concurrency.Group = "${FORGE_TAG}"
	if name, _ := s.groupOf(tag); name != "v1" {
		t.Errorf("%q", name)
	}
	if name, key := s.groupOf(&store.Build{Build: &schedulerv1.Build{}, Config: &configv1.BuildConfig{}}); name != "" || key != "" {
		t.Errorf("without: %q, %q", name, key)
	}
}
