package shell

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// OpenShell opens a shell, and sends what it prints until it has ended.
func (s *Service) OpenShell(req *schedulerv1.OpenShellRequest, stream schedulerv1.ShellService_OpenShellServer) error {
	ctx := stream.Context()
	size := 0
	for _, word := range req.GetCommand() {
		size += len(word)
	}
	if len(req.GetCommand()) > mostWords || size > longestWords {
		return fault.Newf(fault.Invalid, "command: at most %d words, %d KiB in all", mostWords, longestWords>>10)
	}
	r, until, err := s.begun(ctx, req)
	if err != nil {
		return err
	}
	v := &visit{service: s, shell: r, stream: stream, output: way{s, r.id, true}}
	err = v.serve(ctx, until)
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), aliveEvery)
	defer done()
	if closed := s.close(ending, r.id, noCode, "who has opened it went away"); closed != nil {
		s.log.WarnContext(ctx, "shell not closed; done when it is found abandoned", "shell", r.id, "error", closed)
	}
	return err
}

// begun stores a new shell for who calls.
func (s *Service) begun(ctx context.Context, req *schedulerv1.OpenShellRequest) (r *row, until time.Time, err error) {
	b, err := store.ReadBuild(ctx, s.store.DB.Read(), req.GetBuildId(), "")
	if err != nil {
		return nil, until, err
	}
	secrets, err := s.maySetSecrets(ctx, b)
	if err != nil {
		return nil, until, err
	}
	if left, err := s.mayBeLeft(ctx, b); err != nil || left && !secrets {
		return nil, until, cmp.Or(err, fault.New(fault.Denied, "the commands had secrets that they may have left in files: who may set the repository's secrets may open a shell there"))
	}
	random := make([]byte, 16)
	if _, err := io.ReadFull(s.random, random); err != nil {
		return nil, until, err
	}
	err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		b, err := t.Build(ctx, req.GetBuildId())
		if err != nil {
			return err
		}
		if !b.GetKeptUntilTime().AsTime().After(t.Now) {
			return notKept(b, t.Now)
		}
		until = b.GetKeptUntilTime().AsTime()
		all, err := open(ctx, t, b.GetId(), b.GetAttempt())
		if err != nil {
			return err
		}
		if len(all) >= mostShells {
			return fault.Newf(fault.Exhausted, "%d shells are open in the container of build %s, as many as may be", len(all), b.GetId())
		}
		opened := entry(schedulerv1.AuditEntry_ACTION_OPEN_SHELL, b)
		audit.Called(ctx, opened)
		opened.Detail = map[bool]string{true: "a terminal", false: "a command"}[req.GetTerminal() != nil]
		if secrets {
			opened.Detail += ", with the job's secrets"
		}
		r = &row{
			id: hex.EncodeToString(random), buildID: b.GetId(), attempt: b.GetAttempt(), person: rpc.Caller(ctx).Person,
			request: req, opened: opened, secrets: secrets, created: t.Now,
		}
		t.Notify(store.RunnerTopic(b.GetId()))
		if err := add(ctx, t, r); err != nil {
			return err
		}
		return audit.Add(ctx, t, b.GetRepository().GetId(), opened)
	})
	if err == nil {
		s.log.InfoContext(ctx, "shell opened", "shell", r.id, "build", r.buildID, "by", audit.Actor(ctx), "secrets", r.secrets)
	}
	return r, until, err
}

// visit is a shell as who has opened it follows it.
type visit struct {
	service *Service
	shell   *row
	stream  schedulerv1.ShellService_OpenShellServer
	output  way
	read    int64
}

func (v *visit) serve(ctx context.Context, until time.Time) error {
	s, id := v.service, v.shell.id
	changed, leave := s.store.Notifier.Subscribe(topic(id))
	defer leave()
	look, alive, answer := time.NewTicker(s.often()), time.NewTicker(aliveEvery), time.NewTimer(answersWithin)
	defer look.Stop()
	defer alive.Stop()
	defer answer.Stop()
	err := v.stream.Send(&schedulerv1.OpenShellResponse{Message: &schedulerv1.OpenShellResponse_Opened_{Opened: &schedulerv1.OpenShellResponse_Opened{
		ShellId: id, KeptUntilTime: timestamppb.New(until), HasSecrets: v.shell.secrets,
	}}})
	if err != nil {
		return err
	}
	for {
		over, err := v.show(ctx)
		if over || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rpc.Stopping(ctx):
			return errStops()
		case <-changed:
		case <-look.C:
		case <-answer.C:
			if err := v.unanswered(ctx); err != nil {
				return err
			}
		case <-alive.C:
			// It goes on: who may not see it any more is found out, and so is who is not there.
			if err := v.stream.Send(&schedulerv1.OpenShellResponse{Message: &schedulerv1.OpenShellResponse_Output{Output: &schedulerv1.ShellOutput{}}}); err != nil {
				return err
			}
			if err := s.alive(ctx, id); err != nil {
				return err
			}
		}
	}
}

// unanswered closes a shell that no runner has begun.
func (v *visit) unanswered(ctx context.Context) error {
	now, err := read(ctx, v.service.store.DB.Read(), v.shell.id)
	if err != nil || now.begun {
		return err
	}
	return v.service.close(ctx, v.shell.id, noCode, fmt.Sprintf("the container does not answer within %v", answersWithin))
}

// show sends what was printed by now; over with the last word.
func (v *visit) show(ctx context.Context) (over bool, err error) {
	const some = 16
	for {
		now, err := read(ctx, v.service.store.DB.Read(), v.shell.id) // before the output, which comes before its end
		if err != nil {
			return false, err
		}
		printed, last, err := after(ctx, v.output, v.read, some, func() *schedulerv1.ShellOutput { return &schedulerv1.ShellOutput{} })
		if err != nil {
			return false, err
		}
		for _, one := range printed {
			if err := v.stream.Send(&schedulerv1.OpenShellResponse{Message: &schedulerv1.OpenShellResponse_Output{Output: one}}); err != nil {
				return false, err
			}
		}
		switch {
		case len(printed) > 0:
			if v.read = last; v.output.taken(ctx, last) != nil {
				return false, errStops()
			}
		case now.closed && now.code == noCode && now.problem == stopped: // as where this side hears of it first
			return false, errStops()
		case now.closed:
			return true, v.stream.Send(&schedulerv1.OpenShellResponse{Message: &schedulerv1.OpenShellResponse_Closed_{
				Closed: &schedulerv1.OpenShellResponse_Closed{ExitCode: now.code, Problem: now.problem},
			}})
		default:
			return false, nil
		}
	}
}

// SendToShell types into a shell.
func (s *Service) SendToShell(ctx context.Context, req *schedulerv1.SendToShellRequest) (*schedulerv1.SendToShellResponse, error) {
	if len(req.GetInput().GetData()) > largestInput || req.GetNumber() < 1 {
		return nil, fault.Newf(fault.Invalid, "input: at most %d KiB, numbered from 1", largestInput>>10)
	}
	input := way{s, req.GetShellId(), false}
	changed, leave := s.store.Notifier.Subscribe(topic(req.GetShellId()))
	defer leave()
	look, patience := time.NewTicker(s.often()), time.NewTimer(aliveEvery)
	defer look.Stop()
	defer patience.Stop()
	for {
		err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
			r, err := read(ctx, t, req.GetShellId())
			switch {
			case err != nil:
				return err
			case r.buildID != req.GetBuildId() || r.person != rpc.Caller(ctx).Person:
				return fault.Newf(fault.NotFound, "build %s has no shell %s of yours", req.GetBuildId(), req.GetShellId())
			case r.closed:
				return errOver(r.id)
			}
			switch size, err := input.unread(ctx, t); {
			case err != nil:
				return err
			case size >= mostUnread:
				return fault.New(fault.Exhausted, "what was typed before has not been read yet: send it again")
			}
			return input.put(ctx, t, req.GetNumber(), req.GetInput())
		})
		if !fault.Is(err, fault.Exhausted) {
			return &schedulerv1.SendToShellResponse{}, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-rpc.Stopping(ctx):
			return nil, errStops()
		case <-patience.C:
			return nil, err
		case <-changed:
		case <-look.C:
		}
	}
}
