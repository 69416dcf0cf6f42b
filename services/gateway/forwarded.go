package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// forwardedBy returns, for each of the headers X-Forwarded-For and Forwarded that is there, whom the proxies say that they
// heard, the last proxy's word last. What is no address is the zero Addr.
func forwardedBy(header func(name string) []string) (map[string][]netip.Addr, error) {
	chains := map[string][]netip.Addr{}
	for name, split := range map[string]func(string) ([]string, error){
		"X-Forwarded-For": func(text string) ([]string, error) { return strings.Split(text, ","), nil },
		"Forwarded":       splitForwarded,
	} {
		text := strings.Join(header(name), ",")
		if text == "" {
			continue
		}
		hops, err := split(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, hop := range hops {
			// The client's own claims stand first and may be nonsense: only who reads so far minds.
			addr, _ := parseHop(hop)
			chains[name] = append(chains[name], addr)
		}
	}
	return chains, nil
}

// splitForwarded returns the for parameter of each element of Forwarded, see RFC 7239; "" where one has none.
func splitForwarded(text string) ([]string, error) {
	elements, err := splitOutsideQuotes(text, ',')
	if err != nil {
		return nil, err
	}
	hops := make([]string, len(elements))
	for i, element := range elements {
		pairs, err := splitOutsideQuotes(element, ';')
		if err != nil {
			return nil, err
		}
		for _, pair := range pairs {
			if name, value, _ := strings.Cut(pair, "="); strings.EqualFold(strings.TrimSpace(name), "for") {
				hops[i] = value
			}
		}
	}
	return hops, nil
}

// splitOutsideQuotes refuses a quote that does not end. It would take in what proxies append; what they append is
// balanced, so a quote that a client leaves open stays open.
func splitOutsideQuotes(text string, separator byte) ([]string, error) {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch {
		case quoted && text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case text[i] == separator && !quoted:
			parts, start = append(parts, text[start:i]), i+1
		}
	}
	if quoted {
		return nil, errors.New("a quote has no end")
	}
	return append(parts, text[start:]), nil
}

// parseHop reads an address as proxies write it: with or without a port, an IPv6 with or without brackets, quoted or not.
func parseHop(text string) (netip.Addr, error) {
	text = strings.TrimSpace(text)
	if inner, quoted := strings.CutPrefix(text, `"`); quoted {
		text = strings.TrimSuffix(inner, `"`)
	}
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return plainAddr(withPort.Addr()), nil
	}
	if inner, bracketed := strings.CutPrefix(text, "["); bracketed {
		text = strings.TrimSuffix(inner, "]")
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is no address", text)
	}
	return plainAddr(addr), nil
}

// plainAddr is an address as ranges are compared with it: an IPv4 as such, an IPv6 without its zone.
func plainAddr(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }
