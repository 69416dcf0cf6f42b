package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/signin/signintest"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// signIns is a gateway where people sign in, and its GitHub. The build is one of
// acme/shop, which is private; rita may read it, wes write to it.
type signIns struct {
	*world
	sim *githubsim.Sim
}

func newSignIns(t *testing.T, change func(*Deps)) *signIns {
	t.Helper()
	key := kittest.AppKey(t)
	sim := githubsim.New(githubsim.Config{AppID: 7, AppKey: &key.PublicKey})
	server := httptest.NewServer(sim)
	t.Cleanup(func() {
		server.Close()
		sim.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, public := range map[string]bool{"shop": false, "site": true} {
		must(sim.AddRepository(githubsim.Repository{Owner: "acme", Name: name, Public: public, Files: map[string]string{"a": "a"}}))
	}
	sim.AddInstallation("acme")
	must(sim.SetPermission("acme", "shop", "rita", "read"))
	must(sim.SetPermission("acme", "shop", "wes", "write"))
	w := &signIns{sim: sim}
	w.world = onSQLite(t, func(d *Deps) {
		d.GitHub = GitHub{URL: server.URL, APIURL: server.URL}
		d.People = People{AdminToken: adminToken, Admins: []string{"boss"}, SignIn: signin.Config{
			ClientID: "Iv1.forge", ClientSecret: "hush", Keys: [][]byte{bytes.Repeat([]byte{1}, 32)},
		}}
		if change != nil {
			change(d)
		}
	})
	sim.SetOAuth(githubsim.OAuth{
		ClientID: "Iv1.forge", ClientSecret: "hush", CallbackURLs: []string{w.service.deps.ExternalURL + "/sign-in/callback"}, DeviceFlow: true,
	})
	w.rooms.repositories = func(owner, name string) (*eventv1.Repository, error) {
		id, public, err := sim.Identify(owner, name)
		if err != nil {
			return nil, fault.New(fault.NotFound, err.Error())
		}
		return &eventv1.Repository{Id: id, Owner: owner, Name: name, Private: !public}, nil
	}
	w.builds("b1", "shop")
	return w
}

// builds has the scheduler have one build, of a repository of acme.
func (w *signIns) builds(id, name string) {
	w.t.Helper()
	of, err := w.rooms.repositories("acme", name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.rooms.build = &schedulerv1.Build{
		Id: id, Repository: of, Title: "Mend the door", State: schedulerv1.Build_STATE_QUEUED, Attempt: 1, CreateTime: at(0),
	}
	w.rooms.listed = []*schedulerv1.Build{w.rooms.build}
	w.rooms.log = "hello from the log\n"
}

// reply is an answer without its text.
type reply struct {
	StatusCode int
	Status     string
	Header     http.Header
	Cookies    []*http.Cookie
}

// as asks with what somebody shows, and follows no redirect.
func (w *signIns) as(who func(*http.Request), method, path string, form url.Values) (reply, string) {
	w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.http.URL+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if who != nil {
		who(r)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{answer.StatusCode, answer.Status, answer.Header, answer.Cookies()}, string(text)
}

// cookies are a browser's.
func cookies(all ...*http.Cookie) func(*http.Request) {
	return func(r *http.Request) {
		for _, c := range all {
			r.AddCookie(c)
		}
	}
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

// signIn has somebody sign in by pages alone, and returns their cookie and its CSRF token.
func (w *signIns) signIn(login string) (who func(*http.Request), csrf string) {
	w.t.Helper()
	begun, _ := w.as(nil, http.MethodGet, "/sign-in?to=/account", nil)
	back, err := url.Parse(signintest.Leave(w.t, begun.Header.Get("Location"), login))
	if err != nil {
		w.t.Fatal(err)
	}
	done, text := w.as(cookies(begun.Cookies...), http.MethodGet, back.RequestURI(), nil)
	n := slices.IndexFunc(done.Cookies, func(c *http.Cookie) bool { return c.Name == "forge_session" })
	if done.StatusCode != http.StatusSeeOther || done.Header.Get("Location") != "/account" || n < 0 {
		w.t.Fatalf("%s is not signed in: %s\n%s", login, done.Status, text)
	}
	who = cookies(done.Cookies[n])
	_, account := w.as(who, http.MethodGet, "/account", nil)
	found := regexp.MustCompile(`data-csrf="([0-9a-f]+)"`).FindStringSubmatch(account)
	if found == nil || !strings.Contains(account, "<h1>"+login+"</h1>") {
		w.t.Fatalf("the account of %s:\n%s", login, account)
	}
	return who, found[1]
}

func withCSRF(who func(*http.Request), csrf string) func(*http.Request) {
	return func(r *http.Request) {
		who(r)
		r.Header.Set(signin.CSRFHeader, csrf)
	}
}

// Pages and the JSON API have the same rules.
func TestWhoSeesABuild(t *testing.T) {
	w := newSignIns(t, nil)
	rita, _ := w.signIn("rita")
	stan, _ := w.signIn("stan")
	ended := cookies(&http.Cookie{Name: "forge_session", Value: "gone"})
	for _, path := range []string{"/builds/b1", "/builds/b1/log", "/v1/builds/b1", "/v1/builds/b1/log", "/v1/builds/b1/findings", "/v1/builds/b1/artifacts", "/builds/b1/artifacts/none"} {
		for name, c := range map[string]struct {
			who  func(*http.Request)
			code int
			says string
		}{
			"a stranger":         {nil, http.StatusUnauthorized, "sign in to see this"},
			"who was signed out": {ended, http.StatusUnauthorized, "your session has ended: sign in again"},
			"a wrong token":      {bearer("wrong"), http.StatusUnauthorized, "sign in to see this"},
			"stan":               {stan, http.StatusForbidden, "who can read the repository on GitHub may see this"},
			"rita":               {rita, http.StatusOK, ""},
			"the admin":          {bearer(adminToken), http.StatusOK, ""},
		} {
			if strings.HasSuffix(path, "/none") && c.code == http.StatusOK {
				c.code = http.StatusNotFound
			}
			answer, text := w.as(c.who, http.MethodGet, path, nil)
			if answer.StatusCode != c.code || !strings.Contains(text, c.says) || c.code >= 400 && strings.Contains(text, "Mend the door") {
				t.Errorf("%s by %s: %s\n%s", path, name, answer.Status, text)
			}
			if offers := strings.Contains(text, "/sign-in?to="); !strings.HasPrefix(path, "/v1/") && c.code == http.StatusUnauthorized && !offers {
				t.Errorf("%s by %s offers no sign-in:\n%s", path, name, text)
			}
		}
	}
	w.builds("b2", "site")
	for _, path := range []string{"/builds/b2", "/v1/builds/b2", "/v1/builds"} {
		if answer, text := w.as(nil, http.MethodGet, path, nil); answer.StatusCode != http.StatusOK || !strings.Contains(text, "Mend the door") {
			t.Errorf("%s of a public repository: %s", path, answer.Status)
		}
	}
}

func TestOpenLinksShowAPrivateBuild(t *testing.T) {
	w := newSignIns(t, func(d *Deps) { d.People.OpenLinks = true })
	for _, path := range []string{"/builds/b1", "/v1/builds/b1"} {
		if answer, text := w.as(nil, http.MethodGet, path, nil); answer.StatusCode != http.StatusOK || !strings.Contains(text, "Mend the door") {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	if _, text := w.as(nil, http.MethodGet, "/v1/builds", nil); strings.Contains(text, "Mend the door") {
		t.Error("the list shows it, too")
	}
}

func TestWhatChangesSomethingNeedsWriteAccessAndThePage(t *testing.T) {
	w := newSignIns(t, nil)
	rita, ritas := w.signIn("rita")
	wes, wess := w.signIn("wes")
	for name, c := range map[string]struct {
		who  func(*http.Request)
		code int
	}{
		"a stranger":              {func(*http.Request) {}, http.StatusUnauthorized},
		"rita":                    {withCSRF(rita, ritas), http.StatusForbidden},
		"wes without the token":   {wes, http.StatusForbidden},
		"wes with rita's token":   {withCSRF(wes, ritas), http.StatusForbidden},
		"wes, from another site":  {func(r *http.Request) { withCSRF(wes, wess)(r); r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		"a token that is not one": {bearer(signin.TokenPrefix + "x"), http.StatusUnauthorized},
	} {
		if answer, text := w.as(c.who, http.MethodPost, "/v1/builds/b1:cancel", nil); answer.StatusCode != c.code {
			t.Errorf("%s: %s %s", name, answer.Status, text)
		}
	}
	if w.rooms.build.GetState() != schedulerv1.Build_STATE_QUEUED {
		t.Fatal("it is cancelled")
	}
	if answer, text := w.as(withCSRF(wes, wess), http.MethodPost, "/v1/builds/b1:cancel", nil); answer.StatusCode != http.StatusOK {
		t.Errorf("wes: %s %s", answer.Status, text)
	}
	if w.rooms.person != "wes" {
		t.Errorf("the scheduler was told that %q cancels", w.rooms.person)
	}
}

func TestOperatorsSeeDeliveries(t *testing.T) {
	w := newSignIns(t, nil)
	rita, _ := w.signIn("rita")
	boss, csrf := w.signIn("boss")
	for name, c := range map[string]struct {
		who  func(*http.Request)
		code int
	}{"rita": {rita, http.StatusForbidden}, "boss": {boss, http.StatusOK}, "the admin": {bearer(adminToken), http.StatusOK}, "a stranger": {nil, http.StatusUnauthorized}} {
		if answer, text := w.as(c.who, http.MethodGet, "/v1/deliveries", nil); answer.StatusCode != c.code {
			t.Errorf("%s: %s %s", name, answer.Status, text)
		}
	}
	if answer, text := w.as(withCSRF(boss, csrf), http.MethodPost, "/v1/builds/b1:cancel", nil); answer.StatusCode != http.StatusOK {
		t.Errorf("boss cancels: %s %s", answer.Status, text)
	}
}

func TestATokenFromThePageCallsTheAPI(t *testing.T) {
	w := newSignIns(t, nil)
	wes, csrf := w.signIn("wes")
	answer, text := w.as(wes, http.MethodPost, "/account/tokens", url.Values{"csrf": {csrf}, "name": {"<b>laptop"}, "days": {"7"}})
	found := regexp.MustCompile(`<pre id="secret">(forge_pat_\w+)</pre>`).FindStringSubmatch(text)
	if answer.StatusCode != http.StatusOK || found == nil || strings.Contains(text, "<b>laptop") {
		t.Fatalf("%s\n%s", answer.Status, text)
	}
	if policy := answer.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "form-action 'self'") || answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", answer.Header)
	}
	token := found[1]
	if _, text := w.as(wes, http.MethodGet, "/account", nil); strings.Contains(text, token) {
		t.Error("the token is shown a second time")
	}
	var viewer struct {
		Login    string `json:"login"`
		Operator bool   `json:"operator"`
	}
	if _, text := w.as(bearer(token), http.MethodGet, "/v1/viewer", nil); json.Unmarshal([]byte(text), &viewer) != nil || viewer.Login != "wes" || viewer.Operator {
		t.Errorf("it shows %s", text)
	}
	if answer, text := w.as(bearer(token), http.MethodPost, "/v1/builds/b1:cancel", nil); answer.StatusCode != http.StatusOK {
		t.Errorf("cancel: %s %s", answer.Status, text)
	}
	// It opens no page of the account: who has found one makes no other.
	if answer, _ := w.as(bearer(token), http.MethodPost, "/account/tokens", url.Values{"name": {"another"}}); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token makes a token: %s", answer.Status)
	}
	if answer, text := w.as(bearer(token), http.MethodPost, "/v1/sign-in:end", nil); answer.StatusCode != http.StatusOK {
		t.Errorf("end: %s %s", answer.Status, text)
	}
	if answer, _ := w.as(bearer(token), http.MethodGet, "/v1/viewer", nil); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("after its end: %s", answer.Status)
	}
	if answer, _ := w.as(wes, http.MethodGet, "/builds/b1", nil); answer.StatusCode != http.StatusOK {
		t.Errorf("the browser is signed out with it: %s", answer.Status)
	}
}

func TestWithoutSignInThereIsNone(t *testing.T) {
	w := onSQLite(t, nil)
	for _, path := range []string{"/sign-in", "/account"} {
		if code, text := w.get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if code, text := w.get("/v1/viewer"); code != http.StatusOK || !strings.Contains(text, `"signInDisabled":true`) {
		t.Errorf("%d %s", code, text)
	}
}

// fakeRepositories says what config says of repositories.
type fakeRepositories struct {
	configv1.UnimplementedRepositoryServiceServer
	rooms *rooms
}

func (f fakeRepositories) GetRepository(_ context.Context, req *configv1.GetRepositoryRequest) (*configv1.GetRepositoryResponse, error) {
	found, err := f.rooms.repositories(req.GetOwner(), req.GetName())
	return &configv1.GetRepositoryResponse{Repository: found}, err
}
