package forgexec

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
)

// Exit codes of Main. How the build went is not among them: that is reported.
const (
	exitReported = 0 // everything was reported and acknowledged
	exitFailed   = 1 // it could not start, or gave up
	exitUsage    = 2
	exitRefused  = 3 // the scheduler wants nothing more of this attempt
)

// Variables that say what to do. None of them reaches a command but the
// workspace.
const (
	ours         = "FORGE_RUNNER_"
	urlEnv       = "FORGE_RUNNER_URL"    // unix:///path, or host:port for TLS
	tokenEnv     = "FORGE_RUNNER_TOKEN"  // good for one attempt
	waitsEnv     = "FORGE_RUNNER_WAITS"  // the token comes as a line on standard input, once there is an attempt
	caEnv        = "FORGE_RUNNER_CA"     // PEM, in place of the system's roots
	noticeEnv    = "FORGE_RUNNER_NOTICE" // a line from the engine, for the top of the log
	stateEnv     = "FORGE_RUNNER_STATE"  // a file for "pid N", and "exit N" at the end
	awaitEnv     = "FORGE_RUNNER_AWAIT"  // services, as NAME=HOST:PORT or NAME=HOST:PORT/WITHIN, with commas
	holdEnv      = "FORGE_RUNNER_HOLD"   // see hold
	workspaceEnv = "FORGE_WORKSPACE"     // made if absent; empty; default: a temporary folder
)

// longestToken bounds the line that brings a token, in bytes.
const longestToken = 1 << 10

const usage = `forgexec runs the steps of one build. Forge starts it; it takes from its environment where
Forge is (FORGE_RUNNER_URL) and a token (FORGE_RUNNER_TOKEN).

To run a plan without Forge:
  forgexec --plan FILE [--source FILE.tar.gz]

To wait until one of some addresses answers, as Forge does for services:
  forgexec --await HOST:PORT [--await HOST:PORT…]

To put this program into a folder that builds see, and to look whether it is there:
  forgexec --install DIR [--as NAME] [--stay]
  forgexec --installed DIR [--as NAME]

`

// Main does what the arguments (without the program's name) and the environment
// say, and returns the exit code.
func Main(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("forgexec", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = io.WriteString(stderr, usage)
		flags.PrintDefaults()
	}
	plan := flags.String("plan", "", "run this `FILE`, a Plan as JSON; exits as the step that failed")
	source := flags.String("source", "", "unpack this `FILE` into the workspace first; with --plan")
	var addresses []string
	flags.Func("await", "wait until this `HOST:PORT` answers, or another that is named so", func(address string) error {
		addresses = append(addresses, address)
		return nil
	})
	into := flags.String("install", "", "copy this program into the folder `DIR`")
	checked := flags.String("installed", "", "exit 0 if the copy is in the folder `DIR` and looked after")
	name := flags.String("as", "", "`NAME` of the copy; default: forgexec- and a hash of the program")
	stay := flags.Bool("stay", false, "stay and look after the folder; with --install")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitReported
	case err != nil, flags.NArg() > 0, *source != "" && *plan == "",
		*into != "" && *checked != "", *stay && *into == "", *name != "" && *into == "" && *checked == "", strings.Contains(*name, "/"):
		if err == nil {
			flags.Usage()
		}
		return exitUsage
	}

	log := slog.New(slog.NewTextHandler(stderr, nil))
	if *into != "" || *checked != "" {
		return installOrCheck(ctx, *into, *checked, *name, *stay, log)
	}
	if len(addresses) > 0 {
		if err := await(ctx, addresses); err != nil {
			log.ErrorContext(ctx, "nothing answers", "error", err)
			return exitFailed
		}
		return exitReported
	}
	env := variables(environ)
	state, err := openState(env[stateEnv])
	if err != nil {
		log.ErrorContext(ctx, "forgexec cannot start", "error", err)
		return exitFailed
	}
	told, forget := untilTold(ctx)
	defer forget()
	code, err := start(ctx, env, environ, *plan, *source, stdin, stdout, log)
	if err != nil {
		log.ErrorContext(ctx, "forgexec ends", "error", err)
	}
	if err := state.exit(code); err != nil {
		log.ErrorContext(ctx, "the exit code is not recorded", "error", err)
	}
	return hold(told, env[holdEnv], code, log)
}

func start(ctx context.Context, env map[string]string, environ []string, plan, source string, stdin io.Reader, stdout io.Writer, log *slog.Logger) (int, error) {
	keepToOurselves()
	workspace, remove, err := openWorkspace(env[workspaceEnv])
	if err != nil && plan != "" {
		return exitFailed, err
	}
	defer remove()

	processes := newProcesses()
	defer processes.stop()
	run := &runner{
		processes: processes, workspace: workspace,
		environ: commandEnvironment(environ, workspace.path),
	}
	run.services, err = parseServices(env[awaitEnv])
	if err != nil {
		return exitFailed, err
	}
	if notice := env[noticeEnv]; notice != "" {
		run.notices = []string{notice}
	}
	if plan != "" {
		return runLocally(ctx, run, plan, source, stdout)
	}
	token := env[tokenEnv]
	if env[waitsEnv] != "" {
		if err := letGo(); err != nil {
			log.DebugContext(ctx, "the program stays in memory while it waits", "error", err)
		}
		if token, err = awaitToken(stdin); err != nil {
			return exitFailed, err
		}
	}
	if env[urlEnv] == "" || token == "" {
		return exitFailed, fmt.Errorf("%s and %s are not set: forgexec is started by Forge; see forgexec --help", urlEnv, tokenEnv)
	}
	dial, err := dialer(env[urlEnv], env[caEnv])
	if err != nil {
		return exitFailed, err
	}
	link := newLink(linkConfig{
		Dial: dial, Token: token, RunnerID: fmt.Sprintf("%x", randomID()), Version: version(),
		Workspace: workspace, Log: log,
	})
	run.store = &store{dial: dial, token: link.Token, runnerID: link.RunnerID}
	run.report = link.window.add
	return attend(ctx, run, link)
}

// awaitToken reads a line, however long it takes to come. What comes after it is not
// read: the container is one attempt's.
func awaitToken(stdin io.Reader) (string, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(stdin, longestToken), longestToken).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("no attempt came to this container: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

func randomID() [16]byte {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return id
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

func variables(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	return env
}

// state tells an engine that has no other way to know which process this is and
// how it ended.
type state struct{ file *os.File }

func openState(path string) (state, error) {
	if path == "" {
		return state{}, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return state{}, fmt.Errorf("state (%s): %w", stateEnv, err)
	}
	if _, err := fmt.Fprintf(file, "pid %d\n", os.Getpid()); err != nil {
		return state{}, fmt.Errorf("state (%s): %w", stateEnv, errors.Join(err, file.Close()))
	}
	return state{file}, nil
}

func (s state) exit(code int) error {
	if s.file == nil {
		return nil
	}
	_, err := fmt.Fprintf(s.file, "exit %d\n", code)
	return errors.Join(err, s.file.Close())
}
