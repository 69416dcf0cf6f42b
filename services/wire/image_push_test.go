package wire_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const registryPassword = "correct-horse-battery-staple"

// base has the registry hold an image of busybox, of which no engine knows anything.
func (i *images) base(t *testing.T, tag string) string {
	t.Helper()
	layer := static.NewLayer(kittest.Busybox(t, t.Name()+i.host), types.OCIUncompressedLayer)
	base, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	must(t, err)
	config, err := base.ConfigFile()
	must(t, err)
	config.OS, config.Architecture, config.Config.Env = "linux", "amd64", []string{"PATH=/bin"}
	base, err = mutate.ConfigFile(base, config)
	must(t, err)
	ref, err := name.ParseReference(i.host+"/"+tag, name.Insecure)
	must(t, err)
	must(t, remote.Write(ref, base))
	return i.host + "/" + tag
}

// basicOnly lets in who knows the password; of some repositories the registry is busy for
// a while, or broken.
func basicOnly() func(w http.ResponseWriter, r *http.Request) bool {
	var busy atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) bool {
		if _, password, _ := r.BasicAuth(); password != registryPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		writes := r.Method != http.MethodGet && r.Method != http.MethodHead
		switch {
		case writes && strings.HasPrefix(r.URL.Path, "/v2/acme/busy/") && busy.Add(1) <= 2:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case writes && strings.HasPrefix(r.URL.Path, "/v2/acme/down/"):
			w.WriteHeader(http.StatusInternalServerError)
		default:
			return false
		}
		return true
	}
}

// tokensOnly lets in who has a token for the repository from the service, which gives none
// that counts for acme/refused.
func tokensOnly() func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			if _, password, _ := r.BasicAuth(); password != registryPassword {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			_, repository, _ := strings.Cut(r.URL.Query().Get("scope"), ":")
			repository, _, _ = strings.Cut(repository, ":")
			_, _ = fmt.Fprintf(w, `{"token": "for %s"}`, repository)
			return true
		}
		of := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer for ")
		if of != "" && of != "acme/refused" && strings.HasPrefix(r.URL.Path, "/v2/"+of+"/") {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

// What was merged is pushed with what the repository has for a registry, whichever way that
// asks for it; one that is busy is given time. A pull request and a fork, by the same file,
// write to none of them, and what the fork has run is not what the push finds.
func TestRegistriesThatImagesArePushedTo(t *testing.T) {
	kittest.Require(t, "docker")
	open, basic, token := newImages(t), newGuardedImages(t, basicOnly()), newGuardedImages(t, tokensOnly())
	base := open.base(t, "base:1")
	written := func() int { return len(basic.written()) + len(token.written()) }
	w := newDockerWorld(t, "", func(image string) map[string]string {
		job := func(name, tag string) string {
			return fmt.Sprintf("  %s: {may_fail: true, execute: {image: {tags: ['%s:latest'], push: true, output: IMAGE}}}", name, tag)
		}
		return map[string]string{
			".forge.yml": lines(
				"image: "+image,
				"x-jobs: &jobs",
				job("basic", basic.host+"/acme/web"), job("busy", basic.host+"/acme/busy"), job("down", basic.host+"/acme/down"),
				job("token", token.host+"/acme/web"), job("refused", token.host+"/acme/refused"),
				"  cached: {execute: {image: {dockerfile: Cached}}}",
				"jobs: *jobs",
				"push: {branches: [main], jobs: *jobs}",
			),
			"Dockerfile": lines("FROM scratch", "COPY Dockerfile /"),
			"Cached":     lines("FROM "+base, "RUN echo ran-$((40+2))"),
		}
	}, imageNetworks, "--fork-policy=run", "--capacity=2")
	for _, host := range []string{basic.host, token.host} {
		out, err := w.fed(t, registryPassword+"\n", "secrets", "registry", "set", "--grpc-address="+w.grpc, "--repo="+owner+"/"+repo, "--username=octo", "--for=pushes,deploys", host)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	must(t, w.sim.Fork(owner, repo, "eve"))
	forked, err := w.sim.Commit("eve", repo, "main", githubsim.Commit{Files: map[string]string{"file": "y"}, Author: "eve"})
	must(t, err)
	_, err = w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "From a fork", Head: "eve:main", Author: "eve"})
	must(t, err)
	ran := func(where string, want bool) {
		t.Helper()
		if log := w.jobLog(t, w.newest(t), "cached"); strings.Contains(log, "ran-42") != want {
			t.Errorf("%s: that it runs the command is %v:\n%s", where, !want, log)
		}
	}
	w.shows(t, forked, "forge/test", "success")
	ran("a fork", true)
	w.cleared(t, w.newest(t).GetId())
	_, head := w.propose(t, "change", files("file", "x"))
	w.shows(t, head, "forge/test", "success")
	ran("a pull request", true)
	if log := w.jobLog(t, w.newest(t), "refused"); !strings.Contains(log, "it is built and not pushed") {
		t.Errorf("log of the pull request:\n%s", log)
	}
	if n := written(); n > 0 {
		t.Errorf("a pull request or a fork has written %d times", n)
	}

	pushed := w.push(t, "main", files("file", "z"))
	w.shows(t, pushed, "forge/push", "success")
	ran("a push", true)
	build := w.newest(t)
	for job, want := range map[string]string{"refused": "answers 401", "down": "answers 500"} {
		if log := w.jobLog(t, build, job); !strings.Contains(log, want) || strings.Contains(log, registryPassword) {
			t.Errorf("log of %s, want %q:\n%s", job, want, log)
		}
	}
	for host, paths := range map[*images][]string{basic: {"web", "busy"}, token: {"web"}} {
		for _, path := range paths {
			if !strings.Contains(strings.Join(host.written(), "\n"), "PUT /v2/acme/"+path+"/manifests/latest") {
				t.Errorf("acme/%s is not pushed", path)
			}
		}
	}
	for _, host := range []*images{basic, token} {
		for _, path := range []string{"down", "refused"} {
			if strings.Contains(strings.Join(host.written(), "\n"), "PUT /v2/acme/"+path+"/manifests/latest") {
				t.Errorf("acme/%s has a tag of what was not pushed whole", path)
			}
		}
	}
	again := w.push(t, "main", files("file", "again"))
	w.shows(t, again, "forge/push", "success")
	ran("a second push", false)
	w.idle(t)
}
