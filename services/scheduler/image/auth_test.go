package image_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/image"
)

// A registry that lets Forge in, and sends BuildKit to an address of the machine's own
// network for a token, gets neither a call there nor the credentials.
func TestARegistrySendsBuildKitNowhere(t *testing.T) { onBoth(t, registrySendsBuildKitNowhere) }

func registrySendsBuildKitNowhere(t *testing.T, r *rig) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked, shown atomic.Int64
	inside := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{"Token": "of the machine"}`))
	})}}
	inside.Start()
	t.Cleanup(inside.Close)
	base := r.registry.base(t, "acme/base:1")
	r.registry.answer(func(w http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.UserAgent(), "forge") {
			return false
		}
		if strings.Contains(req.Header.Get("Authorization"), "of the machine") || strings.HasPrefix(req.Header.Get("Authorization"), "Basic") {
			shown.Add(1)
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+inside.URL+`/token",service="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	b := r.builderOf(t, func(c *image.Config) { c.Private = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	refused(t, b, r.request(func(q *image.Request) {
		q.Credentials = func(context.Context, string) (user, password string, err error) {
			return "forge", "s3cretpassword", nil
		}
	}), workspace{"Dockerfile": "FROM " + base + "\nRUN true\n"}.on(t))
	if asked.Load() > 0 || shown.Load() > 0 {
		t.Errorf("the machine's network was asked %d times, and %d secrets went to the registry", asked.Load(), shown.Load())
	}
}

// A registry that says when to come again is not asked before, and one that says in an
// hour is not waited for.
func TestARegistryIsGivenTheTimeThatItAsksFor(t *testing.T) {
	r := newRig(t)
	files := workspace{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}
	busy := func(after string, until func() bool) {
		r.registry.answer(func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method != http.MethodPut || until() {
				return false
			}
			w.Header().Set("Retry-After", after)
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		})
	}
	var first atomic.Int64
	busy("1", func() bool {
		return !first.CompareAndSwap(0, time.Now().UnixNano()) && time.Since(time.Unix(0, first.Load())) >= time.Second
	})
	r.build(t, r.request(pushing(r.registry.name("acme/busy:1"))), files)
	begin := time.Now()
	busy("3600", func() bool { return false })
	_, err := r.builder.Build(t.Context(), r.request(pushing(r.registry.name("acme/later:1"))), files.on(t), t.Output())
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "answers 429") || time.Since(begin) > 30*time.Minute {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}
