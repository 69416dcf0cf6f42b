package wire_test

import (
	"archive/zip"
	"bytes"
	"cmp"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
)

// What a build has left reaches people by the verbs, the pages and as a zip; what it
// has cached is listed and deleted.
func TestWhatABuildKeepsIsListedFetchedAndDeleted(t *testing.T) {
	eachDeployment(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{
			".forge.yml": lines(
				"image: busybox", "jobs:",
				"  make:", "    execute: ['mkdir -p dist/sub; echo made >dist/sub/program; chmod 755 dist/sub/program; ln dist/sub/program again; echo log >run.log']",
				"    artifacts: ['dist/**', again, {name: logs, paths: ['*.log'], keep: 2d}]", "    cache: {key: made, paths: dist}",
			),
		})
		w.deploy(t, d)
		_, sha := w.propose(t, "good", githubsim.Commit{Message: "Good", Files: map[string]string{"a": "1\n"}})
		job := w.shows(t, sha, "forge/test/make", "success").TargetURL
		whole := w.shows(t, sha, "forge/test", "success").TargetURL
		id := whole[strings.LastIndex(whole, "/")+1:]
		at := "--grpc-address=" + cmp.Or(w.apart["scheduler"], w.grpc)

		w.says(t, "logs  1      4 B ", "artifacts", "list", id, at)
		w.says(t, "make  1      5 B ", "artifacts", "list", id+"/make", at)
		var list schedulerv1.ListArtifactsResponse
		if err := protojson.Unmarshal([]byte(w.says(t, `"name": "make"`, "artifacts", "list", id, "--json", at)), &list); err != nil || len(list.GetArtifacts()) != 2 {
			t.Errorf("as JSON: %v, %v", &list, err)
		}
		into := filepath.Join(w.dir, "into")
		w.says(t, "make: 1 file, 5 B, in ", "artifacts", "get", id, "--into="+into, at)
		program, err := os.Stat(filepath.Join(into, "make/dist/sub/program"))
		if err != nil || program.Mode() != 0o755 {
			t.Errorf("the program: %v, %v", program, err)
		}
		for file, want := range map[string]string{"make/again": "made\n", "logs/run.log": "log\n"} {
			if content, err := os.ReadFile(filepath.Join(into, file)); err != nil || string(content) != want {
				t.Errorf("%s: %q, %v", file, content, err)
			}
		}
		if out := w.says(t, "made", "artifacts", "get", id, "make", "--file=again", "-o", "-", at); out != "made\n" {
			t.Errorf("printed %q", out)
		}

		if code, page := w.fetch(t, whole, ""); code != http.StatusOK || !strings.Contains(page, "logs</a>") || !strings.Contains(page, "of make<") {
			t.Errorf("the page: %d %s", code, page)
		}
		if code, page := w.fetch(t, job+"/artifacts/make/", ""); code != http.StatusOK || !strings.Contains(page, "dist/sub/program</a>") {
			t.Errorf("the page of the artifact: %d %s", code, page)
		}
		if code, part := w.fetch(t, job+"/artifacts/make/again", "bytes=1-2"); code != http.StatusPartialContent || part != "ad" {
			t.Errorf("a part: %d %q", code, part)
		}
		_, all := w.fetch(t, job+"/artifacts/make", "")
		archive, err := zip.NewReader(strings.NewReader(all), int64(len(all)))
		if err != nil {
			t.Fatal(err)
		}
		file, err := archive.Open("again")
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(file); err != nil || !bytes.Equal(content, []byte("made\n")) {
			t.Errorf("in the zip: %q, %v", content, err)
		}

		name := owner + "/" + repo
		w.says(t, "made  pull/1  1 ", "caches", "--repo="+name, at)
		w.says(t, "1 cache of "+name+" deleted", "caches", "delete", "ma", "--repo="+name, at)
		w.says(t, "no caches", "caches", "list", at)
		for want, args := range map[string][]string{
			"no build nope":                      {"artifacts", "list", "nope", at},
			"has no artifact dist: it has ":      {"artifacts", "get", id, "dist", at},
			"it is there already: --force":       {"artifacts", "get", id, "--into=" + into, at},
			"which caches?":                      {"caches", "delete", "--repo=" + name, at},
			"has no such cache: see forge cache": {"caches", "delete", "--all", "--repo=" + name, at},
		} {
			if out, err := w.verb(t, args...); err == nil || !strings.Contains(out, want) {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		}
	})
}

// fetch fetches a page, or a range of it.
func (w *world) fetch(t *testing.T, url, ranges string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}
