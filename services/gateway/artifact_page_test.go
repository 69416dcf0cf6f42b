package gateway

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestPageOfAnArtifactLeadsToItsFiles(t *testing.T) {
	w := withLeftovers(t)
	left := &w.rooms.left
	left.leaves("dist/a b#?.txt", strings.Repeat("x", 2048))
	left.adds(aLink, "dist/latest", "a b#?.txt")
	left.adds(aHardLink, "again.txt", "dist/a b#?.txt")
	left.leaves("dist/../evil", "a name that no link can hold")
	left.leaves("<img src=x onerror=alert(1)>.html", "")
	left.adds(aLink, "<b>", "</a><script>alert(1)</script>")
	_, body := w.get("/builds/b1/artifacts/dist/")
	kittest.Golden(t, "artifact.html", []byte(body+"\n"))

	left.all = nil
	for n := range 501 {
		left.leaves(fmt.Sprintf("f%d", n), "")
	}
	if _, body = w.get("/builds/b1/artifacts/dist/"); !strings.Contains(body, `<a href="?from=500">more files</a>`) || strings.Contains(body, ">f500<") {
		t.Error("the first page does not lead to the second")
	}
	if _, body = w.get("/builds/b1/artifacts/dist/?from=500"); !strings.Contains(body, ">f500<") || strings.Contains(body, "more files") {
		t.Errorf("the second page: %s", body)
	}
}

// What a browser opens of a build's files is in no origin and runs nothing; what it
// could run it stores.
func TestBrowserRunsNothingThatABuildHasLeft(t *testing.T) {
	w, b := withLeftovers(t), newBrowser(t)
	left := &w.rooms.left
	const evil = `<html><title>mine</title><script>document.title="ran"</script><body>hello`
	left.leaves("page.txt", evil)
	left.leaves("page.html", evil)
	left.leaves("evil.js", `document.title="ran"`)
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 2, 3))); err != nil {
		t.Fatal(err)
	}
	left.leaves("dot.png", picture.String())

	b.do(chromedp.Navigate(w.http.URL + "/builds/b1"))
	b.do(chromedp.Click("#artifacts a.name"))
	b.reads("h1", "dist")
	if at := b.value("location.pathname"); at != "/builds/b1/artifacts/dist/" {
		t.Errorf("the page of the build leads to %s", at)
	}
	b.do(chromedp.Click(`a[href$="/page.txt"]`))
	b.reads("body", "<script>")
	if got := b.value("self.origin + document.title"); got != "null" {
		t.Errorf("a text is shown in the origin, and with the title, %s", got)
	}
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1/artifacts/dist/dot.png"))
	if got := b.value(`self.origin + [...document.images].map((i) => i.naturalWidth + "x" + i.naturalHeight)`); got != "null2x3" {
		t.Errorf("an image is shown as %s", got)
	}
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1"))
	// Forge's pages allow scripts of their own origin, and files of builds come from there.
	b.do(chromedp.Evaluate[chromedp.Void](`{ const s = document.createElement("script"); s.onload = s.onerror = (e) => document.body.dataset.script = e.type;
		s.src = "/builds/b1/artifacts/dist/evil.js"; document.body.append(s); }`))
	kittest.Eventually(t, patience, func() error {
		if got := b.value("document.body.dataset.script"); got != "error" {
			return fmt.Errorf("the script: %s", got)
		}
		return nil
	})
	if got := b.value("document.title"); strings.Contains(got, "ran") {
		t.Error("a page of Forge's ran a script that a build has left")
	}
	got := w.ask(http.MethodGet, "/builds/b1/artifacts/dist/page.html")
	if got.header.Get("Content-Disposition") != "attachment; filename=page.html" {
		t.Errorf("a page of a build is shown: %v", got.header)
	}
}

func TestArtifactsOfARunningBuildAppear(t *testing.T) {
	w, b := withLeftovers(t), newBrowser(t)
	build := failedBuild()
	build.State, build.EndTime, build.Environment = schedulerv1.Build_STATE_QUEUED, nil, ""
	listed := w.rooms.left.listed
	w.rooms.builds.build, w.rooms.left.listed = build, nil
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1"))
	b.signIn(w)
	b.do(chromedp.Navigate(w.http.URL + "/builds/b1"))
	w.rooms.left.listed = listed
	b.do(chromedp.Click("[action$=cancel] button"))
	b.reads("#artifacts", "dist")
	b.reads("#artifacts", "3 files, 4.9 KiB")
}
