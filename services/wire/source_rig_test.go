package wire_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// imported is a repository that git makes of what fast-import reads, its packs as a
// server keeps them.
func imported(b *testing.B, write func(w io.Writer)) (dir string) {
	b.Helper()
	dir = filepath.Join(b.TempDir(), "imported.git")
	command(b, "git", "init", "-q", "--bare", "-b", "main", dir)
	cmd := exec.CommandContext(b.Context(), "git", "-C", dir, "fast-import", "--quiet")
	in, err := cmd.StdinPipe()
	must(b, err)
	cmd.Stderr = os.Stderr
	must(b, cmd.Start())
	buffered := bufio.NewWriterSize(in, 1<<20)
	write(buffered)
	must(b, errors.Join(buffered.Flush(), in.Close(), cmd.Wait()))
	command(b, "git", "-C", dir, "repack", "-adq")
	return dir
}

func command(b *testing.B, name string, args ...string) {
	b.Helper()
	if out, err := exec.CommandContext(b.Context(), name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s %s: %v\n%s", name, args[0], err, out)
	}
}

// importCommit is one of main, after the one before.
func importCommit(w io.Writer, number int, files map[string]string) {
	fmt.Fprintf(w, "commit refs/heads/main\ncommitter ada <ada@example.com> %d +0000\ndata 8\na change\n", 1_700_000_000+number)
	for name, content := range files {
		fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", name, len(content), content)
	}
}

// source is text as people write it: it packs to about a quarter.
func source(random *rand.Rand, size int) string {
	const words = 4000
	var text strings.Builder
	for text.Len() < size {
		fmt.Fprintf(&text, "%s word%d = call%d(%d)\n", strings.Repeat("\t", random.IntN(4)), random.IntN(words), random.IntN(words), random.IntN(100))
	}
	return text.String()[:size]
}

// tree is files of so many bytes each, in folders of fifty.
func tree(count, size int, content func(size int) string) map[string]string {
	files := map[string]string{}
	for n := range count {
		files[fmt.Sprintf("folder-%03d/file-%05d.txt", n/50, n)] = content(size)
	}
	return files
}

// sourceWorld is a Forge whose GitHub has a large repository, and counts what it sends.
// With replay it sends sources that were asked for once from memory.
type sourceWorld struct {
	*world
	moved  atomic.Int64 // bytes of answers to git
	replay atomic.Bool
	kept   sync.Map // answers by request
}

func newSourceWorld(b *testing.B, dir, forgeYML string) *sourceWorld {
	b.Helper()
	w := &sourceWorld{world: newWorld(b, nil)}
	front := httptest.NewServer(w)
	b.Cleanup(front.Close)
	w.github = front.URL
	w.sim.SetURL(front.URL)
	must(b, w.sim.DeleteRepository(owner, repo))
	must(b, w.sim.AddRepository(githubsim.Repository{Owner: owner, Name: repo, GitDir: dir}))
	w.push(b, "main", files(".forge.yml", forgeYML))
	w.env = append(w.env, "FORGE_CAPACITY=8")
	w.patience = 10 * time.Minute
	return w
}

func (w *sourceWorld) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	isGit := strings.Contains(r.URL.Path, ".git/")
	switch {
	case w.replay.Load() && (isGit || strings.HasPrefix(r.URL.Path, "/codeload/")):
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		key := r.URL.String() + "\n" + string(body)
		if strings.HasPrefix(r.URL.Path, "/codeload/") {
			key = r.URL.Path // the rest is a signature
		}
		kept, there := w.kept.Load(key)
		if !there {
			whole := httptest.NewRecorder()
			w.sim.ServeHTTP(whole, r)
			kept = whole
			w.kept.Store(key, whole)
		}
		answer := kept.(*httptest.ResponseRecorder)
		maps.Copy(out.Header(), answer.Header())
		out.WriteHeader(answer.Code)
		_, _ = out.Write(answer.Body.Bytes())
	case isGit:
		w.sim.ServeHTTP(&counted{out, &w.moved}, r)
	default:
		w.sim.ServeHTTP(out, r)
	}
}

// counted counts what is written.
type counted struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// gate hands forgexecs what config gives for a request, as the scheduler does.
type gate struct {
	schedulerv1.UnimplementedRunnerServiceServer
	sources configv1.SourceServiceClient
	request *configv1.GetSourceRequest
	begun   chan time.Time // of the first command
	socket  string
	// workspaces are kept until all is measured: ext4 makes a file slowly for a minute
	// after many were removed.
	workspaces string
}

// newGate serves one; config is asked as the scheduler asks it.
func (w *sourceWorld) newGate(b *testing.B, workspaces string) *gate {
	b.Helper()
	conn, err := rpc.Dial(w.apart["config"], rpc.Peer{Room: "scheduler", Token: "token-of-scheduler"})
	must(b, err)
	g := &gate{sources: configv1.NewSourceServiceClient(conn), begun: make(chan time.Time, 1), socket: filepath.Join(w.dir, "gate.sock"), workspaces: workspaces}
	lis, err := (&net.ListenConfig{}).Listen(b.Context(), "unix", g.socket)
	must(b, err)
	server := grpc.NewServer()
	schedulerv1.RegisterRunnerServiceServer(server, g)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	b.Cleanup(func() { server.Stop(); <-served; _ = conn.Close() })
	return g
}

func (g *gate) Attach(stream schedulerv1.RunnerService_AttachServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	plan := &schedulerv1.Plan{BuildId: "b", Attempt: 1, Steps: []*schedulerv1.PlannedStep{{Number: 1, Run: "true"}}}
	for _, first := range []*schedulerv1.AttachResponse{
		{Message: &schedulerv1.AttachResponse_Welcome{Welcome: &schedulerv1.Welcome{}}}, {Message: &schedulerv1.AttachResponse_Plan{Plan: plan}},
	} {
		if err := stream.Send(first); err != nil {
			return err
		}
	}
	source, err := g.sources.GetSource(stream.Context(), g.request)
	for err == nil {
		var part *configv1.GetSourceResponse
		if part, err = source.Recv(); err == nil {
			err = stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Source{Source: &schedulerv1.SourceChunk{Data: part.GetData()}}})
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	err = stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Source{Source: &schedulerv1.SourceChunk{Last: true}}})
	for err == nil {
		var message *schedulerv1.AttachRequest
		if message, err = stream.Recv(); err != nil {
			break
		}
		report := message.GetReport()
		if report.GetStepStarted() != nil {
			g.begun <- report.GetTime().AsTime()
		}
		if report.GetSequence() > 0 {
			err = stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Ack{Ack: &schedulerv1.Ack{Sequence: report.GetSequence()}}})
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// firstCommand is how long forgexec takes to its first command, from its own start.
func (g *gate) firstCommand(b *testing.B, request *configv1.GetSourceRequest) time.Duration {
	b.Helper()
	g.request = request
	workspace := filepath.Join(g.workspaces, strconv.FormatInt(time.Now().UnixNano(), 36))
	cmd := exec.CommandContext(b.Context(), filepath.Join(binDir, "forgexec"))
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(g.socket), "FORGE_RUNNER_URL=unix://"+g.socket, "FORGE_RUNNER_TOKEN=token", "FORGE_WORKSPACE="+workspace)
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("forgexec: %v\n%s", err, out)
	}
	return (<-g.begun).Sub(begin)
}
