package docker_test

import (
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// A loaded image is asked of no registry, and no container waits with it for anybody.
func TestALoadedImageIsUsedAsItIsThere(t *testing.T) {
	r := newRig(t, docker.Config{Pull: docker.PullAlways, Waiting: 1})
	name := "forge-load/" + unique() + "/x:1"
	if _, err := r.api.ImageTag(t.Context(), client.ImageTagOptions{Source: r.image(t), Target: name}); err != nil {
		t.Fatal(err)
	}
	r.images = append(r.images, name)
	mine := r.spec(name)
	mine.Loaded = []string{name}
	r.start(t, mine)
	if err := r.Prepare(t.Context(), mine); err == nil {
		t.Error("a container waits with it")
	}
	gone := r.spec("forge-load/gone/x:1")
	gone.Loaded = []string{gone.Image}
	if err := r.Start(t.Context(), gone); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is not in the Docker engine any more") {
		t.Errorf("one that is gone: %v", err)
	}
}
