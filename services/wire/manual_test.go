package wire_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// publishable is a file that has something to be asked for.
func publishable() string {
	return lines(
		"image: busybox", "execute: 'true'",
		"manual:",
		"  inputs:",
		"    version: {required: true, description: What to publish}",
		"    channel: {default: stable, options: [stable, beta]}",
		"    token: {secret: true}",
		"  jobs:",
		`    publish: {execute: 'printf "<%s>\n" "$INPUT_VERSION" "$INPUT_CHANNEL" "$INPUT_TOKEN" "$FORGE_TAG"; test ! -e pwned'}`,
	)
}

// created is the build that an answer of the API holds.
func created(t *testing.T, answer []byte) *schedulerv1.Build {
	t.Helper()
	var made schedulerv1.CreateBuildResponse
	if err := protojson.Unmarshal(answer, &made); err != nil || made.GetBuild().GetId() == "" {
		t.Fatalf("%s: %v", answer, err)
	}
	return made.GetBuild()
}

// What is given by hand, by command line and by HTTP, reaches the commands as it is, and
// a secret nothing else.
func TestABuildIsAskedForByHandWithInputs(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": lines("image: busybox", "execute: 'true'")})
		w.env = append(w.env, "FORGE_DEBUG=true")
		w.deploy(t, d)
		sha := w.push(t, "main", files(".forge.yml", publishable()))
		must(t, w.sim.CreateTag(owner, repo, "v1.4.2", "main"))
		later := w.push(t, "main", files("greeting", "hello again\n"))
		name, api := owner+"/"+repo, w.http+"/v1/builds"
		const version, token = "1.2\n$(touch pwned) `touch pwned` ${HOME}; \"'", "correct-horse-battery"

		w.says(t, "stable|beta", "builds", "inputs", name)
		answer, err := w.fed(t, token+"\n", "builds", "create", "--repo="+name, "--ref=refs/tags/v1.4.2", "--input", "version="+version, "--input=token", "--json")
		if err != nil {
			t.Fatalf("%v\n%s", err, answer)
		}
		var first schedulerv1.Build
		must(t, protojson.Unmarshal([]byte(answer), &first))
		w.shows(t, sha, "forge/manual", "success")
		if log := w.log(t, w.shows(t, sha, "forge/manual/publish", "success").TargetURL); !strings.Contains(log, "<"+version+">\n<stable>\n<***>\n<v1.4.2>\n") {
			t.Errorf("the commands print %q", log)
		}
		w.says(t, "input token    (secret)", "builds", "show", first.GetId())

		body, err := json.Marshal(map[string]any{"repository": name, "inputs": map[string]string{"version": "2", "channel": "beta"}})
		must(t, err)
		second := created(t, w.ask(t, http.MethodPost, api, string(body)))
		if second.GetAction() != schedulerv1.Build_ACTION_MANUAL || second.GetSha() != later {
			t.Errorf("built %v", second)
		}
		if log := w.log(t, w.shows(t, later, "forge/manual/publish", "success").TargetURL); !strings.Contains(log, "<2>\n<beta>\n<>\n<>\n") {
			t.Errorf("the commands print %q", log)
		}
		for inputs, want := range map[string]string{
			`{"versions": "1"}`:                                   `did you mean version?`,
			`{"version": "1", "channel": "gamma"}`:                `is not one of its options: expected stable, beta`,
			`{"channel": "beta"}`:                                 `input version is required`,
			`{"version": "` + strings.Repeat("x", 100<<10) + `"}`: `and 64 KiB is the most`,
			`{"version": "` + strings.Repeat("x", 1<<20) + `"}`:   `request body too large`,
		} {
			if got := w.ask(t, http.MethodPost, api, `{"repository": "`+name+`", "inputs": `+inputs+`}`); !strings.Contains(string(got), want) {
				t.Errorf("%.60s is answered by %.300s", inputs, got)
			}
		}
		if out, err := w.verb(t, "builds", "retry", first.GetId()); err == nil || !strings.Contains(out, "is a secret and was not kept") {
			t.Errorf("run again: %v, %s", err, out)
		}
		w.says(t, "input version", "builds", "retry", second.GetId())
		holdsNowhere(t, w, token)
	})
}

// holdsNowhere stops Forge and looks for a text in what it has stored and said, and in
// what GitHub was told.
func holdsNowhere(t *testing.T, w *world, secret string) {
	t.Helper()
	for _, p := range w.processes {
		p.stop(t)
		if strings.Contains(p.output.String(), secret) {
			t.Errorf("%s has logged it", p.name)
		}
	}
	for _, call := range w.sim.Calls() {
		if strings.Contains(call.Body, secret) {
			t.Errorf("GitHub was told by %s %s", call.Method, call.Path)
		}
	}
	err := filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("%s holds it", path)
		}
		return err
	})
	must(t, err)
}
