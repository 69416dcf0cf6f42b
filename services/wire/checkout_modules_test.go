package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
)

// checkoutWorld is one whose builds look at their workspaces.
type checkoutWorld struct{ *world }

func newCheckoutWorld(t testing.TB, files map[string]string) checkoutWorld {
	t.Helper()
	return checkoutWorld{newWorld(t, files)}
}

// contains tells what a log, or what else Forge says, lacks.
func contains(t *testing.T, log string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(log, want) {
			t.Errorf("it lacks %q:\n%s", want, log)
		}
	}
}

// Files that Git LFS keeps are in the workspace. Git itself, which knows nothing of
// LFS where that is not installed, has the pointers in its index and sees no change.
func TestFilesOfLFSAreInTheWorkspace(t *testing.T) {
	w := newCheckoutWorld(t, map[string]string{
		".forge.yml": lines("image: busybox", "source: {lfs: true}", "execute:",
			"  - wc -c <art/large.bin && sha256sum art/large.bin && cat art/small.bin plain",
			"  - git cat-file blob :art/small.bin",
			`  - test -z "$(git status --porcelain)" && echo clean`,
			`  - if git lfs version >/dev/null 2>&1; then git lfs ls-files; fi`,
			"  - echo changed >art/small.bin && git status --porcelain",
		),
		".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "plain": "no pointer\n",
	})
	large := strings.Repeat("0123456789abcdef", 1<<16)
	pointers := map[string]string{}
	for name, content := range map[string]string{"art/large.bin": large, "art/small.bin": "kept elsewhere\n"} {
		pointer, err := w.sim.PutLFS(owner, repo, []byte(content))
		must(t, err)
		pointers[name] = pointer
	}
	w.up(t)
	_, sha := w.propose(t, "change", githubsim.Commit{Files: pointers})
	log := w.log(t, w.shows(t, sha, "forge/test", "success").TargetURL)
	oid := strings.Fields(strings.SplitAfter(pointers["art/large.bin"], "oid sha256:")[1])[0]
	contains(t, log, fmt.Sprintf("%d\n%s  art/large.bin\nkept elsewhere\nno pointer\n", len(large), oid), pointers["art/small.bin"], "clean\n", " M art/small.bin\n")

	must(t, w.sim.DropLFS(owner, repo, pointers["art/large.bin"]))
	again := w.push(t, "change", files("plain", "kept by Forge\n"))
	w.shows(t, again, "forge/test", "success")
}

// modules is a commit with submodules, by path.
func modules(at map[string][2]string) githubsim.Commit {
	change := githubsim.Commit{Files: map[string]string{}, Modules: map[string]string{}}
	var text strings.Builder
	for folder, where := range at {
		fmt.Fprintf(&text, "[submodule %q]\n\tpath = %s\n\turl = %s\n", folder, folder, where[0])
		change.Modules[folder] = where[1]
	}
	change.Files[".gitmodules"] = text.String()
	return change
}

// library is another repository of this GitHub.
func (w checkoutWorld) library(t *testing.T, owner, name string, public bool) (head string) {
	t.Helper()
	must(t, w.sim.AddRepository(githubsim.Repository{Owner: owner, Name: name, Public: public, Files: map[string]string{name: "of " + name + "\n"}}))
	head, err := w.sim.Head(owner, name, "main")
	must(t, err)
	return head
}

// Submodules that the App is installed on, and public ones, are there with all that
// git wants to know of them. A private one of somebody else is named, and a fork's
// commit gets public ones alone.
func TestSubmodulesAreInTheWorkspace(t *testing.T) {
	w := newCheckoutWorld(t, map[string]string{".forge.yml": lines("image: busybox", "source: {submodules: true}", "execute:",
		"  - git submodule status --recursive",
		"  - cat lib/deep/inner",
		`  - test -z "$(git status --porcelain)" && git submodule foreach --recursive 'git describe --all --always && git status --porcelain'`,
		`  - if grep -rs -e 'g[h]s_' -e 'x-access-[t]oken' . /proc/self/environ; then exit 1; fi; echo no token`,
	)})
	inner := w.library(t, "somebody", "inner", true)
	w.library(t, owner, "lib", false)
	lib, err := w.sim.Commit(owner, "lib", "main", modules(map[string][2]string{"deep": {w.github + "/somebody/inner.git", inner}}))
	must(t, err)
	secret := w.library(t, "somebody", "secret", false)
	w.env = append(w.env, "FORGE_FORK_POLICY=run")
	w.up(t)

	_, sha := w.propose(t, "change", modules(map[string][2]string{"lib": {"../lib", lib}}))
	passed := w.shows(t, sha, "forge/test", "success")
	log := w.log(t, passed.TargetURL)
	contains(t, log, "\n "+lib+" lib (", "\n "+inner+" lib/deep (", "of inner\n", "Entering 'lib/deep'", "no token\n")

	_, refused := w.propose(t, "secret", modules(map[string][2]string{"secret": {w.github + "/somebody/secret", secret}}))
	contains(t, w.why(t, refused), "submodule secret: somebody/secret: it does not exist, or it is private and the App is not installed on it")
	_, elsewhere := w.propose(t, "elsewhere", modules(map[string][2]string{"x": {"https://gitlab.example/a/b", secret}}))
	contains(t, w.why(t, elsewhere), "submodule x: ", "is not on 127.0.0.1")

	must(t, w.sim.Fork(owner, repo, "stranger"))
	fork := func(branch string, change githubsim.Commit) (sha string) {
		t.Helper()
		must(t, w.sim.CreateBranch("stranger", repo, branch, "main"))
		change.Author = "stranger"
		sha, err := w.sim.Commit("stranger", repo, branch, change)
		must(t, err)
		w.open(t, "stranger:"+branch)
		return sha
	}
	public := fork("public", modules(map[string][2]string{"lib/deep": {w.github + "/somebody/inner", inner}}))
	contains(t, w.log(t, w.shows(t, public, "forge/test", "success").TargetURL), "\n "+inner+" lib/deep (", "of inner\n")
	private := fork("private", modules(map[string][2]string{"lib": {"../lib", lib}}))
	contains(t, w.why(t, private), "submodule lib: "+owner+"/lib: it does not exist, or it is private, and a fork's commit gets public ones alone")
}

// why is what Forge says of a commit whose build it could not begin.
func (w checkoutWorld) why(t *testing.T, sha string) string {
	t.Helper()
	w.shows(t, sha, "forge/test", "error")
	return w.builds(t, sha)[0].GetMessage()
}
