package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

const (
	// commandWithin is how long a command may run.
	commandWithin = 30 * time.Second
	// keptFor is how long its answer counts where that does not say; spare is how long
	// before its end it counts no more.
	keptFor, spare = 10 * time.Minute, time.Minute
	// mostAnswer bounds what is read of it, and mostComplaint what is logged.
	mostAnswer, mostComplaint = 64 << 10, 300
	// A build whose command fails is started again after a pause, for a while.
	failedPause, failedWithin = 15 * time.Second, 2 * time.Minute
)

// Command prints what the server itself may show to a registry, as helpers of Docker do: it
// is given the host on its standard input.
type Command struct {
	host string
	args []string
	// repositories are patterns of owner/name, and uses what their builds may be: who may
	// show it. A fork's never may.
	repositories []string
	uses         []schedulerv1.Secret_Use
	log          *slog.Logger
	now          func() time.Time

	turn  chan struct{} // who holds it runs the command
	last  engine.Login
	until time.Time // as long as the last counts
}

// ParseCommands reads FORGE_REGISTRY_COMMANDS: of each the host, patterns of repositories,
// uses, and the command with its arguments.
func ParseCommands(all []string) ([]*Command, error) {
	var commands []*Command
	for _, text := range all {
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("FORGE_REGISTRY_COMMANDS: %s: write HOST REPOSITORIES USES COMMAND, such as "+
				"registry.example.com acme/* pushes,tags,deploys docker-credential-example get", fmt.Sprintf(format, args...))
		}
		if len(fields) < 4 {
			return nil, wrong("%q lacks something", text)
		}
		c := &Command{host: secrets.RegistryHost(fields[0]), repositories: strings.Split(strings.ToLower(fields[1]), ","), args: fields[3:], turn: make(chan struct{}, 1), now: time.Now}
		switch {
		case c.host == "":
			return nil, wrong("%q is not the host of a registry", fields[0])
		case slices.ContainsFunc(commands, func(other *Command) bool { return other.host == c.host }):
			return nil, wrong("%s has two commands", c.host)
		}
		for _, pattern := range c.repositories {
			if !doublestar.ValidatePattern(pattern) || strings.Count(pattern, "/") != 1 || strings.Contains(pattern, "**") {
				return nil, wrong("%q is not a pattern of repositories", pattern)
			}
		}
		for word := range strings.SplitSeq(fields[2], ",") {
			use := schedulerv1.Secret_Use(schedulerv1.Secret_Use_value["USE_"+strings.ToUpper(strings.ReplaceAll(word, "-", "_"))])
			if use == schedulerv1.Secret_USE_UNSPECIFIED {
				return nil, wrong("%q is none of pull-requests, pushes, tags, deploys", word)
			}
			c.uses = append(c.uses, use)
		}
		commands = append(commands, c)
	}
	return commands, nil
}

// barred says why a build may not show what the command prints; "" where it may.
func (c *Command) barred(b *store.Build) string {
	name, use := wording.FullName(b.GetRepository()), secrets.UseOf(b)
	var why string
	switch {
	case b.GetFork():
		why = "builds of forks"
	case b.GetSecretsWithheld():
		why = "a bot's pull request, unless the server trusts the bot by name (FORGE_TRUSTED_BOTS)"
	case !slices.ContainsFunc(c.repositories, func(pattern string) bool { return doublestar.MatchUnvalidated(pattern, strings.ToLower(name)) }):
		why = name
	case !slices.Contains(c.uses, use):
		why = wording.Value(use) + " of " + name
	default:
		return ""
	}
	return fmt.Sprintf("the server's own credentials for %s are not for %s (FORGE_REGISTRY_COMMANDS)", c.host, why)
}

// login is what the command prints, or has printed a short while ago. Of many that ask
// one runs it.
func (c *Command) login(ctx context.Context) (engine.Login, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return engine.Login{}, ctx.Err()
	}
	if c.now().Before(c.until) {
		return c.last, nil
	}
	login, until, err := c.run(ctx)
	if err != nil {
		err = fmt.Errorf("the server's own credentials for %s are not to be had: its command of FORGE_REGISTRY_COMMANDS %w", c.host, err)
		if ctx.Err() == nil {
			err = &engine.DelayError{Err: err, Pause: failedPause, Within: failedWithin}
		}
		return engine.Login{}, err
	}
	c.last, c.until = login, until
	return login, nil
}

// run runs the command. What it prints is in no error and no log: it may be a secret, also
// where it fails. What it complains of is for the server's log alone.
func (c *Command) run(ctx context.Context) (login engine.Login, until time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	command := exec.CommandContext(ctx, c.args[0], c.args[1:]...) //nolint:gosec // it is a setting
	command.Env = slices.DeleteFunc(os.Environ(), func(line string) bool { return strings.HasPrefix(line, "FORGE_") })
	command.Stdin = strings.NewReader(c.host + "\n")
	var printed, complaint bytes.Buffer
	command.Stdout, command.Stderr = &bounded{&printed, mostAnswer}, &bounded{&complaint, mostComplaint}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it has started ends with it
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = time.Second
	begin := c.now()
	err = command.Run()
	if err != nil || ctx.Err() != nil {
		c.log.WarnContext(ctx, "a command of FORGE_REGISTRY_COMMANDS failed", "host", c.host, "command", c.args[0], "error", cmp.Or(ctx.Err(), err), "stderr", strings.TrimSpace(complaint.String()))
	}
	exited, _ := errors.AsType[*exec.ExitError](err)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return login, until, fmt.Errorf("took longer than %v", commandWithin)
	case ctx.Err() != nil:
		return login, until, ctx.Err()
	case exited != nil:
		return login, until, fmt.Errorf("ended with exit code %d; the server's log says more", exited.ExitCode())
	case err != nil:
		return login, until, errors.New("cannot be run; the server's log says more")
	}
	var answer struct {
		Username  string    `json:"Username"`
		Secret    string    `json:"Secret"`
		ExpiresAt time.Time `json:"ExpiresAt"`
	}
	if err := json.Unmarshal(printed.Bytes(), &answer); err != nil || answer.Secret == "" {
		return login, until, errors.New(`did not print {"Username": …, "Secret": …}`)
	}
	until = begin.Add(keptFor)
	if !answer.ExpiresAt.IsZero() {
		until = answer.ExpiresAt.Add(-spare)
	}
	return engine.Login{Username: answer.Username, Password: answer.Secret}, until, nil
}

// bounded takes all and keeps as much of it.
type bounded struct {
	into io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	kept := p[:min(len(p), b.left)]
	b.left -= len(kept)
	_, err := b.into.Write(kept)
	return len(p), err
}
