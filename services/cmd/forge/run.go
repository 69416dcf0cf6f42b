package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
	"github.com/forge-ci/forge/services/config/worktree"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

type runHere struct {
	settings.Local
	remote
	happening
	chosen
	Secrets string `placeholder:"FILE" help:"The secrets that .forge.yml names: lines of NAME=VALUE. Builds here get none besides."`
	NoCache bool   `help:"Find no caches, and keep none."`
	Remote  bool   `help:"Send what is not pushed to the server, and build it there without telling GitHub. For who may write to the repository."`

	out, errors io.Writer
	dir         string // that it is run in
}

// Run builds the working tree as the server would, and ends as the server would decide.
func (r *runHere) Run() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	r.out, r.errors, r.dir = os.Stdout, os.Stderr, dir
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	return r.run(signals)
}

// run ends the build at the first signal, and everything at once at the second.
func (r *runHere) run(signals <-chan os.Signal) (err error) {
	now, atOnce := context.WithCancel(context.Background())
	defer atOnce()
	ctx, stop := context.WithCancel(now)
	defer stop()
	go func() {
		for _, end := range []context.CancelFunc{stop, atOnce} {
			select {
			case <-signals:
				end()
			case <-now.Done():
				return
			}
		}
	}()
	temporary, err := os.MkdirTemp(shortTemporary(), "forge-run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
	if err := r.fitsRemote(); err != nil {
		return err
	}
	source, file, err := r.read(ctx, filepath.Join(temporary, "source"))
	if err != nil {
		return err
	}
	if r.Remote {
		return r.elsewhere(ctx, now, source)
	}
	given, err := r.secrets(file.secrets)
	if err != nil {
		return err
	}
	forge, err := wire.Local(ctx, wire.LocalSettings{Local: r.Local, Dir: r.keptIn(source.Top), Temporary: temporary, Log: r.log()}, source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, forge.Close(now)) }()
	r.begin(source, forge)
	calls := rpc.For(context.WithoutCancel(ctx), source.Person)
	if err := setSecrets(calls, forge.Conn, source, given); err != nil {
		return err
	}
	id, err := r.happen(calls, forge.Conn, source)
	if err != nil {
		return err
	}
	return follow{conn: forge.Conn, out: r.out, errors: r.errors}.verdict(calls, ctx, now, id)
}

func (r *runHere) log() *slog.Logger {
	if !r.Common.Debug {
		return nil
	}
	return slog.New(slog.NewTextHandler(r.errors, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// keptIn is the folder where the builds of a working tree keep their caches; "" for none.
func (r *runHere) keptIn(top string) string {
	caches, err := os.UserCacheDir()
	if err != nil || r.NoCache {
		return ""
	}
	return filepath.Join(caches, "forge", "run", fmt.Sprintf("%x", sha256.Sum256([]byte(top)))[:16])
}

// read takes the working tree, and says what is wrong with its file.
func (r *runHere) read(ctx context.Context, dir string) (*worktree.Server, *selection, error) {
	tree, err := worktree.Open(ctx, r.dir)
	if err != nil {
		return nil, nil, err
	}
	snapshot, err := tree.Take(ctx, dir)
	if err != nil {
		return nil, nil, fmt.Errorf("working tree %s: %w", tree.Top, err)
	}
	read, err := snapshot.File(ctx)
	switch {
	case err != nil:
		return nil, nil, err
	case read.GetAbsent() != nil:
		return nil, nil, worktree.ErrNoFile
	case read.GetInvalid() != nil:
		problems := read.GetInvalid().GetProblems()
		if _, err := io.WriteString(r.errors, buildfile.Format(problems[0].GetFile(), problems)); err != nil {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("%s cannot be built from", problems[0].GetFile())
	}
	source := &worktree.Server{Snapshot: snapshot}
	action, err := r.prepare(ctx, source, r.Local)
	if err != nil {
		return nil, nil, err
	}
	file, err := r.choose(read.GetConfig(), action)
	if err != nil {
		return nil, nil, err
	}
	source.Choose = r.leave
	return source, file, nil
}

// begin says what is built, and by what.
func (r *runHere) begin(source *worktree.Server, forge *wire.LocalForge) {
	what := "the commit " + source.SHA[:7]
	if source.SHA != source.Head {
		what += ", which is " + source.Head[:7] + " with what is not committed"
	}
	fmt.Fprintf(r.errors, "forge run: %s, as %s, with engine %s\n", what, r.Event, forge.Engine) //nolint:errcheck // nobody is there to read it
	if forge.Engine == "process" && r.Engine == "" {
		fmt.Fprintln(r.errors, "forge run: no Docker engine answers, so the commands run on this machine itself") //nolint:errcheck // see above
	}
	if !forge.Caches && !r.NoCache {
		fmt.Fprintln(r.errors, "forge run: another run of this working tree is under way; this one has no caches") //nolint:errcheck // see above
	}
}

// setSecrets gives the secrets to all builds, of which there is one.
func setSecrets(ctx context.Context, conn grpc.ClientConnInterface, source *worktree.Server, given map[string]string) error {
	client := schedulerv1.NewSecretServiceClient(conn)
	for name, value := range given {
		_, err := client.SetSecret(ctx, &schedulerv1.SetSecretRequest{
			Repository: source.Owner + "/" + source.Name, Name: name, Value: value,
			Uses: []schedulerv1.Secret_Use{schedulerv1.Secret_USE_PULL_REQUESTS, schedulerv1.Secret_USE_PUSHES, schedulerv1.Secret_USE_TAGS},
		})
		if err != nil {
			return fmt.Errorf("secret %s: %w", name, err)
		}
	}
	return nil
}

// secretsOf are the names of the secrets that a pipeline has.
func secretsOf(config *configv1.BuildConfig, pipeline *configv1.Pipeline) map[string]bool {
	named := map[string]bool{}
	lists := [][]string{config.GetSecrets()}
	if len(pipeline.GetJobs()) > 0 {
		lists = nil
	}
	for _, job := range pipeline.GetJobs() {
		lists = append(lists, job.GetSecrets())
	}
	for _, list := range lists {
		for _, name := range list {
			named[name] = true
		}
	}
	return named
}

// shortTemporary is where a socket's path is short enough for the kernel.
func shortTemporary() string {
	const most = 60
	if dir := os.TempDir(); len(dir) <= most {
		return dir
	}
	return "/tmp"
}
