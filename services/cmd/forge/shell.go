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
		id, err := logOf(ctx, schedulerv1.NewBuildServiceClient(conn), s.Build)
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

// talk is a shell on this side.
type talk struct {
	client      schedulerv1.ShellServiceClient
	build, name string
	shell       string
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
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	terminal := window()
	stream, err := t.client.OpenShell(ctx, &schedulerv1.OpenShellRequest{BuildId: t.build, Command: command, Terminal: terminal})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	opened := first.GetOpened()
	t.shell = opened.GetShellId()
	if terminal != nil {
		without := ", without the job's secrets: who may set them has them"
		if opened.GetHasSecrets() {
			without = ", with the job's secrets"
		}
		fmt.Fprintf(os.Stderr, "forge: this container is kept until %s%s; forge shell --end %s removes it\n",
			localTime(opened.GetKeptUntilTime()), without, t.name)
		before, err := term.MakeRaw(int(os.Stdin.Fd()))
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		defer term.Restore(int(os.Stdin.Fd()), before) //nolint:errcheck // nothing is left to be done
	}
	inputs := make(chan *schedulerv1.ShellInput)
	go readTyped(ctx, inputs)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGWINCH, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		if err := t.send(ctx, inputs, signals, terminal != nil); err != nil {
			hangUp()
		}
	}()
	return show(stream)
}

// readTyped reads what is typed until it ends. It is left behind where the process ends
// before.
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

// send sends what is typed, signals, and the size of the terminal, one after the other.
func (t talk) send(ctx context.Context, inputs <-chan *schedulerv1.ShellInput, signals <-chan os.Signal, terminal bool) error {
	for interrupted := false; ; {
		var input *schedulerv1.ShellInput
		select {
		case <-ctx.Done():
			return nil
		case input = <-inputs:
		case sig := <-signals:
			number, _ := sig.(syscall.Signal)
			switch {
			case number == syscall.SIGWINCH && !terminal:
				continue
			case number == syscall.SIGWINCH:
				input = &schedulerv1.ShellInput{Resized: window()}
			case interrupted: // it does not heed the first
				return errInterrupted
			default:
				interrupted = true
				input = &schedulerv1.ShellInput{Signal: int32(number)} //nolint:gosec // a signal's
			}
		}
		*t.number++
		if err := t.sendOne(ctx, input); err != nil {
			return err
		}
	}
}

// sendOne sends one input, again while it is not taken.
func (t talk) sendOne(ctx context.Context, input *schedulerv1.ShellInput) error {
	for tries := 0; ; tries++ {
		_, err := t.client.SendToShell(ctx, &schedulerv1.SendToShellRequest{BuildId: t.build, ShellId: t.shell, Number: *t.number, Input: input})
		switch code := status.Code(err); {
		case err == nil, code == codes.FailedPrecondition: // what is shown says why
			return nil
		case code == codes.ResourceExhausted:
			continue // it was waited for there
		case code != codes.Unavailable || tries > 10:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followRetry):
		}
	}
}

// show prints what the shell prints, and ends as it does.
func show(stream grpc.ServerStreamingClient[schedulerv1.OpenShellResponse]) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = status.Error(codes.Unavailable, "the shell broke off")
		}
		if status.Code(err) == codes.Canceled {
			return codedError{exitInterrupted, errInterrupted}
		}
		if err != nil {
			return err
		}
		switch m := message.GetMessage().(type) {
		case *schedulerv1.OpenShellResponse_Output:
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
