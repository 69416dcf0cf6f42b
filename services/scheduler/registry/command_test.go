package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// helper is a command that runs a script, and notes that it was run.
func helper(t *testing.T, script string) (c *Command, runs func() int, log *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	path, count := filepath.Join(dir, "helper"), filepath.Join(dir, "runs")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho x >>"+count+"\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	commands, err := ParseCommands([]string{"ghcr.io acme/*,octo/cat pushes,deploys " + path + " get"})
	if err != nil {
		t.Fatal(err)
	}
	c, log = commands[0], &bytes.Buffer{}
	c.log = slog.New(slog.NewTextHandler(log, nil))
	return c, func() int {
		text, _ := os.ReadFile(count)
		return strings.Count(string(text), "x")
	}, log
}

func TestACommandIsRunOnceForAsLongAsItsAnswerCounts(t *testing.T) {
	t.Setenv("FORGE_SECRETS_KEY", "0123456789")
	c, runs, _ := helper(t, `read host; test "$1" = get || exit 9; test -z "$FORGE_SECRETS_KEY" || exit 8; echo '{"ServerURL": "x", "Username": "octo", "Secret": "s3cret of '$host'"}'`)
	now := time.Now()
	c.now = func() time.Time { return now }
	want := engine.Login{Username: "octo", Password: "s3cret of ghcr.io"}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got, err := c.login(t.Context()); got != want || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	all.Wait()
	now = now.Add(keptFor - time.Second)
	if _, err := c.login(t.Context()); err != nil || runs() != 1 {
		t.Errorf("it was run %d times, error %v", runs(), err)
	}
	now = now.Add(2 * time.Second)
	if _, err := c.login(t.Context()); err != nil || runs() != 2 {
		t.Errorf("after that it was run %d times, error %v", runs(), err)
	}
}

func TestACommandSaysHowLongItsAnswerCounts(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	c, runs, _ := helper(t, `echo '{"Username": "octo", "Secret": "s3cret", "ExpiresAt": "2026-11-27T24:00:00Z"}' | sed s/T24/T18/`)
	c.now = func() time.Time { return now }
	for _, at := range []struct {
		after time.Duration
		runs  int
	}{{0, 1}, {5 * time.Hour, 1}, {6*time.Hour - time.Second, 2}} {
		now = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC).Add(at.after)
		if _, err := c.login(t.Context()); err != nil || runs() != at.runs {
			t.Errorf("after %v it was run %d times, error %v", at.after, runs(), err)
		}
	}
}

func TestACommandThatFailsSaysSoWithoutWhatItPrints(t *testing.T) {
	for script, want := range map[string]string{
		`echo s3cret; echo no role >&2; exit 3`:          "ended with exit code 3; the server's log says more",
		`echo s3cret`:                                    `did not print {"Username": …, "Secret": …}`,
		`echo '{"Username": "s3cret"}'`:                  "did not print",
		`echo '{"Username": "octo", "Secret": "s3cret"'`: "did not print",
		`head -c 200000 /dev/zero | tr '\0' ' '; echo '{"Username": "octo", "Secret": "s3cret"}'`: "did not print",
		`kill -9 $$`: "ended with exit code -1",
	} {
		c, _, log := helper(t, script)
		login, err := c.login(t.Context())
		delayed, ok := errors.AsType[*engine.DelayError](err)
		if !ok || delayed.Within == 0 || login != (engine.Login{}) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "the server's own credentials for ghcr.io are not to be had") {
			t.Errorf("%s: %v, %v", script, login, err)
		}
		if strings.Contains(fmt.Sprintf("%+v", err)+log.String(), "s3cret") {
			t.Errorf("%s: the secret is told: %v\n%s", script, err, log)
		}
		if strings.Contains(script, "no role") && !strings.Contains(log.String(), "no role") {
			t.Errorf("the log does not say why: %s", log)
		}
	}
	absent, err := ParseCommands([]string{"ghcr.io acme/* pushes /no/such/program get"})
	if err != nil {
		t.Fatal(err)
	}
	absent[0].log = slog.New(slog.DiscardHandler)
	if _, err := absent[0].login(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be run; the server's log says more") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// One that hangs holds nobody longer than they wait.
func TestACommandThatHangsIsLeft(t *testing.T) {
	begun := filepath.Join(t.TempDir(), "begun")
	if err := syscall.Mkfifo(begun, 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, _ := helper(t, "echo >"+begun+"; sleep 1000; true")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for range 2 {
		go func() { _, err := c.login(ctx); done <- err }()
	}
	if _, err := os.ReadFile(begun); err != nil {
		t.Fatal(err)
	}
	cancel()
	for range 2 {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWhoMayShowWhatACommandPrints(t *testing.T) {
	c, _, _ := helper(t, "")
	of := func(owner, name string, action schedulerv1.Build_Action, change func(*schedulerv1.Build)) *store.Build {
		b := &schedulerv1.Build{Repository: &eventv1.Repository{Owner: owner, Name: name}, Action: action, Ref: "refs/heads/main"}
		if change != nil {
			change(b)
		}
		return &store.Build{Build: b}
	}
	const test, push = schedulerv1.Build_ACTION_TEST, schedulerv1.Build_ACTION_PUSH
	for name, c2 := range map[string]struct {
		build *store.Build
		want  string
	}{
		"a push":            {of("Acme", "shop", push, nil), ""},
		"a deploy":          {of("octo", "cat", schedulerv1.Build_ACTION_DEPLOY_STAGING, nil), ""},
		"a pull request":    {of("acme", "shop", test, nil), "pull requests of acme/shop"},
		"a merge group":     {of("acme", "shop", schedulerv1.Build_ACTION_TEST, func(b *schedulerv1.Build) { b.Ref = "refs/heads/gh-readonly-queue/main/x" }), "pull requests of acme/shop"},
		"a tag":             {of("acme", "shop", push, func(b *schedulerv1.Build) { b.Ref = "refs/tags/v1" }), "tags of acme/shop"},
		"another owner":     {of("evil", "acme", push, nil), "evil/acme"},
		"another of octo's": {of("octo", "cat2", push, nil), "octo/cat2"},
		"a fork":            {of("acme", "shop", push, func(b *schedulerv1.Build) { b.Fork = true }), "builds of forks"},
		"a bot":             {of("acme", "shop", push, func(b *schedulerv1.Build) { b.SecretsWithheld = true }), "a bot's pull request, unless the server trusts the bot by name (FORGE_TRUSTED_BOTS)"},
	} {
		want := c2.want
		if want != "" {
			want = "the server's own credentials for ghcr.io are not for " + want + " (FORGE_REGISTRY_COMMANDS)"
		}
		if got := c.barred(c2.build); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestCommandsThatNobodyCanMeanStopTheStart(t *testing.T) {
	for text, want := range map[string]string{
		"ghcr.io acme/* pushes":                                   "lacks something",
		"https://ghcr.io acme/* pushes x":                         "is not the host of a registry",
		"ghcr.io acme pushes x":                                   `"acme" is not a pattern of repositories`,
		"ghcr.io ** pushes x":                                     "is not a pattern",
		"ghcr.io acme/** pushes x":                                "is not a pattern",
		"ghcr.io acme/* forks x":                                  `"forks" is none of pull-requests, pushes, tags, deploys`,
		"ghcr.io acme/* unspecified x":                            "is none of",
		"ghcr.io acme/* pushes x;GHCR.IO octo/* pushes,deploys y": "ghcr.io has two commands",
	} {
		if _, err := ParseCommands(strings.Split(text, ";")); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "FORGE_REGISTRY_COMMANDS") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if all, err := ParseCommands([]string{"", " \n"}); len(all) > 0 || err != nil {
		t.Errorf("nothing: %v, %v", all, err)
	}
}
