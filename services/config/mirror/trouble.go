package mirror

import (
	"errors"
	"syscall"

	"github.com/forge-ci/forge/services/kit/fault"
)

// broken reports whether git cannot read a copy. What GitHub sends, or does not send,
// says nothing of that, nor does a full disk.
func broken(err error) bool {
	return says(err, "corrupt", "bad object", "unable to read", "not a git repository", "object file", "missing blob", "missing tree", "missing commit",
		"does not match index", "bad revision", "inflate", "packfile", "invalid index", "unresolved deltas", "could not parse") &&
		!says(err, "fsck error") && !brokenOff(err) && !full(err)
}

// brokenOff reports whether a server has ended a fetch, or the way to it.
func brokenOff(err error) bool {
	return says(err, "rpc failed", "returned error: ", "unable to access", "early eof", "unexpected disconnect", "hung up")
}

// full reports whether the disk is.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		says(err, "no space left on device", "out of diskspace", "disk quota exceeded")
}

func fullFault(noun string, err error) error {
	return fault.Newf(fault.Unavailable, "%s: the disk of Forge's data directory is full: %w", noun, err)
}

// fetchFault is a failed fetch as the callers of config know it.
func fetchFault(noun string, err error) error {
	switch {
	case full(err):
		return fullFault(noun, err)
	case says(err, "not our ref", "couldn't find remote ref", "no such remote ref", "unadvertised object"):
		return fault.Newf(fault.NotFound, "%s: GitHub has no such commit", noun)
	case says(err, "repository not found", "returned error: 404"), says(err, "' not found"):
		return fault.Newf(fault.NotFound, "%s: GitHub has no such repository, or the App does not see it", noun)
	case says(err, "authentication failed", "returned error: 401", "could not read username", "invalid username or"):
		return fault.Newf(fault.Unavailable, "%s: GitHub does not take the token: %w", noun, err)
	case says(err, "returned error: 403"):
		return fault.Newf(fault.Denied, "%s: GitHub refuses it: %w", noun, err)
	case says(err, "fsck error"):
		return fault.Newf(fault.Invalid, "%s: git refuses what it holds: %w", noun, err)
	case says(err, "operation too slow", "timed out"):
		return fault.Newf(fault.Unavailable, "%s: GitHub is too slow: %w", noun, err)
	case says(err, "returned error: "):
		return fault.Newf(fault.Unavailable, "%s: GitHub answers with an error: %w", noun, err)
	case brokenOff(err):
		return fault.Newf(fault.Unavailable, "%s: GitHub broke off: %w", noun, err)
	default:
		return fault.Newf(fault.Unavailable, "%s: %w", noun, err)
	}
}
