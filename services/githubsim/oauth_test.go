package githubsim_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

const (
	clientID, clientSecret = "Iv1.forge", "client-hush"
	callback               = "http://forge.example/signin/callback"
	deviceGrant            = "urn:ietf:params:oauth:grant-type:device_code"
)

// signIns is a world whose App people sign in through.
func signIns(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, func(c *githubsim.Config) {
		c.Permissions = map[string]string{"contents": "read", "statuses": "write", "members": "read"}
		c.OAuth = githubsim.OAuth{ClientID: clientID, ClientSecret: clientSecret, CallbackURLs: []string{callback}, DeviceFlow: true}
	})
	w.must(w.sim.SetPermission("acme", "shop", "rita", "read"))
	w.must(w.sim.SetPermission("acme", "shop", "wes", "write"))
	return w
}

// form posts a form, and returns the answer's fields, or where it leads.
func (w *world) form(path string, pairs ...string) (fields map[string]any, location string) {
	w.t.Helper()
	values := url.Values{}
	for n := 0; n < len(pairs); n += 2 {
		values.Set(pairs[n], pairs[n+1])
	}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+path, strings.NewReader(values.Encode()))
	w.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultTransport.RoundTrip(req)
	w.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	w.must(err)
	_ = json.Unmarshal(text, &fields)
	return fields, resp.Header.Get("Location")
}

func (w *world) exchange(pairs ...string) map[string]any {
	w.t.Helper()
	fields, _ := w.form("/login/oauth/access_token", append([]string{"client_id", clientID, "client_secret", clientSecret}, pairs...)...)
	return fields
}

func wantOAuthError(t *testing.T, fields map[string]any, code string) {
	t.Helper()
	if fields["error"] != code || fields["access_token"] != nil {
		t.Errorf("got %v, want the error %s", fields, code)
	}
}

func TestAPersonSignsInByTheWeb(t *testing.T) {
	w := signIns(t)
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	leave := func(decision string) url.Values {
		_, to := w.form("/login/oauth/authorize", "client_id", clientID, "redirect_uri", callback, "state", "s t", "code_challenge", challenge,
			"code_challenge_method", "S256", "login", "rita", "decision", decision)
		address, err := url.Parse(to)
		w.must(err)
		if !strings.HasPrefix(to, callback+"?") || address.Query().Get("state") != "s t" {
			t.Fatalf("sent back to %s", to)
		}
		return address.Query()
	}
	if denied := leave("deny"); denied.Get("error") != "access_denied" || denied.Get("code") != "" {
		t.Errorf("denied: %v", denied)
	}
	code := leave("allow").Get("code")
	wantOAuthError(t, w.exchange("code", code, "code_verifier", "another"), "bad_verification_code")
	wantOAuthError(t, w.exchange("code", code, "code_verifier", verifier), "bad_verification_code") // it was good once
	wantOAuthError(t, w.exchange("code", leave("allow").Get("code"), "code_verifier", verifier, "redirect_uri", "http://evil.example"), "redirect_uri_mismatch")
	late := leave("allow").Get("code")
	w.clock.advance(10 * time.Minute)
	wantOAuthError(t, w.exchange("code", late, "code_verifier", verifier), "bad_verification_code")
	code = leave("allow").Get("code")
	wantOAuthError(t, w.exchange("client_secret", "wrong", "code", code, "code_verifier", verifier), "incorrect_client_credentials")

	token := w.exchange("code", code, "code_verifier", verifier, "redirect_uri", callback)
	access, _ := token["access_token"].(string)
	if !strings.HasPrefix(access, "ghu_") || token["expires_in"] != float64(28800) || token["token_type"] != "bearer" {
		t.Fatalf("got %v", token)
	}
	user, _, err := w.client(access).Users.Get(t.Context(), "")
	if err != nil || user.GetLogin() != "rita" {
		t.Errorf("got user %v, error %v", user, err)
	}
}

func TestOnlyKnownClientsAndAddressesAreAskedFor(t *testing.T) {
	w := signIns(t)
	for name, query := range map[string]string{
		"another client":  "client_id=Iv1.other&redirect_uri=" + url.QueryEscape(callback),
		"another address": "client_id=" + clientID + "&redirect_uri=" + url.QueryEscape("http://evil.example/"),
		"address below":   "client_id=" + clientID + "&redirect_uri=" + url.QueryEscape(callback+"/x"),
	} {
		if _, to := w.form("/login/oauth/authorize?"+query, "login", "rita"); to != "" {
			t.Errorf("%s: sent to %s", name, to)
		}
	}
}

func TestTokensExpireAndAreRefreshedOnce(t *testing.T) {
	w := signIns(t)
	first := w.exchange("code", w.sim.Authorize("rita", callback, ""))
	get := func(token any) error {
		_, _, err := w.client(token.(string)).Users.Get(t.Context(), "")
		return err
	}
	w.must(get(first["access_token"]))
	w.clock.advance(8 * time.Hour)
	wantError(t, get(first["access_token"]), http.StatusUnauthorized, "Bad credentials")
	second := w.exchange("grant_type", "refresh_token", "refresh_token", first["refresh_token"].(string))
	w.must(get(second["access_token"]))
	wantOAuthError(t, w.exchange("grant_type", "refresh_token", "refresh_token", first["refresh_token"].(string)), "bad_refresh_token")
	third := w.exchange("grant_type", "refresh_token", "refresh_token", second["refresh_token"].(string))
	wantError(t, get(second["access_token"]), http.StatusUnauthorized, "Bad credentials") // the refresh has ended it
	w.sim.RevokeAuthorization("rita")
	wantError(t, get(third["access_token"]), http.StatusUnauthorized, "Bad credentials")
	wantOAuthError(t, w.exchange("grant_type", "refresh_token", "refresh_token", third["refresh_token"].(string)), "bad_refresh_token")
}

func TestADeviceSignsIn(t *testing.T) {
	w := signIns(t)
	start := func() (device, user string) {
		fields, _ := w.form("/login/device/code", "client_id", clientID)
		if fields["verification_uri"] != w.url+"/login/device" || fields["interval"] != float64(5) || fields["expires_in"] != float64(900) {
			t.Fatalf("got %v", fields)
		}
		return fields["device_code"].(string), fields["user_code"].(string)
	}
	poll := func(device string) map[string]any {
		fields, _ := w.form("/login/oauth/access_token", "client_id", clientID, "grant_type", deviceGrant, "device_code", device) // without the secret
		return fields
	}
	device, user := start()
	wantOAuthError(t, poll(device), "authorization_pending")
	if slow := poll(device); slow["error"] != "slow_down" || slow["interval"] != float64(10) {
		t.Errorf("asked at once again: %v", slow)
	}
	w.must(w.sim.EnterDeviceCode("rita", strings.ToLower(user), true))
	w.clock.advance(10 * time.Second)
	if token := poll(device); !strings.HasPrefix(token["access_token"].(string), "ghu_") {
		t.Errorf("got %v", token)
	}
	wantOAuthError(t, poll(device), "incorrect_device_code") // it was good once

	denied, user := start()
	w.must(w.sim.EnterDeviceCode("rita", user, false))
	wantOAuthError(t, poll(denied), "access_denied")
	late, user := start()
	w.clock.advance(15 * time.Minute)
	wantOAuthError(t, poll(late), "expired_token")
	if w.sim.EnterDeviceCode("rita", user, true) == nil {
		t.Error("a code was taken after its time")
	}
}

func TestAPersonSeesWhatTheyAndTheAppMayRead(t *testing.T) {
	w := signIns(t)
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "zeta", Name: "open", Public: true, Files: map[string]string{"a": "a"}}))
	w.must(w.sim.SetPermission("zeta", "other", "rita", "admin")) // where the App is not installed
	for login, want := range map[string]map[string]string{
		"rita": {"acme/shop": "pull", "zeta/open": "pull", "zeta/other": ""},
		"wes":  {"acme/shop": "push", "zeta/open": "pull", "zeta/other": ""},
		"stan": {"acme/shop": "", "zeta/open": "pull", "zeta/other": ""},
	} {
		client := w.client(w.sim.UserToken(login))
		for name, most := range want {
			owner, repo, _ := strings.Cut(name, "/")
			found, _, err := client.Repositories.Get(t.Context(), owner, repo)
			if most == "" {
				wantError(t, err, http.StatusNotFound, "Not Found")
				continue
			}
			w.must(err)
			if may := found.GetPermissions(); !may["pull"] || may["push"] != (most == "push") || may["admin"] {
				t.Errorf("%s in %s: %v", login, name, may)
			}
			byID, _, err := client.Repositories.GetByID(t.Context(), found.GetID())
			if err != nil || byID.GetFullName() != name {
				t.Errorf("%s by id: %v, %v", name, byID, err)
			}
		}
		list, _, err := client.Apps.ListUserInstallations(t.Context(), nil)
		if err != nil || len(list) != map[string]int{"rita": 1, "wes": 1, "stan": 0}[login] {
			t.Errorf("%s: installations %v, %v", login, list, err)
		}
	}
	_, _, err := w.client(w.sim.UserToken("rita")).Repositories.CreateStatus(t.Context(), "acme", "shop", strings.Repeat("0", 40), &github.RepoStatus{})
	wantError(t, err, http.StatusForbidden, "Must have write access")
	_, _, err = w.client("ghu_wrong").Users.Get(t.Context(), "")
	wantError(t, err, http.StatusUnauthorized, "Bad credentials")
	_, _, err = w.client("").Users.Get(t.Context(), "")
	wantError(t, err, http.StatusUnauthorized, "Requires authentication")
}

func TestTeamsAndRevokedTokens(t *testing.T) {
	w := signIns(t)
	token := w.sim.UserToken("rita")
	client := w.client(token)
	member := func(org string) error {
		_, _, err := client.Teams.GetTeamMembershipBySlug(t.Context(), org, "ops", "rita")
		return err
	}
	wantError(t, member("acme"), http.StatusNotFound, "Not Found")
	wantError(t, member("zeta"), http.StatusForbidden, "Resource not accessible by integration")
	w.sim.SetTeamMember("acme", "ops", "rita", true)
	w.must(member("acme"))
	w.sim.SetTeamMember("acme", "ops", "rita", false)
	wantError(t, member("acme"), http.StatusNotFound, "Not Found")
	ofInstallation := func(granted *github.InstallationPermissions, org string) error {
		w.sim.SetTeamMember("acme", "ops", "wes", true)
		installed := w.client(w.token(&github.InstallationTokenOptions{Permissions: granted}))
		_, _, err := installed.Teams.GetTeamMembershipBySlug(t.Context(), org, "ops", "wes")
		return err
	}
	w.must(ofInstallation(&github.InstallationPermissions{Members: new("read")}, "acme"))
	wantError(t, ofInstallation(&github.InstallationPermissions{Members: new("read")}, "zeta"), http.StatusForbidden, "Resource not accessible by integration")
	wantError(t, ofInstallation(&github.InstallationPermissions{Contents: new("read")}, "acme"), http.StatusForbidden, "Resource not accessible by integration")

	revoke := func(secret, token string) error {
		basic := github.BasicAuthTransport{Username: clientID, Password: secret}
		apps, err := github.NewClient(basic.Client()).WithEnterpriseURLs(w.url, w.url)
		w.must(err)
		_, err = apps.Authorizations.Revoke(context.Background(), clientID, token)
		return err
	}
	wantError(t, revoke("wrong", token), http.StatusNotFound, "Not Found")
	w.must(revoke(clientSecret, token))
	wantError(t, member("acme"), http.StatusUnauthorized, "Bad credentials")
	if n := w.sim.UserTokens(); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
}
