package gateway

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/wording"
)

// webPolicy is the policy of every page of Forge's own.
const webPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func at(second int64) *timestamppb.Timestamp {
	return timestamppb.New(time.Unix(1_800_000_000+second, 0))
}

func failedBuild() *schedulerv1.Build {
	return &schedulerv1.Build{
		Id: "b1", Repository: &eventv1.Repository{Owner: "acme", Name: "web"}, Action: schedulerv1.Build_ACTION_DEPLOY_STAGING, Environment: "staging",
		Sha: "3f2a91c0ffee", BaseRef: "main", PullRequest: 7, Title: "Mend the door", Actor: "ann", Image: "golang:1.26",
		State: schedulerv1.Build_STATE_FAILED, Message: "unit tests: exit code 3", Attempt: 2, Machine: "worker-2", EnvironmentUrl: "https://staging.example",
		CreateTime: at(-10), PlaceTime: at(-6), ContainerTime: at(-3), SourceTime: at(-1), StartTime: at(0), EndTime: at(75), LogSize: 100,
		Steps: []*schedulerv1.Step{
			{Number: 1, Name: "go vet ./...", State: schedulerv1.Step_STATE_PASSED, StartTime: at(0), EndTime: at(3), ExitCode: proto.Int32(0)},
			{Number: 2, Name: "unit tests", State: schedulerv1.Step_STATE_FAILED, StartTime: at(3), EndTime: at(75), ExitCode: proto.Int32(3)},
			{Number: 3, Run: "make docs", State: schedulerv1.Step_STATE_SKIPPED},
		},
	}
}

func TestBuildPage(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log = failedBuild(), "\x1b[1;32mok\x1b[0m\r\n\x1b]0;title\x07FAIL\n"
	code, body := w.get("/builds/b1")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	kittest.Golden(t, "build.html", []byte(body+"\n"))
	if strings.Contains(body, "data-live") {
		t.Error("an ended build is followed")
	}

	running := failedBuild()
	running.State, running.EndTime = schedulerv1.Build_STATE_RUNNING, nil
	running.Steps[1].State, running.Steps[1].EndTime = schedulerv1.Step_STATE_RUNNING, nil
	w.rooms.builds.build = running
	_, body = w.get("/builds/b1?log=0")
	if !strings.Contains(body, "data-live") || !strings.Contains(body, `data-since="1800000003000"`) || strings.Contains(body, "FAIL") {
		t.Errorf("running, without log: %s", body)
	}

	waiting := &schedulerv1.Build{Id: "b1", State: schedulerv1.Build_STATE_QUEUED}
	w.rooms.builds.build = waiting
	if code, body = w.get("/builds/b1"); code != 200 || !strings.Contains(body, ">queued<") || strings.Contains(body, "FAIL") {
		t.Errorf("queued: %d %s", code, body)
	}
}

func TestPageOfABuildWithJobsLeadsToEach(t *testing.T) {
	w := onSQLite(t, nil)
	whole := failedBuild()
	whole.Steps, whole.Attempt, whole.LogSize, whole.JobCount = nil, 0, 0, 4
	whole.Message, whole.Environment, whole.EnvironmentUrl = "1 of 4 jobs failed: test (1.26, postgres:17)", "", ""
	whole.Jobs = []*schedulerv1.Job{
		{Id: "b1-1", Name: "lint", Title: "lint", PlaceTime: at(-9), State: schedulerv1.Build_STATE_PASSED, Attempt: 1, StartTime: at(0), EndTime: at(3)},
		{Id: "b1-2", Name: "test", Title: "test (1.26, postgres:17)", State: schedulerv1.Build_STATE_FAILED, Attempt: 2, StartTime: at(3), EndTime: at(75), Message: `step 1 "go test" ended with exit code 1`},
		{Id: "b1-3", Name: "test", Title: "test (1.27rc1)", State: schedulerv1.Build_STATE_RUNNING, Attempt: 1, StartTime: at(3), MayFail: true},
		{Id: "b1-4", Name: "package", Title: "package", State: schedulerv1.Build_STATE_WAITING, Needs: []string{"lint", "test"}},
	}
	w.rooms.builds.build, w.rooms.builds.log = whole, "nobody asks for this"
	w.rooms.left.listed = []*schedulerv1.Artifact{
		{BuildId: "b1-2", Name: "coverage", Files: 1, Size: 12_345_678, ExpireTime: at(86400)},
		{BuildId: "b1-1", Name: "lint", Files: 2, Size: 12, ExpireTime: at(86400)},
		{BuildId: "b1-2", Name: "test", Files: 3, Size: 2048, ExpireTime: at(86400)},
	}
	_, body := w.get("/builds/b1")
	kittest.Golden(t, "jobs.html", []byte(body+"\n"))

	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(w.http.URL + "/builds/b1/log?follow")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if at := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || at != "/builds/b1" {
		t.Errorf("the log of a build with jobs: %d, %s", resp.StatusCode, at)
	}

	part := failedBuild()
	part.Id, part.PartOf, part.Job, part.Needs = "b1-2", "b1", "test (1.26, postgres:17)", []string{"lint"}
	w.rooms.builds.build = part
	_, body = w.get("/builds/b1-2?log=0")
	for _, want := range []string{`job of <a href="/builds/b1">a build</a>`, "<h1>test (1.26, postgres:17)</h1>", "<dd>Mend the door</dd>", "<dd>lint</dd>"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page of a job lacks %s:\n%s", want, body)
		}
	}
}

func TestBuildPageTellsWhatLedToIt(t *testing.T) {
	w := onSQLite(t, nil)
	b := failedBuild()
	b.RetryOf, b.RollBackOf, b.ApprovedBy = "b0", "b00", "ada"
	b.ConfigProblems = []*configv1.ConfigInvalid_Problem{
		{Line: 7, Column: 3, Message: "unknown key <b>", Snippet: "exceute:\n^"}, {Line: 9, Column: 1, Message: "expected a list"},
	}
	w.rooms.builds.build = b
	_, body := w.get("/builds/b1")
	for _, want := range []string{
		`<a href="/builds/b0">an earlier build</a>`, `<a href="/builds/b00">an earlier deploy</a>`, "approved by", "ada",
		"<code>.forge.yml:7:3</code> unknown key &lt;b&gt;", "<pre>exceute:\n^</pre>", "<code>.forge.yml:9:1</code> expected a list",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s:\n%s", want, body)
		}
	}
}

func TestBuildPageLeadsToGitHub(t *testing.T) {
	for url, want := range map[string]string{"": "https://github.com", "https://github.example.org/": "https://github.example.org"} {
		w := onSQLite(t, func(d *Deps) { d.GitHub.URL = url })
		w.rooms.builds.build = failedBuild()
		_, body := w.get("/builds/b1?log=0")
		for _, link := range []string{"/acme/web/pull/7", "/acme/web/commit/3f2a91c0ffee"} {
			if !strings.Contains(body, `href="`+want+link+`"`) {
				t.Errorf("no link to %s%s:\n%s", want, link, body)
			}
		}
		pushed := failedBuild()
		pushed.PullRequest, pushed.Repository.Name, pushed.Sha = 0, "..", "a/../../x"
		w.rooms.builds.build = pushed
		if _, body = w.get("/builds/b1?log=0"); strings.Contains(body, `href="`+want) {
			t.Errorf("a link out of the repository:\n%s", body)
		}
	}
}

func TestBuildPageHasTheButtonsThatSuit(t *testing.T) {
	w := onSQLite(t, nil)
	v, _ := w.signedIn()
	for _, c := range []struct {
		state       schedulerv1.Build_State
		action      schedulerv1.Build_Action
		environment string
		buttons     string
	}{
		{schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_ACTION_TEST, "", "cancel"},
		{schedulerv1.Build_STATE_RUNNING, schedulerv1.Build_ACTION_PUSH, "", "cancel"},
		{schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_ACTION_TEST, "", "approve cancel"},
		{schedulerv1.Build_STATE_PASSED, schedulerv1.Build_ACTION_STAGING, "", "retry"},
		{schedulerv1.Build_STATE_FAILED, schedulerv1.Build_ACTION_TEST, "", "retry"},
		{schedulerv1.Build_STATE_RUNNING, schedulerv1.Build_ACTION_DEPLOY_PRODUCTION, "production", "cancel: Cancel this deploy to production?"},
		{schedulerv1.Build_STATE_PASSED, schedulerv1.Build_ACTION_DEPLOY_STAGING, "staging", "retry: Run this deploy to staging again?"},
	} {
		b := failedBuild()
		b.State, b.Action, b.Environment = c.state, c.action, c.environment
		if c.state < schedulerv1.Build_STATE_PASSED {
			b.EndTime = nil
		}
		w.rooms.builds.build = b
		_, body := v.get("/builds/b1?log=0")
		var buttons []string
		for _, found := range regexp.MustCompile(`action="/builds/b1/([\w-]+)"><input[^>]*>(?:<p>([^<]*)</p>)?<button`).FindAllStringSubmatch(body, -1) {
			buttons = append(buttons, strings.TrimSuffix(found[1]+": "+found[2], ": "))
		}
		if got := strings.Join(buttons, " "); got != c.buttons || strings.Count(body, "<details class=\"confirm\">") != strings.Count(c.buttons, "?") {
			t.Errorf("%v %v: buttons %q, want %q:\n%s", c.state, c.action, got, c.buttons, body)
		}
		if _, body := w.get("/builds/b1?log=0"); strings.Contains(body, "<button") {
			t.Errorf("%v: buttons for a stranger:\n%s", c.state, body)
		}
	}
}

func TestQueuedBuildShowsWhereItStandsAndCanBePutFirst(t *testing.T) {
	w := onSQLite(t, nil)
	v, token := w.signedIn()
	b := failedBuild()
	b.State, b.Message, b.EndTime = schedulerv1.Build_STATE_QUEUED, "", nil
	b.Line = &schedulerv1.Line{Place: 3, Capacity: 4, EstimateTime: at(300)}
	w.rooms.builds.build = b
	_, body := v.get("/builds/b1")
	if !strings.Contains(body, "2 others before it in the queue, 4 at once; starts about ") || !strings.Contains(body, `action="/builds/b1/expedite"`) {
		t.Errorf("a queued build:\n%s", body)
	}
	if _, body := w.get("/builds/b1"); !strings.Contains(body, "2 others before it") || strings.Contains(body, "/expedite") {
		t.Errorf("a stranger sees:\n%s", body)
	}
	if code, _, body := v.send(http.MethodPost, "/builds/b1/expedite", url.Values{"csrf": {token}}); code != http.StatusOK || !strings.Contains(body, "put first by") || strings.Contains(body, "/expedite") {
		t.Errorf("put first:\n%s", body)
	}
}

// A remote run has no status that it could be called by.
func TestARemoteRunIsExplained(t *testing.T) {
	for want, b := range map[string]*schedulerv1.Build{
		"remote run passed.":           {State: schedulerv1.Build_STATE_PASSED},
		"lint of a remote run passed.": {State: schedulerv1.Build_STATE_PASSED, Job: "lint"},
		"forge/test/lint passed.":      {State: schedulerv1.Build_STATE_PASSED, Job: "lint", Context: "forge/test"},
	} {
		if got := sentence(b); got != want {
			t.Errorf("explained by %q, want %q", got, want)
		}
	}
}

// Of each reason for which builds wait there is something to read on their pages, in lists
// and where somebody asks why.
func TestPagesSayWhateverBuildsWaitFor(t *testing.T) {
	w := onSQLite(t, nil)
	for number := range schedulerv1.Build_Reason_name {
		reason := schedulerv1.Build_Reason(number)
		text, waits := wording.Waits(reason)
		if !waits {
			continue
		}
		b := failedBuild()
		b.State, b.Reason, b.Message, b.EndTime = schedulerv1.Build_STATE_STARTING, reason, "", nil
		b.Jobs = []*schedulerv1.Job{{Id: "b1-1", Title: "lint", State: schedulerv1.Build_STATE_STARTING, Reason: reason}}
		w.rooms.builds.build = b
		_, body := w.get("/builds/b1?log=0")
		if !strings.Contains(body, `<span class="message">`+text) || !strings.Contains(body, `<div class="fates message">`+text) {
			t.Errorf("%v: the page lacks %q:\n%s", reason, text, body)
		}
		if got, want := sentence(b), nameOf(b)+" starting: "+text+"."; got != want {
			t.Errorf("%v is explained by %q, want %q", reason, got, want)
		}
	}
}

func TestNothingInABuildBecomesMarkup(t *testing.T) {
	const evil = `</pre><script>alert(1)</script><img src=x onerror=alert(1)>"'`
	w := onSQLite(t, nil)
	b := failedBuild()
	b.Title, b.Message, b.Actor, b.Image, b.BaseRef, b.Sha, b.SupersededBy = evil, evil, evil, evil, evil, evil, evil
	b.EnvironmentUrl = "javascript:alert(1)"
	b.Repository.Owner, b.Steps[0].Name, b.Steps[2].Run = evil, evil, evil
	w.rooms.builds.build, w.rooms.builds.log = b, evil
	w.rooms.left.listed = []*schedulerv1.Artifact{{BuildId: "b1", Name: evil}}
	_, body := w.get("/builds/b1")
	for _, bad := range []string{"<script>", "<img", "onerror=alert(1)>", `href="javascript:`} {
		if strings.Contains(body, bad) {
			t.Errorf("%s got through:\n%s", bad, body)
		}
	}
	if strings.Count(body, "&lt;script&gt;") < 10 {
		t.Errorf("something is not shown:\n%s", body)
	}
}

func TestPagesThatAreNotThere(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build = failedBuild()
	if code, body := w.get("/builds/b2"); code != 404 || !strings.Contains(body, "There is no such build") {
		t.Errorf("unknown: %d %s", code, body)
	}
	w.rooms.builds.err = fault.New(fault.Unavailable, "connection refused")
	for _, path := range []string{"/builds/b1", "/builds/b1/log"} {
		if code, body := w.get(path); code != 503 || !strings.Contains(body, "cannot be shown right now") || strings.Contains(body, "refused") {
			t.Errorf("%s without a scheduler: %d %s", path, code, body)
		}
	}
}

func TestPagesRunNothingForeign(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build = failedBuild()
	for path, kind := range map[string]string{
		"/": "text/html", "/builds/b1": "text/html", "/builds/b1/log": "text/plain", "/builds/no": "text/html",
		"/forge.css": "text/css", "/forge.js": "text/javascript", "/build.js": "text/javascript", "/icon.svg": "image/svg+xml", "/icon.svg?state=failed": "image/svg+xml", "/deliveries": "text/html", "/deliveries/d1": "text/html", "/why": "text/html",
		"/builds": "text/html", "/repositories/acme/web": "text/html", "/environments": "text/html", "/environments/acme/web/staging": "text/html",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.http.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		h := resp.Header
		if h.Get("Content-Security-Policy") != webPolicy || h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Type"), kind) {
			t.Errorf("%s: %v", path, h)
		}
		for _, inline := range []string{"<style", "style=", "onclick", "<script>", "//cdn"} {
			if strings.Contains(string(body), inline) {
				t.Errorf("%s has %s, which the policy forbids", path, inline)
			}
		}
	}
}

func TestHome(t *testing.T) {
	w := onSQLite(t, nil)
	code, body := w.get("/")
	if code != 200 || !strings.Contains(body, "This is Forge v1.2.3") || !strings.Contains(body, "http://forge.example/v1/deliveries") {
		t.Errorf("%d %s", code, body)
	}
}

// A proxy in front may take the path of FORGE_EXTERNAL_URL away, or leave it.
func TestEverythingIsServedBelowThePathOfTheExternalURL(t *testing.T) {
	for external, c := range map[string]struct {
		served []string // paths of the same page of a build
		link   string   // in it
	}{
		"https://forge.example":         {[]string{"/builds/b1"}, `href="/forge.css"`},
		"https://forge.example/":        {[]string{"/builds/b1"}, `href="/forge.css"`},
		"https://forge.example/ci":      {[]string{"/ci/builds/b1", "/builds/b1"}, `href="/ci/forge.css"`},
		"https://forge.example/ci/":     {[]string{"/ci/builds/b1", "/builds/b1"}, `href="/ci/forge.css"`},
		"https://forge.example/a/b%20c": {[]string{"/a/b%20c/builds/b1", "/builds/b1"}, `href="/a/b%20c/forge.css"`},
		"https://forge.example/builds":  {[]string{"/builds/builds/b1", "/builds/b1"}, `href="/builds/forge.css"`},
		"https://forge.example//evil":   {[]string{"/builds/b1"}, `href="/evil/forge.css"`},
	} {
		t.Run(external, func(t *testing.T) {
			w := onSQLite(t, func(d *Deps) { d.ExternalURL = external })
			w.rooms.builds.build = failedBuild()
			for _, path := range c.served {
				if code, body := w.get(path); code != 200 || !strings.Contains(body, c.link) || !strings.Contains(body, "Mend the door") {
					t.Errorf("%s: %d %s", path, code, body)
				}
			}
			under := strings.TrimSuffix(c.served[0], "/builds/b1")
			for _, path := range []string{"/", "/health", "/forge.js", "/v1/status"} {
				if code, body := w.get(under + path); code != 200 {
					t.Errorf("%s: %d %s", under+path, code, body)
				}
			}
			if code, _ := w.get("/cinema"); code != 404 {
				t.Errorf("a path that only begins alike: %d", code)
			}
			h := hook{event: "star", id: "below", body: star}
			if code, body := w.do(h.request(t, w.http.URL+under)); code != 200 {
				t.Errorf("a webhook: %d %s", code, body)
			}
		})
	}
	if _, err := newPrefix("https://forge.example/%zz"); err == nil {
		t.Error("an address that is none is taken")
	}
}
