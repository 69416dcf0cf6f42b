package settings_test

import (
	"os"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/settings"
)

// What a start would refuse is known without a start, and nothing is made.
func TestKeysAreCheckedBeforeTheyAreMade(t *testing.T) {
	dir, good := t.TempDir(), settings.NewSecret()
	own := settings.Common{DataDir: dir}
	shared := settings.Common{DataDir: dir, DatabaseURL: "postgres://db/forge"}
	for name, c := range map[string]struct {
		err  error
		want string // "": fine
	}{
		"none":                      {settings.Scheduler{}.CheckKeys(own), ""},
		"one":                       {settings.Scheduler{SecretsKey: good}.CheckKeys(shared), ""},
		"no key":                    {settings.Scheduler{SecretsKey: "xx"}.CheckKeys(own), "FORGE_SECRETS_KEY: key 1 is not of 64"},
		"no file":                   {settings.Scheduler{SecretsKeyFile: dir + "/none"}.CheckKeys(own), "no such file"},
		"none, shared":              {settings.Scheduler{}.CheckKeys(shared), "FORGE_SECRETS_KEY is missing"},
		"none, no sign-in":          {settings.Gateway{SessionsKey: "xx"}.CheckSessionKeys(shared), ""},
		"no key of sessions":        {settings.Gateway{SessionsKey: "xx", OAuthClientID: "a"}.CheckSessionKeys(own), "FORGE_SESSIONS_KEY: key 1 is not of 64"},
		"none of sessions, shared":  {settings.Gateway{OAuthClientID: "a"}.CheckSessionKeys(shared), "FORGE_SESSIONS_KEY is missing"},
		"no admin token":            {own.CheckAdmin(), ""},
		"no admin token, but many":  {shared.CheckAdmin(), "FORGE_ADMIN_TOKEN is missing"},
		"an admin token of all":     {settings.Common{AdminToken: "hush", DatabaseURL: shared.DatabaseURL}.CheckAdmin(), ""},
		"no sign-in, none is asked": {settings.Gateway{}.CheckSessionKeys(shared), ""},
	} {
		if (c.err == nil) != (c.want == "") || c.err != nil && !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, c.err, c.want)
		}
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Errorf("made %v: %v", made, err)
	}
}
