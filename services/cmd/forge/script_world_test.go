package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// patienceOfScripts is how long a script waits for what happens by itself.
const patienceOfScripts = 60 * time.Second

// scriptWorld is the demo's GitHub and the demo's Forge, where people can sign in.
type scriptWorld struct{ *world }

// startWorld starts them; they end with the test.
func startWorld(t *testing.T) scriptWorld {
	t.Helper()
	dir, err := os.MkdirTemp("", "forge") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w, err := newWorld(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.logTail())
		}
		w.close()
		endBuilds(dir)
	})
	w.sim.SetOAuth(githubsim.OAuth{ClientID: "client", ClientSecret: "hush", DeviceFlow: true})
	w.env = []string{
		"FORGE_OAUTH_CLIENT_ID=client", "FORGE_OAUTH_CLIENT_SECRET=hush", "FORGE_ADMINS=octocat", "FORGE_CAPACITY=8", "FORGE_BUILD_LINKS=open",
		"GORACE=atexit_sleep_ms=0",
	}
	w.free = func(int) (string, error) { return kittest.FreeAddress(t), nil }
	if w.self, err = exec.LookPath("forge"); err != nil {
		t.Fatal(err)
	}
	if err := w.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return scriptWorld{w}
}

// endBuilds kills what runs in a folder: builds outlive Forge, and are not to outlive the test.
func endBuilds(dir string) {
	folders, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, folder := range folders {
		at, err := os.Readlink(folder)
		pid, wrong := strconv.Atoi(filepath.Base(filepath.Dir(folder)))
		if err == nil && wrong == nil && strings.HasPrefix(at, dir+string(filepath.Separator)) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
}

// setup says what a script finds.
func (w scriptWorld) setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	for name, value := range map[string]string{
		"HOME": home, "XDG_CONFIG_HOME": filepath.Join(home, ".config"), "TZ": "UTC", "GORACE": "atexit_sleep_ms=0",
		"FORGE_DATA_DIR": w.data, "FORGE_GRPC_ADDRESS": w.grpc, "URL": w.forge, "GITHUB": w.github, "SETTINGS": w.config,
	} {
		env.Setenv(name, value)
	}
	return os.Mkdir(home, 0o700)
}

// repository adds one with the files of a folder and a production branch.
func (w scriptWorld) repository(name, folder string, public bool) error {
	files, err := filesIn(folder)
	if err != nil {
		return err
	}
	if err := w.sim.AddRepository(githubsim.Repository{Owner: demoOwner, Name: name, Files: files, Public: public}); err != nil {
		return err
	}
	return w.sim.CreateBranch(demoOwner, name, "production", "main")
}

// commit puts the files of a folder onto a branch, which is made where there is none.
func (w scriptWorld) commit(name, branch, folder string) (sha string, err error) {
	files, err := filesIn(folder)
	if err != nil {
		return "", err
	}
	if _, err := w.sim.Head(demoOwner, name, branch); err != nil {
		if err := w.sim.CreateBranch(demoOwner, name, branch, "main"); err != nil {
			return "", err
		}
	}
	return w.sim.Commit(demoOwner, name, branch, githubsim.Commit{Message: "Change " + branch, Files: files})
}

func filesIn(folder string) (map[string]string, error) {
	files := map[string]string{}
	all := os.DirFS(folder)
	err := fs.WalkDir(all, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(all, name)
		files[name] = string(text)
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s has no files", folder)
	}
	return files, err
}
