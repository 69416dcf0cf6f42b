package wire_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A whole run with secrets, set by command line and by HTTP, printed in every way
// by builds that pass and fail: what is stored, logged, traced and told GitHub
// holds none of them.
func TestSecretsReachBuildsAndNothingElse(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true}} {
		t.Run(d.String(), func(t *testing.T) { keepSecrets(t, d) })
	}
}

func keepSecrets(t *testing.T, d deployment) {
	const token, live = "correct-horse-battery-staple", "live/and+kicking"
	const key = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA1c7WQ9z5Pad7OejecsQ0bu3aozN3tihPmUODGOjgMxdsF\nsecond-line-of-it\n-----END KEY-----\n"
	is := func(name, value string) string {
		sum := sha256.Sum256([]byte(value))
		return fmt.Sprintf(`test "$(printf %%s "$%s" | sha256sum | cut -c -64)" = %s`, name, hex.EncodeToString(sum[:]))
	}
	w := newWorld(t, map[string]string{".forge.yml": lines(
		"image: busybox",
		"secrets: [TOKEN, KEY, LIVE]",
		"environment: {TOKEN: not this}",
		"execute:",
		"  - {name: got, run: '"+is("TOKEN", token)+`; test -z "$LIVE"'}`,
		"  - name: tell",
		"    run: |",
		`      echo "$TOKEN"; echo "$KEY"; printf %s "$TOKEN" | base64; printf 'user:%s' "$TOKEN" | base64; printf %s "$KEY" | base64`,
		`      i=0; while [ $i -lt 28 ]; do printf %s "$(printf %s "$TOKEN" | cut -c $((i+1)))"; i=$((i+1)); sleep 0.01; done; echo`,
		`      env; set -x; echo "$TOKEN" >&2; exit 3`,
		"deploy: {production: ['"+is("LIVE", live)+"', '"+is("TOKEN", token)+"', 'echo [$LIVE]']}",
	)})
	var needles []string
	for _, secret := range []string{token, live, key} {
		needles = append(needles, strings.Split(strings.TrimSpace(secret), "\n")...)
		for before := range 3 { // from its middle, whatever stands around
			encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + secret))
			needles = append(needles, encoded[4:16])
		}
	}
	quiet := func(where string, text []byte) {
		t.Helper()
		for _, needle := range needles {
			if bytes.Contains(text, []byte(needle)) {
				t.Errorf("%s holds %q", where, needle)
			}
		}
	}
	w.env = append(w.env, "FORGE_DEBUG=true", "OTEL_TRACES_EXPORTER=console", "FORGE_REPORT=both")
	w.deploy(t, d)
	w.awaitServing(t)

	missing := w.page(t, w.shows(t, w.branchHead(t, "early"), "forge/test", "error").TargetURL)
	if !strings.Contains(missing, "no secret TOKEN, KEY, LIVE: forge secrets set TOKEN --repo "+owner+"/"+repo) {
		t.Errorf("a build without its secrets says\n%s", missing)
	}

	address := w.grpc
	if d.apart {
		address = w.apart["scheduler"]
	}
	for _, set := range [][]string{{token + "\n", "TOKEN", "--for=pull-requests,pushes,tags,deploys"}, {live, "LIVE", "--environment=production"}} {
		out, err := w.fed(t, set[0], append([]string{"secrets", "set", "--grpc-address=" + address, "--repo=" + owner + "/" + repo}, set[1:]...)...)
		if quiet("forge secrets set", []byte(out)); err != nil {
			t.Fatalf("forge secrets set: %v\n%s", err, out)
		}
	}
	body, err := json.Marshal(map[string]any{"value": key, "uses": []string{"USE_PULL_REQUESTS", "USE_DEPLOYS"}})
	if err != nil {
		t.Fatal(err)
	}
	secrets := w.http + "/v1/secrets"
	quiet("the answer", w.ask(t, http.MethodPut, secrets+"/"+owner+"/"+repo+"/KEY", string(body)))
	quiet("an error", w.ask(t, http.MethodPut, secrets+"/"+owner+"/"+repo+"/FORGE_KEY", string(body)))
	listed := w.ask(t, http.MethodGet, secrets+"?repository="+owner+"/"+repo, "")
	if quiet("the list", listed); strings.Count(string(listed), `"name":`) != 3 {
		t.Errorf("listed are %s", listed)
	}
	w.says(t, "deploys to production", "secrets", "list", "--grpc-address="+address)

	number, head := w.propose(t, "tell", files("greeting", "hello again\n"))
	log := w.log(t, w.shows(t, head, "forge/test", "failure").TargetURL)
	quiet("the log", []byte(log))
	for _, want := range []string{
		"forge: secret LIVE is only for deploys to production\n", "\n***\n***\n", "TOKEN=***\n", "KEY=***\n", "+ echo '***'\n",
	} {
		if !strings.Contains(strings.Replace(log, "+ echo ***\n", "+ echo '***'\n", 1), want) {
			t.Errorf("%q is not in the log\n%s", want, log)
		}
	}
	w.merge(t, number)
	released := w.merge(t, w.promotion(t).Number)
	if log := w.log(t, w.shows(t, released, "forge/deploy-production", "success").TargetURL); !strings.HasSuffix(log, "[***]\n") {
		t.Errorf("the deploy printed %q", log)
	}
	w.ask(t, http.MethodDelete, secrets+"/"+owner+"/"+repo+"/KEY", "")
	if left := w.ask(t, http.MethodGet, secrets, ""); strings.Count(string(left), `"name":`) != 2 {
		t.Errorf("with one deleted: %s", left)
	}

	for _, p := range w.processes {
		p.stop(t)
		if !strings.Contains(p.output.String(), "SpanContext") {
			t.Errorf("%s shows no span", p.name)
		}
		quiet(p.name, []byte(p.output.String()))
	}
	for _, call := range w.sim.Calls() {
		quiet(call.Method+" "+call.Path, fmt.Appendf(nil, "%+v", call))
	}
	files := 0
	err = filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		quiet(path, text)
		return err
	})
	if err != nil || files < 4 {
		t.Errorf("looked into %d files, %v", files, err)
	}
}

// branchHead proposes a change and returns its commit.
func (w *world) branchHead(t *testing.T, branch string) (sha string) {
	t.Helper()
	_, sha = w.propose(t, branch, files(branch, "x\n"))
	return sha
}

// ask calls the JSON API as the admin and returns the answer, an error too.
func (s *server) ask(t *testing.T, method, url, body string) []byte {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+adminToken)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
