// Package engine says what an engine is: what runs the containers of builds. It
// holds the types alone; each engine is a package below it, the table of them is
// package engines, and enginetest is what each must pass.
package engine

import (
	"context"
	"fmt"
	"time"
)

// Engine runs the containers of builds. It starts, stops, inspects and lists
// them; what happens inside is between forgexec and the scheduler. An error
// says nothing about a container: only List does. All schedulers on one database
// have the same engine: any of them stops what another has started, and takes what
// List does not name for gone.
type Engine interface {
	// Name is how the engine is set: "process", "docker".
	Name() string
	// Start starts the container of one attempt. Asked again for the same
	// attempt, it leaves the one that is there. fault.Invalid: this attempt can
	// never be started as asked (no such image); any other error: perhaps later. It
	// returns soon after ctx has ended; what it was about to make may come to be all
	// the same. WaitError tells what it was waiting for.
	Start(ctx context.Context, spec Spec) error
	// Stop ends the container of an attempt at once and removes what it left.
	// One that is not there is no error.
	Stop(ctx context.Context, attempt string) error
	// List names every container that Forge started on this engine and that has
	// not been removed, ended ones too. An error means that nobody knows.
	List(ctx context.Context) ([]Container, error)
	// Tail returns what forgexec itself wrote last: at most 30 lines and 4 KiB of
	// text; "" where nothing is known of the attempt. It takes 5 seconds at most.
	Tail(ctx context.Context, attempt string) (string, error)
}

// TailWithin, TailLines and TailBytes bound what Tail takes and returns.
const (
	TailWithin = 5 * time.Second
	TailLines  = 30
	TailBytes  = 4 << 10
)

// DelayError is an error of Start that names what passes by itself and is not the
// engine's absence: a limit of a registry, a pool that is used up.
type DelayError struct {
	Err error // for people
	// Pause is how long to wait before Start is asked again.
	Pause time.Duration
	// Within is how long to go on asking; 0 is the build's timeout.
	Within time.Duration
}

func (d *DelayError) Error() string { return d.Err.Error() }

func (d *DelayError) Unwrap() error { return d.Err }

// Spec is what an engine needs to start the container of one attempt.
type Spec struct {
	// Attempt is unique among all attempts of all builds, at most 40 characters
	// out of a-z, 0-9 and "-".
	Attempt string
	// BuildID, Repository (owner/name) and Action label the container for people.
	BuildID, Repository, Action string
	Image                       string
	// Loaded are images that Forge has built for this very build and keeps in the engine
	// under names of its own, which no other build may use.
	Loaded []string
	// Platform is what the container is to run on, as os/architecture in the words of
	// images; "" is any. Sidecars run on what their images are for.
	Platform string
	// Fork: the commands are a fork's. Whatever an engine could give a container
	// besides, these do not get.
	Fork bool
	// Sidecars run as long as the container does. Its commands begin once each is
	// ready; an engine that has none of that says fault.Invalid.
	Sidecars []Sidecar
	// Ports of the container that the host is to lend it.
	Ports []Port
	// Registries is what the build may show to registries of images, besides what all
	// builds may. nil: nothing.
	Registries Registries
	// Runner is what forgexec is told: where to attach, and with which token.
	Runner Runner
	// CPUs in cores and Memory in bytes, of the container and of each sidecar; 0 is
	// no limit.
	CPUs   float64
	Memory int64
	// SharedMemory is how large /dev/shm of each of them is, in bytes; 0 is half of
	// Memory, or 1 GiB where that has no limit. What is in there counts as memory.
	SharedMemory int64
	// Privileged: the container may do what root on the host can.
	Privileged bool
	Volumes    []Volume
	// Say puts a line into the build's log while nothing runs there yet: what Start
	// is waiting for. A Start that is asked again may say it again. May be nil.
	Say func(line string)
	// Waits is told what Start waits for, as often as that changes; an empty text is
	// for nothing any more. May be nil.
	Waits func(what Wait, text string)
	// Placed is told the name of the machine, where there are several, once it is
	// known. May be nil.
	Placed func(machine string)
}

// PlacedOn is Placed, where there is one.
func (s Spec) PlacedOn(machine string) {
	if s.Placed != nil && machine != "" {
		s.Placed(machine)
	}
}

// Wait is what a Start waits for.
type Wait int

// The waits that programs tell apart.
const (
	WaitOther Wait = iota
	WaitImage
	WaitMachine
	WaitDisk  // the engine's is full
	WaitRetry // what passes by itself, whatever it is
)

// WaitsFor is Waits, where there is one.
func (s Spec) WaitsFor(what Wait, text string) {
	if s.Waits != nil {
		s.Waits(what, text)
	}
}

// Sayf is Say, where there is one.
func (s Spec) Sayf(format string, args ...any) {
	if s.Say != nil {
		s.Say(fmt.Sprintf(format, args...))
	}
}

// Sidecar is a container beside that of the commands, which reach it by its name.
type Sidecar struct {
	Name, Image string
	// Environment is all of it: it gets no secrets, and none of our variables.
	Environment map[string]string
	// Command and Entrypoint stand in place of the image's, each where it is not empty.
	Command, Entrypoint []string
	// Ready says when it is ready.
	Ready Ready
	// Privileged: as the build's own container.
	Privileged bool
}

// Volume is a folder of the host, and where the commands see it.
type Volume struct{ Source, Target string }

// Ready says when a sidecar is ready: when Run, a command of its shell, ends with 0;
// else when Port takes connections; else as its image says.
type Ready struct {
	Run  string
	Port uint16
	// Within is how long that may take; 0 is the engine's default.
	Within time.Duration
}

// Port is a TCP port of the container, and the one of the host that leads to it.
type Port struct{ Container, Host uint16 }

// Runner is how forgexec reaches the scheduler.
type Runner struct {
	// URL is unix:///path/to/socket, or host:port for TLS.
	URL string
	// CA is what forgexec trusts there, PEM; "" for a socket or the system's roots.
	CA string
	// Token is good for one attempt. Never to be logged.
	Token string
}

// Variables of forgexec that engines set apart: a token that is good for one attempt;
// else that it waits for that on its standard input, where it is a line.
const (
	TokenEnv = "FORGE_RUNNER_TOKEN"
	WaitsEnv = "FORGE_RUNNER_WAITS"
)

// Environ is the runner as variables of forgexec, which dials url: the URL as it
// is inside the container. Without a token forgexec waits for one. Each of them is
// given, so that what an image says of it does not count.
func (r Runner) Environ(url string) []string {
	waits := ""
	if r.Token == "" {
		waits = "1"
	}
	environ := []string{"FORGE_RUNNER_URL=" + url, TokenEnv + "=" + r.Token, WaitsEnv + "=" + waits}
	if r.CA != "" {
		environ = append(environ, "FORGE_RUNNER_CA="+r.CA)
	}
	return environ
}

// Container is one container, as its engine sees it.
type Container struct {
	Attempt string
	// Running: forgexec's process runs, or is still to be started.
	Running bool
	// Unreachable: its machine is not heard of. It may run or not.
	Unreachable bool
	// Start is when it was started; zero where the engine does not know.
	Start time.Time
	// ExitCode of forgexec itself, once it is not running; -1 where unknown.
	ExitCode int
	// Ending is why it does not run any more, where the engine knows.
	Ending Ending
	// Reason is the engine's own words for people, one line of at most 300 bytes,
	// without secrets; "" where it says nothing.
	Reason string
	// Machine is the name of the host that it runs on; "" where there is but one.
	Machine string
}

// Ending is why a container does not run any more.
type Ending int

// The endings.
const (
	// EndingUnknown: it ended by itself, or nobody knows why.
	EndingUnknown Ending = iota
	// OutOfMemory: the kernel ended it at its memory limit.
	OutOfMemory
	// OutOfDisk: it was ended at its own limit of disk.
	OutOfDisk
	// Withdrawn: it was evicted, preempted or drained, or its machine was taken away.
	Withdrawn
)
