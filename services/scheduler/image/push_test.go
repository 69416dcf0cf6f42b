package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/image"
)

func TestTwoPlatformsAreOneIndex(t *testing.T) { onBoth(t, twoPlatformsAreOneIndex) }

func twoPlatformsAreOneIndex(t *testing.T, r *rig) {
	t.Helper()
	tag := r.registry.name("acme/tool:1")
	result, _ := r.build(t, r.request(pushing(tag), func(q *image.Request) { q.Platforms = []string{"linux/amd64", "linux/arm64", "linux/arm64/v8"} }),
		workspace{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY bin/$TARGETARCH /tool\n", "bin/amd64": "for amd64", "bin/arm64": "for arm64"})
	index, err := remote.Index(r.registry.tag(t, tag))
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := index.Digest(); err != nil || digest.String() != result.Digest {
		t.Errorf("the tag names %s, built %s, %v", digest, result.Digest, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 4 {
		t.Errorf("the index has %d manifests, want two images and what attests each", len(manifest.Manifests))
	}
	images := r.registry.images(t, tag, authn.Anonymous)
	for _, arch := range []string{"amd64", "arm64"} {
		if text := content(t, images["linux/"+arch], "tool"); text != "for "+arch {
			t.Errorf("%s has %q", arch, text)
		}
	}
}

func TestProvenanceSaysHowAnImageWasBuilt(t *testing.T) {
	r := newRig(t)
	base := r.registry.base(t, "base:1")
	tag := r.registry.name("acme/web:1")
	r.build(t, r.request(pushing(tag), func(q *image.Request) {
		q.Secrets = map[string][]byte{"NPM_TOKEN": []byte("hunter2hunter2")}
		q.Provenance = map[string]string{"repository": "https://github.com/acme/web", "commit": "abc", "build": "https://forge.example/builds/1"}
	}), workspace{"Dockerfile": "FROM " + base + "\nRUN --mount=type=secret,id=NPM_TOKEN true\n"})
	images := r.registry.images(t, tag, authn.Anonymous)
	layers, err := images["unknown/unknown"].Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	from, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		Predicate struct {
			BuildDefinition struct {
				ExternalParameters struct {
					Secrets []string `json:"secrets"`
				} `json:"externalParameters"`
				ResolvedDependencies []struct {
					Digest map[string]string `json:"digest"`
				} `json:"resolvedDependencies"`
			} `json:"buildDefinition"`
			RunDetails struct {
				Builder struct {
					ID string `json:"id"`
				} `json:"builder"`
			} `json:"runDetails"`
		} `json:"predicate"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		t.Fatal(err)
	}
	digest, err := images["linux/amd64"].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if said.PredicateType != "https://slsa.dev/provenance/v1" || said.Subject[0].Digest["sha256"] != digest.Hex || said.Predicate.RunDetails.Builder.ID != "https://forge.example/builds/1" {
		t.Errorf("said %s", text)
	}
	baseIs, err := remote.Head(r.registry.tag(t, base))
	if err != nil {
		t.Fatal(err)
	}
	if got := said.Predicate.BuildDefinition.ResolvedDependencies; len(got) != 2 || got[0].Digest["gitCommit"] != "abc" || got[1].Digest["sha256"] != baseIs.Digest.Hex {
		t.Errorf("built of %+v", got)
	}
	if bytes.Contains(text, []byte("hunter2")) || said.Predicate.BuildDefinition.ExternalParameters.Secrets[0] != "NPM_TOKEN" {
		t.Errorf("secrets in %s", text)
	}
}

// What a registry has already does not cross the wire again.
func TestLayersThatARegistryHasAreNotSentAgain(t *testing.T) {
	r := newRig(t)
	base := r.registry.base(t, "base:1")
	tag := r.registry.name("acme/web:latest")
	files := workspace{"Dockerfile": "FROM " + base + "\nCOPY hello /hello\n", "hello": "hello"}
	commit := func(sha string) func(*image.Request) {
		return func(q *image.Request) { q.Provenance = map[string]string{"commit": sha} }
	}
	r.build(t, r.request(pushing(tag), commit("a")), files)
	img := r.registry.images(t, tag, authn.Anonymous)["linux/amd64"]
	first, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	baseImage, err := remote.Image(r.registry.tag(t, base))
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err := baseImage.Manifest(); err != nil || theirs.Layers[0].Digest != first.Layers[0].Digest {
		t.Errorf("the base's layer is not the base's: %v", err)
	}
	uploads := r.registry.asked("PUT /v2/acme/web/blobs/")
	r.build(t, r.request(pushing(tag), commit("b")), files)
	second, err := r.registry.images(t, tag, authn.Anonymous)["linux/amd64"].Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if first.Config.Digest == second.Config.Digest || first.Layers[1].Digest != second.Layers[1].Digest {
		t.Errorf("another commit: %v, then %v", first, second)
	}
	if got := r.registry.asked("PUT /v2/acme/web/blobs/") - uploads; got != 3 { // configuration, statement, its configuration
		t.Errorf("%d blobs were sent", got)
	}
}

// A registry that answers badly is asked again, within bounds, and then told of.
func TestARegistryThatDoesNotTakeAnImage(t *testing.T) {
	r := newRig(t)
	files := workspace{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}
	for name, c := range map[string]struct {
		code, times int
		kind        fault.Kind // of what is told; none where it is pushed in the end
		want        string
	}{
		"busy for a while":     {code: http.StatusTooManyRequests, times: 2},
		"broken for a while":   {code: http.StatusInternalServerError, times: 2},
		"away for a while":     {code: http.StatusBadGateway, times: 2},
		"busy for good":        {http.StatusTooManyRequests, 1 << 20, fault.Exhausted, "answers 429"},
		"broken for good":      {http.StatusInternalServerError, 1 << 20, fault.Unavailable, "answers 500"},
		"not to be asked":      {http.StatusUnauthorized, 1 << 20, fault.Invalid, "answers 401"},
		"not to be written":    {http.StatusForbidden, 1 << 20, fault.Invalid, "answers 403"},
		"not of that protocol": {http.StatusTeapot, 1 << 20, fault.Invalid, "answers 418"},
	} {
		t.Run(name, func(t *testing.T) {
			tag := r.registry.name("acme/" + rand() + ":1")
			var failed, seen atomic.Int64
			r.registry.answer(func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method == http.MethodGet || req.Method == http.MethodHead {
					return false
				}
				seen.Add(1)
				if failed.Add(1) > int64(c.times) {
					return false
				}
				w.WriteHeader(c.code)
				return true
			})
			t.Cleanup(func() { r.registry.answer(nil) })
			var log bytes.Buffer
			_, err := r.builder.Build(t.Context(), r.request(pushing(tag)), files.on(t), &log)
			if c.want == "" {
				if err != nil {
					t.Errorf("%v\n%s", err, log.String())
				}
				return
			}
			if err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "is not pushed") {
				t.Errorf("%s %v", fault.KindOf(err), err)
			}
			if seen.Load() > 60 {
				t.Errorf("asked %d times", seen.Load())
			}
			r.registry.answer(nil)
			if _, err := remote.Head(r.registry.tag(t, tag)); err == nil {
				t.Error("the tag is there")
			}
		})
	}
}

// A tag names the whole image or what it did before.
func TestAPushThatIsCancelledLeavesNoTag(t *testing.T) { onBoth(t, aPushThatIsCancelledLeavesNoTag) }

func aPushThatIsCancelledLeavesNoTag(t *testing.T, r *rig) {
	t.Helper()
	files := workspace{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}
	for _, at := range []string{"/blobs/", "/manifests/sha256:"} {
		tag := r.registry.name("acme/" + rand() + ":1")
		ctx, cancel := context.WithCancel(t.Context())
		r.registry.answer(func(_ http.ResponseWriter, req *http.Request) bool {
			if (req.Method == http.MethodPut || req.Method == http.MethodPost) && strings.Contains(req.URL.Path, at) {
				cancel()
			}
			return false
		})
		if result, err := r.builder.Build(ctx, r.request(pushing(tag)), files.on(t), io.Discard); err == nil {
			t.Errorf("%s: pushed %+v", at, result)
		}
		cancel()
		r.registry.answer(nil)
		if _, err := remote.Head(r.registry.tag(t, tag)); err == nil {
			t.Errorf("%s: the tag is there", at)
		}
	}
}

func TestABuildThatIsCancelledEnds(t *testing.T) { onBoth(t, aBuildThatIsCancelledEnds) }

func aBuildThatIsCancelledEnds(t *testing.T, r *rig) {
	t.Helper()
	base := r.registry.base(t, "base:1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log := &watched{text: "it runs", seen: cancel}
	_, err := r.builder.Build(ctx, r.request(), workspace{"Dockerfile": "FROM " + base + "\nRUN echo it runs && sleep 3600\n"}.on(t), log)
	if err == nil || ctx.Err() == nil {
		t.Errorf("ended with %v", err)
	}
	foreign := r.request(func(q *image.Request) { q.Tier = "1/fork/7" })
	if _, log := r.build(t, foreign, workspace{"Dockerfile": "FROM " + base + "\nRUN true\n"}); strings.Contains(log, "it waits") {
		t.Errorf("BuildKit has ended it, and others wait for it still:\n%s", log)
	}
}

// watched calls a function once a text that a command printed was written.
type watched struct {
	text string
	seen func()
	all  bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.all.Write(p)
	for line := range strings.Lines(w.all.String()) {
		if strings.Contains(line, w.text) && !strings.Contains(line, "RUN") {
			w.seen()
		}
	}
	return len(p), nil
}

// A registry with a token service, as most are: what is asked for is this repository's.
func TestATokenIsOfTheScopeAlone(t *testing.T) { onBoth(t, aTokenIsOfTheScopeAlone) }

func aTokenIsOfTheScopeAlone(t *testing.T, r *rig) {
	t.Helper()
	var mu sync.Mutex
	var scopes []string
	base := r.registry.base(t, "acme/base:1")
	r.registry.answer(func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case strings.HasPrefix(req.Header.Get("Authorization"), "Bearer of "):
			return false
		case req.URL.Path == "/token":
			if user, password, _ := req.BasicAuth(); user != "forge" || password != "s3cretpassword" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			mu.Lock()
			defer mu.Unlock()
			scopes = append(scopes, req.URL.Query()["scope"]...)
			_ = json.NewEncoder(w).Encode(map[string]string{"token": "of " + strings.Join(req.URL.Query()["scope"], " ")})
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.registry.URL+`/token",service="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
		return true
	})
	tag := r.registry.name("acme/web:1")
	_, log := r.build(t, r.request(pushing(tag), func(q *image.Request) {
		q.Credentials = func(context.Context, string) (user, password string, err error) {
			return "forge", "s3cretpassword", nil
		}
	}), workspace{"Dockerfile": "FROM " + base + "\nRUN env; cat /proc/1/environ; true\n"})
	if strings.Contains(log, "s3cretpassword") {
		t.Errorf("the password is in the log:\n%s", log)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(scopes) == 0 {
		t.Error("no token was asked for")
	}
	for _, scope := range scopes {
		for one := range strings.FieldsSeq(scope) {
			if one != "repository:acme/base:pull" && one != "repository:acme/web:pull" && one != "repository:acme/web:push,pull" {
				t.Errorf("a token for %q was asked for", one)
			}
		}
	}
}
