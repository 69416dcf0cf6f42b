package gateway

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// withJobs has the build b1 have three jobs, of which two have left dist, and one report.
func withJobs(w *world) {
	w.rooms.builds.build.Jobs = []*schedulerv1.Job{
		{Id: "b1-1", Name: "test", Title: "test (go: 1)"}, {Id: "b1-2", Name: "test", Title: "test (go: 2)"}, {Id: "b1-3", Name: "make", Title: "make"},
	}
	w.rooms.left.listed = nil
	for _, of := range []string{"b1-1 dist", "b1-2 dist", "b1-2 report", "b1-3 made", "b1-3 dist"} {
		id, name, _ := strings.Cut(of, " ")
		w.rooms.left.listed = append(w.rooms.left.listed, &schedulerv1.Artifact{BuildId: id, Name: name, CreateTime: at(80), ExpireTime: at(86480)})
	}
}

// What the page sends to browsers, programs fetch below /v1.
func TestContentOfAnArtifactIsSentToPrograms(t *testing.T) {
	w := withLeftovers(t)
	w.rooms.left.leaves("a file/run #1.log", "0123456789")
	w.rooms.left.leaves("index.html", "<script>alert(1)</script>")
	const file = "/v1/builds/b1/artifacts/dist/content?file=a%20file/run%20%231.log"
	whole := w.ask("GET", file)
	if h := whole.header; whole.code != 200 || whole.body != "0123456789" || whole.length != 10 || h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("Content-Disposition") != `inline; filename="run #1.log"` {
		t.Errorf("%d %q %v", whole.code, whole.body, h)
	}
	page := w.ask("GET", "/builds/b1/artifacts/dist/index.html")
	hostile := w.ask("GET", "/v1/builds/b1/artifacts/dist/content?file=index.html")
	for _, name := range []string{"Content-Type", "Content-Disposition", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control", "ETag", "Accept-Ranges", "Last-Modified"} {
		if value := hostile.header.Get(name); value == "" || value != page.header.Get(name) {
			t.Errorf("%s is %q, on the page %q", name, value, page.header.Get(name))
		}
	}
	if h := hostile.header; hostile.code != 200 || h.Get("Content-Type") != "application/octet-stream" || h.Get("Content-Security-Policy") != "sandbox; default-src 'none'" {
		t.Errorf("%d %v", hostile.code, h)
	}
	for _, c := range []struct {
		method       string
		header       []string
		code         int
		body, ranged string
	}{
		{"HEAD", nil, 200, "", ""},
		{"HEAD", []string{"Range", "bytes=1-3"}, 206, "", "bytes 1-3/10"},
		{"GET", []string{"Range", "bytes=1-3"}, 206, "123", "bytes 1-3/10"},
		{"GET", []string{"Range", "bytes=-2"}, 206, "89", "bytes 8-9/10"},
		{"GET", []string{"Range", "bytes=0-0,5-5"}, 200, "0123456789", ""},
		{"GET", []string{"If-None-Match", whole.header.Get("ETag")}, 304, "", ""},
	} {
		if got := w.ask(c.method, file, c.header...); got.code != c.code || got.body != c.body || got.header.Get("Content-Range") != c.ranged || got.err != nil {
			t.Errorf("%s %v: %d %q %v", c.method, c.header, got.code, got.body, got.header)
		}
	}
	if got := w.ask("GET", file, "Range", "bytes=10-"); got.code != 416 {
		t.Errorf("past its end: %d", got.code)
	}
	all := w.ask("GET", "/v1/builds/b1/artifacts/dist/content")
	if names := listed(t, all.body); all.code != 200 || all.header.Get("Content-Type") != "application/zip" || !strings.Contains(names, "run #1.log 10") {
		t.Errorf("as a zip: %d %v %s", all.code, all.header, names)
	}
	if got := w.ask("HEAD", "/v1/builds/b1/artifacts/dist/content"); got.code != 200 || got.header.Get("Content-Disposition") != "attachment; filename=dist.zip" {
		t.Errorf("the headers of a zip: %d %v", got.code, got.header)
	}
}

func TestJobsWhoseArtifactsAreCalledAlikeAreToldApart(t *testing.T) {
	w := withLeftovers(t)
	withJobs(w)
	w.rooms.left.leaves("a", "1")
	for query, sends := range map[string]string{
		"b1/artifacts/report/content": "b1-2", "b1/artifacts/made/content": "b1-3",
		"b1/artifacts/dist/content?job=make": "b1-3", "b1/artifacts/dist/content?job=test%20(go:%202)": "b1-2",
		"b1-1/artifacts/dist/content": "b1-1", "b1/artifacts/report/content?job=test": "b1-2",
	} {
		got := w.ask("GET", "/v1/builds/"+query)
		if of := w.rooms.left.sent.Load(); got.code != 200 || of != sends {
			t.Errorf("%s: %d, of %s, want that of %s: %s", query, got.code, of, sends, got.body)
		}
	}
	const jobs = "test (go: 1), test (go: 2), make"
	for query, says := range map[string]string{
		"dist/content":              `"code":3,"message":"several jobs have left dist: ask with job=, which is one of ` + jobs,
		"dist/content?job=test":     `"code":3,"message":"several jobs have left dist: ask with job=, which is one of ` + jobs,
		"dist/content?job=lint":     `"code":5,"message":"no job lint has left dist: these have, ` + jobs,
		"report/content?job=make":   `"code":5,"message":"no job make has left report: these have, test (go: 2)`,
		"nothing/content?job=make":  `"code":5,"message":"there is no such artifact: `,
		"nothing/content":           `"code":5,"message":"there is no such artifact: `,
		"dist/content?job=b1-1%00x": `"code":5,"message":"no job b1-1\u0000x has left dist: `,
	} {
		got := w.ask("GET", "/v1/builds/b1/artifacts/"+query)
		if (got.code != 400 && got.code != 404) || got.header.Get("Content-Type") != "application/json" || !strings.Contains(got.body, says) {
			t.Errorf("%s: %d %s", query, got.code, got.body)
		}
	}
}

// Programs are told in JSON.
func TestContentThatIsNotSent(t *testing.T) {
	w := withLeftovers(t)
	w.rooms.left.leaves("a.bin", strings.Repeat("x", 100_000))
	w.rooms.left.adds(schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK, "link", "/etc/passwd")
	const path = "/v1/builds/b1/artifacts/dist/content"
	says := func(method, path string, code int, want string, header ...string) {
		t.Helper()
		got := w.ask(method, path, header...)
		if got.code != code || got.header.Get("Content-Type") != "application/json" || !strings.Contains(got.body, want) || got.err != nil {
			t.Errorf("%s %s: %d %v %s", method, path, got.code, got.header, got.body)
		}
	}
	says("GET", "/v1/builds/none/artifacts/dist/content", 404, `"code":5,"message":"no build none"`)
	says("GET", path+"?file=b", 404, `"code":5,"message":"there is no such file: artifact dist has no file b"`)
	says("GET", path+"?file=b", 404, `"reason":"NOT_FOUND","domain":"forge"`)
	says("GET", "/v1/builds/b1/artifacts/none/content", 404, `"reason":"NOT_FOUND","domain":"forge"`)
	says("GET", path+"?file=a.bin", 416, `"code":11,"message":"there is no such range: the file has 100000 bytes"`, "Range", "bytes=100000-")
	says("GET", path+"?file=a.bin", 416, `"reason":"OUT_OF_RANGE"`, "Range", "bytes=no")
	says("GET", path+"?file=../a.bin", 404, `"code":5`)
	says("GET", path+"?file=link", 404, "it leads to /etc/passwd")
	says("POST", path, 404, "there is nothing at "+path)
	w.rooms.left.cut.Store(1)
	says("GET", path+"?file=a.bin", 500, `"code":15,"message":"this artifact is broken: `)
	w.rooms.left.cut.Store(50_000)
	if got := w.ask("GET", path+"?file=a.bin"); !isCut(got.err) {
		t.Errorf("broken in its middle: %d, %d bytes, %v", got.code, len(got.body), got.err)
	}
	w.rooms.left.err = fault.New(fault.Unavailable, "the scheduler is away")
	says("GET", path, 503, `"code":14`)
	if got := w.ask("GET", path); got.header.Get("Retry-After") == "" {
		t.Errorf("it says not when to come again: %v", got.header)
	}
}

// personalToken is one that somebody makes on the page of their account.
func (w *signIns) personalToken(who func(*http.Request), csrf string) string {
	w.t.Helper()
	_, text := w.as(who, http.MethodPost, "/account/tokens", url.Values{"csrf": {csrf}, "name": {"script"}, "days": {"7"}})
	found := regexp.MustCompile(`<pre id="secret">(forge_pat_\w+)</pre>`).FindStringSubmatch(text)
	if found == nil {
		w.t.Fatalf("no token is made:\n%s", text)
	}
	return found[1]
}

// The rules are those of the page.
func TestWhoFetchesContent(t *testing.T) {
	w := newSignIns(t, nil)
	w.rooms.left.listed = []*schedulerv1.Artifact{{BuildId: "b1", Name: "dist", CreateTime: at(80), ExpireTime: at(86480)}}
	w.rooms.left.leaves("a.txt", "what was left")
	stan, stansCSRF := w.signIn("stan")
	rita, ritasCSRF := w.signIn("rita")
	stansToken, ritasToken := w.personalToken(stan, stansCSRF), w.personalToken(rita, ritasCSRF)
	for _, path := range []string{"/builds/b1/artifacts/dist/a.txt", "/v1/builds/b1/artifacts/dist/content?file=a.txt", "/v1/builds/b1/artifacts/dist/content"} {
		for name, c := range map[string]struct {
			who  func(*http.Request)
			code int
		}{
			"a stranger": {nil, 401}, "a wrong token": {bearer("wrong"), 401}, "a personal token that is none": {bearer("forge_pat_x"), 401},
			"a token of some repository": {bearer("forge_repo_x"), 401}, "stan": {stan, 403}, "stan, by a token": {bearer(stansToken), 403},
			"rita, by a token": {bearer(ritasToken), 200}, "the admin": {bearer(adminToken), 200},
		} {
			answer, text := w.as(c.who, http.MethodGet, path, nil)
			if answer.StatusCode != c.code || c.code != 200 && strings.Contains(text, "what was left") {
				t.Errorf("%s by %s: %s\n%s", path, name, answer.Status, text)
			}
		}
	}
}

// The room for differences is for who is known: not for whoever writes something into a
// header.
func TestADifferenceOfAStrangerIsNotRead(t *testing.T) {
	w := newSignIns(t, nil)
	for name, who := range map[string]func(*http.Request){
		"nobody": nil, "a wrong token": bearer("wrong"), "what looks like a repository's token": bearer("forge_repo_x"),
		"no token at all": func(r *http.Request) { r.Header.Set("Authorization", "x y") },
	} {
		answer, text := w.as(who, http.MethodPost, "/v1/builds:remote", nil)
		if answer.StatusCode != http.StatusUnauthorized || !strings.Contains(text, "sign in by forge login") {
			t.Errorf("%s: %s\n%s", name, answer.Status, text)
		}
	}
}
