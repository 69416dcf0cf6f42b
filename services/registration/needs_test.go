package registration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
)

// What the page says to set by hand, what the manifest asks for, and what GitHub
// grants in every test are one and the same.
func TestWhatTheAppNeedsIsOneList(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	levels, events := map[string][]string{}, []string{}
	for _, p := range Permissions() {
		levels[p.Level] = append(levels[p.Level], p.Title)
		if p.For == "" || p.Cost == "" || !lists(page, p.Title, p.Needed) {
			t.Errorf("%s: the page's table of costs has it not, or wrongly", p.Name)
		}
	}
	for _, e := range Events() {
		events = append(events, e.Title)
		if e.For == "" || e.Cost == "" || !lists(page, e.Title, e.Needed) {
			t.Errorf("%s: the page's table of costs has it not, or wrongly", e.Name)
		}
	}
	for _, row := range []string{
		fmt.Sprintf("| Repository permissions | %s: read. %s: write |", strings.Join(levels["read"], ", "), strings.Join(levels["write"], ", ")),
		fmt.Sprintf("| Subscribe to events | %s |", strings.Join(events, ", ")),
	} {
		if !strings.Contains(page, row) {
			t.Errorf("docs/operating.md lacks the row\n%s", row)
		}
	}

	c, err := Config{GitHubURL: publicURL, APIURL: publicAPI, URL: "https://forge.example.com/"}.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	described, err := c.manifest("http://127.0.0.1:1/x/code")
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Name        string            `json:"name"`
		URL         string            `json:"url"`
		Permissions map[string]string `json:"default_permissions"`
		Events      []string          `json:"default_events"`
		Callbacks   []string          `json:"callback_urls"`
		Hook        struct {
			URL    string `json:"url"`
			Active bool   `json:"active"`
		} `json:"hook_attributes"`
	}
	if err := json.Unmarshal([]byte(described), &m); err != nil {
		t.Fatal(err)
	}
	if m.Name != "Forge forge.example.com" || m.URL != "https://forge.example.com" || m.Hook.URL != "https://forge.example.com/v1/listen" || !m.Hook.Active ||
		len(m.Callbacks) != 1 || m.Callbacks[0] != "https://forge.example.com/sign-in/callback" {
		t.Errorf("the manifest is %s", described)
	}

	sim := githubsim.New(githubsim.Config{})
	defer sim.Close()
	granted, told := sim.App()
	delete(granted, "actions") // which enginetest's workflows read
	if !maps.Equal(granted, m.Permissions) || !slices.Equal(slices.Sorted(slices.Values(m.Events)), told) {
		t.Errorf("GitHub grants %v and tells of %v in tests, the manifest asks for %v and %v", granted, told, m.Permissions, m.Events)
	}

	// With teams it asks for one more, and the page that is shown before says so.
	c.Teams = true
	shown, err := c.page("state", "http://127.0.0.1:1/x/code")
	if err != nil || !strings.Contains(shown.Manifest, `"members":"read"`) || shown.Permissions[len(shown.Permissions)-1].Name != "members" {
		t.Errorf("with teams: %v, %v", shown, err)
	}
	if strings.Contains(described, "members") {
		t.Errorf("without teams the manifest is %s", described)
	}
}

func TestWhatIsWantedIsCheckedBeforeGitHubIs(t *testing.T) {
	good := Config{GitHubURL: publicURL, APIURL: publicAPI, URL: "https://forge.example.com"}
	for want, change := range map[string]func(*Config){
		"":                             func(*Config) {},
		`--url is "forge.example.com"`: func(c *Config) { c.URL = "forge.example.com" },
		"GitHub cannot reach localhost:9098 to deliver webhooks: say by --url": func(c *Config) { c.URL = "http://localhost:9098" },
		"GitHub cannot reach 10.1.2.3":                                         func(c *Config) { c.URL = "http://10.1.2.3" },
		"GitHub cannot reach [::1]:1":                                          func(c *Config) { c.URL = "http://[::1]:1" },
		`--webhook-url is "javascript:x"`:                                      func(c *Config) { c.WebhookURL = "javascript:x" },
		`--name is "`:                                                          func(c *Config) { c.Name = strings.Repeat("x", 35) },
		`--organization is "a/../b"`:                                           func(c *Config) { c.Organization = "a/../b" },
		`FORGE_GITHUB_URL is "github.com"`:                                     func(c *Config) { c.GitHubURL, c.WebhookURL = "github.com", "https://x.example" },
	} {
		c := good
		change(&c)
		if _, err := c.Prepare(); want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for github, want := range map[string]string{
		"https://github.com": publicAPI, "https://ghe.example.com/": "https://ghe.example.com/api/v3", "https://octo.ghe.com": "https://api.octo.ghe.com",
	} {
		c := good
		c.GitHubURL = github
		if c, err := c.Prepare(); err != nil || c.APIURL != want {
			t.Errorf("the API of %s is %s, %v", github, c.APIURL, err)
		}
	}
	inside := Config{GitHubURL: "https://ghe.example.com", APIURL: publicAPI, URL: "http://10.1.2.3", Organization: "acme"}
	if c, err := inside.Prepare(); err != nil || c.register("s") != "https://ghe.example.com/organizations/acme/settings/apps/new?state=s" {
		t.Errorf("%+v, %v", c, err)
	}
}

// lists reports whether the page has what is needed in one row, and all else in others.
func lists(page, title string, needed bool) bool {
	_, table, _ := strings.Cut(page, "| without | the App, or Forge, cannot |")
	table, _, _ = strings.Cut(table, "\n## ")
	for row := range strings.Lines(table) {
		names, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " |")
		for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ';' }) {
			if strings.TrimPrefix(strings.TrimSpace(name), "events ") == title {
				return strings.Contains(row, "these are needed") == needed
			}
		}
	}
	return false
}
