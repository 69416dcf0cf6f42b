package secrets

import (
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/mask"
)

func TestValuesThatLogsAreFullOfAreWarnedOf(t *testing.T) {
	for value, want := range map[string]string{
		"main": "plain word", "true": "plain word", "docker": "plain word", "Production": "plain word", "DEBUG": "plain word", "8080": "plain word",
		"a": "not masked", strings.Repeat("x", mask.Shortest-1): "not masked",
		"ghp_16C7e42F292c6912E7710c838347Ae178B4a": "", "correct horse battery": "", "hunter2!": "", "1234567890": "", "antidisestablishmentarianism": "",
		"c2VjcmV0": "",
	} {
		if got := warning(value); got == "" != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}
