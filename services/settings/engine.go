package settings

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
)

const (
	swarmEngine = "swarm"
	// swarmBuilds is a bound for safety: what runs at once the swarm decides.
	swarmBuilds = 100
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
	if s.Engine != swarmEngine {
		return nil
	}
	if s.RunnerAddress == "" || strings.HasPrefix(s.RunnerAddress, "unix://") || strings.HasPrefix(s.RunnerURL, "unix://") {
		return errors.New("engine swarm runs builds on other machines: FORGE_RUNNER_ADDRESS must be host:port, such as 0.0.0.0:9094, " +
			"and FORGE_RUNNER_URL what they dial")
	}
	for _, setting := range []struct {
		set       bool
		name, why string
	}{
		{s.Docker.Pull != "" && s.Docker.Pull != "missing", "FORGE_DOCKER_PULL", "its machines ask the registry for each build"},
		{s.Docker.Disk != "", "FORGE_DOCKER_DISK", "it has no limit of disk"},
		{s.Docker.RunnerDir != "", "FORGE_DOCKER_RUNNER_DIR", "builds get no socket"},
		{s.BuildMTU != 0, "FORGE_BUILD_MTU", "its networks are overlays, whose MTU is FORGE_SWARM_MTU"},
	} {
		if setting.set {
			return fmt.Errorf("%s cannot hold with engine swarm: %s; unset it", setting.name, setting.why)
		}
	}
	return nil
}
