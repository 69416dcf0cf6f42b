package forgexec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func write(t testing.TB, name string, content []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func planFile(t testing.TB, runs ...string) (path string) {
	t.Helper()
	plan := &schedulerv1.Plan{Environment: map[string]string{"CI": "true"}}
	for i, run := range runs {
		plan.Steps = append(plan.Steps, &schedulerv1.PlannedStep{Number: int32(i + 1), Run: run})
	}
	text, err := protojson.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "plan.json", text)
}

func TestAPlanFromAFileRunsWithoutAScheduler(t *testing.T) {
	source := write(t, "source.tar.gz", tarball(t, file("top/file", "content\n")))
	for _, c := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // a part of it
	}{
		{"passes", []string{"--plan", planFile(t, "cat file; echo $CI"), "--source", source}, 0, "content\ntrue\n", ""},
		{"fails", []string{"--plan", planFile(t, "exit 7", "echo never")}, 7, "", ""},
		{"no plan there", []string{"--plan", "/not/there"}, exitFailed, "", "no such file"},
		{"no plan", []string{"--plan", source}, exitFailed, "", "plan " + source},
		{"no source there", []string{"--plan", planFile(t), "--source", "/not/there"}, exitFailed, "", "no such file"},
		{"hostile source", []string{"--plan", planFile(t), "--source", write(t, "s", tarball(t, file("/x", "")))}, exitFailed, "", "outside of the workspace"},
		{"unknown flag", []string{"--pan"}, exitUsage, "", "--plan FILE"},
		{"an argument", []string{"plan.json"}, exitUsage, "", "--plan FILE"},
		{"a source alone", []string{"--source", source}, exitUsage, "", "--plan FILE"},
		{"help", []string{"--help"}, 0, "", "--plan FILE"},
		{"nothing", nil, exitFailed, "", "FORGE_RUNNER_URL and FORGE_RUNNER_TOKEN are not set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmp := t.TempDir()
			f := startForgexec(t, nil, c.args, "TMPDIR="+tmp)
			f.wantExit(t, c.code)
			if f.stdout.String() != c.stdout {
				t.Errorf("stdout: %q, want %q", f.stdout.String(), c.stdout)
			}
			if !strings.Contains(f.stderr.String(), c.stderr) {
				t.Errorf("stderr: %s; want %q in it", f.stderr.String(), c.stderr)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestShortDurations(t *testing.T) {
	for want, d := range map[string]string{"30m": "30m", "1h": "60m", "1h30m": "90m", "1m30s": "90s", "500ms": "0.5s", "10m": "600s"} {
		if got := short(parse(t, d)); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

func parse(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
