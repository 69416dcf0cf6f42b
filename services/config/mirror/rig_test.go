package mirror_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// rig is a server with one repository, and the mirrors of it.
type rig struct {
	*mirror.Mirrors
	t      *testing.T
	dir    string // of the mirrors
	work   string // a clone where commits are made
	bare   string // what is served
	server *httptest.Server

	fetches atomic.Int32
	refuse  atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	token   atomic.Value // that the server takes
	given   atomic.Value // that config has
	wrap    atomic.Pointer[func(http.ResponseWriter, *http.Request) http.ResponseWriter]
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), work: t.TempDir(), bare: filepath.Join(t.TempDir(), "cat.git")}
	r.token.Store("good")
	r.given.Store("good")
	r.git("init", "-q", "-b", "main")
	run(t, "", "git", "init", "-q", "--bare", "-b", "main", r.bare)
	for _, setting := range []string{"uploadpack.allowAnySHA1InWant", "http.receivepack"} {
		run(t, r.bare, "git", "config", setting, "true")
	}
	backend := strings.TrimSpace(run(t, "", "git", "--exec-path")) + "/git-http-backend"
	handler := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.bare), "GIT_HTTP_EXPORT_ALL=1"}, InheritEnv: []string{"PATH"}}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if wrap := r.wrap.Load(); wrap != nil {
			w = (*wrap)(w, request)
		}
		if refuse := r.refuse.Load(); refuse != nil && (*refuse)(w, request) {
			return
		}
		if user, password, _ := request.BasicAuth(); user != "x-access-token" || password != r.token.Load() {
			w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.HasSuffix(request.URL.Path, "/git-upload-pack") {
			body, err := io.ReadAll(request.Body)
			if err != nil {
				return
			}
			if bytes.Contains(body, []byte("command=fetch")) {
				r.fetches.Add(1)
			}
			request.Body = io.NopCloser(bytes.NewReader(body))
			request.ContentLength = int64(len(body))
		}
		if protocol := request.Header.Get("Git-Protocol"); protocol != "" {
			one := *handler
			one.Env = append(slices.Clone(handler.Env), "GIT_PROTOCOL="+protocol)
			one.ServeHTTP(w, request)
			return
		}
		handler.ServeHTTP(w, request)
	}))
	t.Cleanup(r.server.Close)
	r.open(1 << 30)
	return r
}

func (r *rig) open(maxBytes int64) {
	r.openWith(mirror.Config{MaxBytes: maxBytes, Log: kittest.Log(r.t)})
}

func (r *rig) openWith(c mirror.Config) {
	r.t.Helper()
	c.Dir = r.dir
	mirrors, err := mirror.New(r.t.Context(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Mirrors = mirrors
}

func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=ada", "GIT_AUTHOR_EMAIL=ada@example.com",
		"GIT_COMMITTER_NAME=ada", "GIT_COMMITTER_EMAIL=ada@example.com", "LC_ALL=C")
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, output)
	}
	return string(output)
}

// git runs git where commits are made.
func (r *rig) git(args ...string) string {
	r.t.Helper()
	return strings.TrimSpace(run(r.t, r.work, "git", args...))
}

// commit commits files and pushes all there is.
func (r *rig) commit(files map[string]string) (sha string) {
	r.t.Helper()
	for name, content := range files {
		path := filepath.Join(r.work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", "a change")
	r.push()
	return r.git("rev-parse", "HEAD")
}

func (r *rig) push() {
	r.t.Helper()
	r.git("push", "-q", "--force", r.bare, "--all")
	r.git("push", "-q", "--force", r.bare, "--tags")
}

func (r *rig) remote() mirror.Remote {
	return mirror.Remote{
		ID: 7, URL: r.server.URL + "/cat.git", Noun: "octo/cat",
		Token:    func(context.Context) (string, error) { return r.given.Load().(string), nil },
		Rejected: func(string) { r.given.Store("good") },
	}
}

// checkout checks out as a build does, and returns the folder. It is the same where the
// files are taken from the pack.
func (r *rig) checkout(want mirror.Want) (string, error) {
	r.t.Helper()
	dir, err := r.checkoutOnce(want)
	if err != nil {
		return "", err
	}
	want.Packed = true
	packed, err := r.checkoutOnce(want)
	if err == nil {
		run(r.t, "", "diff", "-r", "--no-dereference", dir, packed)
	}
	return packed, err
}

func (r *rig) checkoutOnce(want mirror.Want) (string, error) {
	r.t.Helper()
	var stream bytes.Buffer
	if err := r.Checkout(r.t.Context(), r.remote(), want, &stream); err != nil {
		return "", err
	}
	unzipped, err := zstd.NewReader(&stream)
	if err != nil {
		r.t.Fatal(err)
	}
	defer unzipped.Close()
	return unpack(r.t, unzipped), nil
}

// unpack is what forgexec does, without its care.
func unpack(t *testing.T, stream io.Reader) string {
	t.Helper()
	dir := t.TempDir()
	packed := map[string]string{} // objects of files
	for archive := tar.NewReader(stream); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			if len(packed) > 0 {
				t.Fatalf("no pack has %v", packed)
			}
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, strings.TrimPrefix(strings.Replace(header.Name, "git/", ".git/", 1), "tree/"))
		if folder, isGitFile := strings.CutPrefix(header.Name, "gitfile/"); isGitFile {
			path = filepath.Join(dir, folder, ".git")
		}
		if name, isTree := strings.CutPrefix(header.Name, "tree/"); isTree {
			path = filepath.Join(dir, name)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(header.Linkname, path)
		default:
			var content []byte
			if content, err = io.ReadAll(archive); err == nil {
				err = os.WriteFile(path, content, os.FileMode(header.Mode))
			}
			if header.Linkname != "" {
				packed[path] = header.Linkname
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if repository, name, _ := strings.Cut(path, "/objects/pack/"); strings.HasSuffix(name, ".pack") {
			for path, object := range packed {
				content := run(t, "", "git", "--git-dir="+repository, "cat-file", "blob", object)
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil { // which keeps its mode
					t.Fatal(err)
				}
			}
			clear(packed)
		}
	}
}

func (r *rig) mustCheckout(want mirror.Want) string {
	r.t.Helper()
	dir, err := r.checkout(want)
	if err != nil {
		r.t.Fatal(err)
	}
	return dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(run(t, dir, "git", args...))
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
