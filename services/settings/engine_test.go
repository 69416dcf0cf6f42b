package settings_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	kit "github.com/forge-ci/forge/services/kit/settings"
	"github.com/forge-ci/forge/services/settings"
)

func TestSettingsThatASwarmCannotHoldToStopTheStart(t *testing.T) {
	const address = "0.0.0.0:9094"
	for want, s := range map[string]settings.Scheduler{
		"FORGE_RUNNER_ADDRESS must be host:port, such as 0.0.0.0:9094, and FORGE_RUNNER_URL what they dial": {},
		"FORGE_RUNNER_ADDRESS must be host:port":                                                            {RunnerAddress: "unix:///run/forge.sock"},
		"and FORGE_RUNNER_URL what they dial":                                                               {RunnerAddress: address, RunnerURL: "unix:///run/forge.sock"},
		"FORGE_BUILD_PULL cannot hold with":                                                                 {RunnerAddress: address, Build: settings.Build{Pull: "always"}},
		"FORGE_BUILD_DISK cannot hold with":                                                                 {RunnerAddress: address, Build: settings.Build{Disk: "10GiB"}},
		"FORGE_BUILD_RUNNER_DIR cannot hold with":                                                           {RunnerAddress: address, Build: settings.Build{RunnerDir: "/run/forge"}},
		"whose MTU is FORGE_SWARM_MTU":                                                                      {RunnerAddress: address, Build: settings.Build{MTU: 1400}},
	} {
		s.Engine = "swarm"
		if err := s.CheckEngine(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if s.Engine = "docker"; s.CheckEngine() != nil {
			t.Errorf("engine docker: %v", s.CheckEngine())
		}
	}
	s := settings.Scheduler{Engine: "swarm", RunnerAddress: address, Build: settings.Build{Pull: "missing"}}
	if err := s.CheckEngine(); err != nil {
		t.Error(err)
	}
}

func TestSettingsThatProcessesCannotHoldToStopTheStart(t *testing.T) {
	for want, build := range map[string]settings.Build{
		"FORGE_BUILD_PULL cannot hold with engine process: it has no images":                          {Pull: "always"},
		"FORGE_BUILD_REGISTRIES_FILE cannot hold":                                                     {RegistriesFile: "config.json"},
		"FORGE_BUILD_PIDS cannot hold":                                                                {Pids: 100},
		"FORGE_BUILD_DISK cannot hold":                                                                {Disk: "10GiB"},
		"FORGE_BUILD_USER cannot hold with engine process: builds run as the user of Forge; unset it": {User: "1000"},
		"FORGE_BUILD_READ_ONLY cannot hold":                                                           {ReadOnly: true},
		"FORGE_BUILD_RUNNER_DIR cannot hold":                                                          {RunnerDir: "/run/forge"},
		"FORGE_BUILD_MTU cannot hold":                                                                 {MTU: 1400},
	} {
		s := settings.Scheduler{Engine: "process", Build: build}
		if err := s.CheckEngine(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if s.Engine = "docker"; s.CheckEngine() != nil {
			t.Errorf("engine docker: %v", s.CheckEngine())
		}
	}
	// What nobody set has its default.
	s := settings.Scheduler{Engine: "process", Build: settings.Build{Pull: "missing", Pids: 4096, Environment: map[string]string{"A": "b"}}}
	if err := s.CheckEngine(); err != nil {
		t.Error(err)
	}
}

func TestEveryRenamedSettingIsOneOfForge(t *testing.T) {
	names := map[string]bool{}
	for _, s := range kit.Names(&settings.All{}, kong.Vars{"grpc_address": "127.0.0.1:9090", "engines": "process"}) {
		names[s.Env] = true
	}
	for old, now := range settings.Renamed {
		if names[old] || !names[now] {
			t.Errorf("%s is told to be %s now", old, now)
		}
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

func TestContainersThatWait(t *testing.T) {
	for _, c := range []struct {
		warm     string
		capacity int
		want     int
		refused  string
	}{
		{"auto", 3, 3, ""},
		{"", 100, 4, ""},
		{"0", 3, 0, ""},
		{"10", 3, 10, ""},
		{"-1", 3, 0, "FORGE_WARM is \"-1\": expected auto, or a number up to 64"},
		{"65", 3, 0, "a number up to 64"},
		{"many", 3, 0, "a number up to 64"},
	} {
		got, err := settings.Scheduler{Engine: "docker", Warm: c.warm, Capacity: c.capacity}.Waiting()
		if got != c.want || (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%q with %d builds at once: %d, %v", c.warm, c.capacity, got, err)
		}
		if got := (settings.Scheduler{Engine: "docker", Warm: c.warm}).Sparing(); got != (c.warm == "auto" || c.warm == "") {
			t.Errorf("%q heeds the memory: %v", c.warm, got)
		}
	}
	for warm, fine := range map[string]bool{"auto": true, "": true, "0": true, "2": false} {
		if err := (settings.Scheduler{Engine: "process", Warm: warm}).CheckEngine(); (err == nil) != fine {
			t.Errorf("engine process and FORGE_WARM=%s: %v", warm, err)
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
