package wire_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// versioned is a repository that says at each push what a tool would call its
// version, as setuptools_scm and others ask git.
func versioned() map[string]string {
	return map[string]string{"file": "1\n", ".forge.yml": lines(
		"image: busybox", "source: {history: full}", "execute: ['true']", "push:", "  branches: [main]", "  tags: ['v*', 'w*']", "  execute:",
		"    - git describe --dirty --tags --long --always",
		`    - echo "tag=$FORGE_TAG $(cat file) $(git log -1 --format=%H)"`,
		"    - echo changed >file && git describe --dirty --tags --long --always",
	)}
}

// pushed waits until every build of a commit has passed, that many, and returns what
// the one of a tag printed, or of the branch for "".
func (w checkoutWorld) pushed(t *testing.T, sha, tag string, builds int) string {
	t.Helper()
	var url string
	kittest.Eventually(t, patience, func() error {
		all := w.builds(t, sha)
		if len(all) < builds {
			return errors.New("a build is missing")
		}
		for _, b := range all {
			if state := b.GetState().String(); state != "STATE_PASSED" {
				return errors.New(state + ": " + b.GetMessage())
			}
			if name, isTag := strings.CutPrefix(b.GetRef(), "refs/tags/"); isTag && name == tag || !isTag && tag == "" {
				url = w.http + "/builds/" + b.GetId()
			}
		}
		return nil
	})
	if url == "" {
		t.Fatalf("no build of tag %q at %s", tag, sha)
	}
	return w.log(t, url)
}

// gitIsDown has fetches fail, until up is called. asked waits until one has.
func (w checkoutWorld) gitIsDown(t *testing.T) (asked, up func()) {
	t.Helper()
	up = w.sim.Misbehave(githubsim.Misbehaviour{Route: "info/refs", Status: http.StatusBadGateway})
	before := len(w.sim.Calls())
	return func() {
		t.Helper()
		kittest.Eventually(t, patience, func() error {
			if !slices.ContainsFunc(w.sim.Calls()[before:], func(c githubsim.Call) bool { return strings.Contains(c.Path, "info/refs") }) {
				return errors.New("nobody fetches")
			}
			return nil
		})
	}, up
}

// A build of a tag has that tag, at the commit that the event told of: also where the
// commit was built before under another name, and where the tag is elsewhere by now.
func TestVersionComesFromTheTagOfTheEvent(t *testing.T) {
	w := newCheckoutWorld(t, versioned())
	w.up(t)
	first := w.push(t, "main", files("file", "first\n"))
	w.shows(t, first, "forge/push", "success")
	must(t, w.sim.CreateTag(owner, repo, "v1.0-rc1", "main"))
	contains(t, w.pushed(t, first, "v1.0-rc1", 2), "v1.0-rc1-0-g"+first[:7]+"\n", "tag=v1.0-rc1 first "+first, "v1.0-rc1-0-g"+first[:7]+"-dirty\n")
	must(t, w.sim.CreateAnnotatedTag(owner, repo, "v1.0", "main", "The first one"))
	contains(t, w.pushed(t, first, "v1.0", 3), "v1.0-0-g"+first[:7]+"\n", "tag=v1.0 first "+first)

	second := w.push(t, "main", files("file", "second\n"))
	contains(t, w.pushed(t, second, "", 1), "v1.0-1-g"+second[:7]+"\n", "v1.0-1-g"+second[:7]+"-dirty\n")
	must(t, w.sim.SetRef(owner, repo, "refs/tags/v1.0-rc1", second))
	contains(t, w.pushed(t, second, "v1.0-rc1", 2), "v1.0-rc1-0-g"+second[:7]+"\n")

	third := w.push(t, "main", files("file", "third\n"))
	w.shows(t, third, "forge/push", "success")
	fourth := w.push(t, "main", files("file", "fourth\n"))
	w.shows(t, fourth, "forge/push", "success")
	asked, up := w.gitIsDown(t)
	must(t, w.sim.CreateTag(owner, repo, "w2", third))
	asked()
	must(t, w.sim.SetRef(owner, repo, "refs/tags/w2", fourth))
	up()
	contains(t, w.pushed(t, third, "w2", 2), "w2-0-g"+third[:7]+"\n", "tag=w2 third "+third)
	contains(t, w.pushed(t, fourth, "w2", 2), "w2-0-g"+fourth[:7]+"\n", "tag=w2 fourth "+fourth)
}

// A commit that a force-push has taken off its branch before it was fetched is built
// as it was, and the branch is where it is now.
func TestForcePushBetweenEventAndFetch(t *testing.T) {
	w := newCheckoutWorld(t, versioned())
	must(t, w.sim.CreateTag(owner, repo, "v1", "main"))
	w.up(t)
	must(t, w.sim.CreateBranch(owner, repo, "other", "main"))
	other := w.push(t, "other", files("file", "other\n"))
	asked, up := w.gitIsDown(t)
	left := w.push(t, "main", files("file", "left\n"))
	asked()
	must(t, w.sim.SetRef(owner, repo, "refs/heads/main", other))
	up()
	contains(t, w.pushed(t, left, "", 1), "v1-1-g"+left[:7]+"\n", "left "+left)
	contains(t, w.pushed(t, other, "", 1), "v1-1-g"+other[:7]+"\n", "other "+other)
}
