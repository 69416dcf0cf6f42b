package registration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/forge-ci/forge/services/kit/settings"
)

func made(id int64) App {
	return App{
		ID: id, Name: "../../evil", Slug: "../../evil", HTMLURL: "https://evil.example", ClientID: "Iv1.x", ClientSecret: "client-hush",
		WebhookSecret: "hook-hush", PEM: "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat("x", 1<<16) + "\n-----END RSA PRIVATE KEY-----\n",
	}
}

func wanted() Config {
	return Config{GitHubURL: "https://ghe.example.com", APIURL: "https://ghe.example.com/api/v3", URL: "https://forge.example.com"}
}

// named are the settings of a place, and what is in the files that they name. A file
// that is not whole, or open to others, fails the test.
func (p Place) named(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(p.File)
	if err != nil {
		t.Fatal(err)
	}
	has, err := settings.Read(text)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for key, value := range has {
		if !strings.HasSuffix(key, "_file") {
			continue
		}
		content, err := os.ReadFile(value)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(value)
		if err != nil || info.Mode().Perm() != 0o600 || len(content) == 0 || content[len(content)-1] != '\n' {
			t.Errorf("%s: mode %v, %v", value, info.Mode(), err)
		}
		if folder, err := os.Stat(filepath.Dir(value)); err != nil || folder.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", filepath.Dir(value), folder.Mode(), err)
		}
		has[key] = strings.TrimSpace(string(content))
	}
	return has
}

func TestCredentialsAreKeptWhereForgeFindsThem(t *testing.T) {
	dir := t.TempDir()
	p := Place{File: filepath.Join(dir, "forge.yaml"), DataDir: filepath.Join(dir, "data")}
	if err := os.WriteFile(p.File, []byte("# Ours.\nengine: process # for now\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(wanted()); err != nil {
		t.Fatal(err)
	}
	folder, err := p.Save(wanted(), made(5))
	if err != nil || folder != filepath.Join(p.DataDir, "app-5") {
		t.Fatalf("%s, %v", folder, err)
	}
	has := p.named(t)
	for key, want := range map[string]string{
		"github_app_id": "5", "webhook_secrets_file": "hook-hush", "oauth_client_secret_file": "client-hush", "oauth_client_id": "Iv1.x",
		"external_url": "https://forge.example.com", "github_url": "https://ghe.example.com", "github_api_url": "https://ghe.example.com/api/v3", "engine": "process",
	} {
		if has[key] != want {
			t.Errorf("%s is %q, want %q", key, has[key], want)
		}
	}
	text, err := os.ReadFile(p.File)
	if err != nil || !strings.HasPrefix(string(text), "# Ours.\nengine: process # for now\n") || strings.Contains(string(text), "hush") {
		t.Errorf("%v: %s", err, text)
	}
	if info, err := os.Stat(p.File); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the settings file has mode %v, %v", info.Mode(), err)
	}

	// Another App takes its place only where that is asked for, and leaves it its files.
	if err := p.Check(wanted()); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("another App: %v", err)
	}
	other := wanted()
	other.URL = "https://other.example.com"
	p.Force = true
	for n, id := range []int64{6, 5} {
		if err := p.Check(other); err != nil {
			t.Fatal(err)
		}
		if folder, err = p.Save(other, made(id)); err != nil {
			t.Fatal(err)
		}
		if has := p.named(t); has["github_app_id"] != strconv.FormatInt(id, 10) || has["external_url"] != other.URL {
			t.Errorf("%d: %v", n, has)
		}
	}
	if _, err := os.Stat(filepath.Join(p.DataDir, "app-5", keyFile)); err != nil || folder != filepath.Join(p.DataDir, "app-5.2") {
		t.Errorf("the first App's files: %v; the last are in %s", err, folder)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", ".*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestNothingIsOverwrittenUnasked(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"external_url: https://forge.example.com": "",
		"external_url: https://other.example.com": "forge.yaml has external_url: https://other.example.com, and the App would have https://forge.example.com: --force",
		"github_private_key: x":                   "forge.yaml has github_private_key already",
		"webhook_secrets: [x]":                    "forge.yaml has webhook_secrets already",
		"{engine: docker}":                        "cannot be added to",
		"a: b: c":                                 "settings file",
	} {
		t.Chdir(t.TempDir())
		p := Place{File: "forge.yaml", DataDir: "data"}
		if err := os.WriteFile(p.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Check(wanted()); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", text, err)
		}
		if now, err := os.ReadFile(p.File); err != nil || string(now) != text {
			t.Errorf("%q became %q, %v", text, now, err)
		}
	}
	p := Place{File: filepath.Join(t.TempDir(), "no", "forge.yaml"), DataDir: t.TempDir()}
	if err := p.Check(wanted()); err == nil || !strings.Contains(err.Error(), "folder of the settings file") {
		t.Errorf("no such folder: %v", err)
	}
}

const saverEnv = "TEST_SAVER"

// Whenever it is killed, the settings name one App, whose files are whole.
func TestNothingIsHalfWrittenWhenKilled(t *testing.T) {
	if dir := os.Getenv(saverEnv); dir != "" {
		saveForever(dir)
	}
	dir := t.TempDir()
	p := Place{File: filepath.Join(dir, "forge.yaml"), DataDir: filepath.Join(dir, "data"), Force: true}
	if _, err := p.Save(wanted(), made(1)); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestNothingIsHalfWrittenWhenKilled$")
		cmd.Env = append(os.Environ(), saverEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it is in the middle of it
			t.Error(err)
		}
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		has := p.named(t)
		if has["webhook_secrets_file"] != "hook-hush" || !strings.HasSuffix(has["github_private_key_file"], "-----END RSA PRIVATE KEY-----") {
			t.Fatalf("half of it: %v", has)
		}
	}
}

func saveForever(dir string) {
	p := Place{File: filepath.Join(dir, "forge.yaml"), DataDir: filepath.Join(dir, "data"), Force: true}
	for id := int64(2); ; id++ {
		if _, err := p.Save(wanted(), made(id)); err != nil {
			panic(err)
		}
		fmt.Print(".") //nolint:forbidigo // tells the test
	}
}

func TestOnlyAnAppIsTakenOfGitHubsAnswer(t *testing.T) {
	const pem = `-----BEGIN RSA PRIVATE KEY-----\nx`
	for name, c := range map[string]struct {
		status       int
		answer, want string
	}{
		"an App":          {201, `{"id": 5, "name": "a\u001b[31m\u0000b", "pem": "` + pem + `", "webhook_secret": "s"}`, ""},
		"no secret":       {201, `{"id": 5, "pem": "` + pem + `", "webhook_secret": null}`, ""},
		"used":            {404, `{"message": "Not Found"}`, "it is good once and for an hour"},
		"refused":         {422, `{"message": "Validation\u001b[2J Failed\n"}`, "422 Unprocessable Entity to the code: Validation Failed"},
		"elsewhere":       {307, `{}`, "307"},
		"no JSON":         {201, `<html>`, "not the JSON of an App"},
		"no id":           {201, `{"pem": "` + pem + `"}`, "no App ID"},
		"an id of text":   {201, `{"id": "../../x", "pem": "` + pem + `"}`, "not the JSON of an App"},
		"a negative id":   {201, `{"id": -5, "pem": "` + pem + `"}`, "no App ID"},
		"no key":          {201, `{"id": 5, "pem": "x"}`, "no private key"},
		"a secret of two": {201, `{"id": 5, "pem": "` + pem + `", "webhook_secret": "a\nb"}`, "several lines"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/api/v3/app-manifests/"+goodCode+"/conversions" || r.Method != http.MethodPost || r.Header.Get("Authorization") != "" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			w.Header().Set("Location", "https://evil.example")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.answer))
		}))
		app, err := Config{APIURL: server.URL + "/api/v3"}.Convert(t.Context(), goodCode)
		server.Close()
		if c.want == "" && (err != nil || app.ID != 5 || strings.ContainsAny(app.Name, "\x1b\x00")) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %+v, %v", name, app, err)
		}
		if err != nil && strings.Contains(err.Error(), goodCode) {
			t.Errorf("%s: the code stands in %v", name, err)
		}
	}
	if _, err := (Config{APIURL: "http://127.0.0.1:1"}).Convert(t.Context(), goodCode); err == nil || strings.Contains(err.Error(), goodCode) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := (Config{APIURL: "http://127.0.0.1:1"}).Convert(t.Context(), "../user"); err == nil || !strings.Contains(err.Error(), "no code of GitHub's") {
		t.Errorf("a path: %v", err)
	}
	c := wanted()
	for address, want := range map[string]string{
		"https://ghe.example.com/github-apps/forge": "https://ghe.example.com/github-apps/forge/installations/new",
		"https://evil.example/":                     "https://ghe.example.com/settings/apps", "https://ghe.example.com/\x1b[2J": "https://ghe.example.com/settings/apps", "": "https://ghe.example.com/settings/apps",
	} {
		if got := c.Install(App{HTMLURL: address}); got != want {
			t.Errorf("%q is installed at %q, want %q", address, got, want)
		}
	}
}
