package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type shell struct {
	remote
	Build   string   `arg:"" help:"The build, as the end of its page's address names it; of a job BUILD/JOB, such as 7k2…/lint."`
	Command []string `arg:"" optional:"" help:"What is run, after --; it ends as that does. Default: a shell."`
	End     bool     `help:"Remove the container before its time."`
}

// Run opens a shell in the container of what has failed.
func (s shell) Run() error {
	if s.End && len(s.Command) > 0 {
		return usagef("--end runs no command: leave out one of the two")
	}
	return s.session(context.Background(), true, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		id, err := containerOf(ctx, schedulerv1.NewBuildServiceClient(conn), s.Build)
		if err != nil {
			return err
		}
		client := schedulerv1.NewShellServiceClient(conn)
		if s.End {
			if _, err := client.RemoveContainer(ctx, &schedulerv1.RemoveContainerRequest{BuildId: id}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(os.Stdout, "the container of %s is removed\n", id)
			return err
		}
		return talk{client: client, build: id, name: s.Build, number: new(int64)}.run(ctx, s.Command)
	})
}

const (
	// typedWithin is for how long it is tried to send what was typed.
	typedWithin = 30 * time.Second
	// silentFor is how long a Forge that says every few seconds that a shell goes on may
	// say nothing.
	silentFor = 30 * time.Second
)

// talk is a shell on this side.
type talk struct {
	client      schedulerv1.ShellServiceClient
	build, name string
	opened      *schedulerv1.OpenShellResponse_Opened
	terminal    bool
	number      *int64 // of the last input
}

// window is how large the terminal of this process is; nil where it has none.
func window() *schedulerv1.ShellTerminal {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
		return nil
	}
	columns, rows, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		columns, rows = 80, 24
	}
	return &schedulerv1.ShellTerminal{Columns: int32(columns), Rows: int32(rows), Type: os.Getenv("TERM")}
}

func (t talk) run(ctx context.Context, command []string) error {
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	terminal := window()
	stream, err := t.client.OpenShell(ctx, &schedulerv1.OpenShellRequest{BuildId: t.build, Command: command, Terminal: terminal})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	t.opened, t.terminal = first.GetOpened(), terminal != nil
	signals := make(chan os.Signal, 4)
	defer signal.Stop(signals)
	if !t.terminal {
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
			signal.Notify(signals, syscall.SIGHUP)
		}
		return t.converse(ctx, hangUp, stream, signals)
	}
	with := ", without the job's secrets: who may set them has them"
	if t.opened.GetHasSecrets() {
		with = ", with the job's secrets"
	}
	fmt.Fprintf(os.Stderr, "forge: this container is kept until %s%s; forge shell --end %s removes it\n",
		localTime(t.opened.GetKeptUntilTime()), with, t.name)
	signal.Notify(signals, syscall.SIGWINCH, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP) // before one could end the process and leave the terminal raw
	before, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	err = t.converse(ctx, hangUp, stream, signals)
	if restored := term.Restore(int(os.Stdin.Fd()), before); err != nil && restored == nil && complaint(err) != "" {
		fmt.Fprintln(os.Stderr) // what was printed last has hardly ended its line
	}
	return err
}

// converse types and shows until the shell has ended, or cannot go on: its error says why.
// What reads and writes the files of this process may be left behind, which ends then.
func (t talk) converse(ctx context.Context, hangUp context.CancelCauseFunc, stream shellAnswers, signals <-chan os.Signal) error {
	inputs, steering := make(chan *schedulerv1.ShellInput), make(chan syscall.Signal, 1)
	go readTyped(ctx, inputs)
	go t.heed(ctx, hangUp, signals, steering)
	go func() {
		if err := t.send(ctx, inputs, steering); err != nil {
			hangUp(err)
		}
	}()
	over := make(chan error, 1)
	go func() { over <- t.show(hangUp, stream) }()
	select {
	case err := <-over:
		if hungUp := context.Cause(ctx); hungUp != nil {
			return hungUp
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// readTyped reads what is typed until it ends.
func readTyped(ctx context.Context, into chan<- *schedulerv1.ShellInput) {
	const most = 32 << 10
	for {
		data := make([]byte, most)
		n, err := os.Stdin.Read(data)
		select {
		case into <- &schedulerv1.ShellInput{Data: data[:n], End: err != nil}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// heed hands on that the terminal has another size, and where there is none the first
// signal, but SIGHUP: whoever has started this is gone. Any other signal hangs up, whatever waits to be sent: those of the keys of a
// terminal are typed.
func (t talk) heed(ctx context.Context, hangUp context.CancelCauseFunc, signals <-chan os.Signal, steering chan<- syscall.Signal) {
	for handsOn := !t.terminal; ; {
		var number syscall.Signal
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			number, _ = sig.(syscall.Signal)
		}
		if number != syscall.SIGWINCH && !handsOn || number == syscall.SIGHUP {
			hangUp(codedError{exitInterrupted, errInterrupted})
			return
		}
		handsOn = false
		select {
		case steering <- number:
		default: // the size is read when it is sent: one that waits is enough
		}
	}
}

// send sends what is typed, signals, and the size of the terminal, one after the other.
func (t talk) send(ctx context.Context, inputs <-chan *schedulerv1.ShellInput, steering <-chan syscall.Signal) error {
	for {
		var input *schedulerv1.ShellInput
		select {
		case <-ctx.Done():
			return nil
		case input = <-inputs:
		case number := <-steering:
			input = &schedulerv1.ShellInput{Signal: int32(number)} //nolint:gosec // a signal's
			if number == syscall.SIGWINCH {
				input = &schedulerv1.ShellInput{Resized: window()}
			}
		}
		*t.number++
		if err := t.sendOne(ctx, input); err != nil {
			return err
		}
	}
}

// sendOne sends one input, again while it is not taken. Its error says why what is typed
// does not arrive.
func (t talk) sendOne(ctx context.Context, input *schedulerv1.ShellInput) error {
	since := time.Now()
	for {
		asked, done := context.WithTimeout(ctx, typedWithin)
		_, err := t.client.SendToShell(asked, &schedulerv1.SendToShellRequest{BuildId: t.build, ShellId: t.opened.GetShellId(), Number: *t.number, Input: input})
		done()
		switch code := status.Code(err); {
		case err == nil, code == codes.FailedPrecondition: // what is shown says why
			return nil
		case ctx.Err() != nil:
			return nil //nolint:nilerr // who has ended it knows
		case code == codes.ResourceExhausted: // it was waited for there
			since = time.Now()
			continue
		case away(code) && time.Since(since) < typedWithin:
			select {
			case <-ctx.Done():
			case <-time.After(followRetry):
			}
			continue
		}
		return t.broken("what is typed does not arrive: ", err)
	}
}

// away reports whether a call has failed since Forge, or the way to it, is not there.
func away(code codes.Code) bool {
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// broken is how a shell ends whose connection has, for people. What ran in it is closed.
func (t talk) broken(what string, err error) error {
	code := exitCode(err)
	what += complaint(err)
	if away(status.Code(err)) {
		code = exitNobody
	}
	if until := t.opened.GetKeptUntilTime(); code == exitNobody && time.Now().Before(until.AsTime()) {
		what += fmt.Sprintf("; the container is kept until %s, and forge shell %s opens another shell in it", localTime(until), t.name)
	}
	return codedError{code, errors.New(what)} // no status: it is not of the Forge's address alone
}

// shellAnswers is what a shell prints, and how it ends.
type shellAnswers = grpc.ServerStreamingClient[schedulerv1.OpenShellResponse]

// show prints what the shell prints, and ends as it does.
func (t talk) show(hangUp context.CancelCauseFunc, stream shellAnswers) error {
	silence := time.AfterFunc(silentFor, func() {
		hangUp(t.broken("the shell is lost: ", status.Errorf(codes.Unavailable, "nothing came from Forge for %v", silentFor)))
	})
	silence.Stop() // an older Forge does not say that it goes on
	defer silence.Stop()
	for saysSo := false; ; {
		if saysSo {
			silence.Reset(silentFor)
		}
		message, err := stream.Recv()
		silence.Stop()
		if errors.Is(err, io.EOF) {
			err = status.Error(codes.Unavailable, "it broke off")
		}
		if err != nil {
			return t.broken("the shell is lost: ", err)
		}
		switch m := message.GetMessage().(type) {
		case *schedulerv1.OpenShellResponse_Output:
			saysSo = saysSo || len(m.Output.GetData()) == 0
			into := os.Stdout
			if m.Output.GetError() {
				into = os.Stderr
			}
			if _, err := into.Write(m.Output.GetData()); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		case *schedulerv1.OpenShellResponse_Closed_:
			return closing(m.Closed)
		}
	}
}

// closing is nil where a shell has ended with 0.
func closing(closed *schedulerv1.OpenShellResponse_Closed) error {
	code := int(closed.GetExitCode())
	switch {
	case code < 0:
		return codedError{exitFailed, errors.New("the shell was closed: " + closed.GetProblem())}
	case code == 0 && closed.GetProblem() == "":
		return nil
	}
	return codedError{code, errors.New(closed.GetProblem())} // where there is no problem, the command has said what it has to
}
