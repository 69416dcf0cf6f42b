package scheduler

import (
	"os"
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

func TestEveryVariableOfABuildIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/forge-yml.md")
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		for name := range u.plan.GetEnvironment() {
			if (strings.HasPrefix(name, "FORGE") || name == "CI" || name == "TRACEPARENT") && !strings.Contains(string(page), "`"+name+"`") {
				t.Errorf("docs/forge-yml.md does not say what %s is", name)
			}
		}
	})
}

func TestPushTellsItsBuildWhatItChanged(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		config := usual()
		config.Push = &configv1.Push{Branches: []string{"main"}, Tags: []string{"v*"}, Execute: config.GetExecute()}
		r.config.set("bbb", valid(config))
		push := pushedTo("refs/heads/main", "bbb")
		push.GetPush().Before, push.GetPush().HeadMessage = "aaa", "one\x00 \x1b[31m"+strings.Repeat("x", 1000)+"\r\ntwo"
		id := r.built(push)
		environment := r.attach(r.spec(id, 1).Runner.Token).plan.GetEnvironment()
		for name, want := range map[string]string{
			"FORGE_BEFORE_SHA": "aaa", "FORGE_BASE_SHA": "", "FORGE_TAG": "", "FORGE_COMMIT_MESSAGE": "one [31m" + strings.Repeat("x", 492),
		} {
			if got := environment[name]; got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
		tagged := r.built(pushedTo("refs/tags/v1", "bbb"))
		environment = r.attach(r.spec(tagged, 1).Runner.Token).plan.GetEnvironment()
		if environment["FORGE_TAG"] != "v1" || environment["FORGE_BEFORE_SHA"] != "" || environment["FORGE_COMMIT_MESSAGE"] != "Add a till" {
			t.Errorf("of a tag: %q", environment)
		}
	})
}
