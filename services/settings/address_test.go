package settings_test

import (
	"testing"

	"github.com/forge-ci/forge/services/settings"
)

func TestWhatIsNoAddressStopsTheStart(t *testing.T) {
	for address, fine := range map[string]bool{
		"https://forge.example.com": true, "http://localhost:9098/ci": true,
		"": true, "not a url": false, "forge.example.com": false, "ftp://forge.example.com": false, "https://": false, "http://%": false,
	} {
		if err := (settings.Links{ExternalURL: address}).CheckExternalURL(); (err == nil) != fine {
			t.Errorf("%q: %v", address, err)
		}
	}
	for address, fine := range map[string]bool{
		"": true, "http://localhost:16686/trace/{trace_id}": true,
		"foo": false, "foo/{trace_id}": false, "http://localhost:16686/": false,
	} {
		if err := (settings.Gateway{TraceURL: address}).CheckTraceURL(); (err == nil) != fine {
			t.Errorf("%q: %v", address, err)
		}
	}
}
