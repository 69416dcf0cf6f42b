package content

import (
	"slices"
	"strings"
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// builds are one of each kind there is.
func builds() map[string]*store.Build {
	built := func(action schedulerv1.Build_Action, change func(*schedulerv1.Build)) *store.Build {
		b := &schedulerv1.Build{Action: action, DeliveryId: "delivery", Repository: &eventv1.Repository{Id: 1, DefaultBranch: "trunk"}}
		change(b)
		return &store.Build{Build: b}
	}
	pull := func(number int32, fork bool) func(*schedulerv1.Build) {
		return func(b *schedulerv1.Build) {
			b.PullRequest, b.Fork, b.Ref, b.BaseRef = number, fork, "refs/pull/N/head", "main"
		}
	}
	at := func(ref string) func(*schedulerv1.Build) { return func(b *schedulerv1.Build) { b.Ref = ref } }
	byHand := func(ref string) func(*schedulerv1.Build) {
		return func(b *schedulerv1.Build) { b.Ref, b.DeliveryId = ref, "" }
	}
	nightly := func(ref string) func(*schedulerv1.Build) {
		return func(b *schedulerv1.Build) { b.Ref, b.DeliveryId, b.Schedule = ref, "", "nightly" }
	}
	merge := func(b *schedulerv1.Build) {
		b.PullRequest, b.Ref, b.Environment = 7, "refs/heads/main", trigger.ActionOf(b.GetAction()).Environment
	}
	preview := func(change func(*schedulerv1.Build)) func(*schedulerv1.Build) {
		return func(b *schedulerv1.Build) { change(b); b.Environment = "preview-7" }
	}
	const (
		test, staging, push = schedulerv1.Build_ACTION_TEST, schedulerv1.Build_ACTION_STAGING, schedulerv1.Build_ACTION_PUSH
		toStaging           = schedulerv1.Build_ACTION_DEPLOY_STAGING
		toProduction        = schedulerv1.Build_ACTION_DEPLOY_PRODUCTION
	)
	return map[string]*store.Build{
		"fork 7": built(test, pull(7, true)), "fork 8": built(test, pull(8, true)), "fork 7 into production": built(staging, pull(7, true)),
		"pull 7": built(test, pull(7, false)), "pull 8": built(test, pull(8, false)), "pull 7 into production": built(staging, pull(7, false)),
		"queue": built(test, at("refs/heads/gh-readonly-queue/main/pr-7-0123")),
		"main":  built(push, at("refs/heads/main")), "default branch": built(push, at("refs/heads/trunk")), "tag": built(push, at("refs/tags/main")),
		"other branch": built(push, at("refs/heads/fix")), "branch like a tag": built(push, at("refs/heads/refs/tags/v1")),
		"main by hand": built(push, byHand("refs/heads/main")), "tag by hand": built(push, byHand("refs/tags/v1")), "test by hand": built(test, byHand("refs/heads/main")),
		"staging": built(toStaging, merge), "production": built(toProduction, merge),
		"release": built(schedulerv1.Build_ACTION_RELEASE, at("refs/tags/v1")), "release by hand": built(schedulerv1.Build_ACTION_RELEASE, byHand("refs/tags/v1")),
		"nightly":             built(schedulerv1.Build_ACTION_SCHEDULE, nightly("refs/heads/main")),
		"nightly of a branch": built(schedulerv1.Build_ACTION_SCHEDULE, nightly("refs/heads/fix")),
		"manual":              built(schedulerv1.Build_ACTION_MANUAL, byHand("refs/heads/main")), "manual of a tag": built(schedulerv1.Build_ACTION_MANUAL, byHand("refs/tags/v1")),
		"closed":                  built(schedulerv1.Build_ACTION_CLOSED, pull(7, false)),
		"preview":                 built(schedulerv1.Build_ACTION_PREVIEW, preview(pull(7, false))),
		"preview down":            built(schedulerv1.Build_ACTION_STOP, preview(pull(7, false))),
		"fork's preview":          built(schedulerv1.Build_ACTION_PREVIEW, preview(pull(7, true))),
		"fork's merge to staging": built(toStaging, func(b *schedulerv1.Build) { merge(b); b.Fork = true }),
	}
}

// Who writes where, and what each reads.
func TestScopesOfBuilds(t *testing.T) {
	s := &Service{trusted: Trusted{Branches: []string{"main", "production"}}}
	want := map[string]string{
		"fork 7": "fork/7 merged", "fork 8": "fork/8 merged", "fork 7 into production": "fork/7 merged",
		"pull 7": "pull/7 merged", "pull 8": "pull/8 merged", "pull 7 into production": "pull/7 merged",
		"queue": "ref/refs/heads/gh-readonly-queue/main/pr-7-0123 merged",
		"main":  "merged", "default branch": "merged", "tag": "merged",
		"other branch": "push/refs/heads/fix merged", "branch like a tag": "push/refs/heads/refs/tags/v1 merged",
		"main by hand": "ref/refs/heads/main merged", "tag by hand": "ref/refs/tags/v1 merged", "test by hand": "ref/refs/heads/main merged",
		"staging": "environment/staging", "production": "environment/production",
		"release": "merged", "release by hand": "ref/refs/tags/v1 merged", "nightly": "merged", "nightly of a branch": "ref/refs/heads/fix merged",
		"manual": "ref/refs/heads/main merged", "manual of a tag": "ref/refs/tags/v1 merged",
		"closed":  "pull/7 merged",
		"preview": "pull/7 merged", "preview down": "pull/7 merged", "fork's preview": "fork/7 merged",
		"fork's merge to staging": "fork/7 merged",
	}
	all := builds()
	if len(all) != len(want) {
		t.Errorf("%d kinds, %d in the table", len(all), len(want))
	}
	for kind, b := range all {
		if got := strings.Join(readable(s.scopeOf(b)), " "); got != want[kind] {
			t.Errorf("%s: %q, want %q", kind, got, want[kind])
		}
	}
}

// Nobody reads what a lower tier has written, and of tiers below the merged one
// nobody reads another's.
func TestNoTrustIsCarriedUpward(t *testing.T) {
	s := &Service{trusted: Trusted{Branches: []string{"main", "production"}}}
	for writer, from := range builds() {
		for reader, to := range builds() {
			written, read := s.scopeOf(from), s.scopeOf(to)
			if !slices.Contains(readable(read), written.name) || written == read {
				continue
			}
			if written.tier <= read.tier || written.tier < tierMerged {
				t.Errorf("%s reads what %s has written", reader, writer)
			}
		}
	}
}
