package registration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// GitHub's bound of an App's name.
const longestName = 34

// Config is the App that is wanted, and where.
type Config struct {
	GitHubURL, APIURL string // as settings have them
	Organization      string // whose App it is; "": the person's
	Name              string // "": made of URL
	URL               string // of Forge
	WebhookURL        string // "": that of URL
	Teams             bool   // the App is to know who is in teams
}

// Prepare checks what is wanted, and fills in what follows from it.
func (c Config) Prepare() (Config, error) {
	c.URL = strings.TrimRight(c.URL, "/")
	if c.WebhookURL == "" {
		c.WebhookURL = c.URL + "/v1/listen"
	}
	host := ""
	for _, said := range [][2]string{{"--url", c.URL}, {"--webhook-url", c.WebhookURL}} {
		name, address := said[0], said[1]
		parsed, err := url.Parse(address)
		if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
			return c, fmt.Errorf("%s is %q: use an address such as https://forge.example.com", name, address)
		}
		if name == "--url" {
			host = parsed.Hostname()
		}
		if name == "--webhook-url" && c.public() && private(parsed.Hostname()) {
			return c, fmt.Errorf("GitHub cannot reach %s to deliver webhooks: say by --url how Forge is reached from outside, or by --webhook-url where its webhooks are", parsed.Host)
		}
	}
	if c.Name == "" {
		c.Name = strings.TrimRight(("Forge " + host)[:min(len("Forge "+host), longestName)], " .-")
	}
	if len(c.Name) > longestName {
		return c, fmt.Errorf("--name is %q: GitHub takes names of at most %d bytes", c.Name, longestName)
	}
	if c.Organization != "" && url.PathEscape(c.Organization) != c.Organization {
		return c, fmt.Errorf("--organization is %q: use the organization's login, as in its address on GitHub", c.Organization)
	}
	c.GitHubURL = strings.TrimRight(c.GitHubURL, "/")
	github, err := url.Parse(c.GitHubURL)
	if err != nil || github.Host == "" {
		return c, fmt.Errorf("FORGE_GITHUB_URL is %q: use https://github.com or https://HOST", c.GitHubURL)
	}
	if c.APIURL == publicAPI && !c.public() {
		c.APIURL = c.GitHubURL + "/api/v3"
		if tenant, ok := strings.CutSuffix(github.Host, ".ghe.com"); ok {
			c.APIURL = github.Scheme + "://api." + tenant + ".ghe.com"
		}
	}
	return c, nil
}

const (
	publicURL = "https://github.com"
	publicAPI = "https://api.github.com"
)

func (c Config) public() bool { return strings.TrimRight(c.GitHubURL, "/") == publicURL }

// private reports whether a host is none that the internet reaches. Names are not
// looked up: GitHub may know others than we.
func private(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".internal") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && (address.IsPrivate() || address.IsLoopback() || address.IsUnspecified() || address.IsLinkLocalUnicast())
}

// register is where GitHub takes manifests.
func (c Config) register(state string) string {
	path := "/settings/apps/new"
	if c.Organization != "" {
		path = "/organizations/" + c.Organization + path
	}
	return c.GitHubURL + path + "?" + url.Values{"state": {state}}.Encode()
}

// permissions are those that the App asks for.
func (c Config) permissions() []Permission {
	if c.Teams {
		return append(Permissions(), Members())
	}
	return Permissions()
}

// manifest is the App as GitHub wants it described, see
// https://docs.github.com/apps/sharing-github-apps/registering-a-github-app-from-a-manifest.
func (c Config) manifest(redirect string) (string, error) {
	permissions, events := map[string]string{}, []string{}
	for _, p := range c.permissions() {
		permissions[p.Name] = p.Level
	}
	for _, e := range Events() {
		events = append(events, e.Name)
	}
	text, err := json.Marshal(map[string]any{
		"name": c.Name, "url": c.URL, "redirect_url": redirect, "public": false,
		"hook_attributes":     map[string]any{"url": c.WebhookURL, "active": true},
		"callback_urls":       []string{c.URL + "/sign-in/callback"},
		"default_permissions": permissions, "default_events": events,
	})
	if err != nil {
		return "", errors.Join(errors.New("manifest of the App"), err)
	}
	return string(text), nil
}
