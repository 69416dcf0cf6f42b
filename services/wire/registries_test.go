package wire_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// A private image is pulled with what the repository has for its registry, which stands
// nowhere but there.
func TestAPrivateImageIsPulledForWhomItIsSet(t *testing.T) {
	kittest.Require(t, "docker")
	const password = "correct-horse-battery-staple"
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	reg.User, reg.Password, reg.Tokens = "octo", password, true
	tools := reg.Image("octo/tools:1")
	host, _, _ := strings.Cut(tools, "/")
	t.Cleanup(func() {
		kittest.RemoveImage(context.WithoutCancel(t.Context()), t, kittest.Docker(t, ""), tools)
	})
	w := newDockerWorld(t, "", func(string) map[string]string {
		return map[string]string{".forge.yml": lines("image: "+tools, "execute: ['env; cat /proc/*/environ | tr \"\\0\" \"\\n\"; echo begun']")}
	})
	set := func(uses string) {
		t.Helper()
		out, err := w.fed(t, password+"\n", "secrets", "registry", "set", "--grpc-address="+w.grpc, "--repo="+owner+"/"+repo, "--username=octo", "--for="+uses, host)
		if err != nil || strings.Contains(out, password) {
			t.Fatalf("%v: %s", err, out)
		}
	}
	set("pushes,deploys")
	early := w.branchHead(t, "early")
	page := w.page(t, w.shows(t, early, "forge/test", "error").TargetURL)
	if want := "what is set for " + host + " is not for pull requests: forge secrets registry set " + host + " --repo " + owner + "/" + repo + " --for pull-requests,pushes,deploys"; !strings.Contains(page, want) {
		t.Errorf("the page does not say %q:\n%s", want, page)
	}
	set("pull-requests")
	_, head := w.propose(t, "later", files("file", "x"))
	shown := w.shows(t, head, "forge/test", "success")
	log := w.log(t, shown.TargetURL)
	if !strings.Contains(log, "image "+tools+" pulled in ") || !strings.Contains(log, "\nbegun\n") {
		t.Errorf("the log is %s", log)
	}
	build, err := json.Marshal(w.newest(t))
	if err != nil {
		t.Fatal(err)
	}
	page = w.page(t, shown.TargetURL)
	w.cleared(t, w.newest(t).GetId())
	var printed strings.Builder
	for _, p := range w.processes {
		p.stop(t)
		printed.WriteString(p.output.String())
	}
	err = filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		printed.Write(text)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for where, text := range map[string]string{"the log": log, "the page": page, "the build": string(build), "what Forge says and keeps": printed.String()} {
		if strings.Contains(text, password) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("octo:" + password))[:20]) {
			t.Errorf("%s holds the password", where)
		}
	}
}
