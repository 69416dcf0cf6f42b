package scheduler

import (
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// greedy asks for all that a host can give.
func greedy() *configv1.BuildConfig {
	config := usual()
	job := &configv1.Pipeline{Commands: []*configv1.Command{{Name: "x", Run: "x"}}}
	config.DeployStaging, config.DeployProduction, config.Staging = job, job, job
	config.Push = &configv1.Push{Branches: []string{"**"}, Tags: []string{"*"}, Execute: job}
	config.Privileged = true
	config.Volumes = map[string]string{"cache": "/cache", "unknown": "/unknown"}
	config.Services = map[string]*configv1.Sidecar{"docker": {Image: "docker:dind", Privileged: true}, "db": {Image: "postgres:16"}}
	return config
}

func TestOnlyMergedAndPushedCommitsOfTrustedRepositoriesGetTheHost(t *testing.T) {
	for name, c := range map[string]struct {
		event   *eventv1.Event
		trust   string
		granted bool
	}{
		"merged":                         {mergedInto(1, "main", "aaa"), "acme/shop", true},
		"merged into production":         {mergedInto(1, "production", "aaa"), "acme/*", true},
		"pushed":                         {pushedTo("refs/heads/main", "aaa"), "Acme/*", true},
		"merged from a fork":             {fromFork("ada", mergedInto(1, "main", "aaa")), "acme/shop", true},
		"tagged":                         {pushedTo("refs/tags/v1", "aaa"), "ACME/SHOP", true},
		"a pull request":                 {opened(1, "aaa"), "acme/shop", false},
		"a fork's pull request":          {fromFork("ada", opened(1, "aaa")), "acme/*", false},
		"a merge group":                  {group("checks_requested", "main", "aaa"), "acme/shop", false},
		"a merge group for production":   {group("checks_requested", "production", "aaa"), "acme/shop", false},
		"merged, not trusted":            {mergedInto(1, "main", "aaa"), "acme/shop-1", false},
		"pushed, not trusted":            {pushedTo("refs/heads/main", "aaa"), "shop/acme", false},
		"pushed, a name that begins so":  {pushedTo("refs/heads/main", "aaa"), "acme/sho", false},
		"pushed, nobody trusted":         {pushedTo("refs/heads/main", "aaa"), "", false},
		"trust in forks' owners' copies": {fromFork("ada", opened(1, "aaa")), "ada/*", false},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.deps.Trust.Volumes = map[string]string{"cache": "/srv/cache"}
			r.deps.Policy.Forks = trigger.ForkRun
			if c.trust != "" {
				r.deps.Trust.Repositories = []string{"other/*", c.trust}
			}
			r.start()
			r.config.set("aaa", valid(greedy()))
			id := r.built(c.event)
			wantPrivileges(t, r, id, r.spec(id, 1), c.granted)
		})
	}
}

func TestABuildByHandIsTrustedAsAPush(t *testing.T) {
	for repositories, granted := range map[string]bool{"acme/shop": true, "shop/acme": false} {
		r := publisher{sqliteRig(t)}
		r.deps.Trust = attempt.Trust{Repositories: []string{repositories}, Volumes: map[string]string{"cache": "/srv/cache"}}
		r.branches()
		r.start()
		config := greedy()
		config.Manual = publishing().GetManual()
		r.config.set(tip, valid(config))
		id := r.asks(byHand(map[string]string{"version": "1"})).GetId()
		wantPrivileges(t, r.rig, id, r.spec(id, 1), granted)
	}
}

// What a job may do for its commit's sake is lent to nobody by a shell in its container.
func TestWhatReachesTheHostIsNotKept(t *testing.T) {
	for name, change := range map[string]func(*configv1.BuildConfig){
		"the job is privileged":  func(c *configv1.BuildConfig) { c.Services, c.Volumes = nil, nil },
		"a service is":           func(c *configv1.BuildConfig) { c.Privileged, c.Volumes = false, nil },
		"it has a host's folder": func(c *configv1.BuildConfig) { c.Privileged, c.Services = false, nil },
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.deps.Trust = attempt.Trust{Repositories: []string{"acme/shop"}, Volumes: map[string]string{"cache": "/srv/cache"}}
			r.start()
			config := greedy()
			config.Keep = keptFailing().GetKeep()
			change(config)
			r.config.set("aaa", valid(config))
			id := r.built(pushedTo("refs/heads/main", "aaa"))
			if kept, _ := failsKept(r, id, canKeep("runner-1")); kept != 0 || !strings.Contains(r.build(id).GetNotKept(), "only merged commits may") {
				t.Errorf("it is kept for %v: %s", kept, r.build(id).GetNotKept())
			}
		})
	}
}

func wantPrivileges(t *testing.T, r *rig, id string, spec engine.Spec, granted bool) {
	t.Helper()
	if spec.Privileged != granted {
		t.Errorf("privileged: %v", spec.Privileged)
	}
	var sidecars []string
	for _, s := range spec.Sidecars {
		sidecars = append(sidecars, s.Name)
		if s.Privileged != (s.Name == "docker") {
			t.Errorf("%+v", s)
		}
	}
	log := r.printed(id)
	if granted {
		if strings.Join(sidecars, " ") != "db docker" || len(spec.Volumes) != 1 || spec.Volumes[0] != (engine.Volume{Source: "/srv/cache", Target: "/cache"}) {
			t.Errorf("services %v, volumes %v", sidecars, spec.Volumes)
		}
		if !strings.Contains(log, "volume unknown is left out: this server has none of that name") {
			t.Errorf("the log says %q", log)
		}
		return
	}
	if strings.Join(sidecars, " ") != "db" || len(spec.Volumes) != 0 {
		t.Errorf("services %v, volumes %v", sidecars, spec.Volumes)
	}
	for _, want := range []string{"the build does not run privileged", "service docker is left out", "volume cache is left out", "FORGE_TRUSTED_REPOSITORIES"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log says %q, not %q", log, want)
		}
	}
}

// An outsider's commit stays what it is, by whatever door it is built again.
func TestAskingAgainGainsNoPrivileges(t *testing.T) {
	r := sqliteRig(t)
	r.deps.Trust.Repositories = []string{"acme/*"}
	r.deps.Trust.Volumes = map[string]string{"cache": "/srv/cache"}
	r.deps.Policy.Forks = trigger.ForkRun
	r.start()
	for n, sha := range []string{"aaa", "bbb"} {
		r.config.set(sha, valid(greedy()))
		event := opened(int32(n)+1, sha)
		if sha == "bbb" {
			event = fromFork("ada", event)
		}
		first := r.built(event)
		r.pass(first)
		again, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: first})
		if err != nil {
			t.Fatal(err)
		}
		id := again.GetBuild().GetId()
		wantPrivileges(t, r, id, r.spec(id, 1), false)
	}
}

func TestSettingsOfTrustThatCannotBeMeantStopTheStart(t *testing.T) {
	for _, d := range []attempt.Trust{
		{Repositories: []string{"acme"}},
		{Repositories: []string{"*"}},
		{Repositories: []string{"**"}},
		{Repositories: []string{"acme/**"}},
		{Repositories: []string{"acme/[a"}},
		{Volumes: map[string]string{"cache": "cache"}},
		{Volumes: map[string]string{"": "/x"}},
		{Volumes: map[string]string{"all": "/"}},
	} {
		if err := d.Check(); err == nil {
			t.Errorf("%v %v is taken", d.Repositories, d.Volumes)
		}
	}
	if err := (attempt.Trust{Repositories: []string{"acme/*", "acme/shop"}, Volumes: map[string]string{"cache": "/srv/cache"}}).Check(); err != nil {
		t.Error(err)
	}
}
