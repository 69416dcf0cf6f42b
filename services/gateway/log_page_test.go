package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// longLog is a build whose second step of three failed in the middle of its log, which
// has three lines for each number.
func longLog(lines int) (*schedulerv1.Build, string) {
	b := failedBuild()
	var log strings.Builder
	for step := range 3 {
		b.Steps[step].LogOffset = int64(log.Len())
		b.Steps[step].StartTime = at(int64(step))
		for n := range lines {
			fmt.Fprintf(&log, "step %d says %d\n", step+1, n+1)
		}
	}
	b.LogSize = int64(log.Len())
	return b, log.String()
}

var shownLine = regexp.MustCompile(`data-n="(\d+)"`)

// linesOf are the first and the last line that a page shows.
func linesOf(body string) string {
	all := shownLine.FindAllStringSubmatch(body, -1)
	if len(all) == 0 {
		return "none"
	}
	return all[0][1] + " to " + all[len(all)-1][1]
}

func TestLogOpensWhereItFailed(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log = longLog(1000)
	_, body := w.get("/builds/b1")
	if got := linesOf(body); got != "1641 to 2040" || !strings.Contains(body, `data-at="2000"`) || !strings.Contains(body, "step 2 says 1000") {
		t.Errorf("it shows %s", got)
	}
	for link, want := range map[string]string{"the first": "1 to 200", "earlier": "1242 to 1641", "later": "2041 to 2440", "the last": "2601 to 3000"} {
		found := regexp.MustCompile(`<a href="([^"]*)">` + link + `<`).FindStringSubmatch(body)
		if found == nil {
			t.Errorf("no link to %s", link)
			continue
		}
		_, page := w.get("/builds/b1" + strings.ReplaceAll(strings.TrimSuffix(found[1], "#log"), "&amp;", "&"))
		if got := linesOf(page); link == "earlier" && !strings.HasSuffix(got, " to 1640") && !strings.Contains(got, " to 1") || link == "the last" && got != want || got == "none" {
			t.Errorf("%s: lines %s, want %s", link, got, want)
		}
	}
	passed, log := longLog(1000)
	passed.State, passed.Steps[1].State = schedulerv1.Build_STATE_PASSED, schedulerv1.Step_STATE_PASSED
	w.rooms.builds.build, w.rooms.builds.log = passed, log
	if _, body = w.get("/builds/b1"); linesOf(body) != "2601 to 3000" {
		t.Errorf("one that passed shows %s", linesOf(body))
	}
}

func TestLogIsShownInWindowsOfABoundedSize(t *testing.T) {
	w := onSQLite(t, nil)
	b := failedBuild()
	long := strings.Repeat(strings.Repeat("x", 60<<10)+"\n", 100) + strings.Repeat("y", 5<<20) + "\n" + strings.Repeat("drawn again\r", 1<<18) + "in the very end\n"
	b.LogSize = int64(len(long))
	w.rooms.builds.build, w.rooms.builds.log = b, long
	_, body := w.get("/builds/b1")
	if len(body) > 600<<10 || !strings.Contains(body, ">in the very end<") || strings.Contains(body, "drawn again") || !strings.Contains(body, "MiB of this line are left out") {
		t.Errorf("the page has %d bytes", len(body))
	}
	code, part := w.get("/builds/b1/log/lines?line=1&count=100")
	if code != 200 || len(part) > 400<<10 || !strings.HasPrefix(linesOf(part), "1 to ") {
		t.Errorf("a part has %d bytes, lines %s", len(part), linesOf(part))
	}
}

func TestPartsOfALogAreServed(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log = longLog(1000)
	w.rooms.builds.log = strings.Replace(w.rooms.builds.log, "step 1 says 7\n", "error: 1 of 7\n", 1)
	code, part := w.get("/builds/b1/log/lines?line=1000&count=2")
	if want := `<div class="l" id="step-1-L1000" data-n="1000"><a href="#step-1-L1000" data-t="08:16:40.000">1000</a><span>step 1 says 1000</span></div>
<div class="step" id="step-2">unit tests</div>
<div class="l" id="step-2-L1" data-n="1001"><a href="#step-2-L1" data-t="08:16:41.000">1</a><span>step 2 says 1</span></div>
`; code != 200 || part != strings.TrimSpace(want) {
		t.Errorf("%d %s", code, part)
	}
	if _, part = w.get("/builds/b1/log/lines?line=7&count=1&q=OF"); !strings.Contains(part, `class="l e"`) || !strings.Contains(part, "error: 1 <mark>of</mark> 7") {
		t.Errorf("a hit: %s", part)
	}
	_, text := w.get("/builds/b1/log/outline")
	var outline struct {
		Lines int64 `json:"lines"`
		Over  bool  `json:"over"`
		Steps []struct {
			Number int64 `json:"number"`
			First  int64 `json:"first"`
			Lines  int64 `json:"lines"`
		} `json:"steps"`
		Marks []int64 `json:"marks"`
	}
	if err := json.Unmarshal([]byte(text), &outline); err != nil || outline.Lines != 3000 || !outline.Over || fmt.Sprint(outline.Steps, outline.Marks) != "[{1 1 1000} {2 1001 1000} {3 2001 1000}] [7]" {
		t.Errorf("outline %s, %v", text, err)
	}
	_, text = w.get("/builds/b1/log/search?q=says+7&line=1500")
	var last struct {
		Count       int64 `json:"count"`
		BeforeCount int64 `json:"beforeCount"`
		Done        bool  `json:"done"`
	}
	if err := json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), &last); err != nil || last.Count != 332 || last.BeforeCount != 121 || !last.Done {
		t.Errorf("search: %s, %v", text, err)
	}
	for path, want := range map[string]int{
		"/builds/b1/log/search?q=(&regex=1": 400, "/builds/b1/log/search": 400, "/builds/b2/log/lines": 404, "/builds/b1/log/lines?line=-7&count=1e9": 200,
	} {
		if code, body := w.get(path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	w.rooms.lines.err = fault.New(fault.Unavailable, "connection refused")
	if code, body := w.get("/builds/b1/log/outline"); code != 503 || strings.Contains(body, "refused") {
		t.Errorf("without a scheduler: %d %s", code, body)
	}
	if code, body := w.get("/builds/b1"); code != 200 || !strings.Contains(body, "The log cannot be read right now.") {
		t.Errorf("the page without a log: %d %s", code, body)
	}
	w.rooms.lines.err = fault.New(fault.NotFound, "the log is gone")
	if code, body := w.get("/builds/b1"); code != 200 || !strings.Contains(body, "The log was removed, since it is old.") {
		t.Errorf("the page of an old build: %d %s", code, body)
	}
}

func TestLogIsSearchedWithoutAScript(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log = longLog(1000)
	_, body := w.get("/builds/b1?q=says+777")
	if !strings.Contains(body, ">3 hits<") || !strings.Contains(body, `data-at="777"`) || !strings.Contains(body, "<mark>says 777</mark>") || strings.Contains(body, "previous hit") {
		t.Errorf("the first hit: %s", linesOf(body))
	}
	next := regexp.MustCompile(`<a href="([^"]*)">next hit<`).FindStringSubmatch(body)
	if next == nil {
		t.Fatal("no link to the next hit")
	}
	_, body = w.get("/builds/b1" + strings.ReplaceAll(strings.TrimSuffix(next[1], "#log"), "&amp;", "&"))
	if !strings.Contains(body, `data-at="1777"`) || !strings.Contains(body, "previous hit") || !strings.Contains(body, "next hit") {
		t.Errorf("the second hit: %s", linesOf(body))
	}
	for query, want := range map[string]string{
		"q=nowhere": "no hits", "q=says+(&regex=1": "no regular expression", "q=STEP+3&case=1": "no hits", "q=says+%5Cd%7B4%7D%24&regex=1": ">3 hits<",
	} {
		if _, body = w.get("/builds/b1?" + query); !strings.Contains(body, want) {
			t.Errorf("%s: it does not say %q", query, want)
		}
	}
	const evil = `"><script>alert(1)</script>`
	if _, body = w.get("/builds/b1?q=" + url.QueryEscape(evil)); strings.Contains(body, evil) {
		t.Error("a query became markup")
	}
}

func TestWholeLogIsDownloadedInRanges(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log = longLog(1000)
	log := w.rooms.builds.log
	for _, c := range []struct {
		asked, tag string
		code       int
		want       string
	}{
		{"", "", 200, log},
		{"bytes=0-9", "", 206, log[:10]},
		{"bytes=20000-20099", "", 206, log[20000:20100]},
		{"bytes=-7", "", 206, log[len(log)-7:]},
		{fmt.Sprintf("bytes=%d-", len(log)-3), "", 206, log[len(log)-3:]},
		{fmt.Sprintf("bytes=%d-", len(log)), "", 416, "invalid range: failed to overlap\n"},
		{"bytes=0-9", `"another"`, 200, log},
		{"bytes=0-9", fmt.Sprintf(`"b1-2-%d"`, len(log)), 206, log[:10]},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.http.URL+"/builds/b1/log?download", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.asked != "" {
			req.Header.Set("Range", c.asked)
		}
		if c.tag != "" {
			req.Header.Set("If-Range", c.tag)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.code || string(body) != c.want {
			t.Errorf("%q: %d, %d bytes, %v", c.asked, resp.StatusCode, len(body), err)
		}
		if got := resp.Header.Get("Content-Disposition"); c.code < 400 && got != `attachment; filename="b1-2.log"` {
			t.Errorf("it is kept as %s", got)
		}
	}
}

// What a page of a build costs before its log, and what the page loads besides.
func TestBuildPageIsLight(t *testing.T) {
	w := onSQLite(t, nil)
	b, log := longLog(1000)
	for n := range int32(100) {
		b.Steps = append(b.Steps, &schedulerv1.Step{Number: 4 + n, Name: "another step of many", State: schedulerv1.Step_STATE_PASSED, StartTime: at(76), EndTime: at(77)})
	}
	w.rooms.builds.build, w.rooms.builds.log = b, log
	_, body := w.get("/builds/b1")
	if size := strings.Index(body, `<section id="log"`); size < 0 || size > 60_000 {
		t.Errorf("%d bytes before the log", size)
	}
	scripts := 0
	for _, found := range regexp.MustCompile(`<script src="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		_, script := w.get(found[1])
		scripts += len(script)
	}
	_, sheet := w.get("/forge.css")
	if scripts > 40_000 || len(sheet) > 40_000 {
		t.Errorf("the scripts have %d bytes, the stylesheet %d", scripts, len(sheet))
	}
}

// events reads server-sent events.
func (w *world) events(ctx context.Context, t *testing.T, path, last string) *bufio.Reader {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.http.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
		t.Fatalf("%d %s", resp.StatusCode, kind)
	}
	return bufio.NewReader(resp.Body)
}

// nextEvent is the next event with what it shows as text, but for comments.
func nextEvent(t *testing.T, from *bufio.Reader) (id, text string) {
	t.Helper()
	for name := ""; ; {
		line, err := from.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "id: "):
			id = line[4:]
		case strings.HasPrefix(line, "event: "):
			name = line[7:]
		case strings.HasPrefix(line, "data: "):
			var told struct {
				Rows   string `json:"rows"`
				Open   string `json:"open"`
				Missed bool   `json:"missed"`
			}
			if err := json.Unmarshal([]byte(line[6:]), &told); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			text = strings.Join(regexp.MustCompile(`<span>(.*)</span></div>`).FindAllString(told.Rows+told.Open, -1), "|")
			text = strings.NewReplacer("<span>", "", "</span></div>", "").Replace(text)
			if told.Missed {
				text = "missed, then " + text
			}
			if told.Open != "" {
				text += "…"
			}
		case line == "" && name+text != "":
			return id, name + text
		}
	}
}

func TestLogIsFollowedByEventsThatGoOnWhereTheyWere(t *testing.T) {
	w := onSQLite(t, nil)
	b := failedBuild()
	b.State, b.EndTime = schedulerv1.Build_STATE_RUNNING, nil
	w.rooms.builds.build, w.rooms.builds.log = b, "one\ntwo\n"
	ctx, leave := context.WithCancel(t.Context())
	first := w.events(ctx, t, "/builds/b1/log/events?offset=4", "")
	sees := func(from *bufio.Reader, wantID, want string) {
		t.Helper()
		if id, got := nextEvent(t, from); id != wantID || got != want {
			t.Errorf("event %s %q, want %s %q", id, got, wantID, want)
		}
	}
	sees(first, "8", "two")
	w.rooms.lines.add("thr")
	sees(first, "", "thr…")
	w.rooms.lines.add("ee\x1b[31m\nfour\n")
	sees(first, "24", `three|<span class="term-fg31">four`+"</span>")
	leave()
	again := w.events(t.Context(), t, "/builds/b1/log/events?offset=4", "8")
	sees(again, "24", `three|<span class="term-fg31">four`+"</span>")
	w.rooms.lines.add("five\n")
	sees(again, "29", "five")
	w.rooms.builds.one.Lock()
	b.EndTime = at(75)
	w.rooms.builds.one.Unlock()
	w.rooms.lines.add("six")
	sees(again, "32", "six")
	sees(again, "", "end")
}

// However many follow, the scheduler is asked once; who is far behind is told so, and
// gets the end.
func TestTwoHundredFollowersReadTheLogLikeOne(t *testing.T) {
	w := onSQLite(t, nil)
	b, log := longLog(20_000)
	b.State, b.EndTime = schedulerv1.Build_STATE_RUNNING, nil
	w.rooms.builds.build, w.rooms.builds.log = b, log
	var all []*bufio.Reader
	for n := range 200 {
		offset := len(log)
		if n%50 == 1 {
			offset -= 16 // a line before the others
		}
		all = append(all, w.events(t.Context(), t, fmt.Sprintf("/builds/b1/log/events?offset=%d", offset), ""))
	}
	late := w.events(t.Context(), t, "/builds/b1/log/events?offset=5", "")
	w.rooms.lines.add("news\n")
	for n, one := range all {
		_, text := nextEvent(t, one)
		for text != "news" && n%50 == 1 {
			_, text = nextEvent(t, one)
		}
		if text != "news" {
			t.Fatalf("follower %d sees %q", n, text)
		}
	}
	if _, text := nextEvent(t, late); !strings.HasPrefix(text, "missed, then ") || len(text) > 2<<20 {
		t.Errorf("who is far behind sees %.60q", text)
	}
	w.rooms.lines.mu.Lock()
	defer w.rooms.lines.mu.Unlock()
	if w.rooms.lines.followers != 1 {
		t.Errorf("the log was followed by %d", w.rooms.lines.followers)
	}
}

func TestProgressBarIsShownInItsLastState(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log = failedBuild(), "fetch\n 10%\r 50%\r100%\r\nFAIL\n"
	if _, body := w.get("/builds/b1"); !strings.Contains(body, "<span>fetch</span>") || !strings.Contains(body, "<span>100%</span>") || strings.Contains(body, "50%") {
		t.Errorf("the page: %s", body)
	}
	if _, body := w.get("/builds/b1/log"); !strings.Contains(body, " 10%\r 50%\r100%\r\n") {
		t.Errorf("the plain text is not as it was printed: %q", body)
	}
}

func TestPageOfASilentBuildSaysSo(t *testing.T) {
	w := onSQLite(t, nil)
	b := failedBuild()
	w.rooms.builds.build = b
	if _, body := w.get("/builds/b1"); !strings.Contains(body, "Nothing was printed.") {
		t.Error("a silent build does not say so")
	}
	b.State, b.EndTime, b.Attempt, b.Steps = schedulerv1.Build_STATE_QUEUED, nil, 0, nil
	if _, body := w.get("/builds/b1"); !strings.Contains(body, "Nothing was printed yet.") {
		t.Error("a build that waits does not say so")
	}
}
