package gateway

import (
	"net/http"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// Each line is what a proxy at 10.1.2.3 says, and whether the webhook may come from where that is.
func TestSendersAreReadAsProxiesWriteThem(t *testing.T) {
	list, err := newAllowlist(Deps{
		Webhook: Webhook{AllowedIPs: []string{"140.82.112.0/20", "2606:50c0::/32"}, TrustedProxies: []string{"10.0.0.0/8", "fd00::/8"}},
		Log:     kittest.Log(t), Meter: noop.NewMeterProvider(),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const allowed, refused = true, false
	for name, c := range map[string]struct {
		forwardedFor, forwarded string
		want                    bool
	}{
		"with a port":                    {"140.82.115.7:51008", "", allowed},
		"a stranger with a port":         {"203.0.113.1:51008", "", refused},
		"IPv6":                           {"2606:50c0::12", "", allowed},
		"IPv6 in brackets":               {"[2606:50c0::12]", "", allowed},
		"IPv6 with a port":               {"[2606:50c0::12]:51008", "", allowed},
		"IPv6 in quotes":                 {`"[2606:50c0::12]:51008"`, "", allowed},
		"IPv6 with a zone":               {"[2606:50c0::12%eth0]:51008", "", allowed},
		"IPv4 as IPv6":                   {"[::ffff:140.82.115.7]:51008", "", allowed},
		"a stranger's IPv6":              {"[2001:db8::1]:51008", "", refused},
		"two proxies with ports":         {"140.82.115.7:51008, [fd00::1]:443", "", allowed},
		"a claim before the port":        {"140.82.115.7, 203.0.113.1:51008", "", refused},
		"no address":                     {"140.82.115.7, unknown", "", refused},
		"a proxy that heard no address":  {"140.82.115.7, unix:", "", refused},
		"an empty entry":                 {"140.82.115.7, ", "", refused},
		"a port that is none":            {"140.82.115.7:port", "", refused},
		"an open bracket":                {"[[140.82.115.7", "", refused},
		"nonsense that nobody reads":     {"moon, 140.82.115.7", "", allowed},
		"Forwarded":                      {"", "for=140.82.115.7", allowed},
		"Forwarded with more":            {"", `proto=https;By=10.1.2.3; For="140.82.115.7:51008";host="a,b;c"`, allowed},
		"Forwarded with IPv6":            {"", `for="[2606:50c0::12]:51008"`, allowed},
		"Forwarded by two":               {"", `for=140.82.115.7, for="[fd00::1]"`, allowed},
		"a stranger in Forwarded":        {"", "for=203.0.113.1", refused},
		"a claim in Forwarded":           {"", "for=140.82.115.7, for=203.0.113.1", refused},
		"Forwarded that hides":           {"", "for=140.82.115.7, for=_hidden", refused},
		"Forwarded without for":          {"", "for=140.82.115.7, proto=https", refused},
		"an open quote":                  {"", `for=140.82.115.7;x=", for=203.0.113.1`, refused},
		"an open quote before others":    {"", `for=140.82.115.7;x=", for="[2001:db8::1]:1"`, refused},
		"an open quote with an escape":   {"", `for=140.82.115.7;x="\", for="[2001:db8::1]:1"`, refused},
		"both":                           {"140.82.115.7:51008", "for=140.82.115.7", allowed},
		"both, one of them a claim":      {"203.0.113.1", "for=140.82.115.7", refused},
		"both, the other one of them is": {"140.82.115.7", "for=203.0.113.1", refused},
	} {
		header := http.Header{}
		for key, value := range map[string]string{"X-Forwarded-For": c.forwardedFor, "Forwarded": c.forwarded} {
			if value != "" {
				header.Set(key, value)
			}
		}
		if err := list.check(t.Context(), "10.1.2.3:443", header.Values); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if err := list.check(t.Context(), "203.0.113.9:443", header.Values); err == nil {
			t.Errorf("%s: believed from somebody who is no proxy", name)
		}
	}
}

func FuzzForwarded(f *testing.F) {
	f.Add(`for=140.82.115.7;x="\", for="[2001:db8::1]:1"`)
	f.Add(`for="[2606:50c0::12]:51008";proto=https, for=10.9.9.9`)
	f.Fuzz(func(t *testing.T, claim string) {
		for _, appended := range []string{"for=203.0.113.1", `for="[2001:db8::1]:1";proto=https`} {
			hops, err := splitForwarded(claim + ", " + appended)
			if err != nil {
				continue
			}
			if addr, err := parseHop(hops[len(hops)-1]); err != nil || (addr.String() != "203.0.113.1" && addr.String() != "2001:db8::1") {
				t.Errorf("after %q the proxy's word is %q", claim, hops)
			}
		}
	})
}
