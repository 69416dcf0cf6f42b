package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	gogithub "github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/registration"
)

// github looks from one thing to the next: who has the wrong time is not believed, and
// who is not believed learns nothing.
func (d *doctor) github(ctx context.Context, r *report) {
	base := github.NewTransport()
	defer base.CloseIdleConnections()
	if !d.reachesGitHub(ctx, r, base) {
		r.skip("App", "GitHub was not asked about it")
		return
	}
	app, err := d.Settings.Key()
	if err != nil {
		r.skip("App", "GitHub was not asked about it: see settings")
		return
	}
	client, err := github.NewApp(github.Config{APIURL: d.Settings.GitHubAPIURL, Base: base, Log: d.Log}, app)
	if err != nil {
		r.broken("App", err.Error(), "name the .pem file that was downloaded from the App's settings page")
		return
	}
	known, ok := d.app(ctx, r, client)
	if !ok {
		return
	}
	d.permissions(r, known)
	d.events(r, known)
	d.installations(ctx, r, client, known)
	if d.hook(ctx, r, client) {
		d.deliveries(ctx, r, client)
	}
}

// How far this host's clock may be from GitHub's. What the App signs is good from half
// a minute before to a minute and a half after.
const (
	noticedSkew = 5 * time.Second
	mostSkew    = 20 * time.Second
)

// reachesGitHub looks at the clock, too, without which GitHub believes nothing.
func (d *doctor) reachesGitHub(ctx context.Context, r *report, base http.RoundTripper) bool {
	const check = "GitHub's API"
	const fix = "check FORGE_GITHUB_API_URL, this host's names and proxy (HTTPS_PROXY), and the firewall"
	address := strings.TrimRight(d.Settings.GitHubAPIURL, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/meta", nil)
	if err != nil {
		r.broken(check, err.Error(), fix)
		return false
	}
	begin := d.Now()
	answer, err := base.RoundTrip(req)
	if err != nil {
		r.broken(check, fmt.Sprintf("%s does not answer: %s", address, plainNetwork(err)), fix)
		return false
	}
	_ = answer.Body.Close()
	if answer.Header.Get("X-Github-Request-Id") == "" {
		r.broken(check, fmt.Sprintf("what answers at %s is not GitHub's API", address), fix)
		return false
	}
	its, err := http.ParseTime(answer.Header.Get("Date"))
	ours := begin.Add(d.Now().Sub(begin) / 2)
	skew := ours.Sub(its).Truncate(time.Second)
	way := "ahead of"
	if skew < 0 {
		way = "behind"
	}
	text := fmt.Sprintf("this host's clock is %v %s GitHub's", skew.Abs(), way)
	switch {
	case err != nil || skew.Abs() <= noticedSkew:
		r.finef(check, "%s answers, and the clocks agree", address)
		return true
	case skew.Abs() > mostSkew:
		r.broken("clock", text, "have the clock set: timedatectl set-ntp true")
		return false
	}
	r.warn("clock", text, "have the clock set: timedatectl set-ntp true")
	return true
}

// known is the App as GitHub has it.
type known struct {
	ID            int64             `json:"id"`
	Slug          string            `json:"slug"`
	HTMLURL       string            `json:"html_url"`
	Permissions   map[string]string `json:"permissions"`
	Events        []string          `json:"events"`
	Installations int               `json:"installations_count"`
}

func (d *doctor) app(ctx context.Context, r *report, client *gogithub.Client) (k known, ok bool) {
	const check = "App"
	err := ask(ctx, client, "app", &k)
	if err == nil {
		r.finef(check, "the key belongs to App %d, %s", k.ID, k.Slug)
		return k, true
	}
	refusal, answered := errors.AsType[*gogithub.ErrorResponse](err)
	switch {
	case answered && refusal.Response.StatusCode == http.StatusNotFound:
		r.broken(check, fmt.Sprintf("GitHub knows no App with the ID %d", d.Settings.GitHubAppID), "set FORGE_GITHUB_APP_ID to the App ID on the App's settings page")
	case answered && refusal.Response.StatusCode == http.StatusUnauthorized:
		r.broken(check, fmt.Sprintf("the private key is none of App %d's: GitHub says %q", d.Settings.GitHubAppID, refusal.Message),
			"make a new key on the App's settings page, or set FORGE_GITHUB_APP_ID to the App that the key is of")
	default:
		r.broken(check, github.Classify(err).Text, "try again; see https://www.githubstatus.com")
	}
	return k, false
}

func ask(ctx context.Context, client *gogithub.Client, path string, into any) error {
	req, err := client.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	_, err = client.Do(ctx, req, into)
	return err
}

// allows reports whether a permission is as much as what is asked for.
func allows(has, wanted string) bool {
	levels := []string{"", "read", "write", "admin"}
	return slices.Index(levels, has) >= slices.Index(levels, wanted)
}

// wanted are the permissions that this Forge needs, as it and its App are set: an App that
// may read teams was made so for the approvers of some file.
func (d *doctor) wanted(k known) []registration.Permission {
	all := registration.Permissions()
	for n := range all {
		if all[n].Name == "checks" && d.Settings.Report != "statuses" {
			all[n].Needed = true
			all[n].Cost = "FORGE_REPORT is " + d.Settings.Report + ", and GitHub shows no check runs"
		}
	}
	if k.Permissions["members"] != "" || slices.ContainsFunc(d.Settings.Admins, func(admin string) bool { return strings.Contains(admin, "/") }) {
		all = append(all, registration.Members())
	}
	return all
}

func (d *doctor) permissions(r *report, k known) {
	good := true
	for _, p := range d.wanted(k) {
		if has := k.Permissions[p.Name]; !allows(has, p.Level) {
			good = false
			level := Warning
			if p.Needed {
				level = Broken
			}
			text := fmt.Sprintf("the App has not %s: %s, for %s; without it %s", p.Title, p.Level, p.For, p.Cost)
			r.add(level, "permissions", text, "grant it on the App's settings page under Permissions & events, then accept it in each installation")
		}
	}
	if good {
		r.finef("permissions", "the App has all that it needs")
	}
}

func (d *doctor) events(r *report, k known) {
	good := true
	for _, e := range registration.Events() {
		if !slices.Contains(k.Events, e.Name) {
			good = false
			level := Warning
			if e.Needed {
				level = Broken
			}
			text := fmt.Sprintf("the App is not told of the event %s, for %s; without it %s", e.Title, e.For, e.Cost)
			r.add(level, "events", text, "subscribe to it on the App's settings page under Permissions & events")
		}
	}
	if good {
		r.finef("events", "the App is told of all that it needs")
	}
}

// installation is one as GitHub has it.
type installation struct {
	Account struct {
		Login string `json:"login"`
		Type  string `json:"type"`
	} `json:"account"`
	Permissions map[string]string `json:"permissions"`
	Suspended   *time.Time        `json:"suspended_at"`
	HTMLURL     string            `json:"html_url"`
}

func (d *doctor) installations(ctx context.Context, r *report, client *gogithub.Client, k known) {
	const check = "installations"
	var all []installation
	if err := ask(ctx, client, "app/installations?per_page=100", &all); err != nil {
		r.broken(check, github.Classify(err).Text, "try again")
		return
	}
	if len(all) == 0 {
		r.warn(check, "the App is installed nowhere, so nothing is built", "install it: "+k.HTMLURL+"/installations/new")
		return
	}
	good := true
	for _, i := range all {
		if i.Suspended != nil {
			good = false
			r.warn(check, "the installation of "+i.Account.Login+" is suspended: nothing is built there", "an owner of "+i.Account.Login+" resumes it: "+i.HTMLURL)
			continue
		}
		for _, p := range d.wanted(k) {
			if p.Name == "members" && i.Account.Type == "User" { // a person has no teams
				continue
			}
			if allows(k.Permissions[p.Name], p.Level) && !allows(i.Permissions[p.Name], p.Level) {
				good = false
				r.warn(check, fmt.Sprintf("%s has not accepted %s: %s; without it %s there", i.Account.Login, p.Title, p.Level, p.Cost), "an owner of "+i.Account.Login+" accepts it: "+i.HTMLURL)
			}
		}
	}
	if good {
		r.finef(check, "%d", len(all))
	}
}
