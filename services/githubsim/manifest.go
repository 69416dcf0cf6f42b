package githubsim

import (
	"bytes"
	cryptorand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

//go:embed manifest.html
var manifestText string

const (
	manifestLife = time.Hour // of the code that a registration ends with
	longestName  = 34        // of an App
)

// manifest is how an App describes itself, see
// https://docs.github.com/apps/sharing-github-apps/registering-a-github-app-from-a-manifest#github-app-manifest-parameters.
type manifest struct {
	Name  string `json:"name"`
	URL   string `json:"url"`
	Hooks *struct {
		URL    string `json:"url"`
		Active *bool  `json:"active"`
	} `json:"hook_attributes"`
	RedirectURL  string            `json:"redirect_url"`
	CallbackURLs []string          `json:"callback_urls"`
	Public       bool              `json:"public"`
	Permissions  map[string]string `json:"default_permissions"`
	Events       []string          `json:"default_events"`
}

// permissionOf is what an App must be able to read to be told of an event.
var permissionOf = map[string]string{
	"check_run": "checks", "check_suite": "checks", "issue_comment": "issues", "merge_group": "merge_queues",
	"pull_request": "pull_requests", "push": "contents", "release": "contents", "repository": "metadata",
	"create": "contents", "delete": "contents", "deployment": "deployments", "deployment_status": "deployments", "issues": "issues",
	"label": "metadata", "pull_request_review": "pull_requests", "pull_request_review_comment": "pull_requests", "status": "statuses",
}

// problem is what GitHub refuses a manifest for; "" for a good one.
func (m *manifest) problem() string {
	address := func(text string) bool {
		parsed, err := url.Parse(text)
		return err == nil && parsed.Host != "" && (parsed.Scheme == "http" || parsed.Scheme == "https")
	}
	switch {
	case m.Name == "":
		return "Name can't be blank"
	case len(m.Name) > longestName:
		return "Name is too long (maximum is 34 characters)"
	case !address(m.URL):
		return "Url must be a valid URL"
	case m.Hooks != nil && !address(m.Hooks.URL):
		return "Hook url must be a valid URL"
	case !address(m.RedirectURL):
		return "Redirect url must be a valid URL"
	}
	for _, callback := range m.CallbackURLs {
		if !address(callback) {
			return "Callback urls must be valid URLs"
		}
	}
	for permission, level := range m.Permissions {
		if !slices.Contains([]string{"read", "write", "admin"}, level) || !regexp.MustCompile(`^[a-z_]+$`).MatchString(permission) {
			return "Default permission records resource is not included in the list"
		}
	}
	for _, event := range m.Events {
		needed := permissionOf[event]
		if needed == "" || needed != "metadata" && m.Permissions[needed] == "" {
			return "Default events unsupported: " + event
		}
	}
	return ""
}

// registration is an App that was made of a manifest, and whose credentials nobody has fetched.
type registration struct {
	manifest manifest
	owner    *account
	ends     time.Time
}

// registrations are those by their codes. The App of this GitHub is the newest.
type registrations struct {
	*changes

	page  *template.Template
	codes map[string]*registration
}

func newRegistrations(s *changes) *registrations {
	return &registrations{s, template.Must(template.New("manifest").Parse(manifestText)), map[string]*registration{}}
}

// manifestPage is what a page of the registration shows.
type manifestPage struct {
	Title, Said, Action, Manifest, State, Name, Owner string
}

func (s *registrations) show(status int, page manifestPage) *response {
	var text bytes.Buffer
	if err := s.page.Execute(&text, page); err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return webPage(status, text.Bytes())
}

// post takes a manifest: first for the page that asks the person, whose one button posts it again.
func (s *registrations) post(c *call) *response {
	fields := c.fields()
	owner := s.user(s.config.OAuth.Browser)
	if org := c.PathValue("org"); org != "" {
		owner = s.account(org, "Organization")
	}
	var m manifest
	var problem string
	if err := json.Unmarshal([]byte(fields.Get("manifest")), &m); err != nil {
		problem = "Invalid GitHub App configuration: the manifest is no JSON"
	} else {
		problem = m.problem()
	}
	if problem != "" {
		return s.show(http.StatusUnprocessableEntity, manifestPage{Title: "Invalid GitHub App configuration", Said: problem})
	}
	if fields.Get("confirmed") == "" {
		return s.show(http.StatusOK, manifestPage{
			Title: "Create GitHub App", Action: c.URL.Path, Manifest: fields.Get("manifest"), State: fields.Get("state"), Name: m.Name, Owner: owner.login,
		})
	}
	code := s.register(m, owner)
	back, err := url.Parse(m.RedirectURL)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, err.Error())
	}
	query := back.Query()
	query.Set("code", code)
	if state := fields.Get("state"); state != "" {
		query.Set("state", state)
	}
	back.RawQuery = query.Encode()
	return &response{status: http.StatusFound, header: http.Header{"Location": {back.String()}}}
}

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// register makes the App, whose webhook is pinged, and returns the code of its credentials.
func (s *registrations) register(m manifest, owner *account) (code string) {
	s.config.AppID, s.config.AppKey, s.config.AppOwner = s.id(), nil, owner.login
	s.config.AppSlug = strings.Trim(unfit.ReplaceAllString(strings.ToLower(m.Name), "-"), "-")
	s.config.Permissions = maps.Clone(m.Permissions)
	if s.config.Permissions == nil {
		s.config.Permissions = map[string]string{}
	}
	s.config.Permissions["metadata"] = "read"
	s.config.Events = append([]string{}, m.Events...)
	s.config.OAuth = OAuth{
		ClientID: "Iv23" + cryptorand.Text()[:16], ClientSecret: cryptorand.Text(), CallbackURLs: m.CallbackURLs, Browser: s.config.OAuth.Browser,
	}
	hook := hookConfig{ContentType: "json", InsecureSSL: "0"}
	if m.Hooks != nil && (m.Hooks.Active == nil || *m.Hooks.Active) {
		hook.URL, hook.Secret = m.Hooks.URL, cryptorand.Text()
	}
	s.hooks.configure(s.config.AppID, hook)
	s.ping()
	code = strings.ToLower(cryptorand.Text() + cryptorand.Text())[:40]
	s.codes[code] = &registration{manifest: m, owner: owner, ends: s.now().Add(manifestLife)}
	return code
}

// convert hands out the credentials of an App, once: the private key is made for that.
func (s *registrations) convert(c *call) *response {
	r := s.codes[c.PathValue("code")]
	delete(s.codes, c.PathValue("code"))
	if r == nil || !s.now().Before(r.ends) {
		return notFound()
	}
	key, err := rsa.GenerateKey(cryptorand.Reader, 2048)
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	s.config.AppKey = &key.PublicKey
	app := c.links.app(s.state)
	app["name"] = r.manifest.Name
	app["owner"] = c.links.account(r.owner)
	app["client_id"], app["client_secret"] = s.config.OAuth.ClientID, s.config.OAuth.ClientSecret
	app["webhook_secret"] = orNull(s.hooks.config().Secret)
	app["pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return &response{status: http.StatusCreated, body: app}
}

// hookConfig is how the App's webhook is set.
type hookConfig struct {
	URL         string `json:"url"`
	ContentType string `json:"content_type"`
	Secret      string `json:"secret,omitempty"`
	InsecureSSL string `json:"insecure_ssl"`
}

func (s *appAPI) getHookConfig(*call) *response {
	shown := s.hooks.config()
	if shown.Secret != "" {
		shown.Secret = "********"
	}
	return ok(shown)
}

func (s *appAPI) updateHookConfig(c *call) *response {
	changed := s.hooks.config()
	if refusal := c.decode(&changed); refusal != nil {
		return refusal
	}
	if parsed, err := url.Parse(changed.URL); err != nil || parsed.Host == "" {
		return refuse(http.StatusUnprocessableEntity, "Validation Failed", object{"resource": "Hook", "code": "custom", "message": fmt.Sprintf("url %q is not supported", changed.URL)})
	}
	s.hooks.configure(s.config.AppID, changed)
	return s.getHookConfig(c)
}

// App is what the App is allowed and told of, the events in the order of their names.
func (s *Controls) App() (permissions map[string]string, events []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.config.Permissions), slices.Sorted(slices.Values(s.config.Events))
}
