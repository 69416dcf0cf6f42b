package gateway

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// visitor is a browser that runs no scripts.
type visitor struct {
	t      *testing.T
	w      *world
	client http.Client
	header http.Header
}

func (w *world) visitor() *visitor {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &visitor{t: w.t, w: w, client: http.Client{Jar: jar, Transport: transport}, header: http.Header{}}
}

func (v *visitor) send(method, path string, form url.Values) (code int, at, body string) {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.w.http.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header = v.header.Clone()
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp.StatusCode, resp.Request.URL.RequestURI(), string(text)
}

func (v *visitor) get(path string) (code int, body string) {
	v.t.Helper()
	code, _, body = v.send(http.MethodGet, path, nil)
	return code, body
}

// signedIn has shown the admin token, and knows what its forms send along.
func (w *world) signedIn() (v *visitor, csrf string) {
	w.t.Helper()
	v = w.visitor()
	code, at, body := v.send(http.MethodPost, "/sign-in", url.Values{"token": {adminToken}, "next": {"/builds?state=failed"}})
	found := regexp.MustCompile(`name="csrf" value="([0-9a-f]{64})"`).FindStringSubmatch(body)
	if code != http.StatusOK || at != "/builds?state=failed" || found == nil {
		w.t.Fatalf("signed in: %d at %s: %s", code, at, body)
	}
	return v, found[1]
}

// shopOfLists has something of everything that lists show, at times that do not change.
func shopOfLists(t *testing.T) *world {
	t.Helper()
	w := onSQLite(t, func(d *Deps) { d.Now = func() time.Time { return at(600).AsTime() } })
	shop := &eventv1.Repository{Owner: "acme", Name: "shop"}
	build := func(id, title string, state schedulerv1.Build_State, change func(*schedulerv1.Build)) *schedulerv1.Build {
		b := &schedulerv1.Build{
			Id: id, Repository: shop, Title: title, State: state, Sha: sha40(1), PullRequest: 7, Branch: "till", BaseRef: "main", Actor: "ada",
			Action: schedulerv1.Build_ACTION_TEST, Context: "forge/test", CreateTime: at(10), StartTime: at(20), EndTime: at(80),
		}
		change(b)
		return b
	}
	const evil = `<img src=x onerror=alert(1)>`
	deploy := func(b *schedulerv1.Build) {
		b.Action, b.Environment, b.PullRequest, b.EndTime = schedulerv1.Build_ACTION_DEPLOY_PRODUCTION, "production", 6, at(100)
	}
	w.rooms.builds.listed = []*schedulerv1.Build{
		build("b1", "Add a till", schedulerv1.Build_STATE_RUNNING, func(b *schedulerv1.Build) { b.EndTime, b.JobCount = nil, 3 }),
		build("b2", evil, schedulerv1.Build_STATE_FAILED, func(b *schedulerv1.Build) { b.Message, b.Branch, b.Actor = evil, evil, evil }),
		build("d2", "Mend the door", schedulerv1.Build_STATE_PASSED, deploy),
		build("d1", "Paint the door", schedulerv1.Build_STATE_PASSED, deploy),
		build("b3-1", "Add a till", schedulerv1.Build_STATE_PASSED, func(b *schedulerv1.Build) { b.Job, b.PartOf = "test (1.26)", "b3" }),
	}
	w.rooms.builds.days = []*schedulerv1.BuildDay{
		{Date: "2026-11-25", Passed: 9, Failed: 2, Errored: 1, Cancelled: 1, MedianDuration: durationpb.New(time.Minute)},
		{Date: "2026-11-26"},
		{Date: "2026-11-27", Passed: 1, MedianDuration: durationpb.New(90 * time.Second)},
	}
	blocked := build("d3", "Open the door", schedulerv1.Build_STATE_BLOCKED, deploy)
	blocked.StartTime, blocked.EndTime = nil, nil
	w.rooms.places.all = []*schedulerv1.Environment{
		{Repository: "acme/shop", Name: "production", Deployed: w.rooms.builds.listed[2], Waiting: []*schedulerv1.Build{blocked}},
		{Repository: "acme/shop", Name: "staging", FreezeTime: at(300), FreezeMessage: evil},
	}
	w.rooms.answers("scheduler", func(*eventv1.Event) (*eventv1.Decision, error) {
		return &eventv1.Decision{Reason: eventv1.Reason_REASON_BRANCH_IGNORED, Text: "ignored: base branch is " + evil}, nil
	})
	w.post(hook{event: "pull_request", id: "p5", body: pullOf(5, 1, `"opened"`)})
	w.ends("p5")
	return w
}

func TestListsReadAsTheyShould(t *testing.T) {
	w := shopOfLists(t)
	v, csrf := w.signedIn()
	main := regexp.MustCompile(`(?s)<main.*</main>`)
	for name, path := range map[string]string{
		"builds": "/builds?repository=acme/shop", "repository": "/repositories/acme/shop", "job_history": "/repositories/acme/shop?job=test+(1.26)",
		"delivery": "/deliveries/p5", "why": "/why?address=acme/web%235", "environments": "/environments", "environment": "/environments/acme/shop/production",
		"frozen": "/environments/acme/shop/staging",
	} {
		code, body := v.get(path)
		if code != http.StatusOK || len(body) > 60<<10 {
			t.Errorf("%s: %d, %d bytes", path, code, len(body))
		}
		if strings.Contains(body, "<img") {
			t.Errorf("%s: what others wrote became markup", path)
		}
		kittest.Golden(t, "page_"+name, []byte(strings.ReplaceAll(main.FindString(body), csrf, "CSRF")+"\n"))
	}
}

func TestEmptyListsSayWhatToDo(t *testing.T) {
	w := onSQLite(t, nil)
	v, _ := w.signedIn()
	for path, want := range map[string]string{
		"/builds":                               "Open a pull request in a repository",
		"/builds?actor=nobody":                  `Nothing fits. <a href="/builds">Show all builds</a>`,
		"/builds?repository=a/b&pull_request=7": `or ask <a href="/why">why nothing was built</a>`,
		"/builds?page=WzFd":                     "There are no older ones.",
		"/repositories/acme/none?state=failed":  `<a href="/repositories/acme/none">Show all builds of acme/none</a>`,
		"/deliveries":                           "look\nwhether its webhook is active",
		"/deliveries?event=push":                `<a href="/deliveries">Show all deliveries</a>`,
		"/environments":                         "Nothing was ever to be deployed. Say in <code>.forge.yml</code>",
		"/environments?repository=a/b":          `<a href="/environments">Show all environments</a>`,
		"/why":                                  "Paste the address of a pull request or a commit.",
	} {
		if code, body := v.get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for path, c := range map[string]struct {
		code int
		want string
	}{
		"/builds?branch=main":                   {400, "A branch is one of a repository: name that as well."},
		"/deliveries?pull_request=7":            {400, "A pull request is one of a repository: name that as well."},
		"/deliveries?page=nonsense":             {400, "Page_token is not one of ours."},
		"/deliveries?pull_request=x":            {400, "A pull request is a number, such as 7."},
		"/deliveries/never":                     {404, "No delivery never: it was never received, or pruned since."},
		"/why?address=nonsense":                 {400, "This is no address of a pull request or a commit"},
		"/environments/acme/shop/production":    {404, "Nothing was ever to be deployed to production of acme/shop."},
		"/environments/acme/shop/x/y/z":         {404, ""},
		"/deliveries/never/payload":             {404, "There is no such page"},
		"/builds?state=nonsense&repository=a/b": {200, "Nothing fits."},
	} {
		if code, body := v.get(path); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestListsAreForThoseWhoHaveTheToken(t *testing.T) {
	w := shopOfLists(t)
	v := w.visitor()
	for _, path := range []string{
		"/builds", "/repositories/acme/shop", "/deliveries", "/deliveries/p5", "/deliveries/p5/payload", "/why", "/why?address=acme/web%235",
		"/environments", "/environments/acme/shop/production",
	} {
		code, body := v.get(path)
		if code != http.StatusUnauthorized || !strings.Contains(body, `name="token"`) || strings.Contains(body, "door") || strings.Contains(body, "feature/x") {
			t.Errorf("%s for a stranger: %d %s", path, code, body)
		}
		if want := `name="next" value="` + strings.NewReplacer("&", "&amp;", "+", "&#43;").Replace(path) + `"`; !strings.Contains(body, want) {
			t.Errorf("%s does not come back: %s", path, body)
		}
	}
	if code, _, body := v.send(http.MethodPost, "/sign-in", url.Values{"token": {"wrong"}}); code != 401 || !strings.Contains(body, "not the admin token") {
		t.Errorf("a wrong token: %d %s", code, body)
	}
	for _, token := range []string{"", "two\nlines", "\x00", "é"} {
		if code, _, _ := v.send(http.MethodPost, "/sign-in", url.Values{"token": {token}}); code != 401 {
			t.Errorf("token %q: %d", token, code)
		}
	}
	// A stale cookie is a stranger's.
	v.header.Set("Cookie", adminCookieName+"=d3Jvbmc")
	if code, body := v.get("/builds"); code != 401 || !strings.Contains(body, "not the admin token") {
		t.Errorf("a stale cookie: %d %s", code, body)
	}
}

const adminCookieName = "forge-admin"

func TestSigningInLeadsNowhereElse(t *testing.T) {
	for external, secure := range map[string]bool{"http://forge.example": false, "https://forge.example": true} {
		w := onSQLite(t, func(d *Deps) { d.ExternalURL = external })
		v := w.visitor()
		v.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		for next, want := range map[string]string{
			"/deliveries?event=push": "/deliveries?event=push", "": "/", "https://evil.example/": "/", "//evil.example": "/", `/\evil.example`: "/", "javascript:alert(1)": "/", "/a\nb": "/",
		} {
			form := url.Values{"token": {adminToken}, "next": {next}}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.http.URL+"/sign-in", strings.NewReader(form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			resp, err := v.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || got != want {
				t.Errorf("to %q: %d %q", next, resp.StatusCode, got)
			}
			cookie := resp.Header.Get("Set-Cookie")
			if !strings.Contains(cookie, "; HttpOnly") || !strings.Contains(cookie, "; SameSite=Strict") || strings.Contains(cookie, "; Secure") != secure || strings.Contains(cookie, "="+adminToken) {
				t.Errorf("the cookie: %s", cookie)
			}
		}
	}
}

func TestFormsWorkFromPagesOfThisForgeAlone(t *testing.T) {
	w := shopOfLists(t)
	v, csrf := w.signedIn()
	freeze := "/environments/acme/shop/production/freeze"
	asks := map[string]url.Values{
		freeze: {"message": {"no"}}, "/environments/acme/shop/production/roll-back": {"build": {"d1"}}, "/deliveries/p5/redeliver": {}, "/builds/b1/cancel": {},
		"/environments/acme/shop/staging/unfreeze": {}, "/sign-out": {},
	}
	for path, form := range asks {
		for name, change := range map[string]func(url.Values){
			"without its token": func(f url.Values) { f.Del("csrf") }, "with another token": func(f url.Values) { f.Set("csrf", strings.Repeat("0", 64)) },
		} {
			form.Set("csrf", csrf)
			change(form)
			if code, _, body := v.send(http.MethodPost, path, form); code != http.StatusForbidden || !strings.Contains(body, "Nothing was done.") {
				t.Errorf("%s %s: %d %s", path, name, code, body)
			}
		}
		form.Set("csrf", csrf)
		for _, header := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}} {
			v.header = http.Header{header[0]: {header[1]}}
			if code, _, body := v.send(http.MethodPost, path, form); code != http.StatusForbidden || !strings.Contains(body, "another site") {
				t.Errorf("%s of %s: %d %s", path, header, code, body)
			}
		}
		v.header = http.Header{}
		if code, _ := v.get(path); code != http.StatusNotFound && code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	if w.rooms.places.all[0].GetFreezeTime() != nil || w.rooms.places.all[1].GetFreezeTime() == nil || len(w.rooms.places.rolledBack) > 0 {
		t.Error("something was done")
	}
	v.header.Set("Sec-Fetch-Site", "same-origin")
	if code, at, body := v.send(http.MethodPost, freeze, asks[freeze]); code != 200 || at != "/environments/acme/shop/production?done=frozen" || !strings.Contains(body, "no further deploy begins") {
		t.Errorf("from its own page: %d at %s: %s", code, at, body)
	}
	if code, _, body := v.send(http.MethodPost, freeze, url.Values{"csrf": {csrf}, "message": {" "}}); code != 400 || !strings.Contains(body, "Message: say why, for those who wait.") {
		t.Errorf("without a reason: %d %s", code, body)
	}
	if code, _, _ := v.send(http.MethodPost, "/environments/acme/shop/production/explode", url.Values{"csrf": {csrf}}); code != 404 {
		t.Errorf("an unknown wish: %d", code)
	}
	// The cookie opens pages alone.
	for _, path := range []string{"/v1/builds", "/v1/deliveries"} {
		if code, body := v.get(path); code != http.StatusUnauthorized {
			t.Errorf("%s by the cookie: %d %s", path, code, body)
		}
	}
	if code, _, _ := v.send(http.MethodPost, "/v1/builds/b1:cancel", url.Values{"csrf": {csrf}}); code != http.StatusUnauthorized && code != http.StatusBadRequest {
		t.Errorf("a call of the API by the cookie: %d", code)
	}
	if code, _, _ := v.send(http.MethodPost, "/sign-out", url.Values{"csrf": {csrf}}); code != 200 {
		t.Errorf("sign out: %d", code)
	}
	if code, _ := v.get("/builds"); code != 401 {
		t.Errorf("signed out: %d", code)
	}
}
