package githubsim_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"
)

func goodManifest() map[string]any {
	return map[string]any{
		"name": "Forge of acme", "url": "https://forge.example", "redirect_url": "http://127.0.0.1:1/code?x=y",
		"hook_attributes":     map[string]any{"url": "https://forge.example/v1/listen"},
		"default_permissions": map[string]string{"contents": "read", "statuses": "write"}, "default_events": []string{"push"},
	}
}

// registered posts a manifest as a person does who presses the one button, and returns the code.
func (w *world) registered(path string, manifest map[string]any) (code string, location *url.URL) {
	w.t.Helper()
	text, err := json.Marshal(manifest)
	w.must(err)
	_, back := w.form(path, "manifest", string(text), "state", "s1", "confirmed", "yes")
	location, err = url.Parse(back)
	w.must(err)
	return location.Query().Get("code"), location
}

func TestAnAppIsMadeOfAManifest(t *testing.T) {
	w := newWorld(t)
	text, err := json.Marshal(goodManifest())
	w.must(err)
	if _, back := w.form("/settings/apps/new?state=s1", "manifest", string(text)); back != "" {
		t.Errorf("nobody pressed the button, and the browser goes to %s", back)
	}
	code, back := w.registered("/organizations/acme/settings/apps/new", goodManifest())
	if back.Host != "127.0.0.1:1" || back.Path != "/code" || back.Query().Get("state") != "s1" || back.Query().Get("x") != "y" {
		t.Errorf("the browser goes to %s", back)
	}
	made, answer, err := w.client("").Apps.CompleteAppManifest(t.Context(), code)
	if err != nil || answer.StatusCode != http.StatusCreated {
		t.Fatal(err)
	}
	if made.GetSlug() != "forge-of-acme" || made.GetOwner().GetLogin() != "acme" || made.GetClientID() == "" || made.GetClientSecret() == "" || made.GetWebhookSecret() == "" {
		t.Errorf("made %+v", made)
	}
	for _, again := range []string{code, "unknown"} {
		if _, answer, err := w.client("").Apps.CompleteAppManifest(t.Context(), again); err == nil || answer.StatusCode != http.StatusNotFound {
			t.Errorf("code %s: %v", again, err)
		}
	}
	if _, _, err := w.app().Apps.Get(t.Context(), ""); err == nil {
		t.Error("the App before is still known by its key")
	}
	w.must(w.sim.WaitDeliveries(t.Context()))
	if all := w.sim.Deliveries(); all[len(all)-1].Event != "ping" {
		t.Errorf("the last delivery is %s, want a ping", all[len(all)-1].Event)
	}
}

func TestACodeLastsAnHour(t *testing.T) {
	w := newWorld(t)
	early, _ := w.registered("/settings/apps/new", goodManifest())
	late, _ := w.registered("/settings/apps/new", goodManifest())
	w.clock.advance(time.Hour - time.Second)
	if _, _, err := w.client("").Apps.CompleteAppManifest(t.Context(), early); err != nil {
		t.Error(err)
	}
	w.clock.advance(time.Second)
	if _, answer, err := w.client("").Apps.CompleteAppManifest(t.Context(), late); err == nil || answer.StatusCode != http.StatusNotFound {
		t.Errorf("after an hour: %v", err)
	}
}

func TestABadManifestIsRefused(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]map[string]any{
		"no name":                   {"name": ""},
		"a long name":               {"name": strings.Repeat("x", 35)},
		"no address":                {"url": "forge.example"},
		"no redirect":               {"redirect_url": nil},
		"no hook's address":         {"hook_attributes": map[string]any{"active": true}},
		"a callback that is none":   {"callback_urls": []string{"x"}},
		"a level that is none":      {"default_permissions": map[string]string{"contents": "all"}},
		"a permission that is none": {"default_permissions": map[string]string{"../x": "read"}},
		"an event that is none":     {"default_events": []string{"everything"}},
		"an event it may not read":  {"default_events": []string{"check_run"}},
		"permissions of a list":     {"default_permissions": []string{"contents"}},
	} {
		bad := goodManifest()
		maps.Copy(bad, change)
		text, err := json.Marshal(bad)
		w.must(err)
		answer, err := http.PostForm(w.url+"/settings/apps/new", url.Values{"manifest": {string(text)}, "confirmed": {"yes"}})
		w.must(err)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %s", name, answer.Status)
		}
	}
}

func TestTheWebhooksConfigurationIsReadAndSet(t *testing.T) {
	w := newWorld(t)
	config, _, err := w.app().Apps.GetHookConfig(t.Context())
	if err != nil || config.GetSecret() != "********" || config.GetURL() == "" || config.GetContentType() != "json" || config.GetInsecureSSL() != "0" {
		t.Errorf("%+v, %v", config, err)
	}
	address, other := "https://elsewhere.example/v1/listen", "other"
	if _, _, err := w.app().Apps.UpdateHookConfig(t.Context(), &github.HookConfig{URL: &address, Secret: &other}); err != nil {
		t.Error(err)
	}
	if config, _, err = w.app().Apps.GetHookConfig(t.Context()); err != nil || config.GetURL() != address {
		t.Errorf("%+v, %v", config, err)
	}
	none := "nowhere"
	if _, answer, err := w.app().Apps.UpdateHookConfig(t.Context(), &github.HookConfig{URL: &none}); err == nil || answer.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("an address that is none: %v", err)
	}
}
