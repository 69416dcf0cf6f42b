package kittest

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Registry serves one image as any name and tag but "absent".
type Registry struct {
	Server *httptest.Server
	// User and Password are asked for, if set.
	User, Password string
	// Tokens: a service of its own takes user and password, and gives a token for them.
	Tokens bool
	// Open: whatever is shown is taken.
	Open bool
	// Repeats what it was shown, where it refuses that.
	Repeats bool
	// Down: it answers, but not what it should.
	Down atomic.Bool
	// Limited: it wants fewer pulls, as Docker Hub says it.
	Limited atomic.Bool
	// Slow is how long it takes for each 64 KiB of a layer.
	Slow time.Duration
	// Manifests counts how often one was fetched.
	Manifests atomic.Int32
	Content   map[string][]byte // by digest
	Manifest  []byte
	Index     []byte // lists the manifest; nil: there is it alone
}

// The types of what it serves.
const (
	ManifestType = "application/vnd.docker.distribution.manifest.v2+json"
	IndexType    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// NewRegistry has one listen at an address of this host, "" for that of loopback, until the
// test ends.
func NewRegistry(t testing.TB, address, architecture string) *Registry {
	t.Helper()
	r := &Registry{Content: map[string][]byte{}}
	root := Busybox(t, rand.Text()) // which no image of this engine has
	var layer bytes.Buffer
	w := gzip.NewWriter(&layer)
	if _, err := w.Write(root); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	config := JSON(t, map[string]any{
		"architecture": architecture, "os": "linux", "config": map[string]any{"Env": []string{"PATH=/bin"}},
		// Each test's image is another one.
		"history": []any{map[string]any{"comment": t.Name()}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{Digest(root)}},
	})
	part := func(mediaType string, content []byte) map[string]any {
		r.Content[Digest(content)] = content
		return map[string]any{"mediaType": mediaType, "size": len(content), "digest": Digest(content)}
	}
	r.Manifest = JSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": ManifestType,
		"config": part("application/vnd.docker.container.image.v1+json", config),
		"layers": []any{part("application/vnd.docker.image.rootfs.diff.tar.gzip", layer.Bytes())},
	})
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(cmp.Or(address, "127.0.0.1"), "0"))
	if err != nil {
		t.Fatal(err)
	}
	r.Server = httptest.NewUnstartedServer(r)
	r.Server.Listener.Close() //nolint:errcheck // it is not used
	r.Server.Listener = lis
	r.Server.Start()
	t.Cleanup(r.Server.Close)
	return r
}

// Image is a name of its image.
func (r *Registry) Image(name string) string {
	return strings.TrimPrefix(r.Server.URL, "http://") + "/" + name
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	user, password, _ := request.BasicAuth()
	if r.Tokens && r.tokenService(w, request) {
		return
	}
	if bearer, ok := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer "); ok && r.Tokens {
		user, password, _ = strings.Cut(bearer, ":")
	}
	kind, digestOrTag := "", ""
	if parts := strings.Split(request.URL.Path, "/"); len(parts) > 4 { // /v2/NAME/KIND/DIGEST
		kind, digestOrTag = parts[len(parts)-2], parts[len(parts)-1]
	}
	content := r.Content[digestOrTag]
	switch {
	case r.Down.Load():
		http.Error(w, "maintenance", http.StatusServiceUnavailable)
		return
	case r.Limited.Load():
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte(`{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`))
		return
	case !r.Open && (user != r.User || password != r.Password):
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		if r.Tokens {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.Server.URL+`/token",service="test",scope="repository:octo/tools:pull"`)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		message := "authentication required"
		if r.Repeats {
			message += " " + request.Header.Get("Authorization") + " " + user + " " + password
		}
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"` + message + `"}]}`))
		return
	case kind == "manifests" && digestOrTag != "absent":
		r.Manifests.Add(1)
		content = r.Manifest
		w.Header().Set("Content-Type", ManifestType)
		if r.Index != nil && digestOrTag != Digest(r.Manifest) {
			content = r.Index
			w.Header().Set("Content-Type", IndexType)
		}
		w.Header().Set("Docker-Content-Digest", Digest(content))
	case kind == "manifests":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	for part := range slices.Chunk(content, 64<<10) {
		if len(content) > len(part) {
			time.Sleep(r.Slow)
		}
		_, _ = w.Write(part)
	}
}

// tokenService answers where a token is asked for: one is for whoever it was asked by.
func (r *Registry) tokenService(w http.ResponseWriter, request *http.Request) bool {
	if request.URL.Path != "/token" {
		return false
	}
	user, password, _ := request.BasicAuth()
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"token": %q, "expires_in": 300}`, user+":"+password) // of letters and digits, in tests
	return true
}

// Digest is that of some content.
func Digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

// JSON is v as that.
func JSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
