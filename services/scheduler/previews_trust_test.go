package scheduler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

func named(template string) func(*configv1.Destination) {
	return func(e *configv1.Destination) { e.Preview = template }
}

func labelled(labels ...string) func(*configv1.Destination) {
	return func(e *configv1.Destination) { e.Labels = labels }
}

// What the default branch's file and the pull request's say of previews, and which
// environment is deployed to by that.
func TestTheDefaultBranchSaysWhichPreviewsThereAre(t *testing.T) {
	static := to("canary-1", at("main"))
	absent := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{}}
	other := previewed()
	other.GetConfig().GetEnvironments()[0].Name = "pages"
	for _, c := range []struct {
		name       string
		main, head *configv1.GetBuildConfigResponse
		labels     []string
		want       string // the environments, and what they run
	}{
		{"both have it", previewed(), previewed(), nil, "preview-1 ./up"},
		{"the head runs something else", previewed(), previewed(func(e *configv1.Destination) { e.Execute = script("./mine") }), nil, "preview-1 ./mine"},
		{"the pull request brings it", valid(usual()), previewed(), nil, ""},
		{"the default branch has no file", absent, previewed(), nil, ""},
		{"the pull request has none", previewed(), valid(usual()), nil, ""},
		{"under another key", previewed(), other, nil, ""},
		{"the pull request calls it otherwise", previewed(), previewed(named("canary-${pull_request}")), nil, "preview-1 ./up"},
		{"the pull request calls it like an environment", previewed(), previewed(named("production")), nil, "preview-1 ./up"},
		{"what it makes of an environment", fileOf(static), previewed(func(e *configv1.Destination) { e.Name, e.Preview = "canary-1", "canary-${pull_request}" }), nil, ""},
		{"what it makes of a preview", previewed(), fileOf(to("preview-1", at("**"))), nil, ""},
		{"a label is there", previewed(labelled("a", "preview")), previewed(), []string{"preview"}, "preview-1 ./up"},
		{"a label is missing", previewed(labelled("a", "preview")), previewed(), []string{"previews"}, ""},
		{"the pull request asks for none", previewed(labelled("preview")), previewed(labelled()), nil, ""},
		{"the pull request asks for another", previewed(), previewed(labelled("never")), nil, "preview-1 ./up"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.config.set("main", c.main)
			r.config.set("aaa", c.head)
			e := opened(1, "aaa")
			pull(e).Labels = c.labels
			r.pass(r.built(r.github.shows(e)))
			var found []string
			for _, b := range r.all() {
				if b.GetEnvironment() != "" {
					stored, err := store.ReadBuild(t.Context(), r.service.store.DB.Read(), b.GetId(), "")
					if err != nil {
						t.Fatal(err)
					}
					found = append(found, b.GetEnvironment()+" "+stored.ConfigJob().GetCommands()[0].GetRun())
				}
			}
			if text := strings.Join(found, ", "); text != c.want {
				t.Errorf("deployed to %q, want %q", text, c.want)
			}
		})
	}
}

// Nobody takes with a preview the name of another environment, whenever that was there;
// and an environment takes back its name.
func TestAPreviewTakesNoOtherEnvironmentsName(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	says(r, fileOf(to("canary-1", at("main"))), "m1", "m2")
	r.pass(newestTo(r, "canary-1", r.build(r.send(pushedTo("refs/heads/main", "m1")).GetBuildIds()[0]).GetSha()).GetId())
	says(r, previewed(named("canary-${pull_request}")), "aaa")
	r.pass(r.built(opened(1, "aaa")))
	refused := inPreview(r, schedulerv1.Build_ACTION_PREVIEW)
	if refused.GetState() != schedulerv1.Build_STATE_ERRORED || refused.GetEnvironment() != "" || refused.GetContext() != "forge/deploy-canary-1" ||
		refused.GetMessage() != "canary-1 is another environment, or was one: call the previews otherwise" {
		t.Errorf("%v", refused)
	}
	r.send(closed("aaa", noon.Add(time.Minute)))
	if names := listedNames(r); !slices.Equal(names, []string{"canary-1 of #0"}) || inPreview(r, schedulerv1.Build_ACTION_STOP) != nil {
		t.Errorf("environments: %v", names)
	}

	says(r, previewed(named("next-${pull_request}")), "bbb")
	second := opened(2, "bbb")
	r.pass(r.built(second))
	r.pass(inPreview(r, schedulerv1.Build_ACTION_PREVIEW).GetId())
	says(r, fileOf(to("next-2", at("main"))), "m2")
	r.pass(newestTo(r, "next-2", r.build(r.send(pushedTo("refs/heads/main", "m2")).GetBuildIds()[0]).GetSha()).GetId())
	end := closed("bbb", noon.Add(time.Minute))
	pull(end).Number, end.DeliveryId = 2, "closed-2"
	r.send(end)
	if names := listedNames(r); !slices.Equal(names, []string{"canary-1 of #0", "next-2 of #0"}) || inPreview(r, schedulerv1.Build_ACTION_STOP) != nil {
		t.Errorf("environments: %v", names)
	}
}

// A preview gets what its pull request gets, and nothing that an environment has.
func TestAPreviewIsTrustedAsItsPullRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		event  *eventv1.Event
		policy string
		gets   bool
	}{
		{"the repository's own", opened(1, "aaa"), trigger.ForkApprove, true},
		{"a fork's", fromFork("eve", opened(1, "aaa")), trigger.ForkRun, false},
		{"a bot's", byBot(opened(1, "aaa")), trigger.ForkApprove, false},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.deps.Policy.Forks = c.policy
			r.deps.Trust.Repositories = []string{"acme/*"}
			r.start()
			file := previewed()
			file.GetConfig().Secrets, file.GetConfig().Privileged = []string{"TOKEN"}, true
			says(r, file, "aaa")
			r.setSecret("preview-1", "TOKEN", "of the environment")
			if _, err := r.secrets.SetSecret(t.Context(), &schedulerv1.SetSecretRequest{
				Repository: "Acme/shop", Name: "TOKEN", Value: "of pull requests", Uses: []schedulerv1.Secret_Use{schedulerv1.Secret_USE_PULL_REQUESTS},
			}); err != nil {
				t.Fatal(err)
			}
			r.pass(r.built(c.event))
			want := map[string]string{}
			if c.gets {
				want["TOKEN"] = "of pull requests"
			}
			for _, action := range []schedulerv1.Build_Action{schedulerv1.Build_ACTION_PREVIEW, schedulerv1.Build_ACTION_STOP} {
				b := inPreview(r, action)
				spec := r.spec(b.GetId(), 1)
				u := r.attach(spec.Runner.Token)
				if got := u.plan.GetSecrets(); len(got) != len(want) || got["TOKEN"] != want["TOKEN"] {
					t.Errorf("%v gets %v, want %v", action, got, want)
				}
				if spec.Privileged || b.GetFork() != spec.Fork || b.GetFork() != (pull(c.event).GetHead().GetRepository().GetId() == 8) {
					t.Errorf("%v: %v", action, spec)
				}
				u.send(passing(1)...)
				r.becomes(b.GetId(), schedulerv1.Build_STATE_PASSED)
				end := closed("aaa", noon.Add(time.Minute))
				pull(end).Head, pull(end).Author = pull(c.event).GetHead(), pull(c.event).GetAuthor()
				r.send(end)
			}
			unlisted(r)
		})
	}
}

func byBot(e *eventv1.Event) *eventv1.Event {
	pull(e).Author = &eventv1.Account{Login: "renovate[bot]", Type: eventv1.Account_TYPE_BOT}
	return e
}

// A secret of an environment alone does not come to a preview that is called so.
func TestASecretOfAnEnvironmentIsNoPreviews(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	file := previewed()
	says(r, file, "aaa")
	jobs := &configv1.Pipeline{Jobs: []*configv1.Job{{Name: "up", Title: "up", Image: "a", Secrets: []string{"TOKEN"}, Commands: []*configv1.Command{{Name: "x", Run: "x"}}}}}
	file.GetConfig().GetEnvironments()[0].Execute = jobs
	if _, err := r.secrets.SetSecret(t.Context(), &schedulerv1.SetSecretRequest{Repository: "Acme/shop", Name: "TOKEN", Value: "hunter2"}); err != nil {
		t.Fatal(err)
	}
	r.pass(r.built(opened(1, "aaa")))
	b := r.becomes(offered(r, "aaa").GetId(), schedulerv1.Build_STATE_ERRORED)
	want := "secret TOKEN is not for pull requests: forge secrets set TOKEN --repo Acme/shop --for pull-requests,pushes,tags,deploys"
	if job := r.build(store.JobID(b.GetId(), 1)); job.GetMessage() != want {
		t.Errorf("%q, want %q", job.GetMessage(), want)
	}
}

// A fork's commit is deployed, and taken down, where somebody approved it.
func TestAForksPreviewNeedsApproval(t *testing.T) {
	const head = "3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4"
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(), head, "bbb")
		test := r.send(r.github.shows(fromFork("eve", opened(1, head)))).GetBuildIds()[0]
		if b := r.build(test); b.GetState() != schedulerv1.Build_STATE_BLOCKED {
			t.Fatalf("%v", b)
		}
		r.send(commentBy("ada", "/forge approve "+head))
		r.pass(test)
		deploy := offered(r, head)
		if !deploy.GetFork() || deploy.GetApprovedBy() != "ada" {
			t.Errorf("%v", deploy)
		}
		r.pass(deploy.GetId())
		next := fromFork("eve", synchronize(head, "bbb", noon.Add(time.Minute)))
		r.send(r.github.shows(next))
		if b := newestTo(r, "preview-1", "bbb"); b != nil {
			t.Errorf("what nobody approved is deployed: %v", b)
		}
		r.send(fromFork("eve", closed("bbb", noon.Add(time.Hour))))
		stop := inPreview(r, schedulerv1.Build_ACTION_STOP)
		if stop.GetSha() != head || stop.GetApprovedBy() != "ada" || !stop.GetFork() {
			t.Fatalf("%v", stop)
		}
		r.pass(stop.GetId())
		unlisted(r)
	})
}

// A label brings its preview, and takes it away, whether or not the tests are over.
func TestALabelBringsItsPreview(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(labelled("preview")), "aaa", "bbb")
		label := func(action, label, sha string, after time.Duration, labels ...string) *eventv1.Event {
			return r.github.shows(marked(action, label, sha, noon.Add(after), false, labels...))
		}
		r.pass(r.built(r.github.shows(opened(1, "aaa"))))
		if d := r.send(label("labeled", "bug", "aaa", time.Minute, "bug")); d.GetText() != "ignored: action labeled" {
			t.Errorf("another label: %v", d)
		}
		on := label("labeled", "preview", "aaa", 2*time.Minute, "bug", "preview")
		d := r.send(on)
		first := offered(r, "aaa")
		if !slices.Contains(d.GetBuildIds(), first.GetId()) {
			t.Errorf("%v", d)
		}
		r.pass(first.GetId())
		builds := len(r.all())
		if r.again(on); len(r.all()) != builds {
			t.Errorf("once more: %v", r.all())
		}
		r.send(label("unlabeled", "preview", "aaa", 3*time.Minute, "bug"))
		stop := inPreview(r, schedulerv1.Build_ACTION_STOP)
		r.pass(stop.GetId())
		unlisted(r)

		next := synchronize("aaa", "bbb", noon.Add(4*time.Minute))
		pull(next).Labels = []string{"bug"}
		test := r.built(r.github.shows(next))
		r.send(label("labeled", "preview", "bbb", 5*time.Minute, "bug", "preview"))
		if b := newestTo(r, "preview-1", "bbb"); b != nil {
			t.Errorf("before its tests have passed: %v", b)
		}
		r.pass(test)
		r.pass(offered(r, "bbb").GetId())
	})
}

// What people ask for of previews, by comments, buttons and calls.
func TestPreviewsAreSteered(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(), "aaa", "bbb")
		test := r.built(r.github.shows(opened(1, "aaa")))
		r.pass(test)
		first := offered(r, "aaa").GetId()
		r.attach(r.spec(first, 1).Runner.Token)
		r.becomes(first, schedulerv1.Build_STATE_RUNNING)
		if d := r.send(commentBy("ada", "/forge cancel")); !slices.Contains(d.GetBuildIds(), first) {
			t.Errorf("%v", d)
		}
		cancelledRun(r, first)
		if names := listedNames(r); len(names) != 1 {
			t.Errorf("environments: %v", names)
		}
		button := pressedAt("aaa", first, "rerun")
		d := r.send(button)
		second := offered(r, "aaa")
		if second.GetRetryOf() != first || !slices.Equal(d.GetBuildIds(), []string{second.GetId()}) {
			t.Errorf("%v, %v", d, second)
		}
		r.pass(second.GetId())
		if d := r.send(sentBy("eve", pressedAt("aaa", second.GetId(), ""))); d.GetReason() != eventv1.Reason_REASON_NOT_ALLOWED {
			t.Errorf("by somebody who may not write: %v", d)
		}
		if d := r.send(pressedAt("aaa", first, "")); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
			t.Errorf("the older once more: %v", d)
		}

		// The same tests, once more, deploy what is there already no second time.
		builds := len(r.all())
		again := r.send(commentBy("ada", "/forge retest")).GetBuildIds()[0]
		r.pass(again)
		if len(r.all()) != builds+1 {
			t.Errorf("%v", r.all())
		}

		r.send(r.github.shows(synchronize("aaa", "bbb", noon.Add(time.Minute))))
		for name, err := range map[string]error{
			"an older commit once more":  retry(r, second.GetId()),
			"by hand, as an action":      createByHand(r, &schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Action: schedulerv1.Build_ACTION_PREVIEW}),
			"by hand, as an environment": createByHand(r, &schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Branch: "main", Environment: "preview-1"}),
			"a teardown by hand":         createByHand(r, &schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Action: schedulerv1.Build_ACTION_STOP}),
			"letting go what waits not":  letRun(r, second.GetId()),
		} {
			if err == nil {
				t.Errorf("%s is done", name)
			} else if message := status.Convert(err).Message(); strings.Contains(message, "internal") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func retry(r *rig, id string) error {
	_, err := r.builds.RetryBuild(r.t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id})
	return err
}

func letRun(r *rig, id string) error {
	_, err := r.builds.ApproveBuild(r.t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: id})
	return err
}

func createByHand(r *rig, req *schedulerv1.CreateBuildRequest) error {
	r.config.mu.Lock()
	r.config.branches = map[string][]string{"main": {"m11"}}
	r.config.mu.Unlock()
	_, err := r.builds.CreateBuild(r.t.Context(), req)
	return err
}
