package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// fakeShells are shells in which nothing happens until who has opened one is gone.
type fakeShells struct {
	schedulerv1.UnimplementedShellServiceServer
	left chan struct{} // somebody is gone
}

func shellAccess() map[string]rpc.Access {
	return map[string]rpc.Access{schedulerv1.ShellService_OpenShell_FullMethodName: {}}
}

func (f *fakeShells) OpenShell(_ *schedulerv1.OpenShellRequest, stream schedulerv1.ShellService_OpenShellServer) error {
	err := stream.Send(&schedulerv1.OpenShellResponse{Message: &schedulerv1.OpenShellResponse_Opened_{Opened: &schedulerv1.OpenShellResponse_Opened{ShellId: "s1"}}})
	if err != nil {
		return err
	}
	<-stream.Context().Done()
	close(f.left)
	return stream.Context().Err()
}

// Nobody waits for an open shell who stops the server, and the scheduler closes it.
func TestAnOpenShellEndsWhenTheServerStops(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.shells.left = make(chan struct{})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := w.service.Serve(ctx, lis); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+lis.Addr().String()+"/v1/builds/b1/shells", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); !strings.Contains(line, `"shellId":"s1"`) {
		t.Fatalf("%q %v", line, err)
	}
	stopped := time.Now()
	cancel()
	if line, err := lines.ReadString('\n'); !strings.Contains(line, `"error":`) {
		t.Errorf("%q %v", line, err)
	}
	serving.Wait()
	if took := time.Since(stopped); took >= stopGrace {
		t.Errorf("the stop took %v", took)
	}
	<-w.rooms.shells.left
}

// The page says for how long a container is there, and how to get into it, as long as it is.
func TestThePageNamesAKeptContainer(t *testing.T) {
	clock := kittest.NewClock(at(80).AsTime())
	w := onSQLite(t, func(d *Deps) { d.Now = clock.Now })
	single, whole := failedBuild(), failedBuild()
	single.KeptUntilTime = at(75 + 15*60)
	whole.Steps, whole.Attempt, whole.JobCount = nil, 0, 1
	whole.Jobs = []*schedulerv1.Job{{Id: "b1-1", Name: "test", Title: "test", State: schedulerv1.Build_STATE_FAILED, Attempt: 1, StartTime: at(3), EndTime: at(75), KeptUntilTime: at(75 + 15*60)}}
	const until = `kept until <time datetime="2027-01-15T08:16:15Z"`
	for name, c := range map[string]struct {
		build   *schedulerv1.Build
		command string
	}{
		"a build": {single, "<code>forge shell b1</code>"},
		"a job":   {whole, "<code>forge shell b1-1</code>"},
	} {
		w.rooms.builds.build = c.build
		if _, page := w.get("/builds/b1"); !strings.Contains(page, until) || !strings.Contains(page, c.command) {
			t.Errorf("%s: neither %q nor %q, or not both, are in %s", name, until, c.command, page)
		}
	}
	clock.Advance(15 * time.Minute)
	for name, build := range map[string]*schedulerv1.Build{"a build": single, "a job": whole} {
		w.rooms.builds.build = build
		if _, page := w.get("/builds/b1"); strings.Contains(page, "forge shell") || strings.Contains(page, "kept until") {
			t.Errorf("%s whose container is gone: %s", name, page)
		}
	}
	not := failedBuild()
	not.NotKept = "as many containers are kept already as builds run at once: 2"
	w.rooms.builds.build = not
	if _, page := w.get("/builds/b1"); strings.Contains(page, "forge shell") || !strings.Contains(page, "not kept: as many containers are kept already") {
		t.Errorf("a build whose container is not kept: %s", page)
	}
}

// A shell outlives the deadline for reading a request, and ends with whoever has opened it.
func TestAShellLastsUntilItsPersonLeaves(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.shells.left = make(chan struct{})
	server := w.service.Server()
	server.ReadTimeout = time.Second
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(lis) })
	defer serving.Wait()
	defer server.Close()
	conn, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /v1/builds/b1/shells HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+adminToken+"\r\nContent-Length: 2\r\n\r\n{}")
	answer := bufio.NewReader(conn)
	for line := ""; !strings.Contains(line, `"shellId":"s1"`); {
		if line, err = answer.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	conn.SetReadDeadline(time.Now().Add(server.ReadTimeout + 300*time.Millisecond))
	rest, err := io.ReadAll(answer)
	if nerr, ok := errors.AsType[net.Error](err); !ok || !nerr.Timeout() {
		t.Errorf("it ended: %q %v", rest, err)
	}
	conn.Close()
	select {
	case <-w.rooms.shells.left:
	case <-time.After(patience):
		t.Error("the shell is open for nobody")
	}
}
