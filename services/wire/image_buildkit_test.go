package wire_test

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// With a BuildKit of its own, Forge builds images for commands that run without Docker. It
// cannot load one, and says so before anything runs.
func TestABuildKitOfItsOwnBuildsAndPushes(t *testing.T) {
	address := kittest.BuildKit(t)
	i := newImages(t)
	base := i.base(t, "base:1")
	w := newWorld(t, map[string]string{
		".forge.yml": lines(
			"image: none",
			"execute: [echo begun, {image: {tags: ["+i.host+"/acme/web], push: true}}]",
			"push:",
			"  branches: [main]",
			"  jobs:",
			"    build:",
			"      secrets: [NPM_TOKEN]",
			"      execute:",
			"      - mkdir dist; echo made >dist/app; echo FLAVOUR=plain >>$FORGE_ENV",
			"      - image:",
			"          dockerfile: deploy/Dockerfile",
			"          target: runtime",
			"          args: {WHAT: '${FLAVOUR}'}",
			"          secrets: [NPM_TOKEN]",
			"          tags: ['"+i.host+"/acme/web:${FORGE_SHA}']",
			"          push: true",
			"          output: WEB",
			"    told: {needs: [build], execute: ['echo told: $NEEDS_BUILD_WEB']}",
		),
		"deploy/Dockerfile": lines("FROM "+base+" AS build", "RUN --mount=type=secret,id=NPM_TOKEN wc -c </run/secrets/NPM_TOKEN >/size", "FROM scratch AS runtime", "ARG WHAT",
			"LABEL what=$WHAT", "COPY --from=build /size /size", "COPY dist/app /app", "FROM build AS other", "RUN false"),
		"Dockerfile": lines("FROM scratch", "COPY deploy /deploy"),
	})
	w.patience = dockerPatience
	w.env = append(w.env, "FORGE_BUILDKIT_URL="+address, "FORGE_IMAGE_NETWORKS=127.0.0.0/8")
	w.up(t)
	if out, err := w.fed(t, "s3cret-of-npm\n", "secrets", "set", "--grpc-address="+w.grpc, "--repo="+owner+"/"+repo, "--for=pushes", "NPM_TOKEN"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, head := w.propose(t, "change", files("file", "x"))
	shown := w.shows(t, head, "forge/test", "success")
	if log := w.log(t, shown.TargetURL); !strings.Contains(log, "it is built and not pushed") {
		t.Errorf("log of the pull request:\n%s", log)
	}
	pushed := w.push(t, "main", files("file", "y"))
	w.shows(t, pushed, "forge/push", "success")
	digest, err := i.digest(t, "acme/web:"+pushed)
	must(t, err)
	if log := w.log(t, w.shows(t, pushed, "forge/push/told", "success").TargetURL); !strings.Contains(log, "told: "+i.host+"/acme/web@"+digest) {
		t.Errorf("log of the job that is told, want %s:\n%s", digest, log)
	}
	if log := w.log(t, w.shows(t, pushed, "forge/push/build", "success").TargetURL); strings.Contains(log, "s3cret-of-npm") {
		t.Errorf("the log tells a secret:\n%s", log)
	}
	ref, err := name.ParseReference(i.host+"/acme/web@"+digest, name.Insecure)
	must(t, err)
	image, err := remote.Image(ref)
	must(t, err)
	config, err := image.ConfigFile()
	must(t, err)
	kittest.Want(t, config.Config.Labels["what"]+" "+config.Config.Labels["org.opencontainers.image.revision"], "plain "+pushed, "labels")
	written := len(i.written())

	_, loading := w.propose(t, "loading", files(".forge.yml", lines("image: none", "jobs:", "  first: {execute: echo begun}",
		"  build: {needs: [first], execute: {image: {load: true, output: WEB}}}")))
	refused := w.shows(t, loading, "forge/test/first", "error")
	if page := w.page(t, refused.TargetURL); !strings.Contains(page, "this server cannot load images") {
		t.Errorf("the page does not say why:\n%s", page)
	}
	kittest.Want(t, len(i.written()), written, "requests that write to the registry")
}
