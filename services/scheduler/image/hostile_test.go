package image_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/image"
)

// refused builds what must not be built, and returns what was said of it.
func refused(t *testing.T, b *image.Builder, req image.Request, files image.Files) string {
	t.Helper()
	var log bytes.Buffer
	result, err := b.Build(t.Context(), req, files, &log)
	if err == nil {
		t.Fatalf("built %+v\n%s", result, log.String())
	}
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("refused as %s: %v", fault.KindOf(err), err)
	}
	return err.Error()
}

func TestAHostileDockerfileIsRefused(t *testing.T) { onBoth(t, aHostileDockerfileIsRefused) }

func aHostileDockerfileIsRefused(t *testing.T, r *rig) {
	t.Helper()
	base := r.registry.base(t, "base:1")
	private := r.registry.base(t, "secret/tools:1")
	r.registry.answer(func(w http.ResponseWriter, req *http.Request) bool {
		return strings.HasPrefix(req.URL.Path, "/v2/secret/") && requireBasic("other", "password")(w, req)
	})
	for name, c := range map[string]struct{ dockerfile, want string }{
		"root on the machine":        {"FROM " + base + "\nRUN --security=insecure id", "Dockerfile:2: RUN --security=insecure is not allowed"},
		"the machine's network":      {"FROM " + base + "\nRUN --network=host id", "Dockerfile:2: RUN --network=host is not allowed"},
		"a device":                   {"FROM " + base + "\nRUN --device=vendor.com/gpu=0 id", "Dockerfile:2: RUN --device is not allowed"},
		"an SSH agent":               {"FROM " + base + "\nRUN --mount=type=ssh id", "Dockerfile:2: RUN --mount=type=ssh is not allowed"},
		"Docker's socket":            {"FROM " + base + "\nRUN --mount=type=bind,source=/var/run/docker.sock,target=/var/run/docker.sock id", "RUN --mount of /var/run/docker.sock is not allowed"},
		"a foreign frontend":         {"# syntax=" + base + "\nFROM scratch\nCOPY . /", "is not allowed here: leave out the line # syntax="},
		"a frontend like Docker's":   {"# syntax=evil.example/docker/dockerfile:1\nFROM scratch\nCOPY . /", `frontend "evil.example/docker/dockerfile:1" is not allowed here`},
		"another repository's image": {"FROM " + private + "\nRUN id", "answers 401"},
		"the same by COPY":           {"FROM scratch\nCOPY --from=" + private + " /etc /etc", "answers 401"},
		"the same by a mount":        {"FROM " + base + "\nRUN --mount=type=bind,from=" + private + ",target=/mnt id", "answers 401"},
		"an address of the machine":  {"FROM scratch\nADD http://169.254.169.254/latest/meta-data /", "it leads to an address that is not on the internet"},
		"a git repository":           {"FROM scratch\nADD https://github.com/acme/web.git#main /", "ADD of the Git repository"},
		"a git repository by SSH":    {"FROM scratch\nADD git@github.com:acme/web.git /", "ADD of the Git repository"},
		"a registry in the network":  {"FROM 10.0.0.5:5000/tools:1", "10.0.0.5:5000 leads to an address that is not on the internet"},
		"a command that fails":       {"FROM " + base + "\nRUN exit 3", "exit code: 3"},
		"a file that is not there":   {"FROM scratch\nCOPY nothing /", "/nothing"},
		"a path out of the context":  {"FROM scratch\nCOPY ../../../etc/shadow /", "/etc"},
		"an instruction that is not": {"FROM scratch\nRUNN id", "unknown instruction: RUNN"},
		"an image that is not there": {"FROM " + r.registry.name("no/such:1"), "has no such image"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := refused(t, r.builder, r.request(), workspace{"Dockerfile": c.dockerfile, "x": "x"}.on(t)); !strings.Contains(got, c.want) {
				t.Errorf("said %q, want %q", got, c.want)
			}
		})
	}
	t.Run("a frontend by an argument", func(t *testing.T) {
		got := refused(t, r.builder, r.request(func(req *image.Request) { req.Args = map[string]string{"BUILDKIT_SYNTAX": base} }), workspace{"Dockerfile": "FROM scratch\nCOPY . /"}.on(t))
		if !strings.Contains(got, "is not allowed here") {
			t.Errorf("said %q", got)
		}
	})
}

func TestDockersOwnFrontendIsForges(t *testing.T) { onBoth(t, dockersOwnFrontendIsForges) }

func dockersOwnFrontendIsForges(t *testing.T, r *rig) {
	t.Helper()
	base := r.registry.base(t, "base:1")
	for _, line := range []string{"docker/dockerfile:1", "docker.io/docker/dockerfile:1.4-labs"} {
		_, log := r.build(t, r.request(), workspace{"Dockerfile": "# syntax=" + line + "\nFROM " + base + "\nRUN <<EOF\necho here\nEOF\n"})
		if !strings.Contains(log, "here") {
			t.Errorf("%s:\n%s", line, log)
		}
	}
}

// That BuildKit has an image already, for who may have it, opens it to nobody else.
func TestAnImageThatWasPulledStaysItsOwners(t *testing.T) {
	onBoth(t, anImageThatWasPulledStaysItsOwners)
}

func anImageThatWasPulledStaysItsOwners(t *testing.T, r *rig) {
	t.Helper()
	private := r.registry.base(t, "secret/tools:1")
	r.registry.answer(requireBasic("owner", "password"))
	files := workspace{"Dockerfile": "FROM " + private + "\nRUN echo mine\n"}
	owner := r.request(func(req *image.Request) {
		req.Credentials = func(_ context.Context, host string) (user, password string, err error) {
			if host != strings.TrimPrefix(r.registry.URL, "http://") {
				t.Errorf("credentials of %s were asked for", host)
			}
			return "owner", "password", nil
		}
	})
	r.build(t, owner, files)
	if got := refused(t, r.builder, r.request(), files.on(t)); !strings.Contains(got, "answers 401") {
		t.Errorf("said %q", got)
	}
	wrong := r.request(func(req *image.Request) {
		req.Credentials = func(context.Context, string) (user, password string, err error) { return "owner", "guessed", nil }
	})
	if got := refused(t, r.builder, wrong, files.on(t)); !strings.Contains(got, "answers 401") {
		t.Errorf("said %q", got)
	}
	r.build(t, owner, files)
}

// sends is a workspace that says whatever it likes.
type sends []*fstypes.Packet

func (s sends) DiffCopy(ctx context.Context, want image.Want, stream image.Stream) error {
	packets := s
	if want.Dir == "dockerfile" { // .dockerignore is asked for, too
		return serve(ctx, stream, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n"})
	}
	for _, p := range packets {
		if err := stream.SendMsg(p); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// serve is the honest half: files by name, in order.
func serve(ctx context.Context, stream image.Stream, files map[string]string) error {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return (&diskFiles{root: dir}).DiffCopy(ctx, image.Want{Dir: "dockerfile"}, stream)
}

func stat(name string, mode os.FileMode, link string) *fstypes.Packet {
	return &fstypes.Packet{Type: fstypes.PACKET_STAT, Stat: &fstypes.Stat{Path: name, Mode: uint32(mode), Linkname: link}}
}

func TestAHostileContextIsRefused(t *testing.T) { onBoth(t, aHostileContextIsRefused) }

func aHostileContextIsRefused(t *testing.T, r *rig) {
	t.Helper()
	for name, c := range map[string]struct {
		packets sends
		want    string
	}{
		"a path out of it":            {sends{stat("../x", 0o644, "")}, "leads out of it"},
		"a path from the root":        {sends{stat("/etc/x", 0o644, "")}, "leads out of it"},
		"a path that is not clean":    {sends{stat("a/../../x", 0o644, "")}, "leads out of it"},
		"a device":                    {sends{stat("sda", os.ModeDevice|0o660, "")}, `the context holds the device "sda"`},
		"a character device":          {sends{stat("null", os.ModeDevice|os.ModeCharDevice|0o660, "")}, `the context holds the device "null"`},
		"a hard link out of it":       {sends{stat("x", 0o644, "../../etc/shadow")}, "which is no file of it"},
		"a hard link by a link":       {sends{stat("a", os.ModeSymlink|0o777, "/"), stat("b", 0o644, "a/etc/shadow")}, "which is no file of it"},
		"a file by a symbolic link":   {sends{stat("a", os.ModeSymlink|0o777, "/etc"), stat("a/x", 0o644, "")}, "goes through something else than a folder"},
		"a path that comes again":     {sends{stat("a", os.ModeDir|0o755, ""), stat("a", os.ModeSymlink|0o777, "/etc")}, "twice"},
		"a path without an end":       {sends{stat(strings.Repeat("x", 5000), 0o644, "")}, "longer paths than go with that"},
		"what only BuildKit may send": {sends{{Type: fstypes.PACKET_REQ, ID: 1}}, "only BuildKit sends"},
		"an error of its own":         {sends{{Type: fstypes.PACKET_ERR, Data: []byte("the workspace is gone")}}, "the workspace is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := refused(t, r.builder, r.request(), c.packets); !strings.Contains(got, c.want) {
				t.Errorf("said %q, want %q", got, c.want)
			}
		})
	}
}

func TestWhatIsAddedByAddressIsFetchedByForge(t *testing.T) {
	onBoth(t, whatIsAddedByAddressIsFetchedByForge)
}

func whatIsAddedByAddressIsFetchedByForge(t *testing.T, r *rig) {
	t.Helper()
	var asked []string
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked = append(asked, req.UserAgent())
		switch req.URL.Path {
		case "/away":
			http.Redirect(w, req, "http://169.254.169.254/latest/meta-data", http.StatusFound)
		case "/tool":
			_, _ = w.Write([]byte("tool"))
		default:
			http.NotFound(w, req)
		}
	}))
	t.Cleanup(site.Close)
	tag := r.registry.name("acme/tool:1")
	result, _ := r.build(t, r.request(pushing(tag)), workspace{"Dockerfile": "FROM scratch\nADD --chmod=755 " + site.URL + "/tool /bin/tool\n"})
	if text := content(t, r.registry.images(t, result.Reference(), nil)["linux/amd64"], "bin/tool"); text != "tool" {
		t.Errorf("added %q", text)
	}
	both := func(q *image.Request) { q.Platforms = []string{"linux/amd64", "linux/arm64"} }
	r.build(t, r.request(both), workspace{"Dockerfile": "FROM scratch\nADD " + site.URL + "/tool /bin/tool\n"})
	for path, want := range map[string]string{"/away": "not on the internet", "/none": "it answers 404"} {
		if got := refused(t, r.builder, r.request(), workspace{"Dockerfile": "FROM scratch\nADD " + site.URL + path + " /x\n"}.on(t)); !strings.Contains(got, want) {
			t.Errorf("%s: said %q", path, got)
		}
	}
	sum := "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	if got := refused(t, r.builder, r.request(), workspace{"Dockerfile": "FROM scratch\nADD --checksum=" + sum + " " + site.URL + "/tool /x\n"}.on(t)); !strings.Contains(got, "not "+sum) {
		t.Errorf("said %q", got)
	}
	for _, agent := range asked {
		if !strings.HasPrefix(agent, "Go-http-client") {
			t.Errorf("%q has asked", agent)
		}
	}
	closed := r.builderOf(t, func(c *image.Config) { c.Private = []netip.Prefix{} })
	if got := refused(t, closed, r.request(), workspace{"Dockerfile": "FROM scratch\nADD " + site.URL + "/tool /x\n"}.on(t)); !strings.Contains(got, "not on the internet") {
		t.Errorf("said %q", got)
	}
}

func TestARequestThatCannotBeIsRefusedBeforeAnythingRuns(t *testing.T) {
	r := newRig(t)
	for name, change := range map[string]func(*image.Request){
		"a Dockerfile elsewhere":  func(q *image.Request) { q.Dockerfile = "../Dockerfile" },
		"a context from the root": func(q *image.Request) { q.Context = "/etc" },
		"a platform":              func(q *image.Request) { q.Platforms = []string{"linux/amd64/v1/v2/v3"} },
		"a push without a name":   func(q *image.Request) { q.Push = true },
		"a name":                  func(q *image.Request) { q.Tags = []string{"Not A Name"} },
		"a digest for a tag":      func(q *image.Request) { q.Tags = []string{"a/b@sha256:" + strings.Repeat("0", 64)} },
		"two platforms in an engine": func(q *image.Request) {
			q.Load, q.Platforms = r.builder.LoadName(), []string{"linux/amd64", "linux/arm64"}
		},
		"a secret of 1 MB": func(q *image.Request) { q.Secrets = map[string][]byte{"big": make([]byte, 1<<20)} },
	} {
		t.Run(name, func(t *testing.T) {
			files := workspace{"Dockerfile": "FROM scratch\nCOPY . /"}.on(t)
			refused(t, r.builder, r.request(change), files)
			if len(files.wants) > 0 {
				t.Error("files were asked for")
			}
		})
	}
}
