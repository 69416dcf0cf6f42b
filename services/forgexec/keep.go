package forgexec

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// remains are what a shell is given of the steps that have ended.
type remains struct {
	env   map[string]string // without secrets
	dir   string
	shell configv1.Shell
}

// leftBehind is what the steps leave for shells. What holds a secret is left out: who may
// have secrets is sent them.
func (s *sequence) leftBehind() *remains {
	env := map[string]string{}
	for _, some := range []map[string]string{s.environ, s.plan.GetEnvironment(), s.file.set} {
		maps.Copy(env, some)
	}
	maps.DeleteFunc(env, func(name, value string) bool {
		return s.masker.String(value) != value || slices.Contains([]string{"TRACEPARENT", "TRACESTATE", "BAGGAGE"}, name)
	})
	dir, err := s.workspace.folder(s.plan.GetWorkingDirectory())
	if err != nil {
		dir = s.workspace.path
	}
	return &remains{env: env, dir: dir, shell: s.plan.GetShell()}
}

// keeper waits in a kept container for shells that people ask for. The attempt has ended,
// and is not spoken of any more.
type keeper struct {
	*runner
	link  *link
	until time.Time // by this machine's clock

	mu    sync.Mutex
	known map[string]bool // shells that were begun
}

func newKeeper(run *runner, link *link) *keeper {
	run.masker = nil // and the secrets with it
	return &keeper{runner: run, link: link, until: time.Now().Add(link.keptFor), known: map[string]bool{}}
}

// run returns when the time is over, the scheduler or whoever started this process says
// so. Nothing that was started in a shell runs any more then.
func (k *keeper) run(ctx context.Context) {
	ctx, leave := context.WithCancel(metadata.AppendToOutgoingContext(ctx, tokenKey, k.link.Token))
	defer k.processes.killRest()
	defer leave()
	pause := firstPause
	for {
		heard, err := k.wait(ctx)
		if heard {
			pause = firstPause
		}
		if code := status.Code(err); ctx.Err() != nil || code == codes.FailedPrecondition || code == codes.Unauthenticated || code == codes.Unimplemented {
			return
		}
		left := time.NewTimer(time.Until(k.until))
		select {
		case <-ctx.Done():
		case <-left.C:
			leave()
		case <-time.After(pause):
		}
		left.Stop()
		pause = min(2*pause, longestPause)
	}
}

// wait begins shells as they are asked for, on one connection.
func (k *keeper) wait(ctx context.Context) (heard bool, err error) {
	conn, err := k.link.Dial()
	if err != nil {
		return false, err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be said
	var begun sync.WaitGroup
	defer begun.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := time.AfterFunc(time.Until(k.until), cancel)
	defer over.Stop()
	client := schedulerv1.NewRunnerServiceClient(conn)
	stream, err := client.Keep(ctx, &schedulerv1.KeepRequest{RunnerId: k.link.RunnerID})
	for err == nil {
		var told *schedulerv1.KeepResponse
		if told, err = stream.Recv(); err != nil {
			break
		}
		heard = true
		k.until = time.Now().Add(told.GetLeft().AsDuration())
		over.Reset(told.GetLeft().AsDuration())
		for _, id := range told.GetShellIds() {
			if k.begins(id) {
				begun.Go(func() { k.open(ctx, client, id) })
			}
		}
	}
	return heard, err
}

// begins reports whether a shell is to be begun here: each is once.
func (k *keeper) begins(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known[id] {
		return false
	}
	k.known[id] = true
	return true
}

// open is the whole of one shell.
func (k *keeper) open(ctx context.Context, client schedulerv1.RunnerServiceClient, id string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Shell(ctx)
	if err != nil {
		return // the scheduler says it to who waits
	}
	err = stream.Send(&schedulerv1.ShellRequest{Message: &schedulerv1.ShellRequest_Begin_{Begin: &schedulerv1.ShellRequest_Begin{RunnerId: k.link.RunnerID, ShellId: id}}})
	if err != nil {
		return
	}
	first, err := stream.Recv()
	if err != nil || first.GetOpening() == nil {
		return
	}
	one := &shell{keeper: k, stream: stream, opening: first.GetOpening(), inputs: make(chan *schedulerv1.ShellInput, mostInputs)}
	var hearing sync.WaitGroup
	defer hearing.Wait()
	hearing.Go(func() {
		defer cancel()
		one.hear(ctx)
	})
	code, problem := one.run(ctx)
	if one.send(&schedulerv1.ShellRequest{Message: &schedulerv1.ShellRequest_Exited_{Exited: &schedulerv1.ShellRequest_Exited{ExitCode: code, Problem: problem}}}) != nil {
		return
	}
	_ = stream.CloseSend() // the scheduler ends the stream
	hearing.Wait()
}

// shellStream is between a shell and the scheduler.
type shellStream = grpc.BidiStreamingClient[schedulerv1.ShellRequest, schedulerv1.ShellResponse]
