package settings

import (
	"fmt"
	"net/url"
	"strings"
)

// CheckExternalURL refuses what leads nobody to Forge; where none is set, there is a default.
func (l Links) CheckExternalURL() error {
	if l.ExternalURL == "" || isAddress(l.ExternalURL) {
		return nil
	}
	return fmt.Errorf("FORGE_EXTERNAL_URL is %q, which is no address such as https://forge.example.com", l.ExternalURL)
}

// CheckTraceURL refuses what leads to no trace.
func (g Gateway) CheckTraceURL() error {
	if g.TraceURL == "" || isAddress(g.TraceURL) && strings.Contains(g.TraceURL, "{trace_id}") {
		return nil
	}
	return fmt.Errorf("FORGE_TRACE_URL is %q, which is no address with {trace_id} in it, such as http://localhost:16686/trace/{trace_id}", g.TraceURL)
}

// isAddress is whether people's browsers can follow it.
func isAddress(text string) bool {
	address, err := url.Parse(text)
	return err == nil && address.Host != "" && (address.Scheme == "http" || address.Scheme == "https")
}
