package scheduler

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/secrets"
)

// needing has every commit name secrets.
func (r *rig) needing(names ...string) {
	r.config.mu.Lock()
	defer r.config.mu.Unlock()
	r.config.secrets = names
}

// usesIn is every build where there is no environment.
func usesIn(environment string) []schedulerv1.Secret_Use {
	if environment != "" {
		return nil
	}
	return []schedulerv1.Secret_Use{
		schedulerv1.Secret_USE_PULL_REQUESTS, schedulerv1.Secret_USE_PUSHES, schedulerv1.Secret_USE_TAGS, schedulerv1.Secret_USE_DEPLOYS,
	}
}

func (r *rig) setSecret(environment, name, value string) *schedulerv1.SetSecretResponse {
	r.t.Helper()
	answer, err := r.secrets.SetSecret(r.t.Context(), &schedulerv1.SetSecretRequest{
		Repository: "Acme/shop", Environment: environment, Name: name, Value: value, Uses: usesIn(environment),
	})
	if err != nil {
		r.t.Fatalf("set %s: %v", name, err)
	}
	return answer
}

// given are the secrets that the runner of a build's first attempt is handed.
func (r *rig) given(id string) string {
	r.t.Helper()
	plan := r.attach(r.spec(id, 1).Runner.Token).plan
	return strings.TrimSpace(fmt.Sprint(plan.GetSecrets(), " ", strings.Join(plan.GetNotices(), "; ")))
}

func TestABuildGetsTheSecretsMeantForIt(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.needing("TOKEN", "KEY", "LIVE")
		r.setSecret("", "TOKEN", "of all")
		r.setSecret("production", "TOKEN", "of production")
		r.setSecret("", "KEY", "line one\nline two\n")
		r.setSecret("production", "LIVE", "live")
		r.setSecret("", "OTHER", "nobody asks for")
		test := r.built(opened(1, "head"))
		if got, want := r.given(test), "map[KEY:line one\nline two\n TOKEN:of all] forge: secret LIVE is only for deploys to production"; got != want {
			t.Errorf("a test gets %q, want %q", got, want)
		}
		staging := r.built(mergedInto(2, "main", "staged"))
		if got, want := r.given(staging), "map[KEY:line one\nline two\n TOKEN:of all] forge: secret LIVE is only for deploys to production"; got != want {
			t.Errorf("a deploy to staging gets %q, want %q", got, want)
		}
		r.setSecret("", "TOKEN", "set anew")
		for _, id := range []string{test, staging} {
			r.cancelled(id)
		}
		deploy := r.built(mergedInto(3, "production", "released"))
		if got, want := r.given(deploy), "map[KEY:line one\nline two\n LIVE:live TOKEN:of production]"; got != want {
			t.Errorf("a deploy to production gets %q, want %q", got, want)
		}
	})
}

func (r *rig) cancelled(id string) {
	r.t.Helper()
	if _, err := r.builds.CancelBuild(r.t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
		r.t.Fatal(err)
	}
	r.clock.Advance(3 * r.service.attempts.Runners.Grace)
	r.sweep()
	r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
}

func TestABuildNeverRunsWithoutASecretItNeeds(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.needing("TOKEN", "MISSING", "TOO")
		r.setSecret("", "TOKEN", "hunter2")
		wants := func(id, message string) {
			t.Helper()
			b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
			if b.GetReason() != schedulerv1.Build_REASON_SECRET_UNAVAILABLE || !strings.Contains(b.GetMessage(), message) {
				t.Errorf("ended with %s: %q, want %q", b.GetReason(), b.GetMessage(), message)
			}
			if strings.Contains(b.GetMessage(), "hunter2") {
				t.Errorf("the message holds the secret: %q", b.GetMessage())
			}
		}
		missing := r.built(opened(1, "missing"))
		wants(missing, "no secret MISSING, TOO: forge secrets set MISSING --repo Acme/shop")
		if len(r.engine.attempts()) > 0 {
			t.Error("a container was started all the same")
		}

		// Between the start of the container and the runner's hello.
		r.needing("TOKEN")
		gone := r.built(opened(2, "gone"))
		spec := r.spec(gone, 1)
		if _, err := r.secrets.DeleteSecret(t.Context(), &schedulerv1.DeleteSecretRequest{Repository: "Acme/shop", Name: "TOKEN"}); err != nil {
			t.Fatal(err)
		}
		if err := r.stream(spec.Runner.Token, &schedulerv1.Hello{RunnerId: "r", MasksSecrets: true}).refused(); !fault.Is(err, fault.Conflict) {
			t.Errorf("the runner is told %v", err)
		}
		wants(gone, "no secret TOKEN")

		r.setSecret("", "TOKEN", "hunter2")
		old := r.built(opened(3, "old"))
		spec = r.spec(old, 1)
		if err := r.stream(spec.Runner.Token, &schedulerv1.Hello{RunnerId: "r"}).refused(); !fault.Is(err, fault.Conflict) {
			t.Errorf("a runner that does not mask is told %v", err)
		}
		wants(old, "too old to mask")

		// As somebody could who writes to the database, and does not have the key.
		r.setSecret("production", "TOKEN", "of production")
		if err := r.service.store.DB.Write(t.Context(), func(_ context.Context, tx *sql.Tx) error {
			_, err := tx.Exec(`UPDATE secrets SET sealed = (SELECT s.sealed FROM secrets s WHERE s.environment = 'production') WHERE environment = ''`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		wants(r.built(opened(4, "swapped")), "secret TOKEN cannot be decrypted: what is stored is damaged")

		r.setSecret("", "TOKEN", "hunter2")
		r.stop()
		r.deps.SecretsKeys = [][]byte{bytes.Repeat([]byte("x"), 32)}
		r.start()
		wants(r.built(opened(5, "other key")), "which FORGE_SECRETS_KEY does not hold")
	})
}

// Whatever door a fork's commit comes by.
func TestAForksBuildGetsNoSecret(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.needing("TOKEN")
		r.setSecret("", "TOKEN", "hunter2")
		const nothing = "map[] forge: .forge.yml names secrets; a fork's build gets none"
		id := r.send(fromFork("eve", opened(1, "fff"))).GetBuildIds()[0]
		if _, err := r.builds.ApproveBuild(t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		if got := r.given(id); got != nothing {
			t.Errorf("approved, it gets %q", got)
		}
		r.cancelled(id)
		retried, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.given(retried.GetBuild().GetId()); got != nothing {
			t.Errorf("retried, it gets %q", got)
		}
		r.cancelled(retried.GetBuild().GetId())
		pressed := r.built(pressedAt("fff", retried.GetBuild().GetId(), ""))
		if got := r.given(pressed); got != nothing {
			t.Errorf("by a button, it gets %q", got)
		}
	})
}

func TestSecretsAreListedAndDeletedAndNeverRead(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		if w := r.setSecret("", "B", "hunter2").GetWarning(); w != "" {
			t.Errorf("a usual value is warned of: %s", w)
		}
		if w := r.setSecret("", "A", " no\n").GetWarning(); !strings.Contains(w, "not masked") {
			t.Errorf("a short value is not warned of: %q", w)
		}
		r.setSecret("staging", "A", "hunter2")
		list := func(req *schedulerv1.ListSecretsRequest) string {
			t.Helper()
			var all []string
			for {
				answer, err := r.secrets.ListSecrets(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range answer.GetSecrets() {
					all = append(all, s.GetRepository()+":"+s.GetEnvironment()+":"+s.GetName()+s.GetUpdateTime().AsTime().Format(" 15:04"))
				}
				if req.PageToken = answer.GetNextPageToken(); req.GetPageToken() == "" {
					return strings.Join(all, ", ")
				}
				all = append(all, "page")
			}
		}
		const all = "Acme/shop::A 12:00, Acme/shop::B 12:00, Acme/shop:staging:A 12:00"
		if got := list(&schedulerv1.ListSecretsRequest{}); got != all {
			t.Errorf("all are %s", got)
		}
		if got := list(&schedulerv1.ListSecretsRequest{Repository: "Acme/shop", PageSize: 2}); got != strings.Replace(all, "B 12:00, ", "B 12:00, page, ", 1) {
			t.Errorf("in pages they are %s", got)
		}
		for _, c := range []struct {
			req  *schedulerv1.DeleteSecretRequest
			want string
		}{
			{&schedulerv1.DeleteSecretRequest{Repository: "Acme/shop", Environment: "production", Name: "A"}, "Acme/shop has no secret A for production"},
			{&schedulerv1.DeleteSecretRequest{Repository: "Acme/shop", Environment: "staging", Name: "A"}, ""},
			{&schedulerv1.DeleteSecretRequest{Repository: "Acme/shop", Environment: "staging", Name: "A"}, "Acme/shop has no secret A for staging"},
			{&schedulerv1.DeleteSecretRequest{Repository: "acme/other", Name: "A"}, "no repository acme/other"},
			{&schedulerv1.DeleteSecretRequest{Repository: "acme", Name: "A"}, "expected owner/name"},
		} {
			_, err := r.secrets.DeleteSecret(t.Context(), c.req)
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("delete %v: %v, want %s", c.req, err, c.want)
			}
		}
		// GitHub knows the repository no more, or by another name.
		r.github.set(func(g *fakeGitHub) { g.gone = true })
		if got := list(&schedulerv1.ListSecretsRequest{Repository: "ACME/Shop"}); got != "Acme/shop::A 12:00, Acme/shop::B 12:00" {
			t.Errorf("of a repository that is gone they are %s", got)
		}
		if _, err := r.secrets.DeleteSecret(t.Context(), &schedulerv1.DeleteSecretRequest{Repository: "ACME/Shop", Name: "A"}); err != nil {
			t.Error(err)
		}
	})
}

func TestBadSecretsAreRefused(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	for want, req := range map[string]*schedulerv1.SetSecretRequest{
		"expected owner/name":                      {Repository: "shop", Name: "A", Value: "hunter2"},
		"GitHub shows Forge no repository a/b":     {Repository: "a/b", Name: "A", Value: "hunter2"},
		"name: letters, digits and _":              {Repository: "Acme/shop", Name: "A-B", Value: "hunter2"},
		"no digit first":                           {Repository: "Acme/shop", Name: "1A", Value: "hunter2"},
		"name: at most 100 characters":             {Repository: "Acme/shop", Name: strings.Repeat("A", 101), Value: "hunter2"},
		"FORGE_SHA is set by Forge or the shell":   {Repository: "Acme/shop", Name: "FORGE_SHA", Value: "hunter2"},
		"PATH is set by Forge or the shell":        {Repository: "Acme/shop", Name: "PATH", Value: "hunter2"},
		"TRACEPARENT is set by Forge or the shell": {Repository: "Acme/shop", Name: "TRACEPARENT", Value: "hunter2"},
		"TRACESTATE is set by Forge or the shell":  {Repository: "Acme/shop", Name: "TRACESTATE", Value: "hunter2"},
		"BAGGAGE is set by Forge or the shell":     {Repository: "Acme/shop", Name: "BAGGAGE", Value: "hunter2"},
		"value: it is empty":                       {Repository: "Acme/shop", Name: "A"},
		"value: at most 48 KiB":                    {Repository: "Acme/shop", Name: "A", Value: strings.Repeat("hunter2", 8<<10)},
		"cannot hold a NUL":                        {Repository: "Acme/shop", Name: "A", Value: "hunter2\x00"},
		`environment "Live": expected a name`:      {Repository: "Acme/shop", Environment: "Live", Name: "A", Value: "hunter2"},
	} {
		_, err := r.secrets.SetSecret(t.Context(), req)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v", want, err)
		}
	}
	for n := range secrets.MostSecrets {
		r.setSecret("", fmt.Sprintf("S%d", n), "hunter2")
	}
	r.setSecret("", "S7", "again")
	r.setSecret("staging", "ONE_MORE", "hunter2")
	_, err := r.secrets.SetSecret(t.Context(), &schedulerv1.SetSecretRequest{Repository: "Acme/shop", Name: "ONE_MORE", Value: "hunter2"})
	if !fault.Is(err, fault.Exhausted) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := r.secrets.ListSecrets(t.Context(), &schedulerv1.ListSecretsRequest{PageToken: "x"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a page that is not: %v", err)
	}
}

func TestAStartEncryptsWithTheFirstKey(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.needing("TOKEN")
		r.setSecret("", "TOKEN", "hunter2")
		first, second, other := r.deps.SecretsKeys[0], bytes.Repeat([]byte("2"), 32), bytes.Repeat([]byte("3"), 32)
		for n, keys := range [][][]byte{{second, first}, {second}, {other, second}, {other}} {
			r.stop()
			r.deps.SecretsKeys = keys
			r.start()
			id := r.built(opened(int32(n+1), fmt.Sprint("head", n)))
			if got := r.given(id); got != "map[TOKEN:hunter2]" {
				t.Errorf("with keys %d: %s", n, got)
			}
			r.cancelled(id)
			var text []byte
			if err := r.service.store.DB.Read().QueryRowContext(t.Context(), `SELECT sealed FROM secrets`).Scan(&text); err != nil || bytes.Contains(text, []byte("hunter2")) {
				t.Errorf("stored as %q, %v", text, err)
			}
		}
	})
}

// Each build that names a secret gets it, or is told before anything runs how it would.
func TestSecretsByUseAndBranch(t *testing.T) {
	const (
		pulls, pushes = schedulerv1.Secret_USE_PULL_REQUESTS, schedulerv1.Secret_USE_PUSHES
		tags, deploys = schedulerv1.Secret_USE_TAGS, schedulerv1.Secret_USE_DEPLOYS
	)
	pushed := func(ref string) func(*rig) string {
		return func(r *rig) string {
			config := usual()
			config.Secrets = []string{"TOKEN"}
			config.Push = &configv1.Push{Branches: []string{"**"}, Tags: []string{"**"}, Execute: config.GetExecute()}
			r.config.set("ppp", valid(config))
			return r.built(pushedTo(ref, "ppp"))
		}
	}
	pulled := func(r *rig) string { return r.built(opened(1, "aaa")) }
	merged := func(r *rig) string { return r.built(mergedInto(2, "main", "mmm")) }
	released := func(r *rig) string { return r.built(mergedInto(3, "production", "rrr")) }
	queued := func(r *rig) string { return r.built(group("checks_requested", "main", "qqq")) }
	for name, c := range map[string]struct {
		set      *schedulerv1.SetSecretRequest
		build    func(*rig) string
		says     string // "" where the build gets it
		withheld bool   // it runs without, and says so
	}{
		"a new one, pull request":  {set: &schedulerv1.SetSecretRequest{}, build: pulled, says: "secret TOKEN is not for pull requests: forge secrets set TOKEN --repo Acme/shop --for pull-requests,pushes,tags,deploys"},
		"a new one, merge queue":   {set: &schedulerv1.SetSecretRequest{}, build: queued, says: "secret TOKEN is not for pull requests: "},
		"a new one, push":          {set: &schedulerv1.SetSecretRequest{}, build: pushed("refs/heads/main")},
		"a new one, tag":           {set: &schedulerv1.SetSecretRequest{}, build: pushed("refs/tags/v1")},
		"a new one, deploy":        {set: &schedulerv1.SetSecretRequest{}, build: merged},
		"pull requests alone":      {set: &schedulerv1.SetSecretRequest{Uses: []schedulerv1.Secret_Use{pulls}}, build: pulled},
		"pull requests, a push":    {set: &schedulerv1.SetSecretRequest{Uses: []schedulerv1.Secret_Use{pulls}}, build: pushed("refs/heads/main"), says: "secret TOKEN is not for pushes: forge secrets set TOKEN --repo Acme/shop --for pull-requests,pushes"},
		"tags alone, pull request": {set: &schedulerv1.SetSecretRequest{Uses: []schedulerv1.Secret_Use{tags}}, build: pulled, says: "secret TOKEN is not for pull requests: "},
		"tags alone, branch":       {set: &schedulerv1.SetSecretRequest{Uses: []schedulerv1.Secret_Use{tags}}, build: pushed("refs/heads/refs/tags/v1"), says: "secret TOKEN is not for pushes: "},
		"deploys alone":            {set: &schedulerv1.SetSecretRequest{Uses: []schedulerv1.Secret_Use{deploys}}, build: released},
		"deploys alone, a tag":     {set: &schedulerv1.SetSecretRequest{Uses: []schedulerv1.Secret_Use{deploys}}, build: pushed("refs/tags/v1"), says: "secret TOKEN is not for tags: "},
		"a branch":                 {set: &schedulerv1.SetSecretRequest{Branches: []string{"main", "release/*"}}, build: pushed("refs/heads/release/1")},
		"another branch":           {set: &schedulerv1.SetSecretRequest{Branches: []string{"main"}}, build: pushed("refs/heads/main2"), says: "secret TOKEN is only for branches main: forge secrets set TOKEN --repo Acme/shop --for pushes,tags,deploys --branches main,main2"},
		"a branch of odd name":     {set: &schedulerv1.SetSecretRequest{Branches: []string{"main"}}, build: pushed("refs/heads/$(reboot)"), says: "--branches main,BRANCH"},
		"a branch, a tag":          {set: &schedulerv1.SetSecretRequest{Branches: []string{"main"}}, build: pushed("refs/tags/main"), says: "and a tag is of none"},
		"a branch, merged into":    {set: &schedulerv1.SetSecretRequest{Branches: []string{"main"}}, build: merged},
		"a branch, pull request":   {set: &schedulerv1.SetSecretRequest{Uses: []schedulerv1.Secret_Use{pulls, pushes}, Branches: []string{"main"}}, build: pulled},
		"another, pull request":    {set: &schedulerv1.SetSecretRequest{Uses: []schedulerv1.Secret_Use{pulls}, Branches: []string{"till"}}, build: pulled, says: "secret TOKEN is only for branches till: "},
		"an environment's branch":  {set: &schedulerv1.SetSecretRequest{Environment: "staging", Branches: []string{"release/*"}}, build: merged, says: "secret TOKEN is only for branches release/*: forge secrets set TOKEN --repo Acme/shop --environment staging --branches release/*,main"},
		"an environment, a pull":   {set: &schedulerv1.SetSecretRequest{Environment: "staging"}, build: pulled, withheld: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.needing("TOKEN")
			c.set.Repository, c.set.Name, c.set.Value = "Acme/shop", "TOKEN", "hunter2"
			if _, err := r.secrets.SetSecret(t.Context(), c.set); err != nil {
				t.Fatal(err)
			}
			id := c.build(r)
			if c.says != "" {
				if b := r.becomes(id, schedulerv1.Build_STATE_ERRORED); !strings.Contains(b.GetMessage(), c.says) || len(r.engine.attempts()) > 0 {
					t.Errorf("it says %q after %d starts, want %q", b.GetMessage(), len(r.engine.attempts()), c.says)
				}
				return
			}
			if got := r.given(id); strings.Contains(got, "TOKEN:hunter2") == c.withheld {
				t.Errorf("it gets %q", got)
			}
		})
	}
}

// A secret of before keeps its reach.
func TestSecretsOfBeforeAreForEveryBuild(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.setSecret("", "TOKEN", "hunter2")
		var uses int64
		if err := r.service.store.DB.Read().QueryRowContext(t.Context(), `SELECT uses FROM secrets`).Scan(&uses); err != nil || uses != 30 {
			t.Errorf("every build is %d, error %v: the migration's default must be the same", uses, err)
		}
	})
}

func TestReachesThatNobodyCanMean(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	for _, req := range []*schedulerv1.SetSecretRequest{
		{Uses: []schedulerv1.Secret_Use{9}},
		{Uses: []schedulerv1.Secret_Use{0}},
		{Uses: []schedulerv1.Secret_Use{1}, Environment: "staging"},
		{Branches: []string{"["}},
		{Branches: []string{""}},
		{Branches: []string{"a\nb"}},
		{Branches: make([]string, 21)},
	} {
		req.Repository, req.Name, req.Value = "Acme/shop", "TOKEN", "hunter2"
		if _, err := r.secrets.SetSecret(t.Context(), req); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", req, err)
		}
	}
}
