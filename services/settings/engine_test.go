package settings_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/settings"
)

func TestSettingsThatASwarmCannotHoldToStopTheStart(t *testing.T) {
	const address = "0.0.0.0:9094"
	for want, s := range map[string]settings.Scheduler{
		"FORGE_RUNNER_ADDRESS must be host:port, such as 0.0.0.0:9094, and FORGE_RUNNER_URL what they dial": {},
		"FORGE_RUNNER_ADDRESS must be host:port":                                                            {RunnerAddress: "unix:///run/forge.sock"},
		"and FORGE_RUNNER_URL what they dial":                                                               {RunnerAddress: address, RunnerURL: "unix:///run/forge.sock"},
		"FORGE_DOCKER_PULL cannot hold with":                                                                {RunnerAddress: address, Docker: settings.Docker{Pull: "always"}},
		"FORGE_DOCKER_DISK cannot hold with":                                                                {RunnerAddress: address, Docker: settings.Docker{Disk: "10GiB"}},
		"FORGE_DOCKER_RUNNER_DIR cannot hold with":                                                          {RunnerAddress: address, Docker: settings.Docker{RunnerDir: "/run/forge"}},
		"whose MTU is FORGE_SWARM_MTU":                                                                      {RunnerAddress: address, BuildMTU: 1400},
	} {
		s.Engine = "swarm"
		if err := s.CheckEngine(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if s.Engine = "docker"; s.CheckEngine() != nil {
			t.Errorf("engine docker: %v", s.CheckEngine())
		}
	}
	s := settings.Scheduler{Engine: "swarm", RunnerAddress: address, Docker: settings.Docker{Pull: "missing"}}
	if err := s.CheckEngine(); err != nil {
		t.Error(err)
	}
}

func TestBuildsAtOnce(t *testing.T) {
	for _, c := range []struct {
		engine    string
		set, want int
	}{{"docker", 0, runtime.NumCPU()}, {"swarm", 0, 100}, {"swarm", 7, 7}, {"process", 3, 3}} {
		if got := (settings.Scheduler{Engine: c.engine, Capacity: c.set}).Builds(); got != c.want {
			t.Errorf("%s, %d: %d builds at once, want %d", c.engine, c.set, got, c.want)
		}
	}
}

func TestForgexecImageIsThatOfTheRelease(t *testing.T) {
	before := settings.Version
	t.Cleanup(func() { settings.Version = before })
	for version, want := range map[string]string{"dev": "", "v1.2.3": "ghcr.io/forge-ci/forgexec:v1.2.3"} {
		settings.Version = version
		if got := (settings.Scheduler{}).Forgexec(); got != want {
			t.Errorf("version %s: %q, want %q", version, got, want)
		}
		if got := (settings.Scheduler{ForgexecImage: "mine:1"}).Forgexec(); got != "mine:1" {
			t.Errorf("version %s: %q is not what was set", version, got)
		}
	}
}
