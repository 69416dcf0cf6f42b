package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PortRange is one port or, as 9000-9099, several in a row.
type PortRange struct{ First, Last uint16 }

// UnmarshalText reads a range as people write it.
func (r *PortRange) UnmarshalText(text []byte) error {
	first, last, several := strings.Cut(string(text), "-")
	if !several {
		last = first
	}
	from, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	to, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if err != nil || err2 != nil || from == 0 || from > to {
		return fmt.Errorf("%q is no port and no range of ports: expected one such as 8080 or 9000-9099", text)
	}
	*r = PortRange{uint16(from), uint16(to)}
	return nil
}

// PortAllowed reports whether builds may have a port of the host.
func (s Scheduler) PortAllowed(port int32) bool {
	return slices.ContainsFunc(s.BuildPorts, func(r PortRange) bool { return int32(r.First) <= port && port <= int32(r.Last) })
}
