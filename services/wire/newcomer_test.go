package wire_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// person is at a browser, and presses the one button of each page.
type person struct {
	client *http.Client
	at     *url.URL // what the address bar shows
	page   string
	seen   []string // addresses, in order
}

func newPerson(t *testing.T) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	p := &person{}
	transport := &http.Transport{DisableKeepAlives: true}
	p.client = &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		p.at = req.URL
		p.seen = append(p.seen, req.URL.String())
		return nil
	}}
	return p
}

// visit opens an address. One where nobody answers stays in the address bar.
func (p *person) visit(t *testing.T, req *http.Request) {
	t.Helper()
	p.at = req.URL
	answer, err := p.client.Do(req)
	if err != nil {
		p.page = err.Error()
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	p.at, p.page = answer.Request.URL, string(text)
}

func (p *person) open(t *testing.T, address string) {
	t.Helper()
	if page, ok := strings.CutPrefix(address, "data:text/html;base64,"); ok {
		text, err := base64.StdEncoding.DecodeString(page)
		must(t, err)
		p.page = string(text)
		return
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	must(t, err)
	p.visit(t, req)
}

var (
	formPattern  = regexp.MustCompile(`<form method="post" action="([^"]+)">`)
	fieldPattern = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)
)

// press sends the form of the page.
func (p *person) press(t *testing.T) {
	t.Helper()
	form := formPattern.FindStringSubmatch(p.page)
	if form == nil {
		t.Fatalf("there is no button at %s:\n%s", p.at, p.page)
	}
	to, err := url.Parse(html.UnescapeString(form[1]))
	must(t, err)
	if p.at != nil {
		to = p.at.ResolveReference(to)
	}
	fields := url.Values{}
	for _, field := range fieldPattern.FindAllStringSubmatch(p.page, -1) {
		fields.Set(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to.String(), strings.NewReader(fields.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	p.visit(t, req)
}

// newcomer has a GitHub without an App of theirs, and a folder with a settings file
// that says no more than what this test must.
func newcomer(t *testing.T) (w *world, forge *process) {
	t.Helper()
	w = newWorld(t, hello())
	must(t, w.sim.Uninstall(owner))
	port := kittest.FreePort(t)
	w.http, w.grpc = fmt.Sprintf("http://127.0.0.1:%d", port), kittest.FreeAddress(t)
	must(t, os.WriteFile(filepath.Join(w.dir, "forge.yaml"), []byte(lines(
		"# A newcomer's.", "engine: process", "address: 127.0.0.1", fmt.Sprintf("port: %d", port), "grpc_address: "+w.grpc, "webhook_allowed_ips: any",
	)), 0o600))
	forge = &process{name: "forge", args: []string{"up"}, dir: w.dir, env: []string{"PATH=" + os.Getenv("PATH")}, output: &tail{}}
	w.processes = append(w.processes, forge)
	return w, forge
}

// create runs forge app create and hands what it prints to a person, who pastes back.
func create(t *testing.T, w *world, do func(address string) (pasted string), args ...string) (said string) {
	t.Helper()
	must(t, buildBinaries())
	cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "forge"), append([]string{"app", "create", "--github-url=" + w.github, "--url=" + w.http}, args...)...)
	cmd.Dir, cmd.Env = w.dir, []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	var wrong strings.Builder
	cmd.Stderr = &wrong
	must(t, cmd.Start())
	printed := bufio.NewScanner(out)
	var all strings.Builder
	for printed.Scan() {
		all.WriteString(printed.Text() + "\n")
		line := strings.TrimSpace(printed.Text())
		if strings.HasPrefix(line, "http://127.0.0.1:") || strings.HasPrefix(line, "data:") {
			if pasted := do(line); pasted != "" {
				_, err := io.WriteString(in, pasted+"\n")
				must(t, err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("forge app create: %v\n%s%s", err, all.String(), wrong.String())
	}
	return all.String()
}

// A newcomer has an App in two clicks, starts Forge with what that wrote and nothing
// else, and the first pull request gets its status.
func TestANewcomerConnectsAnApp(t *testing.T) {
	for name, elsewhere := range map[string]bool{"with a browser": false, "with a browser elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			w, forge := newcomer(t)
			must(t, buildBinaries())
			start := time.Now()
			p := newPerson(t)
			var shown string
			var args []string
			if elsewhere {
				args = append(args, "--no-browser")
			}
			said := create(t, w, func(address string) (pasted string) {
				p.open(t, address)
				p.press(t) // ours
				p.press(t) // GitHub's
				if elsewhere {
					return p.at.String() // where nobody answers
				}
				shown = p.page
				return ""
			}, args...)
			if !elsewhere && (!strings.Contains(shown, "is made") || !strings.HasSuffix(p.at.Path, "/done") || p.at.RawQuery != "") {
				t.Errorf("the browser ends at %s:\n%s", p.at, shown)
			}
			install := regexp.MustCompile(`1\. .*: (` + regexp.QuoteMeta(w.github) + `/\S+)\n`).FindStringSubmatch(said)
			if install == nil || !strings.Contains(said, "2. Start Forge: forge up") {
				t.Fatalf("it says:\n%s", said)
			}

			w.begin(t, forge)
			w.awaitUp(t)
			w.sim.AddInstallation(owner)
			_, sha := w.propose(t, "first", githubsim.Commit{Files: map[string]string{"greeting": "hello\n"}})
			w.shows(t, sha, "forge/test", "success")
			t.Logf("from forge app create to the first status: %v", time.Since(start).Round(time.Millisecond))

			text, err := os.ReadFile(filepath.Join(w.dir, "forge.yaml"))
			must(t, err)
			if !strings.HasPrefix(string(text), "# A newcomer's.\nengine: process\n") || strings.Contains(string(text), "PRIVATE KEY") {
				t.Errorf("forge.yaml is\n%s", text)
			}
			for _, secret := range []string{"private-key.pem", "webhook-secret", "client-secret"} {
				found, err := filepath.Glob(filepath.Join(w.dir, "forge-data", "app-*", secret))
				must(t, err)
				content, err := os.ReadFile(found[0])
				must(t, err)
				if secret := strings.TrimSpace(string(content)); strings.Contains(said+shown+string(text), secret) || strings.Contains(strings.Join(p.seen, " "), secret) {
					t.Errorf("%s is shown", found[0])
				}
			}
		})
	}
}
