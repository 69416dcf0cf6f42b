package image_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"

	"github.com/forge-ci/forge/services/scheduler/image"
)

// BenchmarkImage builds and pushes an image that has not changed, and then builds one of a
// context that nobody has seen, in turn with the engine's BuildKit and its own Dockerfile
// frontend, which is what docker build does.
func BenchmarkImage(b *testing.B) {
	r := newRig(b)
	base := r.registry.base(b, "base:1")
	dockerfile := "FROM " + base + "\nCOPY . /src\nRUN find /src -type f | xargs cat | sha256sum > /sum\nRUN echo done > /done\n"
	files := workspace{"Dockerfile": dockerfile}
	for i := range 200 {
		files[fmt.Sprintf("src/%d", i)] = rand() + fmt.Sprintf("%0*d", 50<<10, i)
	}
	same := files.on(b)
	build := func(files image.Files, change ...func(*image.Request)) time.Duration {
		begin := time.Now()
		if _, err := r.builder.Build(b.Context(), r.request(change...), files, io.Discard); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	tag := pushing(r.registry.name("acme/web:1"))
	build(same, tag)
	var unchanged, plainly, cold, plain time.Duration
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		for range 2 { // so that neither is the one that pays for what comes first
			changed := same.changed(b)
			cold += build(changed)
			changed = same.changed(b)
			plain += r.plain(b, changed.root)
		}
		build(same)
		plainly += r.plain(b, same.root)
		b.StartTimer()
		unchanged += build(same, tag)
	}
	b.ReportMetric(float64(unchanged.Milliseconds())/float64(b.N), "ms-unchanged")
	b.ReportMetric(float64(unchanged)/float64(plainly), "x-docker-build-unchanged")
	b.ReportMetric(float64(cold.Milliseconds())/float64(2*b.N), "ms-cold")
	b.ReportMetric(float64(plain.Milliseconds())/float64(2*b.N), "ms-docker-build")
	b.ReportMetric(float64(cold)/float64(plain), "x-docker-build")
}

// changed has one file of another content.
func (d *diskFiles) changed(t testing.TB) *diskFiles {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.root, "src", "0"), []byte(rand()), 0o600); err != nil {
		t.Fatal(err)
	}
	return &diskFiles{root: d.root}
}

// anonymous is what a client shows that has no credentials.
type anonymous struct{ auth.UnimplementedAuthServer }

func (anonymous) Register(server *grpc.Server) { auth.RegisterAuthServer(server, anonymous{}) }

func (anonymous) Credentials(context.Context, *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	return &auth.CredentialsResponse{}, nil
}

// plain is docker build with BuildKit.
func (r *rig) plain(t testing.TB, dir string) time.Duration {
	t.Helper()
	begin := time.Now()
	c, err := bkclient.New(t.Context(), "",
		bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return r.docker.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		bkclient.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return r.docker.DialHijack(ctx, "/session", proto, meta)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	status := make(chan *bkclient.SolveStatus)
	go func() {
		for range status { // it is closed by Solve
		}
	}()
	_, err = c.Solve(t.Context(), nil, bkclient.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"filename": "Dockerfile"}, Session: []session.Attachable{anonymous{}},
		LocalMounts: map[string]fsutil.FS{"context": fs, "dockerfile": fs}, Exports: []bkclient.ExportEntry{{Type: "moby"}}, SharedKey: rand(),
	}, status)
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}
