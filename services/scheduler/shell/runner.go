package shell

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// mostInputs are sent to a runner before it says that it has handed on one.
	mostInputs = 8
	// largestOutput is in bytes.
	largestOutput = 32 << 10
	// longestProblem bounds what a runner says for people, in bytes.
	longestProblem = 300
	// keptBarely is how much earlier than here a container's time may be over by the clock
	// of its machine.
	keptBarely = 2 * time.Second
)

// Waiting names the shells of an attempt that no runner has begun.
func (s *Service) Waiting(ctx context.Context, buildID string, attempt int32) ([]string, error) {
	all, err := open(ctx, s.store.DB.Read(), buildID, attempt)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range all {
		if !r.begun {
			ids = append(ids, r.id)
		}
	}
	return ids, nil
}

// Attend is one shell as the runner sees it whose attempt this is.
func (s *Service) Attend(a *store.Attempt, id string, stream schedulerv1.RunnerService_ShellServer) error {
	ctx := stream.Context()
	if err := s.begin(ctx, a, id); err != nil {
		return err
	}
	w := &work{service: s, attempt: a, id: id, stream: stream, input: way{s, id, false}, output: way{s, id, true}, active: s.store.Now()}
	problem, err := w.serve(ctx)
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), aliveEvery)
	defer done()
	if problem == "" {
		problem = "the connection to its container broke"
		if now, gone := store.ReadAttempt(ending, s.store.DB.Read(), a.BuildID, a.Number, ""); gone == nil && !now.IsKept(s.store.Now().Add(keptBarely)) {
			problem = "its container is not kept any more"
		}
	}
	if closed := s.close(ending, id, noCode, problem); closed != nil && err == nil {
		return closed
	}
	return err
}

// work is a shell on its runner's stream.
type work struct {
	service       *Service
	attempt       *store.Attempt
	id            string
	stream        schedulerv1.RunnerService_ShellServer
	input, output way

	sent, inputs, taken int64 // the number of the last input that was sent, and how many; how many were handed on
	printed             int64
	active              time.Time // when something was typed or printed last
}

// serve returns when the shell is closed, or why it is to be.
func (w *work) serve(ctx context.Context) (problem string, err error) {
	s := w.service
	if problem, err := w.open(ctx); problem != "" || err != nil {
		return problem, err
	}
	changed, leave := s.store.Notifier.Subscribe(topic(w.id))
	defer leave()
	look := time.NewTicker(s.often())
	defer look.Stop()
	incoming, gone := w.receive(ctx)
	var pending *schedulerv1.ShellOutput
	for {
		now, err := read(ctx, s.store.DB.Read(), w.id)
		switch {
		case err != nil:
			return "", err
		case now.closed:
			return "", nil
		case s.store.Now().Sub(w.active) > idleFor:
			return "nothing was typed or printed for " + idleFor.String(), nil
		}
		if err := w.sendInput(ctx); err != nil {
			return "", err
		}
		if pending, err = w.keep(ctx, pending); err != nil {
			return "", err
		}
		next := incoming
		if pending != nil { // nobody reads: nothing more is taken from the runner
			next = nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-rpc.Stopping(ctx):
			return stopped, errStops()
		case err := <-gone:
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return "", err
		case message := <-next:
			if exited := message.GetExited(); exited != nil {
				return "", s.close(ctx, w.id, max(0, exited.GetExitCode()), clip(exited.GetProblem()))
			}
			if pending, err = w.hear(message); err != nil {
				return "", err
			}
		case <-changed:
		case <-look.C:
		}
	}
}

// hear takes what the runner says, and returns what is to be stored of it.
func (w *work) hear(message *schedulerv1.ShellRequest) (printed *schedulerv1.ShellOutput, err error) {
	switch m := message.GetMessage().(type) {
	case *schedulerv1.ShellRequest_Output:
		if len(m.Output.GetData()) > largestOutput {
			return nil, fault.Newf(fault.Invalid, "output: at most %d KiB", largestOutput>>10)
		}
		return m.Output, nil
	case *schedulerv1.ShellRequest_Taken:
		if m.Taken < w.taken || m.Taken > w.inputs {
			return nil, fault.New(fault.Invalid, "taken: more than was sent")
		}
		w.taken = m.Taken
	}
	return nil, nil //nolint:nilnil // nothing is an answer
}

func clip(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), longestProblem)], "")
}

// open tells the runner what to run.
func (w *work) open(ctx context.Context) (problem string, err error) {
	r, err := read(ctx, w.service.store.DB.Read(), w.id)
	if err != nil {
		return "", err
	}
	opening := &schedulerv1.ShellResponse_Opening{Command: r.request.GetCommand(), Terminal: r.request.GetTerminal()}
	if r.secrets {
		b, err := store.ReadBuild(ctx, w.service.store.DB.Read(), r.buildID, "")
		if err != nil {
			return "", err
		}
		opening.Secrets, _, err = w.service.secrets.SecretsFor(ctx, b)
		if missing, ok := errors.AsType[secrets.UnavailableError](err); ok {
			return missing.Error(), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", w.stream.Send(&schedulerv1.ShellResponse{Message: &schedulerv1.ShellResponse_Opening_{Opening: opening}})
}

// receive reads what the runner sends until the stream ends, one message ahead.
func (w *work) receive(ctx context.Context) (<-chan *schedulerv1.ShellRequest, <-chan error) {
	incoming, gone := make(chan *schedulerv1.ShellRequest), make(chan error, 1)
	go func() {
		for {
			message, err := w.stream.Recv()
			if err != nil {
				gone <- err
				return
			}
			select {
			case incoming <- message:
			case <-ctx.Done():
				return
			}
		}
	}()
	return incoming, gone
}

// sendInput sends what was typed, as far as the runner has handed on what was before.
func (w *work) sendInput(ctx context.Context) error {
	room := mostInputs - int(w.inputs-w.taken)
	if room == 0 {
		return nil
	}
	typed, last, err := after(ctx, w.input, w.sent, room, func() *schedulerv1.ShellInput { return &schedulerv1.ShellInput{} })
	if err != nil || len(typed) == 0 {
		return err
	}
	for _, one := range typed {
		if err := w.stream.Send(&schedulerv1.ShellResponse{Message: &schedulerv1.ShellResponse_Input{Input: one}}); err != nil {
			return err
		}
	}
	w.sent, w.inputs, w.active = last, w.inputs+int64(len(typed)), w.service.store.Now()
	return w.input.taken(ctx, last)
}

// keep stores what was printed, and returns it where too much waits to be read.
func (w *work) keep(ctx context.Context, printed *schedulerv1.ShellOutput) (left *schedulerv1.ShellOutput, err error) {
	if printed == nil {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	stored := false
	w.active = w.service.store.Now()
	err = w.service.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		stored = false
		if size, err := w.output.unread(ctx, t); err != nil || size >= mostUnread {
			return err
		}
		stored = true
		return w.output.put(ctx, t, w.printed+1, printed)
	})
	if err != nil || !stored {
		return printed, err
	}
	w.printed++
	return nil, nil //nolint:nilnil // nothing is an answer
}
