package registration

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/terminal"
)

// App is what GitHub made, with its credentials. It is never to be logged.
type App struct {
	ID            int64  `json:"id"`
	Slug          string `json:"slug"`
	Name          string `json:"name"`
	HTMLURL       string `json:"html_url"`
	ClientID      string `json:"client_id"`
	ClientSecret  string `json:"client_secret"`
	WebhookSecret string `json:"webhook_secret"`
	PEM           string `json:"pem"`
}

const (
	convertWithin = 30 * time.Second
	longestAnswer = 1 << 20
)

// Convert gives a code to GitHub for the App. A code is good once, for an hour.
func (c Config) Convert(ctx context.Context, code string) (App, error) {
	code, err := checkCode(code)
	if err != nil {
		return App{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, convertWithin)
	defer cancel()
	address := strings.TrimRight(c.APIURL, "/") + "/app-manifests/" + code + "/conversions"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, nil)
	if err != nil {
		return App{}, fmt.Errorf("FORGE_GITHUB_API_URL: %w", err)
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("User-Agent", "forge")
	transport := github.NewTransport()
	transport.DisableKeepAlives = true // this is the only call
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(req)
	if err != nil {
		return App{}, errors.New("GitHub's API (FORGE_GITHUB_API_URL): " + strings.ReplaceAll(err.Error(), code, "…"))
	}
	defer answer.Body.Close() //nolint:errcheck // it is only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, longestAnswer))
	switch {
	case err != nil:
		return App{}, fmt.Errorf("GitHub's answer: %w", err)
	case answer.StatusCode == http.StatusNotFound:
		return App{}, errors.New("GitHub does not know the code (404): it is good once and for an hour. If the App is on GitHub already, delete it there, and start again")
	case answer.StatusCode != http.StatusCreated:
		return App{}, fmt.Errorf("GitHub answers %s to the code: %s", answer.Status, problemIn(text))
	}
	var app App
	if err := json.Unmarshal(text, &app); err != nil {
		return App{}, errors.New("GitHub's answer is not the JSON of an App")
	}
	return app, app.check()
}

// problemIn is what GitHub says is wrong.
func problemIn(answer []byte) string {
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &said) != nil {
		return "no reason given"
	}
	return cmp.Or(oneLine(said.Message), "no reason given")
}

// oneLine is a text of others', fit for a terminal.
func oneLine(text string) string {
	line := strings.Join(strings.Fields(terminal.Strip(text)), " ")
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, line)
	return line[:min(len(line), 300)]
}

// check refuses an App that Forge could not use.
func (a *App) check() error {
	switch {
	case a.ID <= 0:
		return errors.New("GitHub's answer has no App ID")
	case !strings.Contains(a.PEM, "PRIVATE KEY-----"):
		return errors.New("GitHub's answer has no private key: make one on the App's settings page")
	case strings.ContainsAny(a.WebhookSecret+a.ClientSecret+a.ClientID, "\r\n\x00"):
		return errors.New("GitHub's answer has a secret of several lines")
	}
	a.Name, a.Slug = oneLine(a.Name), oneLine(a.Slug)
	return nil
}

// Install is the page where the App is installed; that of all Apps where GitHub's
// answer leads elsewhere.
func (c Config) Install(a App) string {
	if strings.HasPrefix(a.HTMLURL, c.GitHubURL+"/") && oneLine(a.HTMLURL) == a.HTMLURL && !strings.ContainsAny(a.HTMLURL, " <>\"'") {
		return a.HTMLURL + "/installations/new"
	}
	return c.GitHubURL + "/settings/apps"
}
