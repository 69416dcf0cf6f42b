package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// withLeftovers is a gateway in front of a build b1 that has left the artifact dist.
func withLeftovers(t *testing.T) *world {
	t.Helper()
	w := onSQLite(t, nil)
	w.rooms.builds.build = failedBuild()
	w.rooms.left.listed = []*schedulerv1.Artifact{
		{BuildId: "b1", Name: "dist", Size: 5000, Files: 3, CreateTime: at(80), ExpireTime: at(86480)},
		{BuildId: "b1-1", Name: "other", CreateTime: at(80), ExpireTime: at(86480)},
	}
	return w
}

// ask asks for a path with headers; err of the answer is that it is not whole.
func (w *world) ask(method, path string, header ...string) asked {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.http.URL+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		req.Header.Set(header[n], header[n+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return asked{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return asked{resp.StatusCode, resp.Header, resp.ContentLength, string(body), err}
}

type asked struct {
	code   int
	header http.Header
	length int64
	body   string
	err    error
}

// isCut is that the connection ended before the answer did.
func isCut(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func TestFileOfAnArtifactIsSentWholeOrInParts(t *testing.T) {
	w := withLeftovers(t)
	text := strings.Repeat("0123456789", 5000)
	w.rooms.left.leaves("a file & more/run #1.log", text)
	w.rooms.left.leaves("empty.txt", "")
	w.rooms.left.adds(schedulerv1.FileEntry_TYPE_HARD_LINK, "again.log", "a file & more/run #1.log")
	const path = "/builds/b1/artifacts/dist/a%20file%20&%20more/run%20%231.log"
	whole := w.ask("GET", path)
	etag := whole.header.Get("ETag")
	if whole.code != 200 || whole.body != text || whole.err != nil || whole.length != 50_000 || etag == "" || whole.header.Get("Last-Modified") == "" {
		t.Errorf("%d, %d bytes, %v, %v", whole.code, len(whole.body), whole.err, whole.header)
	}
	for _, c := range []struct {
		method, path string
		header       []string
		code         int
		body, ranged string
		length       int64
	}{
		{"HEAD", path, nil, 200, "", "", 50_000},
		{"HEAD", path, []string{"Range", "bytes=1-3"}, 206, "", "bytes 1-3/50000", 3},
		{"GET", path, []string{"Range", "bytes=0-0"}, 206, "0", "bytes 0-0/50000", 1},
		{"GET", path, []string{"Range", "bytes=12345-12348"}, 206, "5678", "bytes 12345-12348/50000", 4},
		{"GET", path, []string{"Range", "bytes=49997-"}, 206, "789", "bytes 49997-49999/50000", 3},
		{"GET", path, []string{"Range", "bytes=-2"}, 206, "89", "bytes 49998-49999/50000", 2},
		{"GET", path, []string{"Range", "bytes=49999-90000"}, 206, "9", "bytes 49999-49999/50000", 1},
		{"GET", path, []string{"Range", "bytes=9990-10009"}, 206, "01234567890123456789", "bytes 9990-10009/50000", 20},
		{"GET", path, []string{"Range", "bytes=50000-"}, 416, "", "bytes */50000", -1},
		{"GET", path, []string{"Range", "bytes=0-0,5-5"}, 200, text, "", 50_000},
		{"GET", path, []string{"Range", "bytes=5-7", "If-Range", etag}, 206, "567", "bytes 5-7/50000", 3},
		{"GET", path, []string{"Range", "bytes=5-7", "If-Range", `"of before"`}, 200, text, "", 50_000},
		{"GET", path, []string{"If-None-Match", etag}, 304, "", "", -1},
		{"GET", "/builds/b1/artifacts/dist/again.log", []string{"Range", "bytes=5-7"}, 206, "567", "bytes 5-7/50000", 3},
		{"GET", "/builds/b1/artifacts/dist/empty.txt", nil, 200, "", "", 0},
		{"GET", "/builds/b1/artifacts/dist/empty.txt", []string{"Range", "bytes=0-"}, 200, "", "", 0},
	} {
		got := w.ask(c.method, c.path, c.header...)
		if c.length >= 0 && (got.body != c.body || got.length != c.length) || got.code != c.code || got.header.Get("Content-Range") != c.ranged || got.err != nil {
			t.Errorf("%s %s %v: %d, %d bytes of %d, %v, %v", c.method, c.path, c.header, got.code, len(got.body), got.length, got.err, got.header)
		}
	}
	w.rooms.left.listed[0].CreateTime = at(90)
	if got := w.ask("HEAD", path); got.header.Get("ETag") == etag {
		t.Error("another attempt's artifact has the same ETag")
	}
}

// A browser runs nothing of what a build has left in Forge's origin, neither as a
// page nor as a script of one.
func TestNothingThatABuildHasLeftIsRun(t *testing.T) {
	w := withLeftovers(t)
	for name, want := range map[string]string{
		"index.html": "attachment", "INDEX.HTM": "attachment", "a.xhtml": "attachment", "a.svg": "attachment", "a.xml": "attachment", "a.js": "attachment",
		"a.mjs": "attachment", "a.css": "attachment", "a.wasm": "attachment", "a.pdf": "attachment", "program": "attachment", "a.html.": "attachment", "a.mht": "attachment", "a.swf": "attachment",
		"a.txt": "inline", "go.LOG": "inline", "a.json": "inline", "a.png": "inline", "a.html.txt": "inline",
	} {
		w.rooms.left.leaves(name, "<script>alert(1)</script>")
		got := w.ask("GET", "/builds/b1/artifacts/dist/"+name)
		h := got.header
		if got.code != 200 || got.err != nil || !strings.HasPrefix(h.Get("Content-Disposition"), want+"; filename=") {
			t.Errorf("%s: %d, %v, %v", name, got.code, got.err, h)
		}
		kind := h.Get("Content-Type")
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") != "sandbox; default-src 'none'" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", name, h)
		}
		for _, run := range []string{"html", "xml", "svg", "script", "css", "mhtml", "flash"} {
			if strings.Contains(kind, run) {
				t.Errorf("%s is sent as %s", name, kind)
			}
		}
		if want == "inline" && kind != "text/plain; charset=utf-8" && !strings.HasPrefix(kind, "image/") {
			t.Errorf("%s is shown as %s", name, kind)
		}
	}
	evil := "x\"; filename=evil.html\r\nSet-Cookie: a=b"
	w.rooms.left.leaves(evil, "")
	got := w.ask("GET", "/builds/b1/artifacts/dist/x%22;%20filename=evil.html%0D%0ASet-Cookie:%20a=b")
	if name := got.header.Get("Content-Disposition"); got.code != 200 || got.header.Get("Set-Cookie") != "" || !strings.HasPrefix(name, "attachment; filename*=utf-8''x%22%3B%20filename%3Devil.html%0D%0A") {
		t.Errorf("%d %v", got.code, got.header)
	}
}

func TestArtifactsThatAreNotThere(t *testing.T) {
	w := withLeftovers(t)
	w.rooms.left.leaves("a", "1")
	w.rooms.left.adds(schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK, "link", "/etc/<b>passwd")
	w.rooms.left.adds(schedulerv1.FileEntry_TYPE_HARD_LINK, "gone", "nowhere")
	for path, want := range map[string]string{
		"/builds/none/artifacts/dist":        "There is no such build",
		"/builds/none/artifacts/dist/a":      "There is no such build",
		"/builds/none/artifacts/dist/":       "There is no such build",
		"/builds/b1/artifacts/nope":          "There is no such artifact",
		"/builds/b1/artifacts/nope/a":        "There is no such artifact",
		"/builds/b1/artifacts/other":         "There is no such artifact", // that is b1-1's
		"/builds/b1/artifacts/dist/b":        "There is no such file",
		"/builds/b1/artifacts/dist/gone":     "There is no such file",
		"/builds/b1/artifacts/dist/%2E%2E/a": "There is no such file",
		"/builds/b1/artifacts/dist/link":     "It leads to /etc/&lt;b&gt;passwd.",
	} {
		got := w.ask("GET", path)
		if got.code != 404 || got.err != nil || !strings.Contains(got.body, want) || got.header.Get("Content-Security-Policy") != webPolicy {
			t.Errorf("%s: %d %v %s", path, got.code, got.err, got.body)
		}
	}
	w.rooms.left.err = fault.New(fault.Unavailable, "connection refused")
	for _, path := range []string{"/builds/b1/artifacts/dist", "/builds/b1/artifacts/dist/a", "/builds/b1/artifacts/dist/"} {
		if code, body := w.get(path); code != 503 || !strings.Contains(body, "cannot be shown right now") || strings.Contains(body, "refused") {
			t.Errorf("%s without a scheduler: %d %s", path, code, body)
		}
	}
	if code, body := w.get("/builds/b1"); code != 200 || !strings.Contains(body, "Artifacts cannot be listed right now") || !strings.Contains(body, "Mend the door") {
		t.Errorf("the page of the build: %d %s", code, body)
	}
}

// What is found broken after a part was sent cuts the connection: no client takes the
// part for the whole.
func TestBrokenArtifactIsNeverSentAsAWhole(t *testing.T) {
	w := withLeftovers(t)
	w.rooms.left.leaves("a.bin", strings.Repeat("x", 100_000))
	w.rooms.left.cut.Store(50_000)
	for path, header := range map[string][]string{
		"/builds/b1/artifacts/dist":        nil,
		"/builds/b1/artifacts/dist/a.bin":  nil,
		"/builds/b1/artifacts/dist/a.bin?": {"Range", "bytes=20000-80000"},
	} {
		got := w.ask("GET", path, header...)
		if !isCut(got.err) {
			t.Errorf("%s: %d, %d bytes, error %v", path, got.code, len(got.body), got.err)
		}
	}
	if got := w.ask("GET", "/builds/b1/artifacts/dist/a.bin", "Range", "bytes=0-9999"); got.code != 206 || len(got.body) != 10_000 || got.err != nil {
		t.Errorf("what is whole of it: %d, %d bytes, %v", got.code, len(got.body), got.err)
	}
	w.rooms.left.cut.Store(1)
	if got := w.ask("GET", "/builds/b1/artifacts/dist/a.bin"); got.code != 500 || !strings.Contains(got.body, "This artifact is broken") || got.err != nil {
		t.Errorf("broken from its first byte: %d %s %v", got.code, got.body, got.err)
	}
}

func TestDownloadsAreBounded(t *testing.T) {
	const mostDownloads = 8 // of zips, at once
	w := withLeftovers(t)
	w.rooms.left.leaves("a.txt", strings.Repeat("x", 100))
	w.rooms.left.hold = make(chan struct{})
	ended := make(chan string, mostDownloads)
	for range mostDownloads {
		go func() {
			resp, err := http.Get(w.http.URL + "/builds/b1/artifacts/dist")
			if err != nil {
				ended <- err.Error()
				return
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			ended <- fmt.Sprint(resp.StatusCode, len(body) > 100, err)
		}()
	}
	kittest.Eventually(t, patience, func() error {
		if n := w.rooms.left.calls.Load(); n < mostDownloads {
			return fmt.Errorf("%d downloads have begun", n)
		}
		return nil
	})
	got := w.ask("GET", "/builds/b1/artifacts/dist")
	if got.code != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "Too many downloads at once") {
		t.Errorf("one more: %d %s", got.code, got.body)
	}
	if got := w.ask("HEAD", "/builds/b1/artifacts/dist"); got.code != 200 || got.header.Get("Content-Type") != "application/zip" || got.err != nil {
		t.Errorf("asking for its headers: %d %v %v", got.code, got.header, got.err)
	}
	close(w.rooms.left.hold)
	for range mostDownloads {
		if got := <-ended; got != "200 true <nil>" {
			t.Errorf("a download: %s", got)
		}
	}
	if got := w.ask("GET", "/builds/b1/artifacts/dist"); got.code != 200 {
		t.Errorf("afterwards: %d", got.code)
	}
}
