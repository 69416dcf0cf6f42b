package store

import (
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// Environment is where a repository is deployed to, one deploy at a time.
type Environment struct {
	RepositoryID int64
	Name         string
	Repository   string // owner/name
	Holder       string // the build that deploys, or is the next to; "" when free
	Deployed     string // the build whose deploy it runs; "" before the first
	// Newest is the build that brought the newest commit. A roll back leaves it:
	// what came before the commit rolled back from is no less outdated by that.
	Newest        string
	FrozenSince   time.Time // zero: it is not
	FreezeMessage string
	// HeldBecause is why the holder, which has ended, cannot let go of it; "" otherwise.
	HeldBecause string
	// PullRequest is whose preview it is; 0 for one that is no pull request's.
	PullRequest int32
}

// BlockedBy says why a deploy must wait; nothing when it need not. A roll back
// is an order of a person, which a freeze does not hold.
func (e *Environment) BlockedBy(b *Build) (schedulerv1.Build_Reason, string) {
	switch {
	case !e.FrozenSince.IsZero() && b.GetRollBackOf() == "":
		return schedulerv1.Build_REASON_ENVIRONMENT_FROZEN, e.Name + " is frozen: " + e.FreezeMessage
	case e.HeldBecause != "":
		return schedulerv1.Build_REASON_ENVIRONMENT_BUSY, e.Name + " is held by build " + e.Holder + ": " + e.HeldBecause
	case e.Holder != "":
		return schedulerv1.Build_REASON_ENVIRONMENT_BUSY, e.Name + " is deploying build " + e.Holder
	default:
		return schedulerv1.Build_REASON_UNSPECIFIED, ""
	}
}
