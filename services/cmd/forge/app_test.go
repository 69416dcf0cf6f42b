package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/settings"
)

func TestNoAppIsMadeWhereItCouldNotBeUsed(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for want, c := range map[string]struct {
		createApp
		in string
	}{
		"say by --url how Forge is reached":  {createApp: createApp{URL: "http://localhost:9098"}},
		"--force replaces it":                {createApp: createApp{URL: "https://taken.example.com"}},
		"no App was made":                    {createApp: createApp{URL: "https://forge.example.com"}},
		"this is no code of GitHub's":        {createApp: createApp{URL: "https://forge.example.com", NoBrowser: true}, in: "no code\n"},
		"nothing was pasted":                 {createApp: createApp{URL: "https://forge.example.com", NoBrowser: true}},
		"this address is of another attempt": {createApp: createApp{URL: "https://forge.example.com", NoBrowser: true}, in: "http://127.0.0.1:9/?code=a180b1a3d263c81b&state=x\n"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "forge.yaml")
		text := "external_url: https://forge.example.com\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.GitHub = settings.GitHub{GitHubURL: "https://github.com", GitHubAPIURL: "https://api.github.com"}
		c.DataDir = filepath.Join(dir, "data")
		ctx := t.Context()
		if !c.NoBrowser {
			ctx = ended
		}
		var out strings.Builder
		err := c.run(ctx, file, nil, strings.NewReader(c.in), &out)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		now, err := os.ReadFile(file)
		if left, _ := os.ReadDir(c.DataDir); err != nil || string(now) != text || len(left) > 0 {
			t.Errorf("%s: forge.yaml is %q, %v, and there are %v", want, now, err, left)
		}
	}
}

func TestWhatGoesBeforeTheSettingsFileIsNamed(t *testing.T) {
	var out strings.Builder
	err := printOverruled(&out, []string{"FORGE_GITHUB_APP_ID=5", "FORGE_WEBHOOK_SECRETS_FILE=/x", "FORGE_WEBHOOK_SECRETS=", "FORGE_PORT=1", "PATH=x"})
	if err != nil || strings.Count(out.String(), "\nNote: ") != 2 || !strings.Contains(out.String(), "FORGE_GITHUB_APP_ID in") || !strings.Contains(out.String(), "FORGE_WEBHOOK_SECRETS_FILE in") {
		t.Errorf("%v: %s", err, &out)
	}
}
