package wire_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// What a project downloads and compiles is in its cache from its second build on.
func TestSecondBuildTakesUnderAThirdOfTheFirst(t *testing.T) {
	kittest.Require(t, "docker")
	for name, c := range map[string]struct {
		image         func(t *testing.T, api *client.Client) string // nil: busybox
		file          string                                        // that a commit changes
		first, second [2]string                                     // what it becomes, and what the build then says
	}{
		"go": {
			image: goImage, file: "greeting.go",
			first:  [2]string{"package main\n\nconst greeting = \"together\"\n", "<p>&lt;cake&gt;: 399\ntogether 649\n"},
			second: [2]string{"package main\n\nconst greeting = \"sum\"\n", "<p>&lt;cake&gt;: 399\nsum 649\n"},
		},
		"web": {
			file:   "greeting",
			first:  [2]string{"hello\n", "installed words\nhello, there are 1000 words\n"},
			second: [2]string{"good morning\n", "node_modules is up to date\ngood morning, there are 1000 words\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newDockerWorld(t, "", func(image string) map[string]string {
				if c.image != nil {
					api := kittest.Docker(t, "")
					image = c.image(t, api)
					t.Cleanup(func() { kittest.RemoveImage(context.WithoutCancel(t.Context()), t, api, image) })
				}
				return project(t, name, image)
			})
			built := func(sha, says, cache string) time.Duration {
				log := w.log(t, w.shows(t, sha, "forge/test", "success").TargetURL)
				if !strings.Contains(log, says) || !strings.Contains(log, cache) {
					t.Errorf("the log says neither %q nor %q, or one of them: %s", says, cache, log)
				}
				b := w.newest(t)
				w.cleared(t, b.GetId())
				return b.GetEndTime().AsTime().Sub(b.GetStartTime().AsTime())
			}
			_, sha := w.propose(t, "change", files(c.file, c.first[0]))
			first := built(sha, c.first[1], ": saved, ")
			sha = w.push(t, "change", files(c.file, c.second[0]))
			second := built(sha, c.second[1], ": restored, ")
			t.Logf("the first build took %v, the second %v", first, second)
			if first < 3*second {
				t.Errorf("the first build took %v, the second %v: that is not under a third", first, second)
			}
		})
	}
}

// project are the files of a folder of testdata/projects, whose image is to be this
// one.
func project(t testing.TB, name, image string) map[string]string {
	t.Helper()
	all := map[string]string{}
	root := os.DirFS(filepath.Join("testdata/projects", name))
	err := fs.WalkDir(root, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(root, file)
		all[file] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	all[".forge.yml"] = strings.Replace(all[".forge.yml"], "IMAGE", image, 1)
	return all
}

// goImage is busybox with the Go that runs this test, as far as a build without cgo
// needs it.
func goImage(t *testing.T, api *client.Client) string {
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	goroot, tools := strings.TrimSpace(string(out)), "pkg/tool/linux_"+runtime.GOARCH
	busybox := kittest.Busybox(t, "")
	image := bytes.NewBuffer(busybox[:len(busybox)-2*512]) // what ends a tar goes, so that more can follow
	w := tar.NewWriter(image)
	for _, part := range []string{"VERSION", "go.env", "bin/go", "pkg/include", tools + "/asm", tools + "/compile", tools + "/link", "src"} {
		from, err := filepath.EvalSymlinks(filepath.Join(goroot, part)) // distributions spread it
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
			within := path.Join(part, strings.TrimPrefix(name, from))
			switch {
			case err != nil:
				return err
			case entry.IsDir() && (within == "src/cmd" || entry.Name() == "testdata"):
				return fs.SkipDir
			case entry.IsDir(), strings.HasSuffix(name, "_test.go"):
				return nil
			}
			return addFile(w, "usr/local/go/"+within, name)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return kittest.ImageOf(t, api, image.Bytes(), "ENV PATH=/bin:/usr/local/go/bin", `CMD ["/bin/sh"]`)
}

func addFile(w *tar.Writer, name, from string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = io.Copy(w, file)
	return err
}
