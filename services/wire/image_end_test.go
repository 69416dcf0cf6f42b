package wire_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// sleeps reports whether a process of this machine sleeps for so many seconds.
func sleeps(seconds string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "sleep\x00"+seconds+"\x00") {
			return true
		}
	}
	return false
}

// Whatever ends a build in the middle of a RUN ends that, too: somebody who cancels it, its
// time, or that Forge is killed. Then the step has ended, no tag is there, and the next
// attempt pushes the image.
func TestWhatEndsABuildEndsItsImage(t *testing.T) {
	kittest.Require(t, "docker")
	i := newImages(t)
	base := i.base(t, "base:1")
	long := strconv.Itoa(100_000 + os.Getpid())
	var seconds atomic.Value
	seconds.Store(long)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, seconds.Load().(string))
	}))
	t.Cleanup(server.Close)
	step := "{image: {tags: ['" + i.host + "/acme/web:latest'], push: true}}"
	var busybox string
	w := newDockerWorld(t, "", func(image string) map[string]string {
		busybox = image
		return map[string]string{
			".forge.yml": lines("image: "+image, "retry: {times: 1, on: [lost]}", "execute: ["+step+"]", "push: {branches: [main], execute: ["+step+", echo after]}"),
			"Dockerfile": lines("FROM "+base, "ADD "+server.URL+"/seconds /seconds", "RUN echo it-$((40+2)); sleep $(cat /seconds)"),
		}
	}, imageNetworks)
	builds := schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler"))
	runs := func(sha, context string) *schedulerv1.Build {
		t.Helper()
		w.shows(t, sha, context, "pending")
		b := w.newest(t)
		kittest.Eventually(t, dockerPatience, func() error {
			if log := w.log(t, b.GetUrl()); !strings.Contains(log, "it-42") || !sleeps(long) {
				return fmt.Errorf("it does not run: %s", log)
			}
			return nil
		})
		return b
	}
	ended := func(how string) {
		t.Helper()
		kittest.Eventually(t, dockerPatience, func() error {
			if sleeps(long) {
				return fmt.Errorf("the command runs on after %s", how)
			}
			return nil
		})
	}

	_, head := w.propose(t, "cancelled", files("file", "x"))
	b := runs(head, "forge/test")
	_, err := builds.CancelBuild(asAdmin(t.Context()), &schedulerv1.CancelBuildRequest{BuildId: b.GetId()})
	must(t, err)
	w.shows(t, head, "forge/test", "error")
	ended("a cancellation")
	_, late := w.propose(t, "late", files(".forge.yml", lines("image: "+busybox, "timeout: 20s", "execute: ["+step+"]")))
	w.shows(t, late, "forge/test", "error")
	kittest.Want(t, w.newest(t).GetState(), schedulerv1.Build_STATE_TIMED_OUT, "state of what has run for too long")
	ended("its time")

	pushed := w.push(t, "main", files("file", "y"))
	runs(pushed, "forge/push")
	w.process("forge").kill()
	ended("a SIGKILL of Forge")
	if _, err := i.digest(t, "acme/web:latest"); err == nil {
		t.Error("a tag names what was not built")
	}
	seconds.Store("0")
	w.process("forge").begin(t)
	w.awaitUp(t)
	w.shows(t, pushed, "forge/push", "success")
	b = w.newest(t)
	kittest.Want(t, b.GetAttempt(), 2, "attempts")
	if log := w.attemptLog(t, b.GetId(), 1); !strings.Contains(log, "no image was built: ") || strings.Contains(log, "after") {
		t.Errorf("log of the first attempt:\n%s", log)
	}
	if log := w.attemptLog(t, b.GetId(), 2); !strings.Contains(log, "\nafter\n") {
		t.Errorf("log of the second attempt:\n%s", log)
	}
	if _, err := i.digest(t, "acme/web:latest"); err != nil {
		t.Error(err)
	}
	w.idle(t)
}
