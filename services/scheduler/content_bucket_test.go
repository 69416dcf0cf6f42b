package scheduler

import (
	"bytes"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// A connection to the bucket that breaks is no harm to what lies there: the cache is
// found the next time, and so is an artifact, of which there is no other.
func TestConnectionThatBreaksCostsNoContent(t *testing.T) {
	for what, of := range map[string]struct {
		begin *schedulerv1.PutContentRequest_Begin
		get   *schedulerv1.GetContentRequest
	}{
		"cache": {
			&schedulerv1.PutContentRequest_Begin{Content: &schedulerv1.PutContentRequest_Begin_Cache{Cache: cacheKey("key")}},
			&schedulerv1.GetContentRequest{Content: &schedulerv1.GetContentRequest_Cache{Cache: cacheKey("key")}},
		},
		"artifact": {
			&schedulerv1.PutContentRequest_Begin{Content: &schedulerv1.PutContentRequest_Begin_Artifact{Artifact: "dist"}},
			&schedulerv1.GetContentRequest{Content: &schedulerv1.GetContentRequest_Artifact{Artifact: &schedulerv1.NeededArtifact{Name: "dist"}}},
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := sqliteRig(t)
			cut := cuttable(r)
			leaves := func(j *configv1.Job) { j.Artifacts = []*configv1.Artifact{{Name: "dist", Paths: []string{"dist/**"}}} }
			r.config.set("aaa", ofJobs(job("make", leaves), job("use", needs("make"))))
			k := startKeeping(r)
			id, data := k.built(opened(1, "aaa")), noise(1, 300_000)
			maker := k.keeper(id + "-1")
			if _, err := maker.put(of.begin, data); err != nil {
				t.Fatal(err)
			}
			u := r.reattach(maker.token)
			u.send(passing(1)...)
			if err := u.refused(); err != nil {
				t.Fatal(err)
			}
			if artifact := of.get.GetArtifact(); artifact != nil {
				artifact.BuildId = id + "-1"
			}
			user := k.keeper(id + "-2")
			for _, most := range []int64{1, 100_000} { // the manifest, and then the chunks alone
				cut.Store(most)
				if _, _, err := user.get(of.get); err == nil || status.Code(err) == codes.NotFound {
					t.Errorf("the connection broke, and the runner is told %v", err)
				}
			}
			cut.Store(0)
			if _, got, err := user.get(of.get); err != nil || !bytes.Equal(got, data) {
				t.Errorf("afterwards there are %d bytes of %d, error %v", len(got), len(data), err)
			}
		})
	}
}

// A disk that is full keeps no cache, and harms none that is there; with room, all
// goes on.
func TestFullDiskCostsACache(t *testing.T) {
	r := sqliteRig(t)
	dir, resize := kittest.SmallDisk(t, "1m")
	r.blobs = dir
	r.deps.Blobs = blobsIn(t, dir)
	k := startKeeping(r)
	main, small, large := k.pushed("refs/heads/main", "aaa"), noise(1, 200_000), noise(2, 3<<20)
	if _, err := main.saves("small", small); err != nil {
		t.Fatal(err)
	}
	_, err := main.saves("large", large)
	wantCode(t, err, codes.Unavailable)
	for key, want := range map[string]codes.Code{"small": codes.OK, "large": codes.NotFound} {
		_, _, err := main.restores(key)
		wantCode(t, err, want)
	}
	resize("16m")
	if _, err := main.saves("large", large); err != nil {
		t.Error(err)
	}
	if _, got, err := main.restores("large"); err != nil || !bytes.Equal(got, large) {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
}

// cuttable has the rig keep blobs in a bucket. Answers from there that have cut bytes
// or more end in the middle, unless cut is 0.
func cuttable(r *rig) (cut *atomic.Int64) {
	cut = &atomic.Int64{}
	bucket, address := kittest.S3(r.t)
	to, err := url.Parse(bucket.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(to)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if cut.Load() == 0 || request.Method != http.MethodGet || !strings.Contains(request.URL.Path, "/content/") {
			through.ServeHTTP(w, request)
			return
		}
		answer := httptest.NewRecorder()
		through.ServeHTTP(answer, request)
		maps.Copy(w.Header(), answer.Header())
		whole := answer.Body.Bytes()
		w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
		w.WriteHeader(answer.Code)
		if int64(len(whole)) < cut.Load() {
			_, _ = w.Write(whole)
			return
		}
		_, _ = w.Write(whole[:len(whole)*2/3])
		panic(http.ErrAbortHandler)
	}))
	r.t.Cleanup(proxy.Close)
	r.deps.Blobs, err = blobs.Open(r.t.Context(), blobs.Config{URL: strings.Replace(address, bucket.URL, proxy.URL, 1), Room: "scheduler"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = r.deps.Blobs.Close() })
	return cut
}
