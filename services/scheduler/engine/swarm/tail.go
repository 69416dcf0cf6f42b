package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// Tail is what forgexec wrote last, as its machine still has it.
func (e *Engine) Tail(ctx context.Context, attempt string) (string, error) {
	text, err := e.lastOutput(ctx, dockerapi.Name(attempt))
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	return engine.LastLines(text), err
}

// lastOutput is what a service printed last, as far as it could be read in time: a
// machine that is away does not answer.
func (m *managers) lastOutput(ctx context.Context, service string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, engine.TailWithin)
	defer cancel()
	logs, err := m.client.ServiceLogs(ctx, service, client.ServiceLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(engine.TailLines)})
	if err != nil {
		return "", fmt.Errorf("log of service %s: %w", service, err)
	}
	defer logs.Close() //nolint:errcheck // it was not written to
	var text bytes.Buffer
	_, err = stdcopy.StdCopy(&text, &text, logs)
	if err != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return text.String(), fmt.Errorf("log of service %s: %w", service, err)
	}
	return text.String(), nil
}
