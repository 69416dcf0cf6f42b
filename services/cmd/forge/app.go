package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	kit "github.com/forge-ci/forge/services/kit/settings"
	"github.com/forge-ci/forge/services/registration"
	"github.com/forge-ci/forge/services/settings"
)

type app struct {
	Create createApp `cmd:"" help:"Make the GitHub App of this Forge, and write its credentials where forge up finds them."`
}

type createApp struct {
	settings.GitHub
	DataDir string `env:"FORGE_DATA_DIR" default:"./forge-data" help:"Where the credentials are kept, in files for their owner alone."`
	URL     string `env:"FORGE_EXTERNAL_URL" name:"url" default:"http://localhost:9098" help:"How people and GitHub reach this Forge, such as https://forge.example.com."`

	WebhookURL   string `name:"webhook-url" placeholder:"URL" help:"Where GitHub delivers webhooks, if that is another address. Default: that of this Forge, with /v1/listen."`
	Organization string `placeholder:"LOGIN" help:"The organization whose App it is. Default: yourself."`
	Name         string `placeholder:"NAME" help:"How it is called on GitHub, where no other App is called so; GitHub's page lets you change it. Default: Forge and the host of the address."`
	Teams        bool   `help:"Let the App know who is in teams, for FORGE_ADMINS and approvers that are teams."`
	NoBrowser    bool   `help:"This machine has no browser: print an address to be opened on another, and ask for the code that comes of it."`
	Force        bool   `help:"Replace another App in the settings file."`
}

// Run makes the App.
func (c createApp) Run(file kit.File) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.run(ctx, string(file), os.Environ(), os.Stdin, os.Stdout)
}

func (c createApp) run(ctx context.Context, file string, environ []string, in io.Reader, out io.Writer) error {
	wanted, err := registration.Config{
		GitHubURL: c.GitHubURL, APIURL: c.GitHubAPIURL, Organization: c.Organization, Name: c.Name, URL: c.URL, WebhookURL: c.WebhookURL, Teams: c.Teams,
	}.Prepare()
	if err != nil {
		return usageError{err}
	}
	place := registration.Place{File: file, DataDir: c.DataDir, Force: c.Force}
	if err := place.Check(wanted); err != nil {
		return err
	}
	if c.NoBrowser {
		err = c.elsewhere(ctx, wanted, place, in, out)
	} else {
		err = c.here(ctx, wanted, place, out)
	}
	if err != nil {
		return err
	}
	return printOverruled(out, environ)
}

// here has a browser of this machine make the App.
func (c createApp) here(ctx context.Context, wanted registration.Config, place registration.Place, out io.Writer) error {
	page, err := registration.Open(wanted)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "Open this page in a browser on this machine, and press its button:\n\n  %s\n\nOn a machine without one, use --no-browser. Ctrl-C ends this without an App.\n", page.URL); err != nil {
		return errors.Join(err, page.Close(ctx, "", ""))
	}
	code, err := page.Code(ctx)
	if err != nil {
		return errors.Join(errors.New("no App was made"), page.Close(ctx, "No App was made", ""))
	}
	made, folder, err := exchange(ctx, wanted, place, code)
	if err != nil {
		return errors.Join(err, page.Close(ctx, "Forge is not connected", "", err.Error()))
	}
	said := printCreated(out, wanted, place, made, folder)
	return errors.Join(said, page.Close(ctx, "The App "+made.Name+" is made", wanted.Install(made),
		"Its credentials are in "+folder+", and "+place.File+" names them.", "Install it, and start Forge: forge up"))
}

// elsewhere has a browser of another machine make it.
func (c createApp) elsewhere(ctx context.Context, wanted registration.Config, place registration.Place, in io.Reader, out io.Writer) error {
	page, err := registration.OpenElsewhere(wanted)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, `Open this address in a browser on any machine (all of it goes into the address bar), and press the button of its page:

%s

When GitHub is done, the browser says that it cannot open a page at 127.0.0.1, as it should: the code is in the address it
shows, behind code=. Paste that address here, or the code: `, page.Address)
	if err != nil {
		return err
	}
	line, err := readLine(ctx, in)
	if err != nil {
		return errors.New("no App was connected: nothing was pasted")
	}
	code, err := page.Code(line)
	if err != nil {
		return err
	}
	made, folder, err := exchange(ctx, wanted, place, code)
	if err != nil {
		return err
	}
	return printCreated(out, wanted, place, made, folder)
}

// readLine reads a line until ctx ends; the reading itself ends with the process then.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	type read struct {
		line string
		err  error
	}
	done := make(chan read, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(in, 4<<10)).ReadString('\n')
		if strings.TrimSpace(line) != "" {
			err = nil
		}
		done <- read{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-done:
		return r.line, r.err
	}
}

// exchange gets the credentials and keeps them. What GitHub hands out once is kept
// whatever else fails.
func exchange(ctx context.Context, wanted registration.Config, place registration.Place, code string) (registration.App, string, error) {
	made, err := wanted.Convert(ctx, code)
	if err != nil {
		return made, "", err
	}
	without := made.WebhookSecret == ""
	if without {
		made.WebhookSecret = settings.NewSecret()
	}
	folder, err := place.Save(wanted, made)
	if err == nil && without {
		err = wanted.SetWebhookSecret(ctx, made)
	}
	if err != nil {
		return made, folder, fmt.Errorf("the App %d is on GitHub, and what came of its credentials is in %s: %w", made.ID, place.DataDir, err)
	}
	return made, folder, nil
}

func printCreated(out io.Writer, wanted registration.Config, place registration.Place, made registration.App, folder string) error {
	_, err := fmt.Fprintf(out, `
The App %q (ID %d) is made. Its credentials are in %s, and %s names them.

Next:
  1. Install it on the repositories that Forge shall build: %s
  2. Start Forge: forge up
`, made.Name, made.ID, folder, place.File, wanted.Install(made))
	return err
}

// printOverruled names what of the environment goes before what was written.
func printOverruled(out io.Writer, environ []string) error {
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		base := strings.TrimSuffix(name, "_FILE")
		switch base {
		case "FORGE_GITHUB_APP_ID", "FORGE_GITHUB_PRIVATE_KEY", "FORGE_WEBHOOK_SECRETS", "FORGE_OAUTH_CLIENT_ID", "FORGE_OAUTH_CLIENT_SECRET":
			if value == "" {
				continue
			}
			if _, err := fmt.Fprintf(out, "\nNote: %s in the environment goes before the settings file: unset it first.\n", name); err != nil {
				return err
			}
		}
	}
	return nil
}
