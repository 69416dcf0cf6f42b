// Package dockerapi holds what the engines share that speak Docker's API: how an
// attempt's objects are named and labelled, what may be asked for it, which
// credentials and variables it gets, and what the answers of registries mean.
package dockerapi

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/dustin/go-humanize"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// Labels of all that is made for an attempt. Forge finds its own by the first two;
// the others are for people.
const (
	InstanceLabel   = "forge.instance"
	AttemptLabel    = "forge.attempt"
	BuildLabel      = "forge.build"
	RepositoryLabel = "forge.repository"
	ActionLabel     = "forge.action"
	SidecarLabel    = "forge.service" // its name; the build's own container has none
	WaitingLabel    = "forge.waiting" // of what was made before there was an attempt, and its network: the name of the latter
	ProcessLabel    = "forge.process" // of the same: which Forge keeps it ready
)

// Paths in the container.
const (
	Home         = "/forge"
	RunnerFolder = Home + "/runner"
)

// OwnFolder is the user's to write to, whoever that is in the image. Where all else
// is read-only it is in a volume, whose top nobody can be given through the API.
func OwnFolder(readOnly bool) string {
	if readOnly {
		return Home + "/own"
	}
	return Home
}

// Name is that of the attempt's container, and of its network.
func Name(attempt string) string { return "forge-" + attempt }

// Labels are those of an attempt of this instance of Forge.
func Labels(instance string, spec engine.Spec) map[string]string {
	return map[string]string{
		InstanceLabel: instance, AttemptLabel: spec.Attempt,
		BuildLabel: spec.BuildID, RepositoryLabel: spec.Repository, ActionLabel: spec.Action,
	}
}

// Labelled finds what this instance of Forge has labelled so.
func Labelled(instance, label, value string) client.Filters {
	return client.Filters{}.Add("label", InstanceLabel+"="+instance, label+"="+value)
}

// Check refuses what no engine may start.
func Check(spec engine.Spec) error {
	if spec.Runner.URL == "" || spec.Runner.Token == "" {
		return fault.Newf(fault.Invalid, "attempt %s: the runner's URL and token are missing", spec.Attempt)
	}
	if spec.Fork && (spec.Privileged || len(spec.Volumes) > 0 || slices.ContainsFunc(spec.Sidecars, func(s engine.Sidecar) bool { return s.Privileged })) {
		return fault.Newf(fault.Invalid, "attempt %s: a fork's build is never given the host", spec.Attempt)
	}
	return CheckName(spec.Attempt)
}

// CheckName refuses what cannot be an attempt's name, as engine.Spec says.
func CheckName(attempt string) error {
	if !attemptName().MatchString(attempt) {
		return fault.Newf(fault.Invalid, "attempt %q: a name is 1 to 40 characters out of a-z, 0-9 and -", attempt)
	}
	return nil
}

var attemptName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-]{1,40}$`) })

// SharedMemory is the size of /dev/shm. Docker's own 64 MB are too little for
// browsers and databases; more than the memory can never be filled.
func SharedMemory(spec engine.Spec) int64 {
	const usual = 1 << 30
	size := spec.SharedMemory
	switch {
	case size == 0 && spec.Memory > 0:
		size = spec.Memory / 2
	case size == 0:
		size = usual
	case spec.Memory > 0:
		size = min(size, spec.Memory)
	}
	return size
}

// Size is a number of bytes for people.
func Size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }

// Plain is what the Docker engine says, without the client's introduction.
func Plain(err error) string { return strings.TrimPrefix(err.Error(), "Error response from daemon: ") }
