package mirror_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
)

// library is another repository of the server, with one commit.
func (r *rig) library(name string, files, modules map[string]string) (sha string) {
	r.t.Helper()
	other := &rig{t: r.t, work: r.t.TempDir(), bare: filepath.Join(filepath.Dir(r.bare), name+".git")}
	run(r.t, "", "git", "init", "-q", "--bare", "-b", "main", other.bare)
	run(r.t, other.bare, "git", "config", "uploadpack.allowAnySHA1InWant", "true")
	other.git("init", "-q", "-b", "main")
	return other.withModules(files, modules)
}

// withModules commits files, and submodules by "path url" and their commit.
func (r *rig) withModules(files, modules map[string]string) (sha string) {
	r.t.Helper()
	var gitmodules strings.Builder
	for at, commit := range modules {
		folder, address, _ := strings.Cut(at, " ")
		fmt.Fprintf(&gitmodules, "[submodule %q]\n\tpath = %s\n\turl = %s\n", "the "+folder, folder, address)
		r.git("update-index", "--add", "--cacheinfo", "160000,"+commit+","+folder)
		if err := os.MkdirAll(filepath.Join(r.work, folder), 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	if len(modules) > 0 {
		if err := os.WriteFile(filepath.Join(r.work, ".gitmodules"), []byte(gitmodules.String()), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(r.work, name), []byte(content), 0o600); err != nil {
			r.t.Fatal(err)
		}
		r.git("add", name)
	}
	if len(modules) > 0 {
		r.git("add", ".gitmodules")
	}
	r.git("commit", "-q", "-m", "a change")
	r.push()
	return r.git("rev-parse", "HEAD")
}

// resolver knows the repositories of this server.
func (r *rig) resolver(ids map[string]int64) func(context.Context, string) (mirror.Remote, error) {
	return func(_ context.Context, address string) (mirror.Remote, error) {
		name, isOurs := strings.CutPrefix(strings.TrimSuffix(address, ".git"), r.server.URL+"/")
		if !isOurs || ids[name] == 0 {
			return mirror.Remote{}, fault.Newf(fault.Denied, "%s is not for this build", address)
		}
		remote := r.remote()
		remote.ID, remote.URL, remote.Noun = ids[name], r.server.URL+"/"+name+".git", "octo/"+name
		return remote, nil
	}
}

func TestSubmodulesHaveTheirFiles(t *testing.T) {
	r := newRig(t)
	inner := r.library("inner", map[string]string{"deep": "deep\n"}, nil)
	lib := r.library("lib", map[string]string{"lib": "lib\n"}, map[string]string{"third/inner ../inner.git": inner})
	sha := r.withModules(map[string]string{"a": "1\n"}, map[string]string{"vendor/lib " + r.server.URL + "/lib": lib})
	dir := r.mustCheckout(mirror.Want{SHA: sha, Submodule: r.resolver(map[string]int64{"lib": 8, "inner": 9})})
	for name, want := range map[string]string{"a": "1\n", "vendor/lib/lib": "lib\n", "vendor/lib/third/inner/deep": "deep\n"} {
		if got := read(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, at := range []string{".", "vendor/lib", "vendor/lib/third/inner"} {
		if status := git(t, filepath.Join(dir, at), "status", "--porcelain"); status != "" {
			t.Errorf("%s: status %q", at, status)
		}
	}
	if got := git(t, dir, "submodule", "status", "--recursive"); !strings.Contains(got, lib+" vendor/lib") || !strings.Contains(got, inner+" vendor/lib/third/inner") || strings.ContainsAny(got, "-+U") {
		t.Errorf("submodules: %q", got)
	}
	bare := r.mustCheckout(mirror.Want{SHA: sha})
	if left, err := os.ReadDir(filepath.Join(bare, "vendor/lib")); err != nil || len(left) != 0 {
		t.Errorf("not asked for: %v, %v", left, err)
	}
	_, err := r.checkout(mirror.Want{SHA: sha, Submodule: r.resolver(map[string]int64{"lib": 8})})
	if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "submodule vendor/lib: submodule vendor/lib/third/inner: ") {
		t.Errorf("got %v", err)
	}
}

func TestSubmodulesThatWantEachOtherEnd(t *testing.T) {
	r := newRig(t)
	first := r.commit(map[string]string{"a": "1\n"})
	sha := r.withModules(nil, map[string]string{"self ./": first, "nowhere ../gone.git": first})
	_, err := r.checkout(mirror.Want{SHA: sha, Submodule: r.resolver(map[string]int64{"cat": 7, "gone": 10})})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "submodule nowhere: octo/gone") {
		t.Errorf("got %v", err)
	}
	many := map[string]string{}
	for i := range 101 {
		many[fmt.Sprintf("m%d ./", i)] = first
	}
	sha = r.withModules(nil, many)
	_, err = r.checkout(mirror.Want{SHA: sha, Submodule: r.resolver(map[string]int64{"cat": 7})})
	if !fault.Is(err, fault.Exhausted) {
		t.Errorf("got %v", err)
	}
}

// lfs serves objects by their name, as GitHub does.
func (r *rig) lfs(objects map[string]string) (fetched *atomic.Int32) {
	fetched = &atomic.Int32{}
	serve := func(w http.ResponseWriter, request *http.Request) bool {
		switch {
		case strings.HasSuffix(request.URL.Path, "/info/lfs/objects/batch"):
			if _, password, _ := request.BasicAuth(); password != r.token.Load() {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			var asked struct {
				Objects []struct {
					OID  string `json:"oid"`
					Size int64  `json:"size"`
				} `json:"objects"`
			}
			if err := json.NewDecoder(request.Body).Decode(&asked); err != nil {
				r.t.Error(err)
			}
			var told []map[string]any
			for _, o := range asked.Objects {
				one := map[string]any{"oid": o.OID, "size": o.Size}
				if _, there := objects[o.OID]; there {
					one["actions"] = map[string]any{"download": map[string]any{"href": r.server.URL + "/media/" + o.OID, "header": map[string]string{"X-Signed": "yes"}}}
				} else {
					one["error"] = map[string]any{"code": 404, "message": "Object does not exist"}
				}
				told = append(told, one)
			}
			if err := json.NewEncoder(w).Encode(map[string]any{"objects": told}); err != nil {
				r.t.Error(err)
			}
		case strings.HasPrefix(request.URL.Path, "/media/"):
			if request.Header.Get("Authorization") != "" || request.Header.Get("X-Signed") != "yes" {
				r.t.Error("the token went along, or the header did not")
			}
			fetched.Add(1)
			_, _ = io.WriteString(w, objects[strings.TrimPrefix(request.URL.Path, "/media/")])
		default:
			return false
		}
		return true
	}
	r.refuse.Store(&serve)
	return fetched
}

func pointerTo(content string) (oid, pointer string) {
	sum := sha256.Sum256([]byte(content))
	oid = hex.EncodeToString(sum[:])
	return oid, fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(content))
}

func TestFilesOfLFSAreThere(t *testing.T) {
	r := newRig(t)
	content := strings.Repeat("large ", 10_000)
	oid, pointer := pointerTo(content)
	sha := r.commit(map[string]string{
		".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "a.bin": pointer, "b.bin": pointer, "plain.bin": "as it is\n", "other": pointer,
	})
	fetched := r.lfs(map[string]string{oid: content})
	for range 2 {
		dir := r.mustCheckout(mirror.Want{SHA: sha, LFS: true})
		for name, want := range map[string]string{"a.bin": content, "b.bin": content, "plain.bin": "as it is\n", "other": pointer} {
			if got := read(t, filepath.Join(dir, name)); got != want {
				t.Errorf("%s: %d bytes", name, len(got))
			}
		}
	}
	if n := fetched.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	if got := read(t, filepath.Join(r.mustCheckout(mirror.Want{SHA: sha}), "a.bin")); got != pointer {
		t.Errorf("not asked for: %q", got)
	}
}

func TestFilesThatLFSDoesNotHaveAreSaid(t *testing.T) {
	r := newRig(t)
	oid, pointer := pointerTo("content")
	sha := r.commit(map[string]string{".gitattributes": "*.bin filter=lfs\n", "a.bin": pointer})
	r.lfs(nil)
	if _, err := r.checkout(mirror.Want{SHA: sha, LFS: true}); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), oid) {
		t.Errorf("got %v", err)
	}
	r.lfs(map[string]string{oid: "CONTENT"})
	if _, err := r.checkout(mirror.Want{SHA: sha, LFS: true}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "other bytes") {
		t.Errorf("got %v", err)
	}
	r.lfs(map[string]string{oid: "content and more"})
	if _, err := r.checkout(mirror.Want{SHA: sha, LFS: true}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	r.lfs(map[string]string{oid: "content"})
	r.mustCheckout(mirror.Want{SHA: sha, LFS: true})
}
