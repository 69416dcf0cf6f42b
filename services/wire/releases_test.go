package wire_test

import (
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
)

// A tag runs what the file of its commit has for tags, and its release what that has
// for releases, each with a status of its own.
func TestATagAndItsRelease(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": lines("image: busybox", "execute: 'true'")})
		w.deploy(t, d)
		tagged := w.push(t, "main", files(".forge.yml", lines(
			"image: busybox", "execute: 'true'",
			"push: {tags: ['v*'], jobs: {pack: {execute: 'echo pack $FORGE_TAG'}}}",
			"release: {tags: ['v*'], prereleases: false, jobs: {publish: {execute: 'echo publish $FORGE_TAG'}}}",
		)))
		for _, tag := range []string{"v1.0", "v1.1-rc1"} {
			must(t, w.sim.CreateTag(owner, repo, tag, "main"))
		}
		w.shows(t, tagged, "forge/tag", "success")
		w.push(t, "main", files(".forge.yml", lines("image: busybox", "execute: 'true'")))
		must(t, w.sim.PublishRelease(owner, repo, githubsim.Release{Tag: "v1.1-rc1", Prerelease: true}))
		w.until(t, "release", "ignored: v1.1-rc1 is a prerelease")
		w.until(t, "release", "ignored: action created")
		must(t, w.sim.PublishRelease(owner, repo, githubsim.Release{Tag: "v1.0", Name: "The first"}))
		if status := w.shows(t, tagged, "forge/release", "success"); !strings.HasPrefix(status.Description, "Passed in ") {
			t.Errorf("%+v", status)
		}
		if log := w.log(t, w.shows(t, tagged, "forge/release/publish", "success").TargetURL); !strings.Contains(log, "publish v1.0") {
			t.Errorf("the release printed %q", log)
		}
	})
}
