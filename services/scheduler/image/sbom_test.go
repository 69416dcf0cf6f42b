package image_test

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/forge-ci/forge/services/scheduler/image"
)

// The server's scanner runs where the image was built, is taken from its registry as any
// image is, and what it says of the image is pushed beside it.
func TestADaemonMakesSBOMsWithTheServersScanner(t *testing.T) {
	r := newDaemonRig(t)
	scanner := r.registry.base(t, "tools/scanner:1")
	found, err := remote.Image(r.registry.tag(t, scanner))
	if err != nil {
		t.Fatal(err)
	}
	config, err := found.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Config.Entrypoint = []string{"sh", "-c", `echo '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": {"found": "'$(cat $BUILDKIT_SCAN_SOURCE/app)'"}}' >$BUILDKIT_SCAN_DESTINATION/app.spdx.json`}
	if found, err = mutate.ConfigFile(found, config); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r.registry.tag(t, scanner), found); err != nil {
		t.Fatal(err)
	}
	r.builder = r.builderOf(t, func(c *image.Config) { c.Scanner = scanner })
	tag := r.registry.name("acme/web:1")
	r.build(t, r.request(pushing(tag)), workspace{"Dockerfile": "FROM scratch\nCOPY app /\n", "app": "of this app"})
	attested := r.registry.images(t, tag, authn.Anonymous)["unknown/unknown"]
	if attested == nil {
		t.Fatal("nothing is said of the image")
	}
	layers, err := attested.Layers()
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "https://spdx.dev/Document") {
			said = string(text)
		}
		_ = content.Close()
	}
	if !strings.Contains(said, "of this app") {
		t.Errorf("the scanner's word is %q", said)
	}
}
