package wire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// desk is somebody's clone of the repository.
type desk struct {
	*world
	dir string
}

// newDesk clones it. Git asks for no password: it is public meanwhile.
func newDesk(t *testing.T, w *world) *desk {
	t.Helper()
	d := &desk{w, filepath.Join(w.dir, "desk")}
	must(t, w.sim.SetPublic(owner, repo, true))
	d.git(t, w.dir, "clone", "--quiet", w.github+"/"+owner+"/"+repo+".git", d.dir)
	must(t, w.sim.SetPublic(owner, repo, false))
	return d
}

func (d *desk) git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// write changes files of the working tree; a content of "" removes one.
func (d *desk) write(t *testing.T, nameAndContent ...string) {
	t.Helper()
	for n := 0; n < len(nameAndContent); n += 2 {
		name := filepath.Join(d.dir, nameAndContent[n])
		if nameAndContent[n+1] == "" {
			must(t, os.Remove(name))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(name), 0o700))
		must(t, os.WriteFile(name, []byte(nameAndContent[n+1]), 0o600))
	}
}

func (d *desk) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	must(t, buildBinaries())
	cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "forge"), append([]string{"run", "--remote"}, args...)...)
	cmd.Dir = d.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "FORGE_GRPC_ADDRESS=" + d.grpc, "FORGE_ADMIN_TOKEN=" + adminToken, "HOME=" + d.world.dir, "GIT_CONFIG_NOSYSTEM=1"}
	return cmd
}

// run runs forge run --remote there.
func (d *desk) run(t *testing.T, args ...string) (out string, build *schedulerv1.Build, code int) {
	t.Helper()
	said, err := d.command(t, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if at := regexp.MustCompile(`/builds/(\w+)\n`).FindSubmatch(said); at != nil {
		build = d.build(t, string(at[1]))
	}
	return string(said), build, code
}

func (d *desk) build(t *testing.T, id string) *schedulerv1.Build {
	t.Helper()
	var answer schedulerv1.GetBuildResponse
	must(t, protojson.Unmarshal(d.ask(t, http.MethodGet, d.http+"/v1/builds/"+id, ""), &answer))
	return answer.GetBuild()
}

// tried is a file with all that a remote run must not get at.
func tried() string {
	return lines("image: busybox", "jobs:",
		"  one: {execute: ['cat greeting; cat new/file; ls -l run.sh; ./run.sh; echo \"<$SECRET><$DEPLOY_KEY>\"; git status --porcelain; git log -2 --format=%s; echo $FORGE_REF'], secrets: [SECRET]}",
		"  two: {needs: [one], execute: 'echo second; test ! -e gone'}",
		"deploy: {staging: 'echo deployed'}")
}

// What is not pushed is built by the server, as it lies there; GitHub hears nothing of it.
func TestARemoteRunBuildsWhatIsNotPushed(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": lines("image: busybox", "execute: 'cat greeting'"), "greeting": "hello\n", "gone": "x\n", "run.sh": "echo old\n"})
		w.deploy(t, d)
		name := owner + "/" + repo
		if said, err := w.fed(t, "for-pull-requests", "secrets", "set", "--repo="+name, "SECRET", "--for=pull-requests"); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		if said, err := w.fed(t, "for-staging-alone", "secrets", "set", "--repo="+name, "DEPLOY_KEY", "--environment=staging"); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		desk := newDesk(t, w)
		base := desk.git(t, desk.dir, "rev-parse", "HEAD")
		told := w.told.Load()
		desk.write(t, "greeting", "hello, committed\n")
		desk.git(t, desk.dir, "commit", "--quiet", "--all", "--message=Not pushed")
		desk.write(t, ".forge.yml", tried(), "new/file", "new\n", "gone", "", "run.sh", "#!/bin/sh\necho from a script\n")
		must(t, os.Chmod(filepath.Join(desk.dir, "run.sh"), 0o700))

		out, b, code := desk.run(t)
		if code != 0 || b.GetState() != schedulerv1.Build_STATE_PASSED {
			t.Fatalf("exit code %d, %v\n%s", code, b, out)
		}
		for _, want := range []string{"hello, committed\n", "new\n", "from a script\n", "<***><>\n", "Uncommitted changes\n", "remote/administrator\n", "second\n", "passed in"} {
			if !strings.Contains(out, want) {
				t.Errorf("it lacks %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, " M ") || strings.Contains(out, "?? ") || strings.Contains(out, "deployed") {
			t.Errorf("what is checked out is not the working tree, or something was deployed:\n%s", out)
		}
		if b.GetRemoteBy() != "administrator" || b.GetRemoteBase() != base || b.GetContext() != "" || b.GetBranch() != "" || b.GetSha() == base {
			t.Errorf("built %v", b)
		}
		w.says(t, "REMOTE run by administrator", "builds", "list")
		w.says(t, "REMOTE run by administrator", "builds", "show", b.GetId())
		w.says(t, "REMOTE run by administrator", "why", w.http+"/builds/"+b.GetId())
		w.says(t, "remote run of the working tree of administrator", "audit")
		if page := string(w.ask(t, http.MethodGet, w.http+"/builds/"+b.GetId(), "")); !strings.Contains(page, "REMOTE run by administrator") {
			t.Errorf("its page is\n%s", page)
		}

		if out, b, code = desk.run(t, "one"); code != 0 || b.GetJobCount() != 1 || strings.Contains(out, "second\n") {
			t.Errorf("one job: exit code %d, %d jobs\n%s", code, b.GetJobCount(), out)
		}
		again := w.says(t, "", "builds", "retry", b.GetId(), "--json")
		var retried schedulerv1.Build
		must(t, protojson.Unmarshal([]byte(again), &retried))
		kittest.Eventually(t, patience, func() error {
			if now := desk.build(t, retried.GetId()); now.GetState() != schedulerv1.Build_STATE_PASSED {
				return errors.New(now.GetState().String() + " " + now.GetMessage())
			}
			return nil
		})
		if retried.GetSha() != b.GetSha() || retried.GetRetryOf() != b.GetId() || retried.GetRemoteBy() != "administrator" || retried.GetJobCount() != 1 {
			t.Errorf("run once more: %v", &retried)
		}
		desk.write(t, "run.sh", "exit 3\n")
		if out, b, code = desk.run(t); code != 1 || b.GetState() != schedulerv1.Build_STATE_FAILED {
			t.Errorf("exit code %d, %v\n%s", code, b.GetState(), out)
		}
		for _, sha := range []string{base, b.GetSha(), retried.GetSha()} {
			if shown, err := w.sim.Statuses(owner, repo, sha); err == nil && len(shown) > 0 {
				t.Errorf("GitHub shows %v at %s", shown, sha)
			}
		}
		if now := w.told.Load(); now != told {
			t.Errorf("GitHub was told %d times", now-told)
		}
	})
}

// change is one of a difference, as the API takes it.
func change(path, mode, content string) map[string]any {
	return map[string]any{"path": path, "mode": mode, "content": base64.StdEncoding.EncodeToString([]byte(content))}
}

// What is hostile is refused, and leaves nothing; what is fine is taken after it as before.
func TestARemoteRunRefusesWhatIsHostile(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	must(t, w.sim.Fork(owner, repo, "mallory"))
	foreign, err := w.sim.Commit("mallory", repo, "main", files("evil", "x\n"))
	must(t, err)
	base, err := w.sim.Head(owner, repo, "main")
	must(t, err)
	send := func(sha string, changes ...map[string]any) (code int, text string) {
		t.Helper()
		body, err := json.Marshal(map[string]any{"repository": owner + "/" + repo, "baseSha": sha, "difference": map[string]any{"changes": changes, "author": "somebody"}})
		must(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.http+"/v1/builds:remote", bytes.NewReader(body))
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+adminToken)
		answer, err := http.DefaultClient.Do(req)
		must(t, err)
		defer answer.Body.Close()
		var said bytes.Buffer
		_, err = said.ReadFrom(answer.Body)
		must(t, err)
		return answer.StatusCode, said.String()
	}
	const file, link, gone = "MODE_FILE", "MODE_LINK", "MODE_GONE"
	for name, c := range map[string]struct {
		sha     string
		changes []map[string]any
		code    int
		want    string
	}{
		"repository of git":       {base, []map[string]any{change(".git/config", file, "x")}, 400, "git refuses"},
		"by another case":         {base, []map[string]any{change("a/.GIT/hooks/post-checkout", file, "x")}, 400, "git refuses"},
		"by a name of Windows":    {base, []map[string]any{change("git~1/config", file, "x")}, 400, "git refuses"},
		"way out":                 {base, []map[string]any{change("../x", file, "x")}, 400, "which no file of a repository has"},
		"way out from below":      {base, []map[string]any{change("a/../../x", file, "x")}, 400, "which no file of a repository has"},
		"absolute":                {base, []map[string]any{change("/etc/passwd", file, "x")}, 400, "which no file of a repository has"},
		"line feed":               {base, []map[string]any{change("a\n100644 x\tb", file, "x")}, 400, "which no file of a repository has"},
		"twice":                   {base, []map[string]any{change("a", link, "/etc"), change("a", file, "x")}, 400, "twice"},
		"file below a link":       {base, []map[string]any{change("out", link, "/tmp"), change("out/x", file, "x")}, 400, "git refuses"},
		"link above a file":       {base, []map[string]any{change("out/x", file, "x"), change("out", link, "/tmp")}, 400, "git refuses"},
		"link that leads nowhere": {base, []map[string]any{change("a", link, "")}, 400, "points at nothing"},
		".gitmodules is a link":   {base, []map[string]any{change(".gitmodules", link, "/etc/passwd")}, 400, "git refuses"},
		"command in .gitmodules":  {base, []map[string]any{change(".gitmodules", file, "[submodule \"a\"]\n\tpath = -x\n\turl = --upload-pack=touch /tmp/x\n")}, 400, "git refuses"},
		"gone that never was":     {base, []map[string]any{change("../../x", gone, "")}, 400, "which no file of a repository has"},
		"commit of a fork":        {foreign, []map[string]any{change("a", file, "x")}, 404, "does not hold the commit"},
		"commit of nobody":        {strings.Repeat("1", 40), []map[string]any{change("a", file, "x")}, 404, ""},
		"too large":               {base, []map[string]any{change("a", file, strings.Repeat("x", 17<<20))}, 400, "larger than 16 MiB"},
		"far too large":           {base, []map[string]any{change("a", file, strings.Repeat("x", 30<<20))}, 413, "larger than 16 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			if code, text := send(c.sha, c.changes...); code != c.code || !strings.Contains(text, c.want) {
				t.Errorf("%d %s, want %d %q", code, text, c.code, c.want)
			}
		})
	}
	if answer, err := http.Post(w.http+"/v1/builds:remote", "application/json", strings.NewReader(`{}`)); err != nil || answer.StatusCode != http.StatusUnauthorized { //nolint:bodyclose // of a test
		t.Errorf("a stranger: %v, %v", answer, err)
	}
	w.says(t, "no builds", "builds", "list")
	code, text := send(base, change("out", link, "/tmp"), change(".forge.yml", file, "image: busybox\nexecute: 'test -L out'\n"))
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	d := &desk{world: w}
	var made schedulerv1.CreateRemoteBuildResponse
	must(t, protojson.Unmarshal([]byte(text), &made))
	if by := made.GetBuild().GetRemoteBy(); by != "administrator" {
		t.Errorf("it is said to be of %s", by)
	}
	kittest.Eventually(t, patience, func() error {
		if now := d.build(t, made.GetBuild().GetId()); now.GetState() != schedulerv1.Build_STATE_PASSED {
			return errors.New(now.GetState().String() + " " + now.GetMessage())
		}
		return nil
	})
}

// The scheduler is killed while a remote run is queued and while it runs.
func TestARemoteRunOutlivesKills(t *testing.T) {
	w := newWorld(t, hello())
	gate := filepath.Join(w.dir, "gate")
	w.up(t)
	desk := newDesk(t, w)
	desk.write(t, ".forge.yml", lines("image: busybox", "execute: ['echo begun; until [ -e "+gate+" ]; do sleep 0.05; done; cat greeting']"), "greeting", "of the desk\n")
	var said tail
	cmd := desk.command(t)
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	forge := w.process("forge")
	id := ""
	kittest.Eventually(t, patience, func() error {
		if at := regexp.MustCompile(`/builds/(\w+)\n`).FindStringSubmatch(said.String()); at != nil {
			id = at[1]
			return nil
		}
		return errors.New(said.String())
	})
	for range 2 {
		forge.kill()
		forge.begin(t)
		w.awaitUp(t)
		kittest.Eventually(t, patience, func() error {
			if now := desk.build(t, id); now.GetState() != schedulerv1.Build_STATE_RUNNING {
				return errors.New(now.GetState().String() + " " + now.GetMessage())
			}
			return nil
		})
	}
	must(t, os.WriteFile(gate, nil, 0o600))
	kittest.Eventually(t, patience, func() error {
		if now := desk.build(t, id); now.GetState() != schedulerv1.Build_STATE_PASSED {
			return errors.New(now.GetState().String() + " " + now.GetMessage())
		}
		return nil
	})
	_ = cmd.Wait() // whoever watched it was cut off
	if log := w.log(t, w.http+"/builds/"+id); !strings.Contains(log, "of the desk\n") {
		t.Errorf("it printed %q", log)
	}
}
