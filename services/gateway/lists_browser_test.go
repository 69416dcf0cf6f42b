package gateway

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestAnEnvironmentIsSteeredWithConfirmation(t *testing.T) {
	w, b := shopOfLists(t), newBrowser(t)
	build := failedBuild()
	build.State, build.EndTime = schedulerv1.Build_STATE_QUEUED, nil
	w.rooms.builds.build = build
	b.signIn(w)
	b.do(chromedp.Navigate(w.http.URL + "/environments"))
	b.reads("#environments", "frozen: <img src=x onerror=alert(1)>")
	b.do(chromedp.Click(`a[href="/environments/acme/shop/production"]`))
	b.reads("h1", "production of acme/shop")
	shown := `document.querySelector("form[action$=freeze] button").checkVisibility()`
	if b.value(shown) != "false" {
		t.Error("one press of a button freezes")
	}
	b.do(chromedp.Click("section.steer summary"), chromedp.SendKeys("[name=message]", "the fair\r"))
	b.reads(".done", "Frozen: no further deploy begins.")
	b.reads(".problem", "the fair")
	b.do(chromedp.Click("section.steer summary"), chromedp.Click("form[action$=unfreeze] button"))
	b.reads(".done", "No longer frozen")

	// What is asked says what is done.
	b.do(chromedp.Click("#history summary"))
	b.reads("#history form[action$=roll-back]", "Paint the door, to production once more? Deploys that wait follow it: freeze production first to keep them back.")
	b.do(chromedp.Click("#history form[action$=roll-back] button"))
	b.reads("#state", "queued")
	if at := b.value("location.pathname"); at != "/builds/b1" || len(w.rooms.places.rolledBack) != 1 || w.rooms.places.rolledBack[0] != "d1" {
		t.Errorf("at %s, rolled back to %v", at, w.rooms.places.rolledBack)
	}
}

func TestAnAddressIsExplainedOnAPage(t *testing.T) {
	w, b := shopOfLists(t), newBrowser(t)
	b.signIn(w)
	b.do(chromedp.Navigate(w.http.URL + "/deliveries"))
	b.do(chromedp.Click(`main a[href="/why"]`))
	b.reads("h1", "Why was nothing built?")
	b.do(chromedp.SendKeys("[name=address]", "https://github.com/acme/web/pull/5/files\r"))
	b.reads("#answer", "Nothing was built: base branch is <img src=x onerror=alert(1)>.")
	b.reads("#advice", "FORGE_INTEGRATION_BRANCHES")
	b.do(chromedp.Click("#deliveries .name"))
	b.reads("h1", "pull_request opened")
}

// Each page fits a phone: nothing makes it scroll sideways.
func TestListsFitAPhone(t *testing.T) {
	w, b := shopOfLists(t), newBrowser(t)
	long := strings.Repeat("a-name-without-any-blank-", 8)
	for _, one := range w.rooms.builds.listed {
		one.Title, one.Branch, one.Actor, one.Message = long, long, long, long
	}
	w.rooms.places.all[1].FreezeMessage = long
	b.signIn(w)
	for _, path := range []string{
		"/builds", "/builds?actor=" + long, "/repositories/acme/shop", "/deliveries", "/deliveries/p5", "/why?address=acme/web%235", "/why?address=" + long,
		"/environments", "/environments/acme/shop/production", "/environments/acme/shop/staging",
	} {
		b.do(chromedp.EmulateViewport(360, 740), chromedp.Navigate(w.http.URL+path))
		b.value(`[...document.querySelectorAll("details")].map((d) => d.open = true)`)
		if wide := b.value("Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)"); wide != "0" {
			t.Errorf("%s is %s pixels too wide", path, wide)
		}
	}
}

// Text has a contrast of 4.5 at least against what it stands on, light and dark.
func TestListsHaveContrast(t *testing.T) {
	w := shopOfLists(t)
	const low = `(() => {
		const parts = (c) => c.match(/[\d.]+/g).map(Number);
		const light = (c) => { const [r, g, b] = parts(c).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
		const under = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (parts(c)[3] !== 0) return c; } return "rgb(255,255,255)"; };
		const bad = new Set();
		for (const e of document.querySelectorAll("body *")) {
			if (!e.checkVisibility() || e.closest("svg, select, .skip") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
			const [a, b] = [light(getComputedStyle(e).color), light(under(e))].sort((x, y) => y - x);
			if ((a + 0.05) / (b + 0.05) < 4.5) bad.add(e.tagName + "." + e.className + " " + e.textContent.slice(0, 20));
		}
		return [...bad].join("; ");
	})()`
	for _, scheme := range []string{"light", "dark"} {
		b := newBrowser(t, chromedp.Flag("blink-settings", map[string]string{"light": "preferredColorScheme=1", "dark": "preferredColorScheme=0"}[scheme]))
		b.signIn(w)
		if dark := b.value(`matchMedia("(prefers-color-scheme: dark)").matches`); dark != strconv.FormatBool(scheme == "dark") {
			t.Fatalf("the browser is not %s", scheme)
		}
		for _, path := range []string{
			"/builds", "/repositories/acme/shop", "/deliveries", "/deliveries/p5", "/why?address=acme/web%235", "/environments", "/environments/acme/shop/production", "/environments/acme/shop/staging",
		} {
			b.do(chromedp.Navigate(w.http.URL + path))
			b.value(`[...document.querySelectorAll("details")].map((d) => d.open = true)`)
			if bad := b.value(low); bad != "" {
				t.Errorf("%s, %s: %s", path, scheme, bad)
			}
		}
	}
}

// Without scripts all works: signing in, filters, pages, what is done.
func TestListsWorkWithoutScripts(t *testing.T) {
	w := shopOfLists(t)
	w.rooms.builds.listed = append(listedBuilds(), w.rooms.builds.listed...)
	v, csrf := w.signedIn()
	_, body := v.get("/builds?repository=acme/web&state=timed_out")
	if strings.Count(body, `<li class="row timed out"`) != 20 || strings.Contains(body, "<li class=\"row failed") {
		t.Errorf("filtered: %s", body)
	}
	_, body = v.get("/builds?repository=acme/web")
	_, older, found := strings.Cut(body, `rel="next" href="`)
	older, _, _ = strings.Cut(older, `"`)
	if code, next := v.get(strings.ReplaceAll(older, "&amp;", "&")); !found || code != 200 || strings.Contains(next, `rel="next"`) || !strings.Contains(next, "Change 1<") || !strings.Contains(next, ">Newest</a>") {
		t.Errorf("the next page, %s: %s", older, next)
	}
	if code, at, body := v.send("POST", "/deliveries/p5/redeliver", url.Values{"csrf": {csrf}}); code != 200 || at != "/deliveries/p5?again=1" || !strings.Contains(body, "Every service decides again") {
		t.Errorf("redelivered: %d at %s: %s", code, at, body)
	}
	w.ends("p5")
	if _, body := v.get("/deliveries/p5/payload"); body != string(pullOf(5, 1, `"opened"`)) {
		t.Errorf("the payload: %s", body)
	}
	w.rooms.builds.build = failedBuild()
	code, at, _ := v.send("POST", "/environments/acme/shop/production/roll-back", url.Values{"csrf": {csrf}, "build": {"d1"}})
	if code != 200 || at != "/builds/b1" {
		t.Errorf("rolled back: %d at %s", code, at)
	}
}
