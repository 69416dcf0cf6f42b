package reporter

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/due"
)

const (
	// patience is how long another text for pending waits for the build's end.
	patience = time.Second

	firstPause = time.Second
	mostPause  = 5 * time.Minute
	// Half of mostPause is the shortest a pause can be then: at least 24 hours.
	mostTries = 600

	// mostSuspended is the longest pause while an installation is suspended.
	mostSuspended = time.Hour
)

// target is a row of targets.
type target struct {
	id             string
	kind           reporterv1.Target_Kind
	repository     *eventv1.Repository // id, owner and name
	installationID int64
	sha, context   string
	head, base     string
	buildID        string
	traceparent    string

	version int64
	want    shown

	toldVersion int64
	told        shown
	toldAt      time.Time
	pullRequest int32

	payload  []byte // what a check run, a deployment or an answer is made of
	githubID int64  // of what was made on GitHub
	begun    bool   // GitHub may have made it, known or not
	since    time.Time
	verify   time.Time // when to read back what GitHub shows; zero: never
	verified time.Time

	state    reporterv1.Target_State
	due      time.Time
	lease    time.Time
	attempts int
	err      string
	updated  time.Time
}

// targetID is the same for the same thing to be told, so that storing it twice
// finds it. It fits into an address.
func targetID(kind reporterv1.Target_Kind, repositoryID int64, key ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %q", kind, repositoryID, key))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// schedule says when the target is to be told. Somebody who is telling it right
// now schedules it again afterwards.
func (t *target) schedule(now time.Time) {
	t.updated = now
	if t.since.IsZero() && t.want != t.told {
		t.since = now
	}
	switch {
	case !t.lease.IsZero():
	case t.want == t.told, t.nothingToTell():
		t.settled()
	case t.state == reporterv1.Target_STATE_FAILING, t.state == reporterv1.Target_STATE_PAUSED:
		// News do not shorten the pause after a failure.
	case t.want.unfinished() && (t.told.unfinished() || t.kind == reporterv1.Target_KIND_DEPLOYMENT):
		t.state = reporterv1.Target_STATE_PENDING
		if t.due.IsZero() {
			t.due = now.Add(patience)
		}
	default:
		t.again(now)
	}
}

// nothingToTell: a deploy that never began has left no trace on GitHub, and
// needs none.
func (t *target) nothingToTell() bool {
	return t.kind == reporterv1.Target_KIND_DEPLOYMENT && t.want.state == inactive && !t.begun
}

// settled: GitHub shows what it should.
func (t *target) settled() {
	t.state, t.toldVersion = reporterv1.Target_STATE_TOLD, t.version
	t.due, t.attempts, t.err, t.since = time.Time{}, 0, "", time.Time{}
}

// again has the target tried at once, as if it had never failed.
func (t *target) again(now time.Time) {
	t.state, t.due, t.attempts = reporterv1.Target_STATE_PENDING, now, 0
}

// keep leaves the target to a person.
func (t *target) keep(why string) {
	t.state, t.due, t.err = reporterv1.Target_STATE_KEPT, time.Time{}, why
}

// succeed takes in that GitHub was told a version, which may not be the newest
// any more.
func (t *target) succeed(version int64, what shown, now time.Time) {
	t.toldVersion, t.told, t.toldAt = version, what, now
	t.verify = firstVerify(t.kind, now)
	t.lease, t.due, t.attempts, t.err = time.Time{}, time.Time{}, 0, ""
	t.state = reporterv1.Target_STATE_PENDING
	t.schedule(now)
}

// fail takes in that GitHub could not be told a version. What GitHub shows is
// not known then: the answer may have been lost, not the call. What GitHub
// refused to make, it has not made.
func (t *target) fail(version int64, why setback, now time.Time, random func() float64) {
	t.lease, t.told, t.updated = time.Time{}, shown{}, now
	if why.refused && t.githubID == 0 {
		t.begun = false
	}
	t.attempts++
	t.err = cut(oneLine(why.text), 500)
	t.state = why.state
	switch {
	case why.state == reporterv1.Target_STATE_KEPT && t.version > version:
		t.again(now)
	case why.state == reporterv1.Target_STATE_KEPT:
		t.keep(t.err)
	case why.state == reporterv1.Target_STATE_PAUSED:
		t.due = now.Add(due.Backoff(t.attempts, firstPause, mostSuspended, random))
	case t.attempts >= mostTries:
		t.keep(fmt.Sprintf("gave up after %d tries: %s", t.attempts, t.err))
	case why.after > 0:
		t.due = now.Add(why.after)
	default:
		t.due = now.Add(due.Backoff(t.attempts, firstPause, mostPause, random))
	}
}

// release gives up a try that Forge itself cut short.
func (t *target) release(now time.Time) {
	t.lease, t.told, t.due = time.Time{}, shown{}, now
}
