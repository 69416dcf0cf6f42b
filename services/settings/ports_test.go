package settings_test

import (
	"testing"

	"github.com/forge-ci/forge/services/settings"
)

func TestPortsAreReadAsPeopleWriteThem(t *testing.T) {
	var s settings.Scheduler
	for _, text := range []string{"8080", "9000-9001", " 70 - 70 "} {
		var r settings.PortRange
		if err := r.UnmarshalText([]byte(text)); err != nil {
			t.Error(err)
		}
		s.BuildPorts = append(s.BuildPorts, r)
	}
	for port, want := range map[int32]bool{8080: true, 8081: false, 8999: false, 9000: true, 9001: true, 9002: false, 70: true, 0: false} {
		if got := s.PortAllowed(port); got != want {
			t.Errorf("port %d allowed: %v", port, got)
		}
	}
	if (settings.Scheduler{}).PortAllowed(8080) {
		t.Error("a port is allowed where none is set")
	}
	for _, text := range []string{"", "0", "http", "65536", "9001-9000", "1-2-3", "-5"} {
		if err := new(settings.PortRange).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for ports", text)
		}
	}
}
