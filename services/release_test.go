package services_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A release is the same twice, byte for byte; its checksums fit, and its binary runs by
// itself and says its version.
func TestAReleaseIsMadeTheSameTwice(t *testing.T) {
	const version = "v0.0.1-test"
	folder := t.TempDir()
	var archives [2][]byte
	name := "forge_" + version + "_linux_" + runtime.GOARCH
	for n := range archives {
		out := filepath.Join(folder, "out")
		cmd := exec.CommandContext(t.Context(), "../.ci/release", version, out)
		cmd.Env = append(os.Environ(), "RELEASE_ARCHS="+runtime.GOARCH, "RELEASE_MAINS=forge forgexec", "RELEASE_IMAGE=no")
		if n == 1 {
			cmd.Env = append(cmd.Env, "TZ=Asia/Tokyo", "LC_ALL=C", "USER=somebody")
		}
		said, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(said), name+".tar.gz") || !strings.Contains(string(said), "no image: RELEASE_IMAGE=no") {
			t.Fatalf("%v: %s", err, said)
		}
		if archives[n], err = os.ReadFile(filepath.Join(out, name+".tar.gz")); err != nil {
			t.Fatal(err)
		}
		check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
		check.Dir = out
		if said, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, said)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the archive is another the second time")
	}
	unpack := exec.CommandContext(t.Context(), "tar", "-xzf", filepath.Join(folder, "out", name+".tar.gz"), "-C", folder)
	if said, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for _, file := range []string{"LICENSE", "changelog.md", "forgexec"} {
		if info, err := os.Stat(filepath.Join(folder, name, file)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
	forge := exec.CommandContext(t.Context(), filepath.Join(folder, name, "forge"), "version")
	forge.Env = []string{} // a static binary needs nothing
	if said, err := forge.CombinedOutput(); err != nil || string(said) != version+"\n" {
		t.Errorf("it says %q: %v", said, err)
	}
}

func TestAVersionThatIsNoneMakesNoRelease(t *testing.T) {
	for _, version := range []string{"", "v1 -X main.x", "../v1", "v1;true"} {
		if said, err := exec.CommandContext(t.Context(), "../.ci/release", version, t.TempDir()).CombinedOutput(); err == nil {
			t.Errorf("%q: %s", version, said)
		}
	}
}
