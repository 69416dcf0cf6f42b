package config

import (
	"encoding/json"
	"reflect"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
)

func TestFilesAreCheckedWithoutAnyGitHub(t *testing.T) {
	check := func(content string) *configv1.ValidateBuildConfigResponse {
		answer, err := (*Service)(nil).ValidateBuildConfig(t.Context(), &configv1.ValidateBuildConfigRequest{Content: content})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if good := check(goodFile); good.GetConfig().GetImage() != "busybox" || good.GetText() != "" {
		t.Errorf("a good file: %v", good)
	}
	bad := check("image: busybox\nexceute: make\n")
	const want = ".forge.yml:2:1: unknown key \"exceute\", did you mean \"execute\"?\n  2 | exceute: make\n    | ^\n"
	if bad.GetText() != want || len(bad.GetInvalid().GetProblems()) != 1 {
		t.Errorf("a bad file: %v", bad)
	}
}

func TestSchemaIsServedAsItIsWritten(t *testing.T) {
	w := newWorld(t)
	answer, err := configv1.NewBuildConfigServiceClient(w.as("nobody")).GetSchema(t.Context(), &configv1.GetSchemaRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(buildfile.Schema), &want); err != nil {
		t.Fatal(err)
	}
	if got := answer.GetSchema().AsMap(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}
