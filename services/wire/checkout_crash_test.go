package wire_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// largeFile is more than the buffers of all connections between config and a build.
const largeFile = 48 << 20

// sourced is a repository whose source takes a while, and whose build says whether it
// is right: its first file's inode tells whether it was written once.
func sourced(t testing.TB, size int) checkoutWorld {
	t.Helper()
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	w := newCheckoutWorld(t, map[string]string{
		"a-first": "the first\n", "large": string(noise), "z-last": "the last\n",
		".forge.yml": lines("image: busybox", "source: {history: full}", "execute:",
			`  - test -z "$(git status --porcelain)" && git fsck --strict --no-dangling && git log --format=%s`,
			"  - cat a-first z-last && stat -c 'inode %i.' a-first",
		),
	})
	w.patience = 10 * time.Minute
	return w
}

// isRight holds a build to have passed, at its only attempt, and to have had its
// source whole.
func (w checkoutWorld) isRight(t *testing.T, sha string) (log string) {
	t.Helper()
	passed := w.shows(t, sha, "forge/test", "success")
	if attempts := w.builds(t, sha)[0].GetAttempt(); attempts != 1 {
		t.Errorf("%d attempts, want one", attempts)
	}
	log = w.log(t, passed.TargetURL)
	contains(t, log, "A change\nInitial commit\n", "the first\nthe last\n")
	return log
}

// halves are what gits have of packs.
func (w checkoutWorld) halves(t *testing.T) (found []string) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Join(w.dir, "forge-data", "mirrors"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(entry.Name(), "tmp_pack_") {
			found = append(found, path)
		}
		return nil // what is gone meanwhile
	}))
	return found
}

// gits are those that work on mirrors.
func (w checkoutWorld) gits(t *testing.T) map[int]string {
	t.Helper()
	processes, err := processesUnder(filepath.Join(w.dir, "forge-data", "mirrors"))
	must(t, err)
	return processes
}

// halted stops the forgexec of the only build once it has a part of the large file,
// and says of which inode the first file is.
func (w checkoutWorld) halted(t *testing.T) (first uint64, goOn func()) {
	t.Helper()
	var workspace string
	look := time.NewTicker(2 * time.Millisecond) // a processor is left for the others
	defer look.Stop()
	for deadline := time.Now().Add(w.patience); workspace == ""; <-look.C {
		if time.Now().After(deadline) {
			t.Fatal("no forgexec unpacks a source")
		}
		_ = filepath.WalkDir(filepath.Join(w.dir, "forge-data"), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Name() == "large" {
				workspace = filepath.Dir(path)
				return fs.SkipAll
			}
			if err == nil && entry.Name() == "mirrors" {
				return fs.SkipDir
			}
			return nil // what is gone meanwhile
		})
	}
	processes, err := processesUnder(w.dir)
	must(t, err)
	halted := 0
	for pid, command := range processes {
		if strings.Contains(command, "forgexec") {
			must(t, syscall.Kill(pid, syscall.SIGSTOP))
			goOn, halted = func() { must(t, syscall.Kill(pid, syscall.SIGCONT)) }, halted+1
		}
	}
	if halted != 1 {
		t.Fatalf("%d forgexecs run, want one: %v", halted, processes)
	}
	if info, err := os.Stat(filepath.Join(workspace, "large")); err != nil || info.Size() == largeFile {
		goOn()
		t.Fatalf("too late: the large file is whole, %v", err)
	}
	info, err := os.Stat(filepath.Join(workspace, "a-first"))
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Ino, goOn
}

// A process is killed while config fetches, with its git or without. One that is left
// goes on, and nobody else works on the mirror meanwhile.
func TestSIGKILLInTheMiddleOfAFetch(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	hangs := githubsim.Misbehaviour{Route: "git-upload-pack", HangAfter: size / 2}
	slow := githubsim.Misbehaviour{Route: "/hello.git/", Latency: 2 * time.Second}
	for name, c := range map[string]struct {
		deployment
		killed  string
		withGit bool
		github  githubsim.Misbehaviour
	}{
		"forge with its git":    {deployment{}, "forge", true, hangs},
		"config with its git":   {deployment{apart: true}, "config", true, hangs},
		"config, and git stays": {deployment{apart: true}, "config", false, slow},
		"scheduler":             {deployment{apart: true}, "scheduler", false, hangs},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := sourced(t, size)
			w.deploy(t, c.deployment)
			behave := w.sim.Misbehave(c.github)
			_, sha := w.propose(t, "change", githubsim.Commit{Message: "A change", Files: map[string]string{"b": "x"}})
			kittest.Eventually(t, patience, func() error {
				begun := c.github.HangAfter == 0 || len(w.halves(t)) > 0
				for _, command := range w.gits(t) {
					if begun && strings.Contains(command, "remote-http") {
						return nil
					}
				}
				return errors.New("no git fetches")
			})
			p := w.process(c.killed)
			p.kill()
			behave()
			left := w.gits(t)
			for pid := range left {
				if c.withGit {
					_ = syscall.Kill(pid, syscall.SIGKILL) // its parent may have ended it
				}
			}
			if len(left) == 0 && c.killed != "scheduler" {
				t.Error("no git fetches any more")
			}
			p.begin(t)
			w.isRight(t, sha)
			if halves := w.halves(t); len(halves) > 0 {
				t.Errorf("left: %v", halves)
			}
		})
	}
}

// A process is killed in the middle of the source's way into the workspace, which goes
// on where it was.
func TestSIGKILLInTheMiddleOfATransfer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		deployment
		killed string
	}{{deployment{}, "forge"}, {deployment{apart: true}, "config"}, {deployment{apart: true}, "scheduler"}} {
		t.Run(c.killed, func(t *testing.T) {
			t.Parallel()
			w := sourced(t, largeFile)
			w.deploy(t, c.deployment)
			_, sha := w.propose(t, "change", githubsim.Commit{Message: "A change", Files: map[string]string{"b": "x"}})
			first, goOn := w.halted(t)
			p := w.process(c.killed)
			p.kill()
			p.begin(t)
			goOn()
			if log := w.isRight(t, sha); !strings.Contains(log, fmt.Sprintf("inode %d.", first)) {
				t.Errorf("the source began anew: the first file was %d\n%s", first, log)
			}
		})
	}
}

// GitHub breaks off in the middle of a fetch, and then is not there at all.
func TestGitHubFailsInTheMiddleOfAFetch(t *testing.T) {
	const size = 4 << 20
	w := sourced(t, size)
	w.up(t)
	fetches := func() (n int) {
		for _, c := range w.sim.Calls() {
			if strings.Contains(c.Path, "git-upload-pack") {
				n++
			}
		}
		return n
	}
	behave := w.sim.Misbehave(githubsim.Misbehaviour{Route: "git-upload-pack", CutAfter: size / 2})
	_, sha := w.propose(t, "change", githubsim.Commit{Message: "A change", Files: map[string]string{"b": "x"}})
	for _, next := range []githubsim.Misbehaviour{{Route: "git-upload-pack", Status: http.StatusBadGateway}, {}} {
		before := fetches()
		kittest.Eventually(t, patience, func() error {
			if fetches() < before+3 { // each asks for refs first
				return errors.New("it is not asked again")
			}
			return nil
		})
		behave()
		if next.Route != "" {
			behave = w.sim.Misbehave(next)
		}
	}
	w.isRight(t, sha)
}
