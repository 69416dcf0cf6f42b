package settings

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
)

const (
	dockerEngine  = "docker"
	swarmEngine   = "swarm"
	processEngine = "process"
	// swarmBuilds is a bound for safety: what runs at once the swarm decides.
	swarmBuilds = 100
	// warmUsual is how many containers wait at most where nobody says how many, and
	// warmMost how many whatever is said.
	warmAuto            = "auto"
	warmUsual, warmMost = 4, 64
	// forgexecImage is that of a release, without its tag.
	forgexecImage = "ghcr.io/forge-ci/forgexec"
)

// Builds returns how many builds run at once.
func (s Scheduler) Builds() int {
	switch {
	case s.Capacity > 0:
		return s.Capacity
	case s.Engine == swarmEngine:
		return swarmBuilds
	}
	return runtime.NumCPU()
}

// Sparing is whether fewer containers wait where memory is short.
func (s Scheduler) Sparing() bool { return s.Warm == "" || s.Warm == warmAuto }

// Waiting returns how many containers wait for builds at most.
func (s Scheduler) Waiting() (int, error) {
	if s.Sparing() {
		return min(s.Builds(), warmUsual), nil
	}
	count, err := strconv.Atoi(s.Warm)
	if err != nil || count < 0 || count > warmMost {
		return 0, fmt.Errorf("FORGE_WARM is %q: expected %s, or a number up to %d", s.Warm, warmAuto, warmMost)
	}
	return count, nil
}

// Forgexec is the image that brings forgexec to other machines; "" where this is no
// release and none is set.
func (s Scheduler) Forgexec() string {
	if s.ForgexecImage == "" && strings.HasPrefix(Version, "v") {
		return forgexecImage + ":" + Version
	}
	return s.ForgexecImage
}

// CheckEngine refuses settings that the engine cannot hold to.
func (s Scheduler) CheckEngine() error {
	if s.Engine == swarmEngine &&
		(s.RunnerAddress == "" || strings.HasPrefix(s.RunnerAddress, "unix://") || strings.HasPrefix(s.RunnerURL, "unix://")) {
		return errors.New("engine swarm runs builds on other machines: FORGE_RUNNER_ADDRESS must be host:port, such as 0.0.0.0:9094, " +
			"and FORGE_RUNNER_URL what they dial")
	}
	if _, err := s.Waiting(); err != nil {
		return err
	}
	if s.Engine != dockerEngine && !s.Sparing() && s.Warm != "0" {
		return fmt.Errorf("FORGE_WARM cannot hold with engine %s: no container waits there; unset it", s.Engine)
	}
	b := s.Build
	// What has a default counts as set where it differs from that.
	for _, setting := range []struct {
		set            bool
		name           string
		swarm, process string // why that engine cannot hold to it; "": it can
	}{
		{b.Pull != "" && b.Pull != "missing", "FORGE_BUILD_PULL", "its machines ask the registry for each build", "it has no images"},
		{b.RegistriesFile != "", "FORGE_BUILD_REGISTRIES_FILE", "", "it has no images"},
		{len(s.RegistryCommands) > 0, "FORGE_REGISTRY_COMMANDS", "", "it has no images"},
		{b.Pids != 0 && b.Pids != 4096, "FORGE_BUILD_PIDS", "", "it does not count processes"},
		{b.Disk != "", "FORGE_BUILD_DISK", "it has no limit of disk", "it has no limit of disk"},
		{b.User != "", "FORGE_BUILD_USER", "", "builds run as the user of Forge"},
		{b.ReadOnly, "FORGE_BUILD_READ_ONLY", "", "builds have the file system of this host"},
		{b.RunnerDir != "", "FORGE_BUILD_RUNNER_DIR", "builds get no socket", "builds see the socket where it is"},
		{b.MTU != 0, "FORGE_BUILD_MTU", "its networks are overlays, whose MTU is FORGE_SWARM_MTU", "builds have the network of this host"},
	} {
		why := map[string]string{swarmEngine: setting.swarm, processEngine: setting.process}[s.Engine]
		if setting.set && why != "" {
			return fmt.Errorf("%s cannot hold with engine %s: %s; unset it", setting.name, s.Engine, why)
		}
	}
	return nil
}
