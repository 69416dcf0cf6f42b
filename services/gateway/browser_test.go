package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// browser is a tab of a real one.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // what chromedp knows the tab by
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	kittest.Require(t, "browser")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(kittest.Browser()), chromedp.NoSandbox)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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
func (b *browser) text(selector string) string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](
		fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.innerText).join("\n")`, selector)))
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

// reads waits until the parts hold the text.
func (b *browser) reads(selector, want string) {
	b.t.Helper()
	kittest.Eventually(b.t, 20*time.Second, func() error {
		if got := b.text(selector); !strings.Contains(got, want) {
			return errors.New(got)
		}
		return nil
	})
}

func TestDeliveriesPageAnswersWhyNothingWasBuilt(t *testing.T) {
	b, w := newBrowser(t), onSQLite(t, nil)
	evil := `{"action":"<img src=x onerror=document.title=1>","repository":{"id":1,"name":"<b>","full_name":"acme/<b>"}}`
	w.post(hook{event: "star", id: "evil", body: []byte(evil)})
	for n := range 50 {
		w.post(hook{event: "star", id: fmt.Sprintf("s%d", n), body: star})
	}
	w.post(hook{event: "ping", id: "first-ping", body: sample(t, "ping")})
	w.ends("first-ping")

	b.do(chromedp.Navigate(w.http.URL + "/deliveries"))
	b.do(chromedp.SendKeys("[name=token]", "wrong\r"))
	b.reads("#said", "the admin token is wrong")
	b.do(chromedp.SetValue("[name=token]", adminToken), chromedp.Click("form button"))
	b.reads("#deliveries", "the webhook works: Keep it logically awesome.")
	if got := b.text("#said"); got != "" {
		t.Errorf("it still says %q", got)
	}
	b.do(chromedp.Click("#more"))
	b.reads("#deliveries", "acme/<b>")
	b.reads("#deliveries", "star <img src=x onerror=document.title=1>")
	if got := b.text("title"); got != "" && !strings.HasPrefix(got, "Deliveries") {
		t.Errorf("a payload ran: the title is %q", got)
	}

	// The tab keeps the token, and nothing else does.
	b.do(chromedp.Navigate(w.http.URL + "/deliveries"))
	b.reads("#deliveries", "first-ping")
	b.do(chromedp.SendKeys("[name=event]", "push\r"))
	b.reads("#said", "There are none.")
	if kept, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.href + document.cookie + Object.keys(localStorage)")); err != nil || kept != w.http.URL+"/deliveries" {
		t.Errorf("kept %q, %v", kept, err)
	}
}
