package image_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/moby/client"
	"github.com/tonistiigi/fsutil"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/image"
	"github.com/forge-ci/forge/services/scheduler/image/gate"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// rig is a builder with the Docker engine's BuildKit, and a registry.
type rig struct {
	docker   *client.Client
	builder  *image.Builder
	registry *testRegistry
	config   image.Config
	gate     *gate.Gate
}

// onBoth runs a test on the Docker engine's BuildKit, and on a daemon.
func onBoth(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Run("docker", func(t *testing.T) { test(t, newRig(t)) })
	t.Run("buildkitd", func(t *testing.T) { test(t, newDaemonRig(t)) })
}

// newDaemonRig starts a BuildKit daemon.
func newDaemonRig(t *testing.T) *rig {
	t.Helper()
	address := kittest.BuildKit(t)
	r := &rig{registry: newRegistry(t), gate: newGate(t, time.Now), config: image.Config{
		URL: address, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Dir: t.TempDir(), RetryAfter: time.Millisecond, Log: kittest.Log(t),
	}}
	r.builder = r.builderOf(t, func(*image.Config) {})
	return r
}

// newGate is the gate of a scheduler with a database of its own.
func newGate(t testing.TB, now func() time.Time) *gate.Gate {
	t.Helper()
	return gate.New(newStore(t, kittest.SQLiteDir(t, "scheduler", store.Migrations()), now), kittest.Log(t))
}

func newStore(t testing.TB, dir string, now func() time.Time) *store.Store {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: dir, Room: "scheduler", Migrations: store.Migrations(), Log: kittest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return store.New(db, now, func(store.Queue) {})
}

func newRig(t testing.TB) *rig {
	t.Helper()
	kittest.Require(t, "docker")
	docker := kittest.Docker(t, "")
	config := image.Config{
		Docker: docker, Instance: t.Name() + rand(), Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Dir: t.TempDir(), RetryAfter: time.Millisecond, Log: kittest.Log(t),
	}
	r := &rig{docker: docker, registry: newRegistry(t), config: config, gate: newGate(t, time.Now)}
	r.builder = r.builderOf(t, func(*image.Config) {})
	t.Cleanup(func() { // whatever happened, the engine has none of its images
		ctx := context.WithoutCancel(t.Context())
		left, err := r.builder.Leftovers(ctx)
		if err != nil || len(left) > 0 {
			t.Errorf("left in the Docker engine: %q, %v", left, err)
		}
		for _, name := range left {
			_ = r.builder.Forget(ctx, name)
		}
		entries, err := os.ReadDir(config.Dir)
		if err != nil || len(entries) > 0 {
			t.Errorf("left on disk: %v, %v", entries, err)
		}
	})
	return r
}

func (r *rig) builderOf(t testing.TB, change func(*image.Config)) *image.Builder {
	t.Helper()
	config := r.config
	change(&config)
	b, err := image.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// request is one for a Dockerfile at the top of the workspace.
func (r *rig) request(change ...func(*image.Request)) image.Request {
	req := image.Request{Dockerfile: "Dockerfile", Context: ".", Tier: "1/merged", Gate: r.gate}
	for _, c := range change {
		c(&req)
	}
	return req
}

func pushing(tags ...string) func(*image.Request) {
	return func(r *image.Request) { r.Push, r.Tags = true, tags }
}

// build fails the test where the image is not built.
func (r *rig) build(t *testing.T, req image.Request, files workspace) (image.Result, string) {
	t.Helper()
	var out bytes.Buffer
	result, err := r.builder.Build(t.Context(), req, files.on(t), &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return result, out.String()
}

// workspace is files by path.
type workspace map[string]string

// on has the files on disk.
func (w workspace) on(t testing.TB) *diskFiles {
	t.Helper()
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(w)) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(w[name]), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return &diskFiles{root: dir}
}

// diskFiles serve a folder as forgexec does.
type diskFiles struct {
	root    string
	context string // below root

	mu    sync.Mutex
	wants []image.Want
	sent  int // bytes of files
}

func (d *diskFiles) DiffCopy(ctx context.Context, want image.Want, stream image.Stream) error {
	d.mu.Lock()
	d.wants = append(d.wants, want)
	d.mu.Unlock()
	dir := d.root
	if want.Dir == "context" {
		dir = filepath.Join(dir, d.context)
	}
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return err
	}
	if fs, err = fsutil.NewFilterFS(fs, &fsutil.FilterOpt{IncludePatterns: want.Include, ExcludePatterns: want.Exclude, FollowPaths: want.FollowPaths}); err != nil {
		return err
	}
	return fsutil.Send(ctx, stream, fs, func(sent int, _ bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.sent = max(d.sent, sent)
	})
}

// testRegistry is a real registry whose answers a test may change.
type testRegistry struct {
	*httptest.Server

	mu       sync.Mutex
	before   func(w http.ResponseWriter, r *http.Request) (answered bool)
	requests []string
}

func newRegistry(t testing.TB) *testRegistry {
	t.Helper()
	r := &testRegistry{}
	serves := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		before := r.before
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		r.mu.Unlock()
		if before != nil && before(w, req) {
			return
		}
		serves.ServeHTTP(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *testRegistry) answer(before func(w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = before
}

func (r *testRegistry) asked(what string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, request := range r.requests {
		if strings.Contains(request, what) {
			n++
		}
	}
	return n
}

func (r *testRegistry) name(rest string) string {
	return strings.TrimPrefix(r.URL, "http://") + "/" + rest
}

// base pushes an image of busybox, which layers of its own make another one to the
// engine's cache.
func (r *testRegistry) base(t testing.TB, rest string) string {
	t.Helper()
	layer := static.NewLayer(kittest.Busybox(t, rand()), types.OCIUncompressedLayer)
	base, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := base.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture, config.Config.Env = "linux", "amd64", []string{"PATH=/bin"}
	if base, err = mutate.ConfigFile(base, config); err != nil {
		t.Fatal(err)
	}
	name := r.name(rest)
	if err := remote.Write(r.tag(t, name), base); err != nil {
		t.Fatal(err)
	}
	return name
}

func (r *testRegistry) tag(t testing.TB, text string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// images are what an index names, by platform; attestations are under unknown/unknown.
func (r *testRegistry) images(t *testing.T, text string, auth authn.Authenticator) map[string]v1.Image {
	t.Helper()
	index, err := remote.Index(r.tag(t, text), remote.WithAuth(auth))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]v1.Image{}
	for _, m := range manifest.Manifests {
		if all[m.Platform.String()], err = index.Image(m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// requireBasic lets one user in.
func requireBasic(user, password string) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}
