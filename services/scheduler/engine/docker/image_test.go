package docker_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// registry serves one image as any name and tag but "absent".
type registry struct {
	server *httptest.Server
	// user and password are asked for, if set.
	user, password string
	// down: it answers, but not what it should.
	down atomic.Bool
	// manifests counts how often one was fetched.
	manifests atomic.Int32
	content   map[string][]byte // by digest
	manifest  []byte
}

const manifestType = "application/vnd.docker.distribution.manifest.v2+json"

func newRegistry(t *testing.T, architecture string) *registry {
	t.Helper()
	r := &registry{content: map[string][]byte{}}
	root := busybox(t)
	var layer bytes.Buffer
	w := gzip.NewWriter(&layer)
	if _, err := w.Write(root); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	config := encode(t, map[string]any{
		"architecture": architecture, "os": "linux", "config": map[string]any{"Env": []string{"PATH=/bin"}},
		// Each test's image is another one.
		"history": []any{map[string]any{"comment": t.Name()}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{digest(root)}},
	})
	part := func(mediaType string, content []byte) map[string]any {
		r.content[digest(content)] = content
		return map[string]any{"mediaType": mediaType, "size": len(content), "digest": digest(content)}
	}
	r.manifest = encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": part("application/vnd.docker.container.image.v1+json", config),
		"layers": []any{part("application/vnd.docker.image.rootfs.diff.tar.gzip", layer.Bytes())},
	})
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *registry) image(name string) string {
	return strings.TrimPrefix(r.server.URL, "http://") + "/" + name
}

func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	user, password, _ := request.BasicAuth()
	kind, digestOrTag := "", ""
	if parts := strings.Split(request.URL.Path, "/"); len(parts) > 4 { // /v2/NAME/KIND/DIGEST
		kind, digestOrTag = parts[len(parts)-2], parts[len(parts)-1]
	}
	content := r.content[digestOrTag]
	switch {
	case r.down.Load():
		http.Error(w, "maintenance", http.StatusServiceUnavailable)
		return
	case user != r.user || password != r.password:
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
		return
	case kind == "manifests" && digestOrTag != "absent":
		r.manifests.Add(1)
		content = r.manifest
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Docker-Content-Digest", digest(content))
	case kind == "manifests":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = w.Write(content)
}

func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func encode(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestMissingImageIsPulledOnce(t *testing.T) {
	reg := newRegistry(t, runtime.GOARCH)
	r := newRig(t, docker.Config{})
	image := reg.image("octo/tools:1")
	r.images = append(r.images, image)
	name := r.start(t, r.spec(image))
	if out, _ := r.run(t, name, "echo hello"); out != "hello\n" {
		t.Errorf("got %q", out)
	}
	if env := strings.Join(r.inspect(t, name).Config.Env, "\n"); !strings.Contains(env, "FORGE_RUNNER_NOTICE=image "+image+" pulled in ") {
		t.Errorf("the build's log does not say so: %s", env)
	}
	once := reg.manifests.Load()
	r.start(t, r.spec(image))
	if twice := reg.manifests.Load(); once == 0 || twice != once {
		t.Errorf("manifests fetched: %d, then %d", once, twice)
	}
}

func TestImageIsPulledForEachBuildWhenAskedTo(t *testing.T) {
	reg := newRegistry(t, runtime.GOARCH)
	r := newRig(t, docker.Config{Pull: docker.PullAlways})
	image := reg.image("octo/tools:1")
	r.images = append(r.images, image)
	r.start(t, r.spec(image))
	once := reg.manifests.Load()
	r.start(t, r.spec(image))
	if twice := reg.manifests.Load(); once == 0 || twice <= once {
		t.Errorf("manifests fetched: %d, then %d", once, twice)
	}
}

func TestPrivateImageIsPulledWithTheCredentialsOfTheFile(t *testing.T) {
	reg := newRegistry(t, runtime.GOARCH)
	reg.user, reg.password = "octo", "s3cret"
	r := newRig(t, docker.Config{})
	image := reg.image("octo/tools:1")
	r.images = append(r.images, image)
	err := r.Start(t.Context(), r.spec(image))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "image "+image+" cannot be pulled: ") {
		t.Errorf("without credentials: %v", err)
	}
	login := func(password string) {
		auth := map[string]any{"username": "octo", "password": password}
		file := encode(t, map[string]any{"auths": map[string]any{strings.TrimPrefix(reg.server.URL, "http://"): auth}})
		if err := os.WriteFile(r.config.ConfigFile, file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login("wrong")
	if err := r.Start(t.Context(), r.spec(image)); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
	login("s3cret")
	r.start(t, r.spec(image))
}

func TestRefusalIsInvalidAndSilenceIsNot(t *testing.T) {
	reg, foreign, down := newRegistry(t, runtime.GOARCH), newRegistry(t, "riscv64"), newRegistry(t, runtime.GOARCH)
	down.down.Store(true)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, docker.Config{})
	r.images = append(r.images, foreign.image("octo/tools:1"))
	for _, c := range []struct {
		image   string
		invalid bool
		want    string
	}{
		{reg.image("octo/tools:absent"), true, "image " + reg.image("octo/tools:absent") + " cannot be pulled: manifest unknown"},
		{foreign.image("octo/tools:1"), true, "is for linux/riscv64, builds run on linux/" + runtime.GOARCH},
		{down.image("octo/tools:1"), false, "pull image " + down.image("octo/tools:1") + ": "},
		{gone.Addr().String() + "/octo/tools:1", false, "connection refused"},
	} {
		spec := r.spec(c.image)
		err := r.Start(t.Context(), spec)
		if err == nil || fault.Is(err, fault.Invalid) != c.invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.image, err, c.want)
		}
		t.Log(err)
		if left := r.left(t.Context(), t); left != "" {
			t.Errorf("%s: left %s", c.image, left)
		}
	}
}

func TestBrokenCredentialsFileIsNamed(t *testing.T) {
	r := newRig(t, docker.Config{})
	if err := os.WriteFile(r.config.ConfigFile, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := r.Start(t.Context(), r.spec("forge-test/absent:1"))
	if err == nil || fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), r.config.ConfigFile) {
		t.Errorf("got %v", err)
	}
}
