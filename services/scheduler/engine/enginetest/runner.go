package enginetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// runner is the scheduler's side of forgexec, for several attempts.
type runner struct {
	schedulerv1.UnimplementedRunnerServiceServer

	address string // unix:///path, or host:port for TLS
	ca      string // PEM; "" for a socket
	source  []byte

	mu       sync.Mutex
	attempts map[string]*attempt // by token
}

type attempt struct {
	name    string
	plan    *schedulerv1.Plan
	ids     map[string]bool // of the runners that came
	reports []*schedulerv1.Report
}

// newRunner serves at a socket, or with TLS at a port of host, if that is set.
func newRunner(t *testing.T, host string) *runner {
	t.Helper()
	r := &runner{source: source(t, nil), attempts: map[string]*attempt{}}
	var listener net.Listener
	var server *grpc.Server
	if host == "" {
		listener, server = r.listenUnix(t), grpc.NewServer()
	} else {
		listener, server = r.listenTLS(t, host)
	}
	schedulerv1.RegisterRunnerServiceServer(server, r)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // before it had begun
			t.Errorf("runner service: %v", err)
		}
	})
	return r
}

func (r *runner) listenUnix(t *testing.T) net.Listener {
	t.Helper()
	// Nothing else is in the folder: engines mount it. A socket's path must be short.
	dir, err := os.MkdirTemp("", "forge") //nolint:usetesting // t.TempDir's is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // builds of other users reach the socket
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "runner.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o666); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	r.address = "unix://" + socket
	return listener
}

func (r *runner) listenTLS(t *testing.T, host string) (net.Listener, *grpc.Server) {
	t.Helper()
	certificate, key, err := rpc.SelfSigned("runner", []string{host}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	r.address, r.ca = listener.Addr().String(), string(certificate)
	return listener, grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
}

// source holds one file, hello, and symbolic links with their targets.
func source(t *testing.T, links map[string]string) []byte {
	t.Helper()
	const text = "hello from the source\n"
	var buffer bytes.Buffer
	zipped := gzip.NewWriter(&buffer)
	archive := tar.NewWriter(zipped)
	err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "octo-hello-3f2a91c/hello", Mode: 0o644, Size: int64(len(text))})
	_, failed := io.WriteString(archive, text)
	for name, target := range links {
		failed = errors.Join(failed, archive.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "octo-hello-3f2a91c/" + name, Linkname: target, Mode: 0o777}))
	}
	if err := errors.Join(err, failed, archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// expect returns the token for a new attempt of these steps.
func (r *runner) expect(name string, steps ...string) (token string) {
	plan := &schedulerv1.Plan{
		BuildId: name, Attempt: 1, Environment: map[string]string{"CI": "true"},
		Timeout: durationpb.New(time.Hour), Grace: durationpb.New(10 * time.Second), Heartbeat: durationpb.New(time.Second),
	}
	for i, run := range steps {
		plan.Steps = append(plan.Steps, &schedulerv1.PlannedStep{Number: int32(i + 1), Name: run, Run: run})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	token = fmt.Sprintf("token-%d-%s", len(r.attempts), name)
	r.attempts[token] = &attempt{name: name, plan: plan, ids: map[string]bool{}}
	return token
}

// Attach serves one stream: whoever has the token gets the plan and the source,
// and everything is acknowledged.
func (r *runner) Attach(stream grpc.BidiStreamingServer[schedulerv1.AttachRequest, schedulerv1.AttachResponse]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	token := strings.Join(md.Get("forge-runner-token"), "")
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	r.mu.Lock()
	a := r.attempts[token]
	if a == nil {
		r.mu.Unlock()
		return status.Error(codes.Unauthenticated, "no such attempt")
	}
	a.ids[hello.GetRunnerId()] = true
	plan, stored := a.plan, int64(len(a.reports))
	r.mu.Unlock()

	answers := []*schedulerv1.AttachResponse{{Message: &schedulerv1.AttachResponse_Welcome{Welcome: &schedulerv1.Welcome{StoredSequence: stored}}}}
	if !hello.GetHasPlan() {
		answers = append(answers, &schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Plan{Plan: plan}})
	}
	if !hello.GetHasSource() {
		answers = append(answers, &schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Source{
			Source: &schedulerv1.SourceChunk{Data: r.source, Last: true},
		}})
	}
	for {
		for _, answer := range answers {
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answers = nil
		if report := message.GetReport(); report.GetSequence() > 0 {
			r.mu.Lock()
			a.reports = append(a.reports, report)
			r.mu.Unlock()
			answers = []*schedulerv1.AttachResponse{{Message: &schedulerv1.AttachResponse_Ack{Ack: &schedulerv1.Ack{Sequence: report.GetSequence()}}}}
		}
	}
}

// newest is the attempt of this name that was expected last; r.mu is held.
func (r *runner) newest(name string) (token string, a *attempt) {
	for t, candidate := range r.attempts {
		if candidate.name == name && (a == nil || t > token) {
			token, a = t, candidate
		}
	}
	return token, a
}

func (r *runner) token(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	token, _ := r.newest(name)
	return token
}

// runners is how many have come for the attempt.
func (r *runner) runners(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, a := r.newest(name)
	return len(a.ids)
}

func (r *runner) output(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, a := r.newest(name)
	var output strings.Builder
	for _, report := range a.reports {
		output.Write(report.GetOutput().GetData())
	}
	return output.String()
}

// story is what was reported beside the output.
func (r *runner) story(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, a := r.newest(name)
	var told []string
	for _, report := range a.reports {
		switch e := report.GetEvent().(type) {
		case *schedulerv1.Report_StepStarted:
			told = append(told, fmt.Sprintf("start %d", e.StepStarted.GetNumber()))
		case *schedulerv1.Report_StepEnded:
			told = append(told, fmt.Sprintf("end %d: %d", e.StepEnded.GetNumber(), e.StepEnded.GetExitCode()))
		case *schedulerv1.Report_Ended:
			told = append(told, strings.TrimPrefix(e.Ended.GetCause().String(), "CAUSE_"))
		}
	}
	return strings.Join(told, ", ")
}
