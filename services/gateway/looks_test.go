package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// contrasts lists texts whose contrast to what is behind them is below AA of the Web
// Content Accessibility Guidelines 2.2: 4.5 to 1, or 3 to 1 where they are large.
const contrasts = `(() => {
	const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
	const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
	const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
	const behind = (e) => {
		for (; e; e = e.parentElement) {
			const c = parse(getComputedStyle(e).backgroundColor);
			if (c.length === 3 || c[3] === 1) return c;
		}
		return [255, 255, 255];
	};
	const bad = [];
	for (const e of document.querySelectorAll("body *")) {
		if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
		const style = getComputedStyle(e);
		const [a, b] = [light(parse(e instanceof SVGElement ? style.fill : style.color)), light(behind(e))].sort((x, y) => y - x);
		const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
		const ratio = (a + 0.05) / (b + 0.05);
		if (ratio < (large ? 3 : 4.5)) bad.push(e.tagName + "." + e.getAttribute("class") + " " + ratio.toFixed(2) + " " + e.textContent.slice(0, 30));
	}
	return bad.join("\n");
})()`

// namelessParts lists what somebody who does not see the page could not tell: parts to
// act on without a name, pages without a heading or with several, and lists of nothing.
const namelessParts = `(() => {
	const bad = [];
	for (const e of document.querySelectorAll("a[href], button, input, select, summary, [role], nav, main")) {
		if (e.checkVisibility() && !["MAIN"].includes(e.tagName) && e.getAttribute("role") !== "status" && !e.computedName) bad.push("no name: " + e.outerHTML.slice(0, 100));
	}
	const headings = [...document.querySelectorAll("h1")].filter((e) => e.checkVisibility()).length;
	if (headings !== 1) bad.push(headings + " main headings");
	if (!document.documentElement.lang || !document.title) bad.push("no language or no title");
	if (document.querySelectorAll("main").length !== 1) bad.push("main is not one");
	return bad.join("\n");
})()`

// Every page can be read by everybody: in the light and in the dark, on a telephone,
// without a mouse, and by those who have it read to them.
func TestEveryPageCanBeReadByEverybody(t *testing.T) {
	shows := func(build *schedulerv1.Build) *world {
		w := onSQLite(t, nil)
		w.rooms.builds.build, w.rooms.builds.log = build, "a line "+strings.Repeat("that is long ", 50)+"\n"
		w.rooms.tests.tests = []*schedulerv1.Test{{Name: strings.Repeat("long", 60), Class: "shop", State: schedulerv1.Test_STATE_FAILED, Message: strings.Repeat("wide ", 100)}}
		w.rooms.tests.summary = &schedulerv1.TestSummary{Failed: 1, Passed: 3, Flaky: 1, FailsOnBase: new(int64(0)), BaseRef: "main"}
		return w
	}
	plain, jobs, waiting := failedBuild(), failedBuild(), failedBuild()
	jobs.Steps, jobs.JobCount, jobs.Title = nil, 4, strings.Repeat("unbroken", 30)
	for n, state := range []schedulerv1.Build_State{
		schedulerv1.Build_STATE_PASSED, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_STATE_RUNNING,
	} {
		job := &schedulerv1.Job{Id: fmt.Sprintf("b1-%d", n), Name: fmt.Sprintf("job %d", n), Title: fmt.Sprintf("job %d", n), State: state, StartTime: at(1), Message: "why"}
		if n > 0 {
			job.Needs = []string{"job 0"}
		}
		jobs.Jobs = append(jobs.Jobs, job)
	}
	waiting.State, waiting.EndTime, waiting.StartTime = schedulerv1.Build_STATE_BLOCKED, nil, nil
	usual, water := shows(plain), onSQLite(t, traced(t))
	water.rooms.builds.build = failedBuild()
	water.rooms.builds.build.TraceId = tracedBuild
	pages := []struct {
		path string
		of   *world
	}{
		{"/", usual},
		{"/health", usual},
		{"/builds", usual},
		{"/deliveries", usual},
		{"/audit", usual},
		{"/builds/b1", usual},
		{"/builds/b1", shows(jobs)},
		{"/builds/b1", shows(waiting)},
		{"/builds/b1/tests", usual},
		{"/builds/b1/findings", usual},
		{"/builds/nope", usual},
		{"/repositories", usual},
		{"/traces/" + tracedBuild + "?build=b1", water},
	}
	for _, dark := range []bool{false, true} {
		b := newBrowser(t, chromedp.Flag("enable-blink-features", "ComputedAccessibilityInfo"), chromedp.Flag("blink-settings", fmt.Sprintf("preferredColorScheme=%d", map[bool]int{true: 0, false: 1}[dark])))
		for _, width := range []int64{1280, 360} {
			b.do(chromedp.EmulateViewport(width, 800))
			for _, page := range pages {
				b.do(chromedp.Navigate(page.of.http.URL + page.path))
				where := fmt.Sprintf("%s at %d, dark %v", page.path, width, dark)
				if got := b.value(`matchMedia("(prefers-color-scheme: dark)").matches`); got != strconv.FormatBool(dark) {
					t.Fatalf("the browser is dark: %s", got)
				}
				if got := b.value("document.scrollingElement.scrollWidth - innerWidth"); !strings.HasPrefix(got, "-") && got != "0" {
					t.Errorf("%s: it is %s pixels too wide: %s", where, got, b.value(`[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80)).slice(0, 3)`))
				}
				if bad := b.value(contrasts); bad != "" {
					t.Errorf("%s: too little contrast:\n%s", where, bad)
				}
				if bad := b.value(namelessParts); bad != "" {
					t.Errorf("%s:\n%s", where, bad)
				}
			}
		}
	}
}

// A page of a build is small before its log, and so are the sheet and the scripts.
func TestPagesAreSmall(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build = failedBuild()
	for path, most := range map[string]int{
		"/builds/b1": 60 << 10, "/": 60 << 10, "/forge.css": 40 << 10, "/forge.js": 40 << 10, "/build.js": 40 << 10,
	} {
		if code, body := w.get(path); code != http.StatusOK || len(body) > most {
			t.Errorf("%s: %d, %d bytes, at most %d", path, code, len(body), most)
		}
	}
}

func TestKeysAloneLeadEverywhere(t *testing.T) {
	b, w := newBrowser(t), onSQLite(t, nil)
	build := failedBuild()
	build.Steps = append(build.Steps, &schedulerv1.Step{Number: 4, Name: "lint", State: schedulerv1.Step_STATE_FAILED, StartTime: at(3), EndTime: at(4)})
	w.rooms.builds.build = build
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1"))
	press := func(key string) { b.do(chromedp.KeyEvent(key)) }
	focused := func(want string) {
		t.Helper()
		b.reads("[data-failure]:focus", want)
	}
	press("f")
	focused("unit tests")
	press("f")
	focused("lint")
	press("f")
	focused("unit tests")
	press("?")
	b.shows(`document.getElementById("keys").open`, "true")
	press("\x1b")
	b.shows(`document.getElementById("keys").open`, "false")
	press("g")
	press("h")
	b.reads("footer", "This is Forge v1.2.3")
	if at := b.value("location.pathname"); at != "/" {
		t.Errorf("g h leads to %s", at)
	}
	b.do(chromedp.KeyEvent("\t"))
	b.shows("document.activeElement.textContent", "To the content") // the first stop
}

func TestBuildCanBeReadWithoutScripts(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log = failedBuild(), "the log\n"
	b := newBrowser(t, chromedp.Flag("blink-settings", "scriptEnabled=false"))
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1"))
	for _, want := range []string{"Mend the door", "failed", "unit tests", "the log", "2027-01-15 07:59 UTC"} {
		b.reads("body", want)
	}
}
