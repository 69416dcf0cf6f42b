package gateway

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestAddressesOfSenders(t *testing.T) {
	proxies := []string{"10.0.0.0/8", "fd00::1"}
	for name, c := range map[string]struct {
		allowed   []string
		proxies   []string
		peer      string
		forwarded []string
		want      bool
	}{
		"GitHub's own":                       {[]string{"github"}, nil, "140.82.115.7:443", nil, true},
		"GitHub's own in IPv6":               {[]string{"github"}, nil, "[2606:50c0::12]:443", nil, true},
		"GitHub's own as mapped IPv6":        {[]string{"github"}, nil, "[::ffff:140.82.115.7]:443", nil, true},
		"a stranger":                         {[]string{"github"}, nil, "203.0.113.1:443", nil, false},
		"this host":                          {[]string{"github"}, nil, "127.0.0.1:443", nil, false},
		"anybody":                            {[]string{"any"}, nil, "203.0.113.1:443", nil, true},
		"anybody, without an address":        {[]string{"any"}, nil, "@", nil, true},
		"no address":                         {[]string{"github"}, nil, "@", nil, false},
		"nobody":                             {nil, nil, "140.82.115.7:443", nil, false},
		"a range":                            {[]string{"203.0.113.0/24"}, nil, "203.0.113.9:1", nil, true},
		"an address":                         {[]string{"203.0.113.9"}, nil, "203.0.113.9:1", nil, true},
		"the address beside it":              {[]string{"203.0.113.9"}, nil, "203.0.113.10:1", nil, false},
		"a range and GitHub":                 {[]string{"203.0.113.0/24", "github"}, nil, "192.30.252.1:1", nil, true},
		"an IPv6 with a zone":                {[]string{"fe80::/10"}, nil, "[fe80::1%eth0]:1", nil, true},
		"claim of a stranger":                {[]string{"github"}, nil, "203.0.113.1:1", []string{"140.82.115.7"}, false},
		"claim of GitHub":                    {[]string{"github"}, nil, "140.82.115.7:1", []string{"203.0.113.1"}, true},
		"behind a proxy":                     {[]string{"github"}, proxies, "10.1.2.3:1", []string{"140.82.115.7"}, true},
		"a stranger behind a proxy":          {[]string{"github"}, proxies, "10.1.2.3:1", []string{"203.0.113.1"}, false},
		"claim of a stranger behind a proxy": {[]string{"github"}, proxies, "10.1.2.3:1", []string{"140.82.115.7, 203.0.113.1"}, false},
		"the same in two headers":            {[]string{"github"}, proxies, "10.1.2.3:1", []string{"140.82.115.7", "203.0.113.1"}, false},
		"behind two proxies":                 {[]string{"github"}, proxies, "[fd00::1]:1", []string{"1.2.3.4, 140.82.115.7, 10.9.9.9"}, true},
		"a proxy itself":                     {[]string{"github"}, proxies, "10.1.2.3:1", nil, false},
		"nonsense behind a proxy":            {[]string{"github"}, proxies, "10.1.2.3:1", []string{"140.82.115.7, moon"}, false},
	} {
		s, err := newAllowlist(Deps{Webhook: Webhook{AllowedIPs: c.allowed, TrustedProxies: c.proxies}, Log: kittest.Log(t), Meter: noop.NewMeterProvider()}, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := s.check(t.Context(), c.peer, http.Header{"X-Forwarded-For": c.forwarded}.Values); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllowlistsThatCannotBeReadAreRefused(t *testing.T) {
	for want, deps := range map[string]Deps{
		`FORGE_WEBHOOK_ALLOWED_IPS: "gitHub" is no range of addresses; use github, any or addresses like 10.0.0.0/8`: {Webhook: Webhook{AllowedIPs: []string{"gitHub"}}},
		`FORGE_TRUSTED_PROXIES: "10.0.0.0/99" is no range of addresses; use addresses like 10.0.0.0/8`:               {Webhook: Webhook{TrustedProxies: []string{"10.0.0.0/99"}}},
	} {
		deps.Meter = noop.NewMeterProvider()
		if _, err := newAllowlist(deps, nil); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestStrangerIsRefused(t *testing.T) {
	w := onSQLite(t, func(d *Deps) { d.Webhook.AllowedIPs = []string{"203.0.113.0/24"} })
	code, body := w.post(hook{event: "star", id: "a1", body: star})
	if code != 403 || !strings.HasPrefix(body, `{"code":7,"message":"webhooks are not accepted from this address","details":[`) {
		t.Errorf("%d %s", code, body)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-github-event", "star", "x-hub-signature-256", sign(star), "x-forwarded-for", "203.0.113.1")
	_, err := gatewayv1.NewWebhookServiceClient(w.grpc).Listen(ctx, &httpbody.HttpBody{ContentType: "application/json", Data: star})
	if !fault.Is(err, fault.Denied) || err.Error() != status.Convert(errAddressNotAllowed).Message() {
		t.Errorf("over gRPC: %v", err)
	}
	if w.count() != 0 {
		t.Error("it is stored")
	}
}

// What gRPC hears from a proxy that is trusted is looked at like HTTP's.
func TestGRPCCallersAreCheckedThroughTheirProxy(t *testing.T) {
	s, err := newAllowlist(Deps{Webhook: Webhook{AllowedIPs: []string{"203.0.113.0/24"}, TrustedProxies: []string{"10.0.0.0/8"}}, Log: kittest.Log(t), Meter: noop.NewMeterProvider()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	service := &Service{allowlist: s, deps: Deps{Log: kittest.Log(t)}}
	for forwarded, want := range map[string]codes.Code{"203.0.113.7": codes.OK, "198.51.100.7": codes.PermissionDenied} {
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}})
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("x-forwarded-for", forwarded))
		if _, err := service.Listen(ctx, &httpbody.HttpBody{}); status.Code(err) != want {
			t.Errorf("for %s: %v", forwarded, err)
		}
	}
}

func TestGitHubsAddressesAreAskedFor(t *testing.T) {
	var answer atomic.Pointer[string]
	set := func(text string) { answer.Store(&text) }
	set(`{"hooks":["127.0.0.0/8"]}`)
	meta := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v3/meta" || r.Header.Get("Authorization") != "" {
			t.Errorf("asked %s with %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		w.Write([]byte(*answer.Load()))
	}))
	defer meta.Close()
	w := onSQLite(t, func(d *Deps) { d.Webhook.AllowedIPs, d.GitHub.APIURL = []string{"github"}, meta.URL+"/api/v3" })
	kittest.Eventually(t, patience, func() error {
		if code, body := w.post(hook{event: "star", id: "a1", body: star}); code != 200 {
			return errors.New(body)
		}
		return nil
	})
	for _, broken := range []string{`{"hooks":[]}`, `{"hooks":["moon"]}`, "nonsense"} {
		set(broken)
		if err := w.service.allowlist.refresh(t.Context()); err == nil {
			t.Errorf("%s is taken", broken)
		} else if broken == `{"hooks":[]}` && !strings.Contains(err.Error(), "set FORGE_WEBHOOK_ALLOWED_IPS to") {
			t.Errorf("%v", err)
		}
		if code, _ := w.post(hook{event: "star", id: "a1", body: star}); code != 200 {
			t.Errorf("after %s the last list is lost", broken)
		}
	}
	set(`{"hooks":["203.0.113.0/24"]}`)
	if err := w.service.allowlist.refresh(t.Context()); err != nil {
		t.Error(err)
	}
	if code, _ := w.post(hook{event: "star", id: "a1", body: star}); code != 403 {
		t.Errorf("after a new list: %d", code)
	}
}

func TestGitHubsAddressesSurviveARestartWithoutGitHub(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		var asked []string
		meta := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Header.Get("If-None-Match"))
			if r.Header.Get("If-None-Match") == `"v1"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("ETag", `"v1"`)
			w.Write([]byte(`{"hooks":["203.0.113.0/24"]}`))
		}))
		db := open()
		fresh := func() *allowlist {
			s, err := newAllowlist(Deps{Webhook: Webhook{AllowedIPs: []string{"github"}}, GitHub: GitHub{APIURL: meta.URL}, Meter: noop.NewMeterProvider()}, &store{db: db})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		for range 2 {
			if err := fresh().refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(asked, ","); got != `,"v1"` {
			t.Errorf("asked with %s", got)
		}
		meta.Close()
		s := fresh()
		if err := s.refresh(t.Context()); err == nil {
			t.Error("a GitHub that is gone is no error")
		}
		if got := *s.ranges.Load(); len(got) != 1 || got[0].String() != "203.0.113.0/24" {
			t.Errorf("after a restart without GitHub: %v", got)
		}
	})
}
