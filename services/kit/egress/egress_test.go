package egress_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/egress"
)

func TestOnlyAddressesOfTheInternetArePublic(t *testing.T) {
	for text, want := range map[string]bool{
		"140.82.121.4": true, "2606:50c0:8000::153": true, "::ffff:140.82.121.4": true,
		"127.0.0.1": false, "127.8.9.1": false, "0.0.0.0": false, "0.1.2.3": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "198.18.0.1": false, "192.0.2.1": false,
		"::1": false, "::": false, "fd00::1": false, "fe80::1": false, "fe80::1%eth0": false, "ff02::1": false, "::ffff:127.0.0.1": false,
		"::ffff:169.254.169.254": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "2001::1": false, "fec0::1": false, "::7f00:1": false,
	} {
		if got := egress.Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestAPrivateAddressIsNotCalledByWhateverName(t *testing.T) {
	called := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called++ }))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[fd00::1]", "169.254.169.254", "0.0.0.0", "2130706433", "0x7f.1"} {
		_, err := egress.Post(t.Context(), egress.Client(false), "http://"+host+port+"/?token=s3cret", http.Header{}, nil)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", host, err)
		}
		if host != "2130706433" && host != "0x7f.1" && !errors.Is(err, egress.ErrPrivate) { // these may be no names at all
			t.Errorf("%s: %v", host, err)
		}
	}
	if called > 0 {
		t.Errorf("it was called %d times", called)
	}
	if answer, err := egress.Post(t.Context(), egress.Client(true), server.URL, http.Header{}, nil); err != nil || !answer.OK() {
		t.Errorf("where that is allowed: %v %v", answer, err)
	}
}

func TestATextOfStrangersIsOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"\x1b[31mred\u202e\u2028\x00": "[31mred",
		"ab\xffcd":                    "ab cd",
		"123456789012345":             "123456789…",
		"äöü":                         "äöü",
	} {
		if got := egress.OneLine(text, 10); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := egress.OneLine("a\r\nSet-Cookie: x", 100); got != "a Set-Cookie: x" {
		t.Errorf("%q", got)
	}
	if got := egress.Hidden("https://u:p@hooks.example.com/T0/B0?x=y"); got != "https://hooks.example.com/…" {
		t.Errorf("%s", got)
	}
}
