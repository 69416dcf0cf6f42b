package mirror

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// The first git that has all that is asked of it here.
	oldestMajor, oldestMinor = 2, 39
	// killAfter is how long a git that was told to end may take.
	killAfter = 5 * time.Second
	// maxWords bounds what is kept of what git says.
	maxWords = 8 << 10
)

// git is the program, and how it is called.
type git struct {
	path    string
	environ []string
	slow    string // the seconds that a server may send next to nothing
}

// findGit says at once where there is no git, or one that is too old.
func findGit(ctx context.Context, patience time.Duration) (*git, error) {
	path, err := exec.LookPath("git")
	if err != nil {
		return nil, errors.New("there is no git program: install git 2.39 or newer")
	}
	g := &git{path: path, environ: environment(os.Environ()), slow: strconv.Itoa(int(patience.Seconds()))}
	text, err := g.output(ctx, call{}, "version")
	if err != nil {
		return nil, fmt.Errorf("git version: %w", err)
	}
	var major, minor int // git version 2.39.5 (Apple Git-154)
	if _, err := fmt.Sscanf(text, "git version %d.%d", &major, &minor); err != nil || major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return nil, fmt.Errorf("%s is %s: Forge needs git 2.39 or newer", path, strings.TrimSpace(text))
	}
	return g, nil
}

// CheckGit says which git there is, and fails as a mirror would where that is none or
// too old.
func CheckGit(ctx context.Context) (version string, err error) {
	g, err := findGit(ctx, time.Second)
	if err != nil {
		return "", err
	}
	version, err = g.output(ctx, call{}, "version")
	return strings.TrimSpace(version), err
}

// environment is what git needs of Forge's own, and nothing of whoever started it.
func environment(all []string) []string {
	environ := []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "GIT_ATTR_NOSYSTEM=1",
		"GIT_ALLOW_PROTOCOL=https:http", "GIT_NO_REPLACE_OBJECTS=1", "GIT_PROTOCOL_FROM_USER=0", "GIT_OPTIONAL_LOCKS=0",
		"HOME=" + os.DevNull, "LC_ALL=C",
	}
	for _, line := range all {
		name, value, _ := strings.Cut(line, "=")
		switch strings.ToUpper(name) {
		case "PATH", "TMPDIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY":
			environ = append(environ, line)
		case "SSL_CERT_FILE": // as the rest of Forge takes it
			environ = append(environ, "GIT_SSL_CAINFO="+value)
		case "SSL_CERT_DIR":
			environ = append(environ, "GIT_SSL_CAPATH="+value)
		}
	}
	return environ
}

// settings hold for each call. Old histories have malformed dates and the like,
// which harm nobody; what could write where it should not stays an error.
func settings() []string {
	all := []string{
		"core.hooksPath=" + os.DevNull, "core.fsmonitor=false", "core.bare=true", "core.compression=1", "core.alternateRefsCommand=true",
		"fetch.fsckObjects=true", "transfer.fsckObjects=true", "fetch.recurseSubmodules=false", "fetch.writeCommitGraph=false",
		"gc.auto=0", "maintenance.auto=false", "pack.threads=2", "pack.writeReverseIndex=false", "index.threads=1", "index.version=2",
		"protocol.version=2", "http.lowSpeedLimit=1000", "credential.helper=", "submodule.recurse=false",
	}
	for _, harmless := range []string{
		"badDate", "badDateOverflow", "badEmail", "badName", "badTimezone", "missingAuthor", "missingCommitter", "missingEmail",
		"missingNameBeforeEmail", "missingSpaceBeforeDate", "missingSpaceBeforeEmail", "missingTaggerEntry", "badTagName", "multipleAuthors",
		"nulInCommit", "zeroPaddedDate", "zeroPaddedFilemode", "badFilemode", "extraHeaderEntry",
	} {
		all = append(all, "fetch.fsck."+harmless+"=ignore")
	}
	return all
}

// call is what differs from one call of git to the next.
type call struct {
	repository string // the bare repository; "" for none
	lock       *lock  // held by git, too, as long as it lives
	environ    []string
	stdin      io.Reader
}

// command is git with its arguments. Its group is killed with ctx.
func (g *git) command(ctx context.Context, c call, args ...string) (*exec.Cmd, *words) {
	all := []string{"-c", "http.lowSpeedTime=" + g.slow}
	for _, setting := range settings() {
		all = append(all, "-c", setting)
	}
	cmd := exec.CommandContext(ctx, g.path, append(all, args...)...) //nolint:gosec // arguments are ours
	cmd.Env = append(append([]string{}, g.environ...), c.environ...)
	if c.repository != "" {
		cmd.Env = append(cmd.Env, "GIT_DIR="+c.repository)
		cmd.Dir = c.repository
	}
	cmd.Stdin = c.stdin
	if c.lock != nil {
		cmd.ExtraFiles = []*os.File{c.lock.file}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killAfter
	said := &words{}
	cmd.Stderr = said
	return cmd, said
}

// run runs git to its end. Its error has git's own words.
func (g *git) run(ctx context.Context, c call, args ...string) error {
	cmd, said := g.command(ctx, c, args...)
	return said.explain(ctx, args, cmd.Run())
}

// output is what git prints.
func (g *git) output(ctx context.Context, c call, args ...string) (string, error) {
	cmd, said := g.command(ctx, c, args...)
	text, err := cmd.Output()
	return string(text), said.explain(ctx, args, err)
}

// credentials are variables that give git a token for one server.
func credentials(url, token string) []string {
	if token == "" {
		return nil
	}
	header := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
	return []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http." + url + ".extraHeader", "GIT_CONFIG_VALUE_0=" + header}
}

// words is the end of what a git says.
type words struct{ text []byte }

func (w *words) Write(p []byte) (int, error) {
	w.text = append(w.text, p...)
	if over := len(w.text) - maxWords; over > 0 {
		w.text = append(w.text[:0], w.text[over:]...)
	}
	return len(p), nil
}

// explain is the error of a call: git's own words, without its progress.
func (w *words) explain(ctx context.Context, args []string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("git %s: %w", args[0], context.Cause(ctx))
	}
	var lines []string
	for line := range bytes.Lines(w.text) {
		line = line[bytes.LastIndexByte(bytes.TrimRight(line, "\r\n"), '\r')+1:]
		if text := strings.TrimSpace(string(line)); text != "" && !strings.HasPrefix(text, "hint:") {
			lines = append(lines, text)
		}
	}
	if len(lines) == 0 {
		return fmt.Errorf("git %s: %w", args[0], err)
	}
	return &Error{command: args[0], words: strings.Join(lines, "; ")}
}

// Error is what git said when it failed.
type Error struct{ command, words string }

func (e *Error) Error() string { return "git " + e.command + ": " + e.words }

// says reports whether git said one of some texts.
func says(err error, texts ...string) bool {
	said, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	for _, text := range texts {
		if strings.Contains(strings.ToLower(said.words), strings.ToLower(text)) {
			return true
		}
	}
	return false
}
