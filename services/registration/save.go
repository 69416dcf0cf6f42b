package registration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	gogithub "github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/settings"
)

// Place is where credentials are kept.
type Place struct {
	File    string // with settings
	DataDir string // in which each App has a folder
	Force   bool   // replaces what File has of another App
}

// replaced are the keys of the file that stand for an App in any form.
func replaced() []string {
	return []string{
		"github_app_id", "github_private_key", "github_private_key_file", "webhook_secrets", "webhook_secrets_file",
		"oauth_client_id", "oauth_client_secret", "oauth_client_secret_file",
	}
}

// addresses are what else the file is to have, by key.
func (c Config) addresses() []settings.Value {
	values := []settings.Value{{Key: "external_url", Value: c.URL}}
	if !c.public() {
		values = append(values, settings.Value{Key: "github_url", Value: c.GitHubURL}, settings.Value{Key: "github_api_url", Value: c.APIURL})
	}
	return values
}

// Check says what would keep Save from its work, before there is anything to save.
func (p Place) Check(c Config) error {
	text, err := p.read()
	if err != nil {
		return err
	}
	has, err := settings.Read(text)
	if err != nil {
		return fmt.Errorf("settings file %s: %w", p.File, err)
	}
	for _, key := range replaced() {
		if _, there := has[key]; there && !p.Force {
			return fmt.Errorf("%s has %s already, of another App: --force replaces it, and leaves that App's files where they are", p.File, key)
		}
	}
	for _, v := range c.addresses() {
		if value, there := has[v.Key]; there && value != v.Value && !p.Force {
			return fmt.Errorf("%s has %s: %s, and the App would have %s: --force replaces it", p.File, v.Key, value, v.Value)
		}
	}
	if _, err := p.edit(text, c, App{ID: 1}, "x"); err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(p.target()), ".forge-app-")
	if err != nil {
		return fmt.Errorf("folder of the settings file: %w", err)
	}
	if err := errors.Join(draft.Close(), os.Remove(draft.Name())); err != nil {
		return err
	}
	return p.makeDataDir()
}

func (p Place) makeDataDir() error {
	if err := os.MkdirAll(p.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory (FORGE_DATA_DIR): %w", err)
	}
	draft, err := os.MkdirTemp(p.DataDir, ".app-")
	if err != nil {
		return fmt.Errorf("data directory (FORGE_DATA_DIR): %w", err)
	}
	return os.Remove(draft)
}

// target is the settings file itself, where File is a link to it.
func (p Place) target() string {
	if target, err := filepath.EvalSymlinks(p.File); err == nil {
		return target
	}
	return p.File
}

func (p Place) read() ([]byte, error) {
	text, err := os.ReadFile(p.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("settings file: %w", err)
	}
	return text, nil
}

// Save keeps an App's credentials in a folder of their own, which no other App has had,
// and then has the settings file name them. Whenever it is interrupted, the settings
// file is the one before or the one after, and names files that are whole. It returns
// the folder.
func (p Place) Save(c Config, a App) (folder string, err error) {
	if err := p.makeDataDir(); err != nil {
		return "", err
	}
	draft, err := os.MkdirTemp(p.DataDir, ".app-")
	if err != nil {
		return "", fmt.Errorf("data directory (FORGE_DATA_DIR): %w", err)
	}
	defer os.RemoveAll(draft) //nolint:errcheck // it has its name then, or there is nothing left to be done
	for name, content := range map[string]string{keyFile: a.PEM, hookFile: a.WebhookSecret + "\n", clientFile: a.ClientSecret + "\n"} {
		if err := write(filepath.Join(draft, name), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	if folder, err = p.name(draft, a); err != nil {
		return "", err
	}
	text, err := p.read()
	if err != nil {
		return folder, err
	}
	if text, err = p.edit(text, c, a, folder); err != nil {
		return folder, err
	}
	return folder, p.replace(text)
}

const (
	keyFile    = "private-key.pem"
	hookFile   = "webhook-secret"
	clientFile = "client-secret"
)

// name gives a folder its name, which is made of the App's number alone.
func (p Place) name(draft string, a App) (string, error) {
	base, err := filepath.Abs(filepath.Join(p.DataDir, fmt.Sprintf("app-%d", a.ID)))
	if err != nil {
		return "", err
	}
	for n, name := 2, base; ; n++ {
		err := os.Rename(draft, name)
		if err == nil {
			return name, syncFolder(filepath.Dir(name))
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		name = fmt.Sprintf("%s.%d", base, n)
	}
}

func (p Place) edit(text []byte, c Config, a App, folder string) ([]byte, error) {
	values := []settings.Value{
		{Key: "github_app_id", Value: a.ID},
		{Key: "github_private_key_file", Value: filepath.Join(folder, keyFile)},
		{Key: "webhook_secrets_file", Value: filepath.Join(folder, hookFile)},
	}
	if a.ClientID != "" && a.ClientSecret != "" { // by which people sign in
		values = append(values, settings.Value{Key: "oauth_client_id", Value: a.ClientID},
			settings.Value{Key: "oauth_client_secret_file", Value: filepath.Join(folder, clientFile)})
	}
	has, err := settings.Read(text)
	if err != nil {
		return nil, fmt.Errorf("settings file %s: %w", p.File, err)
	}
	for _, v := range c.addresses() {
		if has[v.Key] != v.Value {
			values = append(values, v)
		}
	}
	edited, err := settings.Edit(text, values, replaced()...)
	if err != nil {
		return nil, fmt.Errorf("settings file %s: %w", p.File, err)
	}
	return edited, nil
}

// replace writes the settings file anew, with the mode that it has.
func (p Place) replace(text []byte) error {
	target, mode := p.target(), fs.FileMode(0o600)
	if info, err := os.Stat(target); err == nil {
		mode = info.Mode().Perm()
	}
	draft := filepath.Join(filepath.Dir(target), ".forge-app-"+rand.Text())
	if err := write(draft, text, mode); err != nil {
		return err
	}
	if err := os.Rename(draft, target); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return syncFolder(filepath.Dir(target))
}

// write makes a file whose content is on disk.
func write(path string, content []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close())
}

func syncFolder(folder string) error {
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// SetWebhookSecret gives GitHub the webhook's secret, for an App that GitHub made
// without one.
func (c Config) SetWebhookSecret(ctx context.Context, a App) error {
	ctx, cancel := context.WithTimeout(ctx, convertWithin)
	defer cancel()
	transport := github.NewTransport()
	transport.DisableKeepAlives = true // this is the only call
	client, err := github.NewApp(github.Config{APIURL: c.APIURL, Base: transport}, github.App{ID: a.ID, Key: []byte(a.PEM)})
	if err != nil {
		return err
	}
	if _, _, err := client.Apps.UpdateHookConfig(ctx, &gogithub.HookConfig{Secret: &a.WebhookSecret}); err != nil {
		return errors.New("the webhook's secret: " + strings.ReplaceAll(err.Error(), a.WebhookSecret, "…"))
	}
	return nil
}
