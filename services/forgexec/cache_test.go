package forgexec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// caching is a plan whose one step looks for what the cache holds, and puts it there.
func caching(t *testing.T, cache *configv1.Cache, step string) *fakeScheduler {
	t.Helper()
	s := newScheduler(t, step)
	s.plan.Caches = []*configv1.Cache{cache}
	s.plan.Environment = map[string]string{"FORGE_REF": "refs/heads/main"}
	return s
}

const fills = `cat deps/sub/made 2>/dev/null || echo nothing; mkdir -p deps/sub; echo made >deps/sub/made; ln -sf sub deps/link`

func deps(key string) *configv1.Cache {
	return &configv1.Cache{Key: key, Restore: []string{"go-"}, Paths: []string{"deps"}}
}

// wantLog holds the log of a build that passed against what it says, in order.
func (s *fakeScheduler) wantLog(t *testing.T, f *forgexec, says ...string) {
	t.Helper()
	f.wantExit(t, exitReported)
	log := string(s.output())
	rest := log
	for _, text := range says {
		_, after, found := strings.Cut(rest, text)
		if !found {
			t.Fatalf("the log does not say %q there:\n%s", text, log)
		}
		rest = after
	}
	if !strings.HasSuffix(s.story(), "\nDONE") {
		t.Errorf("it ended otherwise:\n%s", s.story())
	}
}

func TestACacheIsRestoredAndSaved(t *testing.T) {
	s := caching(t, deps("go-${hash:file}-${FORGE_REF}"), fills)
	s.wantLog(t, s.forgexec(t), "forge: cache go-", "-refs/heads/main: nothing was saved for it yet\n", "nothing\n", ": saved, 5 B in ", ", 1 B of it new\n")
	again := caching(t, deps("go-${hash:file}-${FORGE_REF}"), fills)
	again.contents.kept = s.contents.kept
	again.wantLog(t, again.forgexec(t), "-refs/heads/main: restored, 5 B in ", "made\n")
	if len(again.contents.put) > 0 {
		t.Errorf("%q was saved though it was there", again.contents.put)
	}
	other := caching(t, deps("go-other"), fills)
	other.contents.kept = map[string]*kept{"go-": s.contents.kept[s.contents.put[0]]}
	other.wantLog(t, other.forgexec(t), "forge: cache go-other: restored from go-, 5 B in ", "made\n", "forge: cache go-other: saved")
}

// Whatever goes wrong with a cache is a line, and the build is none the worse for it.
func TestNoTroubleWithACacheFailsABuild(t *testing.T) {
	away := status.Error(codes.Unavailable, "the bucket is away")
	for name, c := range map[string]struct {
		key        string
		paths      []string
		get, put   []error
		harm       func([]byte)
		step, says string
		kept       bool
	}{
		"refused":                 {get: []error{status.Error(codes.PermissionDenied, "no")}, says: ": not restored, the build goes on without: no\n"},
		"away for a while":        {get: []error{away, away, away}, says: ": restored, 5 B", kept: true},
		"broken off":              {get: []error{nil, away}, says: ": restored, 5 B", kept: true},
		"not saved":               {put: []error{status.Error(codes.ResourceExhausted, "it is too large")}, says: ": not saved: it is too large\n"},
		"saved by another":        {put: []error{status.Error(codes.AlreadyExists, "")}, says: ": not saved, another build has saved it meanwhile\n"},
		"saved at the second try": {put: []error{nil, away}, says: ": saved, 5 B"},
		"changed":                 {harm: func(packed []byte) { packed[len(packed)-1] ^= 1 }, says: ": nothing was saved for it yet\n", kept: true},
		"the file system":         {paths: []string{"/"}, says: ": not restored, the build goes on without: / holds the workspace: name the folders that are to be kept\n"},
		"the workspace":           {paths: []string{"."}, says: ". holds the workspace"},
		"the repository":          {paths: []string{".git/objects"}, says: ".git/objects lies in the repository of the workspace"},
		"the repository by links": {paths: []string{"link/objects"}, says: ": saved", step: "mkdir -p deps; echo >deps/a; ln -s .git link"},
		"the system":              {paths: []string{"/proc/self"}, says: "/proc/"},
		"a hash without an end":   {key: "go-${hash:file", says: "${hash:file has no end"},
		"nothing there":           {paths: []string{"absent"}, says: ": not saved, there is nothing at absent\n"},
		"a socket":                {step: "mkdir deps; mkfifo deps/pipe; echo >deps/a", says: ": saved"},
	} {
		t.Run(name, func(t *testing.T) {
			cache := deps("go-1")
			if c.key != "" {
				cache.Key = c.key
			}
			if c.paths != nil {
				cache.Paths = c.paths
			}
			if name == "the repository by links" {
				cache.Paths = append(cache.Paths, "deps")
			}
			step := fills
			if c.step != "" {
				step = c.step
			}
			s := caching(t, cache, step)
			if c.kept {
				first := caching(t, deps("go-1"), fills)
				first.wantLog(t, first.forgexec(t), ": saved")
				s.contents.kept = first.contents.kept
			}
			s.contents.getErrors, s.contents.putErrors, s.contents.harm = c.get, c.put, c.harm
			s.wantLog(t, s.forgexec(t), c.says)
			if (c.harm != nil) != (s.contents.verified > 0) {
				t.Errorf("the scheduler was asked %d times to look for itself", s.contents.verified)
			}
		})
	}
}

// What a slow bucket costs a build is bounded.
func TestACacheThatTakesTooLongIsDoneWithout(t *testing.T) {
	s := caching(t, deps("go-1"), fills)
	s.plan.Artifacts = &schedulerv1.Plan_Artifacts{Within: durationpb.New(300 * time.Millisecond)}
	s.contents.hangs = true
	s.wantLog(t, s.forgexec(t), "forge: cache go-1: not restored, the build goes on without: it took too long\n", "nothing\n", "forge: cache go-1: not saved: it took too long\n")
}

// A failed build saves nothing, but where it is told to.
func TestOnlyWhatPassedIsSavedUnlessToldOtherwise(t *testing.T) {
	for _, always := range []bool{false, true} {
		cache := deps("go-1")
		cache.SaveAlways = always
		s := caching(t, cache, fills+"; exit 3")
		s.forgexec(t).wantExit(t, exitReported)
		if saved := slices.Contains(s.contents.put, "go-1"); saved != always || !strings.Contains(s.story(), "end 1 exit 3") {
			t.Errorf("always %v: saved %v:\n%s", always, saved, s.story())
		}
	}
}

func leaving(t *testing.T, step string, artifacts ...*configv1.Artifact) *fakeScheduler {
	t.Helper()
	s := newScheduler(t, step)
	s.plan.Artifacts = &schedulerv1.Plan_Artifacts{Kept: artifacts}
	return s
}

func TestArtifactsAreKeptAndBrought(t *testing.T) {
	dist := &configv1.Artifact{Name: "dist", Paths: []string{"./dist", "./*.log", "a.log"}}
	s := leaving(t, "mkdir -p dist/sub out; echo p >dist/sub/program; chmod 700 dist/sub/program; echo l >a.log; ln -s /etc dist/etc; echo o >out/o; exit 1",
		dist, &configv1.Artifact{Name: "none", Paths: []string{"absent/*"}})
	s.forgexec(t).wantExit(t, exitReported)
	for _, want := range []string{"forge: artifact dist: kept, 2 files, 4 B", `forge: artifact none: nothing matches ["absent/*"]`} {
		if !strings.Contains(string(s.output()), want) {
			t.Errorf("the log does not say %q:\n%s", want, s.output())
		}
	}
	user := newScheduler(t, "cat a.log dist/sub/program; test -x dist/sub/program; test ! -e out")
	user.plan.Artifacts = &schedulerv1.Plan_Artifacts{Needed: []*schedulerv1.NeededArtifact{{BuildId: "b0", Name: "dist"}}}
	user.contents.kept = s.contents.kept
	user.wantLog(t, user.forgexec(t), "forge: artifact dist: put into the workspace, 4 B in ", "l\np\n")
}

func TestABuildThatLacksAnArtifactIsNotPassed(t *testing.T) {
	s := leaving(t, "echo a >a", &configv1.Artifact{Name: "dist", Paths: []string{"a"}})
	s.contents.putErrors = []error{status.Error(codes.ResourceExhausted, "it is too large")}
	f := s.forgexec(t)
	f.wantExit(t, exitReported)
	if want := "ARTIFACT artifact dist could not be kept: it is too large"; !strings.HasSuffix(s.story(), want) {
		t.Errorf("reported:\n%s\nwant %q at the end", s.story(), want)
	}
	user := newScheduler(t, "true")
	user.plan.Artifacts = &schedulerv1.Plan_Artifacts{Needed: []*schedulerv1.NeededArtifact{{BuildId: "b0", Name: "dist"}}}
	user.wantStory(t, user.forgexec(t), "source 1 entries", "ARTIFACT artifact dist, which this job needs, could not be had: nothing was saved for it yet")
}

func TestNoSecretIsInTheNamesOfArtifacts(t *testing.T) {
	s := leaving(t, "echo a >a; echo b >$TOKEN", &configv1.Artifact{Name: "dist", Paths: []string{"*"}})
	s.plan.Secrets = map[string]string{"TOKEN": "hunter2-hunter2"}
	s.wantLog(t, s.forgexec(t), "forge: artifact dist: *** is left out, its name holds a secret\n", "forge: artifact dist: kept, 2 files")
}

// What globs and hashes find is what lies in the workspace: not behind links, nor in
// its repository.
func TestFilesOfGlobs(t *testing.T) {
	w := &workspace{path: t.TempDir()}
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600))
	for _, name := range []string{"a.go", "sub/b.go", "sub/deep/c.go", ".git/config", ".git/hooks/x.go", "sub/.git"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(w.path, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(w.path, name), []byte(name), 0o600))
	}
	must(t, os.Symlink(outside, filepath.Join(w.path, "out")))
	must(t, os.Symlink("../a.go", filepath.Join(w.path, "sub", "link.go")))
	for glob, want := range map[string]string{
		"**/*.go": "a.go sub/b.go sub/deep/c.go", "*.go": "a.go", "./a.go": "a.go", "sub/**": "sub/.git sub/b.go sub/deep/c.go",
		"**": "a.go sub/.git sub/b.go sub/deep/c.go", "out/*": "", "out/secret": "", ".git/*": "", ".git/config": "", "absent/*": "", "*.go,sub/*.go": "a.go sub/b.go",
	} {
		names, err := w.files(strings.Split(glob, ","))
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%s: %q, error %v; want %q", glob, got, err, want)
		}
	}
	one, err := w.filled("${hash:**/*.go}", nil)
	must(t, err)
	must(t, os.Rename(filepath.Join(w.path, "a.go"), filepath.Join(w.path, "z.go")))
	other, err := w.filled("${hash:**/*.go}", nil)
	must(t, err)
	if one == other || len(one) != 32 {
		t.Errorf("hashes %s and %s", one, other)
	}
}
