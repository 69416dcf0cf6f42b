package engines

import (
	"strings"
	"testing"
)

func TestVariablesThatNoBuildCanHaveStopTheStart(t *testing.T) {
	for _, name := range []string{"", "A=B", "FORGE_SHA", "FORGE_RUNNER_TOKEN"} {
		_, err := New(t.Context(), Config{Name: "process", DataDir: t.TempDir(), Build: Build{Environment: map[string]string{name: "x"}}})
		if err == nil || !strings.Contains(err.Error(), "FORGE_BUILD_ENVIRONMENT") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := (Build{Environment: map[string]string{"MIRROR": "x", "npm.config": ""}}).check(); err != nil {
		t.Error(err)
	}
}
