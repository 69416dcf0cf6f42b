package scheduler

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// publishing is a file that has something to be asked for.
func publishing() *configv1.BuildConfig {
	config := usual()
	config.Manual = &configv1.Manual{
		Inputs: []*configv1.Input{
			{Name: "version", Variable: "INPUT_VERSION", Required: true},
			{Name: "channel", Variable: "INPUT_CHANNEL", Default: "stable", Options: []string{"stable", "beta"}},
			{Name: "token", Variable: "INPUT_TOKEN", Secret: true},
		},
		Execute: &configv1.Pipeline{Commands: []*configv1.Command{{Name: "publish", Run: "./publish"}}},
	}
	return config
}

// publisher is a rig whose files have something to be asked for.
type publisher struct{ *rig }

func eachPublisher(t *testing.T, test func(t *testing.T, r publisher)) {
	each(t, func(t *testing.T, r *rig) { test(t, publisher{r}) })
}

// offers has a commit hold that file, as changes leave it.
func (r publisher) offers(sha string, changes ...func(*configv1.BuildConfig)) {
	config := publishing()
	for _, change := range changes {
		change(config)
	}
	r.config.set(sha, valid(config))
}

func byHand(inputs map[string]string) *schedulerv1.CreateBuildRequest {
	return &schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Action: schedulerv1.Build_ACTION_MANUAL, Inputs: inputs}
}

func (r publisher) asks(req *schedulerv1.CreateBuildRequest) *schedulerv1.Build {
	r.t.Helper()
	answer, err := r.builds.CreateBuild(r.t.Context(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetBuild()
}

func TestCommandsSeeWhatWasGivenAsVariables(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r publisher) {
		r.branches()
		r.offers(tip, func(c *configv1.BuildConfig) {
			c.Environment = map[string]string{"INPUT_VERSION": "the file's", "INPUT_OTHER": "the file's"}
		})
		const value = "1.2\n$(touch /tmp/x)`id`${HOME}; \"'"
		b := r.asks(byHand(map[string]string{"version": value, "token": "hunter2 $(id)\nline two"}))
		if b.GetContext() != "forge/manual" || b.GetSha() != tip || b.GetRef() != "refs/heads/main" || b.GetActor() != administrator || b.GetBaseRef() != "" {
			t.Errorf("built %v", b)
		}
		if got := fmt.Sprint(b.GetInputs()); !strings.Contains(got, "stable") || strings.Contains(got, "hunter2") || len(b.GetInputs()) != 3 {
			t.Errorf("shown are %s", got)
		}
		plan := r.attach(r.spec(b.GetId(), 1).Runner.Token).plan
		seen := plan.GetEnvironment()
		if seen["INPUT_VERSION"] != value || seen["INPUT_CHANNEL"] != "stable" || seen["INPUT_OTHER"] != "the file's" || seen["FORGE_ACTION"] != "manual" {
			t.Errorf("the commands see %v", seen)
		}
		if _, plain := seen["INPUT_TOKEN"]; plain || plan.GetSecrets()["INPUT_TOKEN"] != "hunter2 $(id)\nline two" {
			t.Errorf("the secret is handed as %v, and as %v", seen, plan.GetSecrets())
		}
		if step := plan.GetSteps()[0]; step.GetRun() != "./publish" || step.GetName() != "publish" {
			t.Errorf("what is run is %v", step)
		}
	})
}

// stored is all that the tables hold in which a build has rows.
func (r publisher) stored() string {
	r.t.Helper()
	var all strings.Builder
	for _, table := range []string{"builds", "inputs", "targets", "outputs", "decisions", "attempts"} {
		if err := r.dump(&all, table); err != nil {
			r.t.Fatal(err)
		}
	}
	return all.String()
}

func (r publisher) dump(into *strings.Builder, table string) error {
	rows, err := r.deps.DB.Read().QueryContext(r.t.Context(), `SELECT * FROM `+table) //nolint:unqueryvet // whatever columns there are
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	for err == nil && rows.Next() {
		cells, places := make([]sql.RawBytes, len(columns)), make([]any, len(columns))
		for i := range cells {
			places[i] = &cells[i]
		}
		err = rows.Scan(places...)
		for _, cell := range cells {
			into.Write(cell)
		}
	}
	return errors.Join(err, rows.Err())
}

func TestASecretThatWasGivenIsEncryptedAndGoneWithItsBuild(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r publisher) {
		r.branches()
		r.offers(tip)
		r.offers(older, func(c *configv1.BuildConfig) {
			c.Manual.Execute = &configv1.Pipeline{Jobs: []*configv1.Job{{Name: "publish", Title: "publish", Image: "busybox", Commands: c.GetManual().GetExecute().GetCommands()}}}
		})
		given := map[string]string{"version": "1.2", "token": "hunter2"}
		secrets := func(id string) int {
			return r.count(`SELECT count(*) FROM inputs WHERE build_id = $1 AND key_id <> ''`, id)
		}
		for name, sha := range map[string]string{"commands": tip, "jobs": older} {
			req := byHand(given)
			req.Sha = sha
			id := r.asks(req).GetId()
			if text := r.stored(); strings.Contains(text, "hunter2") || !strings.Contains(text, "1.2") {
				t.Errorf("%s: what is stored holds the secret, or not what is none", name)
			}
			running := id
			if sha == older {
				running = id + "-1"
			}
			if got := r.given(running); !strings.Contains(got, "INPUT_TOKEN:hunter2") {
				t.Errorf("%s: the build is handed %s", name, got)
			}
			if secrets(id) != 1 {
				t.Errorf("%s: %d secrets are kept while the build runs", name, secrets(id))
			}
			r.cancelled(id)
			if secrets(id) != 0 || r.count(`SELECT count(*) FROM inputs WHERE build_id = $1`, id) != 2 {
				t.Errorf("%s: after its end, %d secrets are kept", name, secrets(id))
			}
			_, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id})
			if status.Code(err) != codes.FailedPrecondition || err.Error() != "input token of build "+id+" is a secret and was not kept: ask for a new build by hand" {
				t.Errorf("%s: run again: %v", name, err)
			}
		}
		built := r.all()
		err := r.service.store.Write(t.Context(), func(ctx context.Context, t *store.Tx) (err error) {
			for _, b := range built {
				err = errors.Join(err, removeBuild(ctx, t, b.GetId()))
			}
			return err
		})
		if left := r.count(`SELECT count(*) FROM inputs`); err != nil || left != 0 {
			t.Errorf("with their builds removed, %d inputs are kept: %v", left, err)
		}
	})
}

// In another build's place a value is none: it is sealed for its own.
func TestASealedInputOpensForItsBuildAlone(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r publisher) {
		r.branches()
		r.offers(tip)
		other := r.asks(byHand(map[string]string{"version": "1", "token": "hunter2"})).GetId()
		id := r.asks(byHand(map[string]string{"version": "1", "token": "other22"})).GetId()
		token := r.spec(id, 1).Runner.Token
		err := r.service.store.Write(t.Context(), func(ctx context.Context, t *store.Tx) error {
			return t.Exec(ctx, `UPDATE inputs SET value = (SELECT value FROM inputs WHERE build_id = $1 AND name = 'token') WHERE build_id = $2 AND name = 'token'`, other, id)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.stream(token, &schedulerv1.Hello{RunnerId: "r", MasksSecrets: true}).refused(); !fault.Is(err, fault.Conflict) {
			t.Errorf("the runner is told %v", err)
		}
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if b.GetReason() != schedulerv1.Build_REASON_SECRET_UNAVAILABLE || !strings.HasPrefix(b.GetMessage(), "input token cannot be decrypted") || strings.Contains(b.GetMessage(), "hunter2") {
			t.Errorf("it ends with %v: %s", b.GetReason(), b.GetMessage())
		}
	})
}

func TestWhatIsRunByHandIsWhatTheRepositoryItselfHolds(t *testing.T) {
	given := map[string]string{"version": "1.2"}
	request := func(change func(*schedulerv1.CreateBuildRequest)) *schedulerv1.CreateBuildRequest {
		req := byHand(given)
		change(req)
		return req
	}
	for name, c := range map[string]struct {
		req  *schedulerv1.CreateBuildRequest
		code codes.Code
		text string // of the error, or ref and sha
	}{
		"default branch": {byHand(given), codes.OK, "refs/heads/main " + tip},
		"by its inputs":  {request(func(r *schedulerv1.CreateBuildRequest) { r.Action = 0 }), codes.OK, "refs/heads/main " + tip},
		"a branch":       {request(func(r *schedulerv1.CreateBuildRequest) { r.Branch = "production" }), codes.OK, "refs/heads/production " + promoted},
		"an older one":   {request(func(r *schedulerv1.CreateBuildRequest) { r.Sha = older }), codes.OK, "refs/heads/main " + older},
		"a tag":          {request(func(r *schedulerv1.CreateBuildRequest) { r.Tag = "v1" }), codes.OK, "refs/tags/v1 " + older},

		"a fork's commit":   {request(func(r *schedulerv1.CreateBuildRequest) { r.Sha = forks }), codes.NotFound, "the branch does not hold it"},
		"no such tag":       {request(func(r *schedulerv1.CreateBuildRequest) { r.Tag = "v2" }), codes.NotFound, ""},
		"no such branch":    {request(func(r *schedulerv1.CreateBuildRequest) { r.Branch = "refs/pull/1/head" }), codes.NotFound, ""},
		"short sha":         {request(func(r *schedulerv1.CreateBuildRequest) { r.Sha = "abc" }), codes.InvalidArgument, "sha: expected all 40 digits"},
		"in the queue":      {request(func(r *schedulerv1.CreateBuildRequest) { r.Branch = "gh-readonly-queue/main/pr-1-abc" }), codes.InvalidArgument, "branch: the merge queue's own branches hold what nobody has merged, so nothing is run there by hand"},
		"no such input":     {request(func(r *schedulerv1.CreateBuildRequest) { r.Inputs = map[string]string{"versions": "1"} }), codes.InvalidArgument, "build aaaaaaa of Acme/shop: there is no input \"versions\", did you mean version?"},
		"none given":        {request(func(r *schedulerv1.CreateBuildRequest) { r.Inputs = nil }), codes.InvalidArgument, "build aaaaaaa of Acme/shop: input version is required"},
		"a megabyte":        {byHand(map[string]string{"version": strings.Repeat("x", 1<<20)}), codes.InvalidArgument, "input \"version\": it has 1048576 bytes, and 64 KiB is the most: put it into a file of the repository, or where the commands can fetch it"},
		"nothing offered":   {&schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Branch: "plain", Action: schedulerv1.Build_ACTION_MANUAL}, codes.FailedPrecondition, "nothing to run for manual in .forge.yml"},
		"inputs for a test": {request(func(r *schedulerv1.CreateBuildRequest) { r.Action = schedulerv1.Build_ACTION_TEST }), codes.InvalidArgument, "inputs and tag: only what manual in .forge.yml runs takes them, which is the action manual"},
		"a tag for a test":  {&schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Tag: "v1"}, codes.InvalidArgument, "inputs and tag: only what manual in .forge.yml runs takes them, which is the action manual"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := publisher{sqliteRig(t)}
			r.branches()
			plain := strings.Repeat("9", 40)
			r.config.branches["plain"], r.config.tags = []string{plain}, map[string]string{"v1": older}
			for _, sha := range []string{tip, older, promoted} {
				r.offers(sha)
			}
			r.start()
			answer, err := r.builds.CreateBuild(t.Context(), c.req)
			if status.Code(err) != c.code {
				t.Fatalf("%v, want %v", err, c.code)
			}
			if err != nil {
				if c.text != "" && err.Error() != c.text || len(r.all()) != 0 {
					t.Errorf("%q, want %q; built %v", err, c.text, r.all())
				}
				return
			}
			b := answer.GetBuild()
			if b.GetRef()+" "+b.GetSha() != c.text || b.GetAction() != schedulerv1.Build_ACTION_MANUAL || b.GetPullRequest() != 0 {
				t.Errorf("%v", b)
			}
			if again := r.asks(c.req); again.GetId() == b.GetId() {
				t.Error("asked for twice, it is one build")
			}
		})
	}
}

// A build by hand has the secrets that a push there has.
func TestABuildByHandHasTheSecretsOfAPush(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r publisher) {
		r.branches()
		r.config.tags = map[string]string{"v1": older}
		naming := func(c *configv1.BuildConfig) { c.Secrets = []string{"TOKEN"} }
		r.offers(tip, naming)
		r.offers(older, naming)
		set := func(use schedulerv1.Secret_Use) {
			_, err := r.secrets.SetSecret(t.Context(), &schedulerv1.SetSecretRequest{Repository: "Acme/shop", Name: "TOKEN", Value: "hunter2", Uses: []schedulerv1.Secret_Use{use}})
			if err != nil {
				t.Fatal(err)
			}
		}
		ofTag := byHand(map[string]string{"version": "1"})
		ofTag.Tag = "v1"
		for _, c := range []struct {
			use  schedulerv1.Secret_Use
			req  *schedulerv1.CreateBuildRequest
			gets bool
		}{
			{schedulerv1.Secret_USE_PUSHES, byHand(map[string]string{"version": "1"}), true},
			{schedulerv1.Secret_USE_PULL_REQUESTS, byHand(map[string]string{"version": "1"}), false},
			{schedulerv1.Secret_USE_DEPLOYS, byHand(map[string]string{"version": "1"}), false},
			{schedulerv1.Secret_USE_TAGS, ofTag, true},
			{schedulerv1.Secret_USE_PUSHES, ofTag, false},
		} {
			set(c.use)
			id := r.asks(c.req).GetId()
			if !c.gets {
				r.becomes(id, schedulerv1.Build_STATE_ERRORED)
				continue
			}
			if got := r.given(id); got != "map[TOKEN:hunter2]" {
				t.Errorf("%v: the build gets %s", c.use, got)
			}
			r.cancelled(id)
		}
	})
}

func TestABuildByHandIsRunAgainWithWhatWasGiven(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r publisher) {
		r.branches()
		r.offers(tip)
		first := r.asks(byHand(map[string]string{"version": "1", "channel": "beta"})).GetId()
		other := r.asks(byHand(map[string]string{"version": "2"})).GetId()
		retry := func(id string) (*schedulerv1.Build, error) {
			answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id})
			return answer.GetBuild(), err
		}
		if _, err := retry(first); status.Code(err) != codes.AlreadyExists {
			t.Errorf("while it runs: %v", err)
		}
		r.cancelled(first)
		again, err := retry(first)
		if err != nil || again.GetRetryOf() != first {
			t.Fatalf("%v, %v", again, err)
		}
		if seen := r.attach(r.spec(again.GetId(), 1).Runner.Token).plan.GetEnvironment(); seen["INPUT_VERSION"] != "1" || seen["INPUT_CHANNEL"] != "beta" {
			t.Errorf("run again, the commands see %v", seen)
		}
		if _, err := retry(first); status.Code(err) != codes.AlreadyExists {
			t.Errorf("while the second runs: %v", err)
		}
		r.cancelled(other)
		r.cancelled(again.GetId())

		// A button at its check runs it once more; all checks of the commit leave it alone.
		press := r.send(pressedAt(tip, other, ""))
		if len(press.GetBuildIds()) != 1 || r.build(press.GetBuildIds()[0]).GetRetryOf() != other {
			t.Errorf("the button leads to %v", press)
		}
		r.cancelled(press.GetBuildIds()[0])
		if d := r.send(happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{HeadSha: tip})); d.GetReason() != eventv1.Reason_REASON_NOTHING_TO_RUN {
			t.Errorf("all checks: %v", d)
		}
	})
}

func TestGetManualSaysWhatCanBeAskedFor(t *testing.T) {
	r := publisher{sqliteRig(t)}
	r.branches()
	r.offers(tip)
	r.config.tags = map[string]string{"v1": older}
	r.start()
	get := func(branch, tag string) (*schedulerv1.GetManualResponse, error) {
		return r.manual.GetManual(t.Context(), &schedulerv1.GetManualRequest{Repository: "Acme/shop", Branch: branch, Tag: tag})
	}
	if got, err := get("", ""); err != nil || !got.GetOffered() || len(got.GetInputs()) != 3 || got.GetSha() != tip || got.GetInputs()[0].GetName() != "version" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := get("", "v1"); err != nil || got.GetOffered() || got.GetSha() != older {
		t.Errorf("of a tag without: %v, %v", got, err)
	}
	if _, err := get("nope", ""); status.Code(err) != codes.NotFound {
		t.Errorf("%v", err)
	}
	r.config.set(tip, invalid)
	if _, err := get("main", ""); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("of a broken file: %v", err)
	}
}
