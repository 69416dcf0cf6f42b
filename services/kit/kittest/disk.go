package kittest

import (
	"os/exec"
	"testing"
)

// SmallDisk mounts a disk of a size in tmpfs's words, such as "4m", which is gone with
// the test. resize gives it another.
func SmallDisk(t testing.TB, size string) (dir string, resize func(size string)) {
	t.Helper()
	Require(t, "disk")
	dir = t.TempDir()
	mount := func(options string) {
		t.Helper()
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput(); err != nil { //nolint:noctx // it is over at once
			t.Fatalf("mount: %v\n%s", err, out)
		}
	}
	mount("size=" + size)
	t.Cleanup(func() { _ = exec.Command("umount", "--lazy", dir).Run() }) //nolint:noctx // as above
	return dir, func(size string) { t.Helper(); mount("remount,size=" + size) }
}
