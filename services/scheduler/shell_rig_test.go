package scheduler

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/attempt"
)

// keptFailing is a config whose jobs are kept for a quarter of an hour.
func keptFailing() *configv1.BuildConfig {
	config := usual()
	config.Keep = durationpb.New(15 * time.Minute)
	return config
}

// canKeep is the hello of a runner that can keep its container.
func canKeep(runnerID string) *schedulerv1.Hello {
	return &schedulerv1.Hello{RunnerId: runnerID, Version: "test", MasksSecrets: true, HeedsJobs: true, HasSource: true, KeepsContainer: true}
}

// failsKept plays a run that fails, and returns for how long the runner is told to keep
// its container, and its token.
func failsKept(r *rig, id string, hello *schedulerv1.Hello) (keptFor time.Duration, token string) {
	r.t.Helper()
	token = r.spec(id, 1).Runner.Token
	u := r.stream(token, hello)
	u.recv() // Welcome
	u.plan = u.recv().GetPlan()
	u.send(began(1, 1), exited(2, 1, 1), over(3, schedulerv1.Ended_CAUSE_DONE))
	for sequence := int64(0); sequence < 3; {
		ack := u.recv().GetAck()
		sequence, keptFor = ack.GetSequence(), ack.GetKeptFor().AsDuration()
	}
	if err := u.refused(); err != nil {
		r.t.Fatalf("run of %s: %v", id, err)
	}
	r.becomes(id, schedulerv1.Build_STATE_FAILED)
	return keptFor, token
}

// asRunner is a context of a runner's calls.
func asRunner(r *rig, token string) context.Context {
	ctx, leave := context.WithTimeout(r.t.Context(), 3*patience)
	r.t.Cleanup(leave)
	return metadata.AppendToOutgoingContext(ctx, attempt.TokenHeader, token)
}

// waitsForShell keeps a container until a shell is asked for.
func waitsForShell(r *rig, token, runnerID string) (shellID string, err error) {
	r.t.Helper()
	ctx, leave := context.WithCancel(asRunner(r, token))
	defer leave()
	stream, err := r.runners.Keep(ctx, &schedulerv1.KeepRequest{RunnerId: runnerID})
	for err == nil {
		var told *schedulerv1.KeepResponse
		if told, err = stream.Recv(); err == nil && len(told.GetShellIds()) > 0 {
			return told.GetShellIds()[0], nil
		}
	}
	return "", err
}

// beginsShell opens a runner's side of a shell.
func beginsShell(r *rig, token, runnerID, shellID string) (schedulerv1.RunnerService_ShellClient, *schedulerv1.ShellResponse_Opening, error) {
	r.t.Helper()
	stream, err := r.runners.Shell(asRunner(r, token))
	if err != nil {
		return nil, nil, err
	}
	begin := &schedulerv1.ShellRequest_Begin{RunnerId: runnerID, ShellId: shellID}
	if err := stream.Send(&schedulerv1.ShellRequest{Message: &schedulerv1.ShellRequest_Begin_{Begin: begin}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	first, err := stream.Recv()
	return stream, first.GetOpening(), err
}

func printsInShell(text string) *schedulerv1.ShellRequest {
	return &schedulerv1.ShellRequest{Message: &schedulerv1.ShellRequest_Output{Output: &schedulerv1.ShellOutput{Data: []byte(text)}}}
}

func exitsShell(code int32) *schedulerv1.ShellRequest {
	return &schedulerv1.ShellRequest{Message: &schedulerv1.ShellRequest_Exited_{Exited: &schedulerv1.ShellRequest_Exited{ExitCode: code}}}
}

func tookInputs(count int64) *schedulerv1.ShellRequest {
	return &schedulerv1.ShellRequest{Message: &schedulerv1.ShellRequest_Taken{Taken: count}}
}

// person is a shell as somebody has opened it by a page of the gateway.
type person struct {
	r      *rig
	login  string
	client schedulerv1.ShellServiceClient
	stream schedulerv1.ShellService_OpenShellClient
	opened *schedulerv1.OpenShellResponse_Opened
	leave  context.CancelFunc
}

func asPerson(r *rig, login string) context.Context {
	return rpc.From(rpc.For(r.t.Context(), login), rpc.Origin{Way: "api", Credential: "personal token laptop", Address: "192.0.2.7", Agent: "forge/test"})
}

// opensShell asks for a shell.
func opensShell(r *rig, login, id string, command ...string) (*person, error) {
	r.t.Helper()
	ctx, leave := context.WithTimeout(asPerson(r, login), 3*patience)
	r.t.Cleanup(leave)
	p := &person{r: r, login: login, client: schedulerv1.NewShellServiceClient(r.gateway), leave: leave}
	var err error
	if p.stream, err = p.client.OpenShell(ctx, &schedulerv1.OpenShellRequest{BuildId: id, Command: command}); err != nil {
		return nil, err
	}
	first, err := p.stream.Recv()
	p.opened = first.GetOpened()
	return p, err
}

func (p *person) types(login string, number int64, text, id string) error {
	_, err := p.client.SendToShell(asPerson(p.r, login), &schedulerv1.SendToShellRequest{
		BuildId: id, ShellId: p.opened.GetShellId(), Number: number, Input: &schedulerv1.ShellInput{Data: []byte(text)},
	})
	return err
}

// sees reads what is printed until the shell is closed, or so much was.
func (p *person) sees(most int) (text string, closed *schedulerv1.OpenShellResponse_Closed) {
	p.r.t.Helper()
	var all strings.Builder
	for all.Len() < most {
		message, err := p.stream.Recv()
		if err != nil {
			p.r.t.Fatalf("after %q: %v", all.String(), err)
		}
		if message.GetClosed() != nil {
			return all.String(), message.GetClosed()
		}
		all.Write(message.GetOutput().GetData())
	}
	return all.String(), nil
}

// shellEntries are the lines of the audit log about shells, the oldest first.
func shellEntries(t *testing.T, r *rig) []string {
	t.Helper()
	var lines []string
	all := audited(r, &schedulerv1.ListAuditEntriesRequest{Actions: []schedulerv1.AuditEntry_Action{
		schedulerv1.AuditEntry_ACTION_OPEN_SHELL, schedulerv1.AuditEntry_ACTION_CLOSE_SHELL, schedulerv1.AuditEntry_ACTION_REMOVE_CONTAINER,
	}}).GetEntries()
	for _, e := range all {
		lines = append([]string{did(e) + ": " + e.GetDetail()}, lines...)
	}
	return lines
}
