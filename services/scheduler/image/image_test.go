package image_test

import (
	"archive/tar"
	cryptorand "crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/forge-ci/forge/services/scheduler/image"
)

func rand() string { return strings.ToLower(cryptorand.Text()) }

// content is a file of an image, as the topmost layer has it.
func content(t *testing.T, img v1.Image, path string) (text string) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		from, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		r := tar.NewReader(from)
		for {
			header, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimPrefix(header.Name, "./") == path {
				all, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				text = string(all)
			}
		}
		if err := from.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return text
}

func TestAnImageIsBuiltAndPushed(t *testing.T) { onBoth(t, anImageIsBuiltAndPushed) }

func anImageIsBuiltAndPushed(t *testing.T, r *rig) {
	t.Helper()
	base := r.registry.base(t, "base:1")
	tag := r.registry.name("acme/web:v1")
	files := workspace{
		"Dockerfile":    "FROM " + base + "\nARG VERSION\nRUN echo built $VERSION > /built\nCOPY app/hello.txt /hello.txt\nCMD [\"/bin/sh\"]\n",
		"app/hello.txt": "hello", "unused.txt": "unused",
	}
	result, log := r.build(t, r.request(pushing(tag, r.registry.name("acme/web:latest")), func(req *image.Request) {
		req.Args = map[string]string{"VERSION": "7"}
		req.Provenance = map[string]string{"repository": "https://github.com/acme/web", "commit": "abc", "build": "https://forge.example/builds/1"}
	}), files)
	if want := r.registry.name("acme/web"); result.Name != want || result.Reference() != want+"@"+result.Digest {
		t.Errorf("built %+v", result)
	}
	t.Log(log)
	images := r.registry.images(t, result.Reference(), authn.Anonymous)
	img := images["linux/amd64"]
	if img == nil || images["unknown/unknown"] == nil {
		t.Fatalf("pushed %v", images)
	}
	for path, want := range map[string]string{"hello.txt": "hello", "built": "built 7\n"} {
		if got := content(t, img, path); got != want {
			t.Errorf("%s is %q", path, got)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if l := config.Config.Labels; l["org.opencontainers.image.revision"] != "abc" || l["org.opencontainers.image.source"] != "https://github.com/acme/web" {
		t.Errorf("labels %v", l)
	}
	for _, text := range []string{"[2/3] RUN echo built", "DONE", "exporting"} {
		if !strings.Contains(log, text) {
			t.Errorf("log lacks %q:\n%s", text, log)
		}
	}
	again, log := r.build(t, r.request(pushing(tag), func(req *image.Request) { req.Args = map[string]string{"VERSION": "7"} }), files)
	if !strings.Contains(log, "CACHED") || again.Digest == "" {
		t.Errorf("built again: %+v\n%s", again, log)
	}
}

func TestWhatIsMissingForAnImageIsSaid(t *testing.T) { onBoth(t, whatIsMissingForAnImageIsSaid) }

func whatIsMissingForAnImageIsSaid(t *testing.T, r *rig) {
	t.Helper()
	for dockerfile, c := range map[string]struct{ text, want string }{
		"ci/Missing.docker": {"", "the image is not built: there is no Dockerfile at ci/Missing.docker"},
		"ci/Dockerfile":     {"FROM scratch\nCOPY nope /nope\n", "the image is not built: "},
	} {
		req := r.request(func(req *image.Request) { req.Dockerfile = dockerfile })
		files := workspace{"ci/unused": ""}
		if c.text != "" {
			files[dockerfile] = c.text
		}
		_, err := r.builder.Build(t.Context(), req, files.on(t), io.Discard)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", dockerfile, err, c.want)
			continue
		}
		for _, inner := range []string{"rpc error", "failed to solve", "buildkit-mount", "/var/lib"} {
			if strings.Contains(err.Error(), inner) {
				t.Errorf("%s: %v tells of %q", dockerfile, err, inner)
			}
		}
	}
}
