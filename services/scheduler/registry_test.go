package scheduler

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/registry"
)

// pulling is a rig whose builds pull images.
type pulling struct{ *rig }

func eachPulling(t *testing.T, test func(t *testing.T, r pulling)) {
	t.Helper()
	each(t, func(t *testing.T, r *rig) { test(t, pulling{r}) })
}

func (r pulling) setRegistry(environment, host, password string) *schedulerv1.RegistryCredentials {
	r.t.Helper()
	answer, err := r.secrets.SetRegistryCredentials(r.t.Context(), &schedulerv1.SetRegistryCredentialsRequest{
		Repository: "Acme/shop", Environment: environment, Host: host, Username: "octo", Password: password, Uses: usesIn(environment),
	})
	if err != nil {
		r.t.Fatalf("set %s: %v", host, err)
	}
	return answer.GetCredentials()
}

// showsTo is what the engine may show to a registry for a build, in a line.
func (r pulling) showsTo(id, host string) string {
	r.t.Helper()
	login, err := r.spec(id, 1).Registries.Login(r.t.Context(), host)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(login.Username + " " + login.Password + " " + login.Withheld)
}

func TestABuildShowsARegistryWhatIsMeantForIt(t *testing.T) {
	eachPulling(t, func(t *testing.T, r pulling) {
		if got := r.setRegistry("", "GHCR.io", "hunter2-all").GetHost(); got != "ghcr.io" {
			t.Errorf("the host is kept as %q", got)
		}
		r.setRegistry("production", "ghcr.io", "hunter2-live")
		r.setRegistry("production", "live.example:5000", "hunter2-port")
		r.setRegistry("", "index.docker.io", "hunter2-hub")
		test := r.built(opened(1, "head"))
		for host, want := range map[string]string{
			"ghcr.io": "octo hunter2-all", "docker.io": "octo hunter2-hub", "quay.io": "",
			"live.example:5000": "the credentials for live.example:5000 are only for deploys to production",
		} {
			if got := r.showsTo(test, host); got != want {
				t.Errorf("a test shows %s %q, want %q", host, got, want)
			}
		}
		staging := r.built(mergedInto(2, "main", "staged"))
		if got := r.showsTo(staging, "ghcr.io"); got != "octo hunter2-all" {
			t.Errorf("a deploy to staging shows %q", got)
		}
		for _, id := range []string{test, staging} {
			r.cancelled(id)
		}
		deploy := r.built(mergedInto(3, "production", "released"))
		if got := r.showsTo(deploy, "ghcr.io"); got != "octo hunter2-live" {
			t.Errorf("a deploy to production shows %q", got)
		}
		r.cancelled(deploy)
		elsewhere := opened(4, "other")
		other := &eventv1.Repository{Id: 77, Owner: "evil", Name: "dog", DefaultBranch: "main"}
		elsewhere.Repository, pull(elsewhere).Head.Repository, pull(elsewhere).Base.Repository = other, other, other
		if got := r.showsTo(r.built(elsewhere), "ghcr.io"); got != "" {
			t.Errorf("another repository shows %q", got)
		}
	})
}

func TestRegistriesByUseAndBranch(t *testing.T) {
	const pulls, tags = schedulerv1.Secret_USE_PULL_REQUESTS, schedulerv1.Secret_USE_TAGS
	pushed := func(ref string) func(*rig) string {
		return func(r *rig) string {
			config := usual()
			config.Push = &configv1.Push{Branches: []string{"**"}, Tags: []string{"**"}, Execute: config.GetExecute()}
			r.config.set("ppp", valid(config))
			return r.built(pushedTo(ref, "ppp"))
		}
	}
	pulled := func(r *rig) string { return r.built(opened(1, "aaa")) }
	const has = "octo hunter2"
	for name, c := range map[string]struct {
		set   *schedulerv1.SetRegistryCredentialsRequest
		build func(*rig) string
		shows string
	}{
		"new, pull request":      {&schedulerv1.SetRegistryCredentialsRequest{}, pulled, "what is set for ghcr.io is not for pull requests: forge secrets registry set ghcr.io --repo Acme/shop --for pull-requests,pushes,tags,deploys"},
		"new, merge queue":       {&schedulerv1.SetRegistryCredentialsRequest{}, func(r *rig) string { return r.built(group("checks_requested", "main", "qqq")) }, "what is set for ghcr.io is not for pull requests: forge secrets registry set ghcr.io --repo Acme/shop --for pull-requests,pushes,tags,deploys"},
		"new, push":              {&schedulerv1.SetRegistryCredentialsRequest{}, pushed("refs/heads/main"), has},
		"new, deploy":            {&schedulerv1.SetRegistryCredentialsRequest{}, func(r *rig) string { return r.built(mergedInto(2, "main", "mmm")) }, has},
		"pull requests":          {&schedulerv1.SetRegistryCredentialsRequest{Uses: []schedulerv1.Secret_Use{pulls}}, pulled, has},
		"tags, a branch":         {&schedulerv1.SetRegistryCredentialsRequest{Uses: []schedulerv1.Secret_Use{tags}}, pushed("refs/heads/main"), "what is set for ghcr.io is not for pushes: forge secrets registry set ghcr.io --repo Acme/shop --for pushes,tags"},
		"a branch":               {&schedulerv1.SetRegistryCredentialsRequest{Branches: []string{"main"}}, pushed("refs/heads/main"), has},
		"another branch":         {&schedulerv1.SetRegistryCredentialsRequest{Branches: []string{"till"}}, pushed("refs/heads/main"), "what is set for ghcr.io is only for branches till: forge secrets registry set ghcr.io --repo Acme/shop --for pushes,tags,deploys --branches till,main"},
		"environment of another": {&schedulerv1.SetRegistryCredentialsRequest{Environment: "staging"}, pulled, "the credentials for ghcr.io are only for deploys to staging"},
	} {
		t.Run(name, func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			c.set.Repository, c.set.Host, c.set.Username, c.set.Password = "Acme/shop", "ghcr.io", "octo", "hunter2"
			if _, err := r.secrets.SetRegistryCredentials(t.Context(), c.set); err != nil {
				t.Fatal(err)
			}
			if got := (pulling{r}).showsTo(c.build(r), "ghcr.io"); got != c.shows {
				t.Errorf("it shows %q, want %q", got, c.shows)
			}
		})
	}
}

// Whatever door a fork's commit comes by, or what a bot proposes.
func TestAForksBuildShowsNothingToARegistry(t *testing.T) {
	eachPulling(t, func(t *testing.T, r pulling) {
		r.setRegistry("", "ghcr.io", "hunter2")
		nothing := func(how, id, why string) {
			t.Helper()
			if got := r.showsTo(id, "ghcr.io"); got != why {
				t.Errorf("%s, it shows %q", how, got)
			}
			r.cancelled(id)
		}
		const fork = "the credentials for ghcr.io are not for builds of forks"
		id := r.send(fromFork("eve", opened(1, "fff"))).GetBuildIds()[0]
		if _, err := r.builds.ApproveBuild(t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		nothing("approved", id, fork)
		retried, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id})
		if err != nil {
			t.Fatal(err)
		}
		nothing("retried", retried.GetBuild().GetId(), fork)
		nothing("by a button", r.built(pressedAt("fff", retried.GetBuild().GetId(), "")), fork)
		bots := opened(2, "bbb")
		pull(bots).Author = &eventv1.Account{Login: "dependabot[bot]", Type: eventv1.Account_TYPE_BOT}
		const withheld = "the credentials for ghcr.io are not for a bot's pull request, unless the server trusts the bot by name (FORGE_TRUSTED_BOTS)"
		proposed := r.built(bots)
		nothing("a bot's", proposed, withheld)
		again, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: proposed})
		if err != nil {
			t.Fatal(err)
		}
		nothing("a bot's, retried", again.GetBuild().GetId(), withheld)
	})
}

func TestRegistriesAreListedAndDeletedAndNeverRead(t *testing.T) {
	eachPulling(t, func(t *testing.T, r pulling) {
		r.setRegistry("", "ghcr.io", "hunter2hunter2")
		r.setRegistry("staging", "ghcr.io", "hunter2hunter2")
		r.setRegistry("", "docker.io", "hunter2hunter2")
		list := func() string {
			t.Helper()
			var all []string
			req := &schedulerv1.ListRegistryCredentialsRequest{Repository: "acme/Shop", PageSize: 1}
			for {
				answer, err := r.secrets.ListRegistryCredentials(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(answer.String(), "hunter2") {
					t.Errorf("a password is told: %v", answer)
				}
				for _, one := range answer.GetCredentials() {
					all = append(all, fmt.Sprintf("%s %s %s %s %d", one.GetRepository(), one.GetEnvironment(), one.GetHost(), one.GetUsername(), len(one.GetUses())))
				}
				if req.PageToken = answer.GetNextPageToken(); req.GetPageToken() == "" {
					return strings.Join(all, ", ")
				}
			}
		}
		if got, want := list(), "Acme/shop  docker.io octo 4, Acme/shop  ghcr.io octo 4, Acme/shop staging ghcr.io octo 0"; got != want {
			t.Errorf("listed are %s, want %s", got, want)
		}
		remove := &schedulerv1.DeleteRegistryCredentialsRequest{Repository: "Acme/shop", Host: "ghcr.io", Environment: "staging"}
		if _, err := r.secrets.DeleteRegistryCredentials(t.Context(), remove); err != nil {
			t.Fatal(err)
		}
		if _, err := r.secrets.DeleteRegistryCredentials(t.Context(), remove); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "Acme/shop has no credentials of ghcr.io for staging") {
			t.Errorf("deleted again: %v", err)
		}
		if got, want := list(), "Acme/shop  docker.io octo 4, Acme/shop  ghcr.io octo 4"; got != want {
			t.Errorf("left are %s, want %s", got, want)
		}
		var done []string
		for _, e := range audited(r.rig, &schedulerv1.ListAuditEntriesRequest{}).GetEntries() {
			done = append(done, strings.ReplaceAll(did(e), " "+e.GetAgent(), ""))
		}
		if got, want := strings.Join(done[:2], ", "), "an administrator delete registry by grpc admin token staging ghcr.io, an administrator set registry by grpc admin token docker.io"; got != want || len(done) != 4 {
			t.Errorf("written down is %s, want %s of 4", got, want)
		}
		for _, table := range []string{"registry_credentials", "audit_entries"} {
			var stored strings.Builder
			if err := publisher(r).dump(&stored, table); err != nil || strings.Contains(stored.String(), "hunter2") {
				t.Errorf("%s holds a password, or cannot be read: %v", table, err)
			}
		}
	})
}

func TestBadRegistriesAreRefused(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	for _, host := range []string{"", "ghcr", "https://ghcr.io", "ghcr.io/acme", "ghcr.io:", "-a.io", "a b.io", "a.io\n", "user@ghcr.io", "ghcr.io:123456", "ghcr.io:99999", "localhost:65536", "ghcr.io:0", "[::1]:99999", ".io", "a..io"} {
		_, err := r.secrets.SetRegistryCredentials(t.Context(), &schedulerv1.SetRegistryCredentialsRequest{Repository: "Acme/shop", Host: host, Username: "octo", Password: "hunter2"})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is not the host of a registry") {
			t.Errorf("%q: %v", host, err)
		}
	}
	for _, host := range []string{"ghcr.io", "localhost", "localhost:1", "ghcr.io:65535", "[::1]", "[::1]:5000"} {
		_, err := r.secrets.SetRegistryCredentials(t.Context(), &schedulerv1.SetRegistryCredentialsRequest{Repository: "Acme/shop", Host: host, Username: "octo", Password: "hunter2"})
		if err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	for want, req := range map[string]*schedulerv1.SetRegistryCredentialsRequest{
		"expected owner/name":                  {Repository: "shop"},
		"GitHub shows Forge no repository a/b": {Repository: "a/b"},
		"password: it is empty":                {Password: "-"},
		"password: at most 48 KiB":             {Password: strings.Repeat("hunter2", 8<<10)},
		"password: one line":                   {Password: "hunter2\nX-Evil: 1"},
		"username: at most":                    {Username: "a:b"},
		"username: whose password is it":       {Username: "-"},
		`environment "Live": expected a name`:  {Environment: "Live"},
		"is for deploys there alone":           {Environment: "staging", Uses: usesIn("")},
		"is not a pattern of branches":         {Branches: []string{"["}},
	} {
		req.Host = "ghcr.io"
		if req.GetRepository() == "" {
			req.Repository = "Acme/shop"
		}
		if req.GetPassword() == "" {
			req.Password = "hunter2"
		}
		if req.GetPassword() == "-" {
			req.Password = ""
		}
		switch req.GetUsername() {
		case "":
			req.Username = "octo"
		case "-":
			req.Username = ""
		}
		if _, err := r.secrets.SetRegistryCredentials(t.Context(), req); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := r.secrets.ListRegistryCredentials(t.Context(), &schedulerv1.ListRegistryCredentialsRequest{PageToken: "x"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a page that is not: %v", err)
	}
}

func TestRegistriesAreEncryptedForTheirPlaceWithTheFirstKey(t *testing.T) {
	eachPulling(t, func(t *testing.T, r pulling) {
		r.setRegistry("", "ghcr.io", "hunter2")
		r.setRegistry("production", "ghcr.io", "hunter2-live")
		first, second := r.deps.SecretsKeys[0], bytes.Repeat([]byte("2"), 32)
		for n, keys := range [][][]byte{{second, first}, {second}} {
			r.stop()
			r.deps.SecretsKeys = keys
			r.start()
			id := r.built(opened(int32(n+1), fmt.Sprint("head", n)))
			if got := r.showsTo(id, "ghcr.io"); got != "octo hunter2" {
				t.Errorf("with keys %d: %s", n, got)
			}
			r.cancelled(id)
		}
		// As somebody could who writes to the database, and does not have the key.
		if err := r.service.store.DB.Write(t.Context(), func(_ context.Context, tx *sql.Tx) error {
			_, err := tx.Exec(`UPDATE registry_credentials SET sealed = (SELECT s.sealed FROM registry_credentials s WHERE s.environment = 'production') WHERE environment = ''`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if got := r.showsTo(r.built(opened(9, "swapped")), "ghcr.io"); !strings.Contains(got, "the credentials for ghcr.io cannot be decrypted: what is stored is damaged") {
			t.Errorf("swapped: %s", got)
		}
	})
}

// All schedulers of one database know which images are not for all, also after a restart.
func TestWhichImagesArePrivateIsRemembered(t *testing.T) {
	eachPulling(t, func(t *testing.T, r pulling) {
		registries := func(n int32) engine.Registries {
			id := r.built(opened(n, fmt.Sprint("head", n)))
			return r.spec(id, 1).Registries
		}
		private := func(of engine.Registries, name string) time.Time {
			t.Helper()
			since, err := of.Private(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			return since
		}
		of := registries(1)
		if since := private(of, "ghcr.io/acme/shop"); !since.IsZero() {
			t.Errorf("nobody has marked it, it is so since %v", since)
		}
		if err := of.Mark(t.Context(), "ghcr.io/acme/shop"); err != nil {
			t.Fatal(err)
		}
		since := private(of, "ghcr.io/acme/shop")
		if since.IsZero() || !private(of, "ghcr.io/acme/sho").IsZero() || !private(of, "ghcr.io/acme/shop/web").IsZero() {
			t.Errorf("marked: %v", since)
		}
		r.clock.Advance(time.Minute)
		if err := of.Mark(t.Context(), "ghcr.io/acme/shop"); err != nil {
			t.Fatal(err)
		}
		if err := of.Unmark(t.Context(), "ghcr.io/acme/shop", since); err != nil {
			t.Fatal(err)
		}
		r.stop()
		r.start()
		of = registries(2)
		if since = private(of, "ghcr.io/acme/shop"); since.IsZero() {
			t.Error("it was marked anew and is not marked")
		}
		if err := of.Unmark(t.Context(), "ghcr.io/acme/shop", since); err != nil {
			t.Fatal(err)
		}
		if since = private(of, "ghcr.io/acme/shop"); !since.IsZero() {
			t.Errorf("it is marked still, %v", since)
		}
	})
}

// What a repository has set itself goes before what the server shows for it.
func TestTheServersOwnLoginIsForWhomItNames(t *testing.T) {
	r := pulling{sqliteRig(t)}
	path := filepath.Join(t.TempDir(), "helper")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '{\"Username\": \"server\", \"Secret\": \"hunter2-own\"}'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	commands, err := registry.ParseCommands([]string{"ghcr.io acme/* deploys " + path})
	if err != nil {
		t.Fatal(err)
	}
	r.deps.RegistryCommands = commands
	r.start()
	shows := func(id, want string) {
		t.Helper()
		if got := r.showsTo(id, "ghcr.io"); got != want {
			t.Errorf("it shows %q, want %q", got, want)
		}
		r.cancelled(id)
	}
	shows(r.built(opened(1, "head")), "the server's own credentials for ghcr.io are not for pull requests of Acme/shop (FORGE_REGISTRY_COMMANDS)")
	shows(r.built(mergedInto(2, "main", "staged")), "server hunter2-own")
	fork := r.send(fromFork("eve", opened(3, "fff"))).GetBuildIds()[0]
	if _, err := r.builds.ApproveBuild(t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: fork}); err != nil {
		t.Fatal(err)
	}
	shows(fork, "the server's own credentials for ghcr.io are not for builds of forks (FORGE_REGISTRY_COMMANDS)")
	r.setRegistry("staging", "ghcr.io", "hunter2")
	shows(r.built(mergedInto(4, "main", "again")), "octo hunter2")
}
