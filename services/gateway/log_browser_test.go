package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// shows waits until a script comes to a text.
func (b *browser) shows(script, want string) {
	b.t.Helper()
	kittest.Eventually(b.t, patience, func() error {
		if got := b.value(script); got != want {
			return fmt.Errorf("%s is %q, want %q", script, got, want)
		}
		return nil
	})
}

// inView are scripts: the numbers of the lines at the top and at the bottom of the log, and whether a line is in view.
const (
	lineAt = `(() => { const box = document.getElementById("lines").getBoundingClientRect(), y = %s;
		return [...document.querySelectorAll(".l")].find((row) => row.getBoundingClientRect().bottom > y)?.dataset.n })()`
	seesLine = `(() => { const box = document.getElementById("lines").getBoundingClientRect(), row = document.querySelector('.l[data-n="%d"]')?.getBoundingClientRect();
		return !!row && row.top >= box.top - 1 && row.bottom <= box.bottom + 1 })()`
)

func (b *browser) sees(line int) {
	b.t.Helper()
	b.shows(fmt.Sprintf(seesLine, line), "true")
}

func TestLogOpensInViewOfTheFailureAndGoesAnywhere(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t)
	w.rooms.builds.build, w.rooms.builds.log = longLog(20_000)
	w.rooms.builds.log = strings.Replace(w.rooms.builds.log, "step 3 says 7\n", "error: 3 of 7\n", 1)
	page := w.http.URL + "/builds/b1"
	b.do(chromedp.Navigate(page))
	b.sees(40_000)
	b.reads("#log nav", "of 60,000")

	// Scrolled up for long, it has all lines, one after the other, and few of them at once.
	for n := range 40 {
		b.value(`document.getElementById("lines").scrollTop = 0`)
		kittest.Eventually(t, patience, func() error {
			if top, err := strconv.Atoi(b.value(`document.querySelector(".l").dataset.n`)); err != nil || top > 39_400-n*250 {
				return fmt.Errorf("it begins with %d, %w", top, err)
			}
			return nil
		})
	}
	if gap := b.value(`[...document.querySelectorAll(".l")].findIndex((row, n, all) => n && row.dataset.n - all[n - 1].dataset.n !== 1)`); gap != "-1" {
		t.Errorf("after row %s there is a gap", gap)
	}
	// What one looks at stays where it is when more comes before it.
	top := b.value(`document.querySelector(".l").dataset.n`)
	b.value(`document.getElementById("lines").scrollTop = 0`)
	kittest.Eventually(t, patience, func() error {
		if b.value(`document.querySelector(".l").dataset.n`) == top {
			return errors.New("nothing came before it yet")
		}
		return nil
	})
	if moved := b.value(fmt.Sprintf(`Math.abs(document.querySelector('.l[data-n="%s"]').getBoundingClientRect().top - document.getElementById("lines").getBoundingClientRect().top) < 12`, top)); moved != "true" {
		t.Errorf("line %s has moved", top)
	}
	if rows, _ := strconv.Atoi(b.value(`document.querySelectorAll(".l").length`)); rows > 3000 {
		t.Errorf("%d rows are in the page", rows)
	}

	// The map leads anywhere, and the keys to both ends and to errors.
	b.value(`document.getElementById("lines").focus()`)
	b.do(chromedp.KeyEvent(kb.Home))
	b.sees(1)
	b.do(chromedp.KeyEvent(kb.End))
	b.sees(60_000)
	b.do(chromedp.KeyEvent("e"))
	b.sees(40_007)
	b.shows(`document.querySelector(".on").dataset.n`, "40007")
	b.value(`(() => { const map = document.getElementById("map"), box = map.getBoundingClientRect();
		map.setPointerCapture = () => {};
		map.dispatchEvent(new PointerEvent("pointerdown", {clientX: box.left + 5, clientY: box.top + box.height / 4, bubbles: true})) })()`)
	kittest.Eventually(t, patience, func() error {
		if line, err := strconv.Atoi(b.value(fmt.Sprintf(lineAt, "(box.top + box.bottom) / 2"))); err != nil || line < 14_000 || line > 16_000 {
			return fmt.Errorf("it shows line %d, %w", line, err)
		}
		return nil
	})
	if value := b.value(`document.getElementById("map").getAttribute("aria-valuemax")`); value != "60000" {
		t.Errorf("the map has %s lines", value)
	}
}

func TestAddressOfALineLeadsThere(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t)
	w.rooms.builds.build, w.rooms.builds.log = longLog(20_000)
	page := w.http.URL + "/builds/b1"
	chosen := `[...document.querySelectorAll(".on")].map((row) => row.id).join()`
	for hash, c := range map[string]struct {
		line int
		on   string
	}{
		"#step-3-L41":           {40_041, "step-3-L41"},
		"#step-1-L9-L11":        {10, "step-1-L9,step-1-L10,step-1-L11"},
		"#lint/step-2-L19000":   {39_000, "step-2-L19000"},
		"#step-2":               {20_001, ""},
		"#step-9-L9999999":      {60_000, ""},
		"#%3Cimg%20src=x%3E-L1": {40_000, ""},
	} {
		b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(page+hash))
		b.sees(c.line)
		b.shows(chosen, c.on)
	}
	// A click makes it, with shift a range; so does a change by hand.
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(page+"#step-2-L50"))
	b.sees(20_050)
	click := `document.querySelector('#step-2-L%d > a').dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true, shiftKey: %v}))`
	b.value(fmt.Sprintf(click, 52, false))
	b.shows(chosen, "step-2-L52")
	b.value(fmt.Sprintf(click, 50, true))
	b.shows(chosen, "step-2-L50,step-2-L51,step-2-L52")
	b.shows("location.hash", "#step-2-L50-L52")
	b.value(`location.hash = "#step-1-L3"`)
	b.sees(3)
	b.shows(chosen, "step-1-L3")
}

func TestAddressOfALineOfAJobLeadsToItsPage(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t)
	whole := failedBuild()
	whole.Steps, whole.JobCount = nil, 1
	whole.Jobs = []*schedulerv1.Job{{Id: "b1-1", Title: "test (1.26, a/b)", State: schedulerv1.Build_STATE_FAILED, Attempt: 1}}
	w.rooms.builds.build = whole
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1#test%20(1.26,%20a/b)/step-2-L41"))
	b.shows("location.pathname + location.hash", "/builds/b1-1#step-2-L41")
}

func TestLogIsSearchedInThePage(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t)
	w.rooms.builds.build, w.rooms.builds.log = longLog(20_000)
	page := w.http.URL + "/builds/b1"
	b.do(chromedp.Navigate(page))
	b.sees(40_000)
	b.do(chromedp.KeyEvent("f", chromedp.KeyModifiers(2))) // Ctrl
	b.shows("document.activeElement.name", "q")
	b.do(chromedp.KeyEvent("SAYS 19999"))
	b.reads("#hits", "2 of 3") // the first from where one was
	b.sees(39_999)
	b.shows(`document.querySelector("mark.now").closest(".l").dataset.n`, "39999")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.reads("#hits", "3 of 3")
	b.sees(59_999)
	b.do(chromedp.KeyEvent(kb.Enter)) // past the last is the first
	b.reads("#hits", "1 of 3")
	b.sees(19_999)
	b.value(`document.querySelector("[name=q]").dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", shiftKey: true, bubbles: true}))`)
	b.reads("#hits", "3 of 3")
	b.sees(59_999)
	b.do(chromedp.Click("[data-hit='-1']"))
	b.reads("#hits", "2 of 3")
	b.sees(39_999)
	b.do(chromedp.Click("[name=case]"))
	b.reads("#hits", "no hits")
	b.do(chromedp.Click("[name=case]"), chromedp.Click("[name=regex]"))
	b.value(`document.querySelector("[name=q]").value = ""`)
	b.do(chromedp.SendKeys("[name=q]", `says \d+5$`))
	b.reads("#hits", " of 5,997")
	b.do(chromedp.SendKeys("[name=q]", "("))
	b.reads("#hits", "no regular expression")
	b.do(chromedp.SendKeys("[name=q]", kb.Escape))
	b.shows(`document.querySelectorAll("mark").length`, "0")
	if got := b.text("#hits"); got != "" {
		t.Errorf("it still says %q", got)
	}

	// More hits than are listed are still all counted, and walked through.
	b.do(chromedp.Navigate(page + "?q=says&line=59998"))
	b.reads("#hits", "59,998 of 60,000")
	for _, want := range []string{"59,999", "60,000", "1", "2"} {
		b.do(chromedp.Click("[data-hit='1']"))
		b.reads("#hits", want+" of 60,000")
	}
	b.do(chromedp.Click("[data-hit='-1']"), chromedp.Click("[data-hit='-1']"))
	b.reads("#hits", "60,000 of 60,000")
}

// Whoever searches before the page knows where things are in the log is left in peace once it does.
func TestSearchStaysWhereItIsWhenThePageLearnsMore(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t)
	w.rooms.builds.build, w.rooms.builds.log = longLog(20_000)
	known := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/outline") {
			<-known
		}
		w.service.Handler().ServeHTTP(out, r)
	}))
	t.Cleanup(slow.Close)
	tell := sync.OnceFunc(func() { close(known) })
	t.Cleanup(tell)
	b.do(chromedp.Navigate(slow.URL + "/builds/b1"))
	b.sees(40_000)
	b.do(chromedp.SendKeys("[name=q]", "SAYS 19999"))
	b.reads("#hits", "2 of 3")
	b.value(`location.hash = "#step-2-L41"`) // which it finds once it knows
	tell()
	b.sees(20_041)
	if got := b.text("#hits"); got != "2 of 3" {
		t.Errorf("the search went elsewhere: %q", got)
	}
}

// The log goes on by itself, also over a gateway that is killed and comes back.
func TestLogIsFollowedInThePage(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t)
	build, log := longLog(1000)
	build.State, build.EndTime = schedulerv1.Build_STATE_RUNNING, nil
	w.rooms.builds.build, w.rooms.builds.log = build, log
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve := func(lis net.Listener) (kill func()) {
		server := &http.Server{Handler: w.service.Handler()}
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve(lis) })
		return func() { server.Close(); serving.Wait() }
	}
	kill := serve(lis)
	b.do(chromedp.Navigate("http://" + lis.Addr().String() + "/builds/b1"))
	b.sees(3000)
	w.rooms.lines.add("and\x1b[1m more\x1b[0m\n10%")
	b.reads(`.l[data-n="3001"]`, "and more")
	b.reads(".open", "10%")
	w.rooms.lines.add("\r50%")
	b.reads(".open", "50%")
	w.rooms.lines.add("\r100%\nnext\n")
	b.sees(3003)
	b.shows(`[...document.querySelectorAll(".l")].slice(-3).map((row) => row.lastChild.textContent).join()`, "and more,100%,next")

	// Who reads further up is left in peace.
	b.value(`document.getElementById("lines").scrollTop = 400`)
	top := b.value(fmt.Sprintf(lineAt, "box.top + 20"))
	w.rooms.lines.add(strings.Repeat("meanwhile\n", 50))
	b.reads("#log nav", "of 3,053")
	if got := b.value(fmt.Sprintf(lineAt, "box.top + 20")); got != top {
		t.Errorf("it moved from line %s to %s", top, got)
	}
	b.value(`document.getElementById("lines").dispatchEvent(new KeyboardEvent("keydown", { key: "End" }))`)
	b.sees(3053)

	kill()
	w.rooms.lines.add("while it was away\n")
	again, err := net.Listen("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer serve(again)()
	b.sees(3054)
	w.rooms.lines.add("the end\n")
	b.sees(3055)
	if gap := b.value(`[...document.querySelectorAll(".l")].findIndex((row, n, all) => n && row.dataset.n - all[n - 1].dataset.n !== 1)`); gap != "-1" {
		t.Errorf("after row %s there is a gap", gap)
	}
	w.rooms.builds.one.Lock()
	build.EndTime, build.State = at(80), schedulerv1.Build_STATE_PASSED
	w.rooms.builds.one.Unlock()
	w.rooms.lines.add("over\n")
	b.sees(3056)
	kittest.Eventually(t, patience, func() error {
		if text := b.text("#log nav"); strings.Contains(text, "more to come") {
			return errors.New(text)
		}
		return nil
	})
}

// hostile is what a log could hold to be more than text.
const hostile = "<script>document.title = 'ran'</script>\n" +
	"</span></div><img src=x onerror=\"document.title = 'ran'\">\n" +
	"\x1b]8;;javascript:document.title='ran'\x07click\x1b]8;;\x07\n" +
	"\x1b]8;;https://x.example/\"onmouseover=\"document.title='ran'\x07click\x1b]8;;\x07\n" +
	"\x1b]1337;File=name=eC5zdmc=;inline=1:PHN2Zz4=\x07\x1b]1338;url=https://x.example/x.png\x07image\n" +
	"\x1b[31m<b>bold</b>\x1b[0m &lt;i&gt; &#60;script&#62; \x00\x01\x7f\u009b31m \xff\xfe\n" +
	"\x1b[999;999H\x1b[2J\x1b[99999Cfar\x1b[Aaway\n" +
	"\u202egnp.exe\u2066 <svg/onload=alert(1)>\n" +
	"\x1b]0;<title>ran</title>\x07titled\n" +
	"{{.}} <!-- --> <![CDATA[ ]]> <style>*{display:none}</style> <base href=//x.example> <form action=//x.example>\n"

func TestHostileLogStaysText(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t)
	build := failedBuild()
	build.State, build.EndTime = schedulerv1.Build_STATE_RUNNING, nil
	build.Steps[0].Name = "<script>document.title = 'ran'</script>"
	w.rooms.builds.build, w.rooms.builds.log = build, hostile
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1?q=%3Cscript"))
	b.reads(".l", "<script>document.title = 'ran'</script>")
	w.rooms.lines.add(hostile + hostile)
	b.reads(`.l[data-n="30"]`, "<base href=//x.example>")
	b.value(`location.hash = "#step-1-L<img src=x onerror=document.title='ran'>"`)
	made := b.value(`[...new Set([...document.querySelectorAll("#lines *")].map((e) => e.localName))].sort().join()`)
	if made != "a,div,mark,span" {
		t.Errorf("the log has made elements: %s", made)
	}
	attributes := b.value(`[...new Set([...document.querySelectorAll("#lines *")].flatMap((e) => e.getAttributeNames()))].sort().join()`)
	if attributes != "class,data-n,data-t,href,id,rel" {
		t.Errorf("and attributes: %s", attributes)
	}
	links := b.value(`[...new Set([...document.querySelectorAll("#lines span a")].map((e) => e.protocol + e.host))].sort().join()`)
	if links != "https:x.example" {
		t.Errorf("links lead to %s", links)
	}
	if title := b.value("document.title"); strings.Contains(title, "ran") {
		t.Errorf("a script ran: the title is %q", title)
	}
	if scripts := b.value(`[...document.scripts].filter((e) => new URL(e.src).origin !== location.origin).length`); scripts != "0" {
		t.Errorf("%s scripts are not Forge's", scripts)
	}
}

func TestLogIsReadWithoutAScript(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t)
	w.rooms.builds.build, w.rooms.builds.log = longLog(1000)
	bare := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".js") {
			http.NotFound(out, r)
			return
		}
		w.service.Handler().ServeHTTP(out, r)
	}))
	t.Cleanup(bare.Close)
	b.do(chromedp.Navigate(bare.URL + "/builds/b1"))
	b.reads("#log nav", "Lines 1641 to 2040 of 3000")
	b.reads("#lines", "step 2 says 1000")
	b.value(`[...document.querySelectorAll("#log nav a")].find((a) => a.textContent === "the first").click()`)
	b.reads("#log nav", "Lines 1 to ")
	b.do(chromedp.SendKeys("[name=q]", "says 777\r"))
	b.reads("#hits", "3 hits")
	b.value(`[...document.querySelectorAll("#log nav a")].find((a) => a.textContent === "next hit").click()`)
	b.reads("#lines mark", "says 777")
	b.reads("#log nav", "previous hit")
}
