package worktree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// git calls the git of whoever works here, with the settings that are theirs.
type git struct {
	dir     string
	environ []string // besides
}

// local are the variables by which git tells its hooks which repository they are of.
func local() []string {
	return []string{
		"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE",
		"GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
	}
}

// run returns what git prints. Its error has git's own words.
func (g git) run(ctx context.Context, args ...string) (string, error) {
	return g.feed(ctx, "", args...)
}

func (g git) feed(ctx context.Context, stdin string, args ...string) (string, error) {
	all := append([]string{
		"-c", "core.fsmonitor=false", "-c", "core.splitIndex=false", "-c", "core.untrackedCache=false", "-c", "advice.addEmbeddedRepo=false",
		"-c", "core.safecrlf=false", "-c", "gc.auto=0", "-c", "core.quotePath=false",
	}, args...)
	cmd := exec.CommandContext(ctx, "git", all...) //nolint:gosec // arguments are ours
	cmd.Dir = g.dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return slices.Contains(local(), name)
	}), "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0")
	cmd.Env = append(cmd.Env, g.environ...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = 5 * time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	switch {
	case err == nil:
		return string(text), nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("git %s: %w", args[0], context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("there is no git program: install git 2.39 or newer")
	}
	words := strings.Join(strings.Fields(strings.ReplaceAll(said.String(), "\n", "; ")), " ")
	return "", fmt.Errorf("git %s: %w", args[0], cleanError{strings.TrimRight(words, "; "), err})
}

// cleanError is git's words, over how it ended.
type cleanError struct {
	words string
	ended error
}

func (c cleanError) Error() string {
	if c.words == "" {
		return c.ended.Error()
	}
	return c.words
}

func (c cleanError) Unwrap() error { return c.ended }

// line is the one line that git prints; "" where it fails.
func (g git) line(ctx context.Context, args ...string) string {
	text, err := g.run(ctx, args...)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(text)
}
