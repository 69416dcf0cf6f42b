package forgexec

import (
	"strings"
	"testing"
)

func TestStepsHaveSecretsAndNobodyElseReadsThem(t *testing.T) {
	s := newScheduler(t,
		`echo "$TOKEN and $MOOD and $FORGE"; test "$TOKEN" = hunter2; printf %s "$TOKEN" | base64; printf '%s\n' "$KEY"`,
		`printf 'hunt'; sleep 0.2; printf 'er2\n'; printf 'er2 hunter' >&2`,
		`echo "$FORGE"; tr '\0' '\n' </proc/$PPID/environ || true; tr '\0' ' ' </proc/$PPID/cmdline`,
		`echo stop; sleep 1000`,
	)
	s.plan.Environment = map[string]string{"TOKEN": "of .forge.yml", "MOOD": "good", "FORGE": "true"}
	s.plan.Secrets = map[string]string{"TOKEN": "hunter2", "KEY": "-----BEGIN-----\nMIIEowIBAAKCAQ\n-----END-----\n"}
	s.plan.Notices = []string{"forge: one thing", "forge: another"}
	f := s.forgexec(t, "FORGE_RUNNER_NOTICE=forge: the engine's")
	s.awaitOutput(t, "stop\n")
	s.cancelled <- "because of hunter2"
	f.wantExit(t, exitReported)
	story := s.story()
	for _, secret := range []string{"hunter2", "aHVudGVyM", "MIIEow", "BEGIN"} {
		if strings.Contains(story, secret) || strings.Contains(f.stderr.String()+f.stdout.String(), secret) {
			t.Errorf("%q was told:\n%s", secret, story)
		}
	}
	for _, line := range []string{
		`"forge: the engine's\nforge: one thing\nforge: another\n*** and good and true\n***==\n***\n\n"`,
		`"***\ner2 hunter"`,
		`CANCELLED because of ***`,
	} {
		if !strings.Contains(story, line) {
			t.Errorf("%s is not in\n%s", line, story)
		}
	}
	if !s.hellos[0].GetMasksSecrets() {
		t.Error("it does not say that it masks")
	}
}

func TestOutputMaskedInPiecesStaysWhole(t *testing.T) {
	s := newScheduler(t, `i=0; while [ $i -lt 20000 ]; do echo "line $i with $TOKEN in its middle"; i=$((i+1)); done | tee "$HOME/want"`)
	s.plan.Secrets = map[string]string{"TOKEN": strings.Repeat("hunter2", 100)}
	home := t.TempDir()
	s.forgexec(t, "HOME="+home).wantExit(t, exitReported)
	got := string(s.output())
	if lines := strings.Count(got, " with *** in its middle\n"); lines != 20000 || strings.Contains(got, "hunter") {
		t.Errorf("%d of 20000 lines are masked", lines)
	}
}
