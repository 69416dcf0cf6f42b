package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const allItMayTake = 5 * time.Minute // a browser, to start and to end; machines are slow

// browser is a tab of a real one.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // what chromedp knows the tab by
}

func newBrowser(t *testing.T, flags ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	kittest.Require(t, "browser")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(kittest.Browser()), chromedp.NoSandbox)
	options = append(append(options, chromedp.WSURLReadTimeout(allItMayTake)), flags...)
	ctx, cancel := context.WithTimeout(context.Background(), allItMayTake)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(func() { closeTab(); stop(); cancel() })
	return &browser{t, ctx}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// text is what a person reads in the parts that a selector finds, a line each.
func (b *browser) text(selector string) (text string) {
	b.t.Helper()
	kittest.Eventually(b.t, patience, func() (err error) {
		text, err = b.read(selector)
		return err
	})
	return text
}

// read is text, or an error of a page that is on its way to another one.
func (b *browser) read(selector string) (string, error) {
	return chromedp.Run(b.ctx, chromedp.Evaluate[string](
		fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.innerText).join("\n")`, selector)))
}

// value is what a script comes to, as a text, once there is a page that it runs in.
func (b *browser) value(script string) (value string) {
	b.t.Helper()
	kittest.Eventually(b.t, patience, func() (err error) {
		value, err = chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+script+")"))
		return err
	})
	return value
}

// reads waits until the parts hold the text.
func (b *browser) reads(selector, want string) {
	b.t.Helper()
	kittest.Eventually(b.t, patience, func() error {
		got, err := b.read(selector)
		if err == nil && !strings.Contains(got, want) {
			err = errors.New(got)
		}
		return err
	})
}

// signIn shows the admin token on a page that asks for it.
func (b *browser) signIn(w *world) {
	b.t.Helper()
	b.do(chromedp.Navigate(w.http.URL + "/builds"))
	if b.value(`!!document.querySelector("[name=token]")`) == "true" {
		b.do(chromedp.SetValue("[name=token]", adminToken), chromedp.Click("main form button"))
		b.reads("h1", "Builds")
	}
}

func TestDeliveriesPageAnswersWhyNothingWasBuilt(t *testing.T) {
	b, w := newBrowser(t), onSQLite(t, nil)
	evil := `{"action":"<img src=x onerror=document.title=1>","<i>":"</details><img src=x onerror=document.title=1>","repository":{"id":1,"name":"<b>","full_name":"acme/<b>"}}`
	w.post(hook{event: "star", id: "evil", body: []byte(evil)})
	for n := range 50 {
		w.post(hook{event: "star", id: fmt.Sprintf("s%d", n), body: star})
	}
	w.post(hook{event: "ping", id: "first-ping", body: sample(t, "ping")})
	w.ends("first-ping")

	b.do(chromedp.Navigate(w.http.URL + "/deliveries"))
	b.do(chromedp.SendKeys("[name=token]", "wrong\r"))
	b.reads("[role=alert]", "That is not the admin token of this Forge.")
	b.do(chromedp.SetValue("[name=token]", adminToken), chromedp.Click("main form button"))
	b.reads("#deliveries", "the webhook works: Keep it logically awesome.")
	if at := b.value("location.pathname"); at != "/deliveries" {
		t.Errorf("signed in, at %s", at)
	}
	b.do(chromedp.Click(".pager [rel=next]"))
	b.reads("#deliveries", "acme/<b>")
	b.reads("#deliveries", "star <img src=x onerror=document.title=1>")
	b.do(chromedp.Click(`a[href="/deliveries/evil"]`))
	b.reads("h1", "star <img src=x onerror=document.title=1>")
	b.reads(".tree", "</details><img src=x onerror=document.title=1>")
	if got := b.text("title"); got != "" && !strings.HasPrefix(got, "star") {
		t.Errorf("a payload ran: the title is %q", got)
	}
	b.do(chromedp.Click(".tree > details > details summary"))
	b.reads(".tree", "full_name acme/<b>")
	b.do(chromedp.Click("form[action$=redeliver] button"))
	b.reads("[role=status]", "Every service decides again")

	// No script gets at what the browser keeps of the token.
	b.do(chromedp.Navigate(w.http.URL + "/deliveries"))
	b.reads("#deliveries", "ping")
	b.do(chromedp.SendKeys("[name=event]", "push\r"))
	b.reads("#none", "Nothing fits. Show all deliveries.")
	if kept := b.value("document.cookie + Object.keys(localStorage) + Object.keys(sessionStorage)"); kept != "" {
		t.Errorf("kept %q", kept)
	}
	b.do(chromedp.Click(".who button"))
	b.reads("h1", "Forge")
	b.do(chromedp.Navigate(w.http.URL + "/deliveries"))
	b.reads("h1", "Sign in")
}

func listedBuilds() []*schedulerv1.Build {
	var all []*schedulerv1.Build
	for n := range 60 {
		b := failedBuild()
		b.Id, b.PullRequest, b.Title, b.CreateTime, b.Steps = fmt.Sprintf("b%d", n), int32(60-n), fmt.Sprintf("Change %d", 60-n), at(int64(-n)), nil
		b.State = []schedulerv1.Build_State{schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_PASSED, schedulerv1.Build_STATE_TIMED_OUT}[n%3]
		all = append(all, b)
	}
	all[0].Title, all[0].Message = "<img src=x onerror=document.title=1>", "<b>"
	all[1].Repository.Name = "shop"
	return all
}

func TestBuildsPageListsWhatIsAskedFor(t *testing.T) {
	b, w := newBrowser(t), onSQLite(t, nil)
	w.rooms.builds.listed = listedBuilds()
	b.signIn(w)
	b.reads("#builds", "Change 11\n")
	if got := b.text("#builds"); strings.Contains(got, "Change 10\n") || !strings.Contains(got, "<img src=x onerror=document.title=1>") {
		t.Errorf("the first page: %s", got)
	}
	b.do(chromedp.Click(".pager [rel=next]"))
	b.reads("#builds", "Change 1\n")
	if got := b.text("title"); got != "" && !strings.HasPrefix(got, "Builds") {
		t.Errorf("a title ran: %q", got)
	}
	b.do(chromedp.Click(".pager a"))
	b.reads("#builds", "Change 11\n")

	b.do(chromedp.SendKeys("[name=repository]", "acme/shop\r"))
	kittest.Eventually(t, patience, func() error {
		if got := b.text("#builds .name"); got != "Change 59" {
			return errors.New(got)
		}
		return nil
	})
	b.do(chromedp.SetValue("[name=state]", "failed"), chromedp.Click("main form button"))
	b.reads("#none", "Nothing fits.")
	if at := b.value("location.search"); !strings.Contains(at, "repository=acme%2Fshop") || !strings.Contains(at, "state=failed") {
		t.Errorf("the address of the filters: %s", at)
	}
	b.do(chromedp.Click(`.chips [aria-label="without state failed"]`))
	b.reads("#builds", "Change 59")
	b.do(chromedp.Click(`.chips [aria-label="without repository acme/shop"]`))
	b.reads("#builds", "Change 11\n")

	// Its address says what is wanted, also as an older Forge wrote it.
	b.do(chromedp.Navigate(w.http.URL + "/builds?pull_request=58&states=STATE_TIMED_OUT"))
	b.reads("[role=alert]", "A pull request is one of a repository: name that as well.")
	b.do(chromedp.Navigate(w.http.URL + "/builds?pull_request=nonsense"))
	b.reads("[role=alert]", "A pull request is a number, such as 7.")
	b.do(chromedp.Navigate(w.http.URL + "/builds?repository=acme/web&pull_request=58&states=STATE_TIMED_OUT"))
	b.reads("#builds .where", "acme/web #58 · deploy staging")
	b.reads("#builds .state", "timed out")
	if link := b.value(`document.querySelector("#builds .name").pathname`); link != "/builds/b2" {
		t.Errorf("it leads to %s", link)
	}
}

func TestBuildIsSteeredFromItsPage(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t) // which leaves first, and with it who watches
	build := failedBuild()
	build.State, build.EndTime, build.Action, build.Environment = schedulerv1.Build_STATE_BLOCKED, nil, schedulerv1.Build_ACTION_TEST, ""
	w.rooms.builds.build = build
	page := w.http.URL + "/builds/b1"
	b.do(chromedp.Navigate(page))
	if b.text("#steer") != "" {
		t.Error("buttons for somebody without the token")
	}
	b.signIn(w)
	b.do(chromedp.Navigate(page))
	b.value(`document.querySelector("[action$=approve] [name=csrf]").value = "wrong"`)
	b.do(chromedp.Click("[action$=approve] button"))
	b.reads("h1", "This page is too old")
	b.do(chromedp.Navigate(page))
	if b.text("#state strong") != "blocked" {
		t.Error("approved with the token of another page")
	}
	b.do(chromedp.Click("[action$=approve] button"))
	b.reads("#state", "queued")
	b.do(chromedp.Click("[action$=cancel] button"))
	b.reads("#state", "cancelled")
	b.do(chromedp.Click("[action$=retry] button"))
	b.reads("h1", "Mend the door again")
	if at := b.value("location.pathname"); at != "/builds/b2" {
		t.Errorf("at %s", at)
	}
}

// However its proxy passes paths on, Forge's pages find their parts.
func TestPagesWorkBelowAPath(t *testing.T) {
	w := onSQLite(t, func(d *Deps) { d.ExternalURL = "https://forge.example/ci/" })
	for _, passesOn := range []string{"all of the path", "the path without /ci"} {
		t.Run(passesOn, func(t *testing.T) {
			proxy := http.NewServeMux()
			target, err := url.Parse(w.http.URL)
			if err != nil {
				t.Fatal(err)
			}
			handler := http.Handler(httputil.NewSingleHostReverseProxy(target))
			if passesOn != "all of the path" {
				handler = http.StripPrefix("/ci", handler)
			}
			proxy.Handle("/ci/", handler)
			outside := httptest.NewServer(proxy)
			t.Cleanup(outside.Close) // after the browser, which watches through it
			b := newBrowser(t)
			build := failedBuild()
			build.State, build.EndTime, build.Environment = schedulerv1.Build_STATE_QUEUED, nil, ""
			w.rooms.builds.build, w.rooms.builds.listed = build, []*schedulerv1.Build{build}

			b.do(chromedp.Navigate(outside.URL + "/ci/"))
			b.do(chromedp.Click(`main a[href$="/builds"]`))
			b.do(chromedp.SendKeys("[name=token]", adminToken+"\r"))
			b.reads("#builds", "Mend the door")
			b.do(chromedp.Click("#builds .name"))
			b.reads("#state", "queued")
			if rules := b.value("document.styleSheets[0].cssRules.length"); rules == "0" {
				t.Error("the page has no style")
			}
			b.do(chromedp.Click("[action$=cancel] button"))
			b.reads("#state", "cancelled")
			if at := b.value("location.pathname"); at != "/ci/builds/b1" {
				t.Errorf("at %s", at)
			}
		})
	}
}

func TestFollowedProgressBarIsOneLine(t *testing.T) {
	w, b := onSQLite(t, nil), newBrowser(t) // which leaves first, and with it who watches
	build := failedBuild()
	build.State, build.EndTime = schedulerv1.Build_STATE_RUNNING, nil
	w.rooms.builds.build = build
	w.rooms.builds.log = "\x1b[1mfetch\x1b[0m\r\n 10%\r 50%\x1b[1G100%\nbuild\n  1 of 3\r  2 of 3\x1b[2"
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1"))
	kittest.Eventually(t, patience, func() error {
		if got := b.text(".l > span"); got != "fetch\n100%\nbuild\n  2 of 3" {
			return fmt.Errorf("the log reads %q", got)
		}
		return nil
	})
}
