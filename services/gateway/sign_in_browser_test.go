package gateway

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// front is a proxy before the gateway, whose address is known before the gateway is made.
func front(t *testing.T) (address string, leadTo func(target string)) {
	t.Helper()
	var to atomic.Pointer[httputil.ReverseProxy]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { to.Load().ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	return server.URL, func(target string) {
		address, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		to.Store(&httputil.ReverseProxy{
			Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(address); r.Out.Host = r.In.Host },
			FlushInterval: -1,
			ErrorLog:      log.New(io.Discard, "", 0), // a page that is left cuts what it was following
		})
	}
}

func TestSomebodySignsInFollowingALinkFromGitHub(t *testing.T) {
	address, leadTo := front(t)
	clock := kittest.NewClock(time.Now())
	w := newSignIns(t, func(d *Deps) { d.ExternalURL, d.Now = address, clock.Now })
	leadTo(w.http.URL)
	b := newBrowser(t) // which leaves first, and with it who watches
	page := address + "/builds/b1"

	// The link asks who that is, and leads on to the build.
	b.do(chromedp.Navigate(page))
	b.reads("h1", "Sign in to see this")
	if text := b.text("body"); strings.Contains(text, "Mend the door") || strings.Contains(b.value("document.title"), "Mend") {
		t.Errorf("a stranger reads %s", text)
	}
	b.do(chromedp.Click("#sign-in"))
	b.reads("h1", "Authorize forge")
	b.do(chromedp.SetValue("[name=login]", "rita"), chromedp.Click("[value=allow]"))
	b.reads("h1", "Mend the door")
	b.reads(".bar", "rita")
	if at := b.value("location.href"); at != page {
		t.Errorf("at %s", at)
	}
	if cookie := b.value("document.cookie"); cookie != "" {
		t.Errorf("a script reads %q", cookie)
	}
	// She may look, and no more.
	if buttons := b.value(`document.querySelectorAll("#steer button").length`); buttons != "0" {
		t.Error("buttons for somebody without write access")
	}
	b.do(chromedp.Navigate(address + "/deliveries"))
	b.reads("main", "this is for those who run this Forge")

	// A session that has ended says so, and where to go on.
	clock.Advance(8 * 24 * time.Hour)
	b.do(chromedp.Navigate(page))
	b.reads("h1", "Your session has ended")
	b.do(chromedp.Click("#sign-in"))
	b.reads("h1", "Authorize forge")
	b.do(chromedp.SetValue("[name=login]", "stan"), chromedp.Click("[value=allow]"))

	// Somebody else is refused, and told as whom.
	b.reads("h1", "This is not for everybody")
	b.reads("main", "You are signed in as stan")
	b.do(chromedp.Navigate(address + "/account"))
	b.reads("h1", "stan")
	b.do(chromedp.Click(`[action="/sign-out"] button`))
	b.reads(".bar", "Sign in")
	b.do(chromedp.Navigate(page))
	b.reads("h1", "Sign in to see this")

	// Who says no at GitHub is signed in as nobody.
	b.do(chromedp.Click("#sign-in"))
	b.reads("h1", "Authorize forge")
	b.do(chromedp.Click("[value=deny]"))
	b.reads("h1", "You are not signed in")
	b.reads(".bar", "Sign in")
}

func TestWhoMayWriteSteersABuildFromItsPage(t *testing.T) {
	address, leadTo := front(t)
	w := newSignIns(t, func(d *Deps) { d.ExternalURL = address })
	leadTo(w.http.URL)
	b := newBrowser(t)
	b.do(chromedp.Navigate(address + "/sign-in?to=/builds/b1"))
	b.reads("h1", "Authorize forge")
	b.do(chromedp.SetValue("[name=login]", "wes"), chromedp.Click("[value=allow]"))
	b.reads("h1", "Mend the door")
	b.do(chromedp.Click("[action$=cancel] button"))
	b.reads("#state", "cancelled")
	if w.rooms.person != "wes" {
		t.Errorf("cancelled for %q", w.rooms.person)
	}
	// The list needs no token that is typed in.
	b.do(chromedp.Navigate(address + "/builds"))
	b.reads("#builds", "Mend the door")

	// A token is made, shown once, and deleted.
	b.do(chromedp.Navigate(address + "/account"))
	b.do(chromedp.SendKeys("#make [name=name]", "laptop"), chromedp.Click("#make button"))
	b.reads("#secret", "forge_pat_")
	b.reads("#tokens", "laptop")
	b.do(chromedp.Click("#tokens button"))
	b.reads("main", "You have none.")
	b.do(chromedp.Click(`[action="/account/sign-out-everywhere"] button`))
	b.reads(".bar", "Sign in")
}
