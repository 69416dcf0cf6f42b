package reporter

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/due"
)

const (
	// pendingDelay is how long another text for pending waits for the build's end.
	pendingDelay = time.Second

	firstPause = time.Second
	mostPause  = 5 * time.Minute
	// Half of mostPause is the shortest a pause can be then: at least 24 hours.
	mostTries = 600

	// What GitHub refuses may be right a little later, as where its copies of a new
	// commit or of a permission lag behind. A final state is not given up before
	// refusedFor; the pauses grow from firstRefusedPause to mostRefusedPause.
	refusedFor        = 24 * time.Hour
	firstRefusedPause = 5 * time.Second
	mostRefusedPause  = 4 * time.Hour

	// unluckyTries is how many failures of a target in a row may be bad luck, and
	// outageFailures how many of its installation are not.
	unluckyTries   = 8
	outageFailures = 20

	// mostSuspended is the longest pause while an installation is suspended.
	mostSuspended = time.Hour
)

// target is a row of targets: one thing that GitHub is to show.
type target struct {
	id             string
	kind           reporterv1.Target_Kind
	repository     *eventv1.Repository // id, owner and name
	installationID int64
	sha, context   string
	head, base     string
	buildID        string
	traceparent    string
	pullRequest    int32

	version int64
	desired display // what GitHub is to show
	plain   bool    // in words of ours alone; not stored, for one attempt
	payload []byte  // what a check run, a deployment or an answer is made of

	publishedVersion int64
	published        display // what GitHub was told last; zero: not known
	publishedAt      time.Time
	githubID         int64 // of what was made on GitHub
	begun            bool  // GitHub may have made it, known or not

	unpublishedSince time.Time // zero: GitHub was told the newest
	refusedSince     time.Time // zero: GitHub does not refuse it
	verifyAt         time.Time // when to read back what GitHub shows; zero: never
	verifiedAt       time.Time

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

// storedReport is the report that the target was made of.
func (t *target) storedReport() (*reporterv1.ReportRequest, error) {
	r := &reporterv1.ReportRequest{}
	if err := proto.Unmarshal(t.payload, r); err != nil {
		return nil, fmt.Errorf("payload of target %s: %w", t.id, err)
	}
	return r, nil
}

// schedule sets when the target is to be told. Who is telling it right now
// schedules it again afterwards.
func (t *target) schedule(now time.Time) {
	t.updated = now
	if t.unpublishedSince.IsZero() && t.desired != t.published {
		t.unpublishedSince = now
	}
	switch {
	case !t.lease.IsZero():
	case t.desired == t.published, t.nothingToPublish():
		t.markPublished()
	case t.state == reporterv1.Target_STATE_FAILING && t.refusedSince.IsZero(), t.state == reporterv1.Target_STATE_PAUSED:
		// News do not shorten the pause after a failure, but GitHub may take them
		// where it refused what was before.
	case t.desired.unfinished() && (t.published.unfinished() || channelOf(t.kind).unhurried):
		t.state = reporterv1.Target_STATE_PENDING
		if t.due.IsZero() {
			t.due = now.Add(pendingDelay)
		}
	default:
		t.retryNow(now)
	}
}

// nothingToPublish reports whether GitHub needs no call to show what it should: a
// deploy that never began has left no trace there.
func (t *target) nothingToPublish() bool {
	return t.desired.state == stateInactive && !t.begun
}

// markPublished takes in that GitHub shows what it should.
func (t *target) markPublished() {
	t.state, t.publishedVersion = reporterv1.Target_STATE_TOLD, t.version
	t.due, t.attempts, t.err = time.Time{}, 0, ""
	t.unpublishedSince, t.refusedSince = time.Time{}, time.Time{}
}

// retryNow has the target tried at once, as if it had never failed.
func (t *target) retryNow(now time.Time) {
	t.state, t.due, t.attempts, t.refusedSince = reporterv1.Target_STATE_PENDING, now, 0, time.Time{}
}

// keep leaves the target to a person.
func (t *target) keep(why string) {
	t.state, t.due, t.err = reporterv1.Target_STATE_KEPT, time.Time{}, why
}

// succeed takes in that GitHub was told a version, which may not be the newest
// any more.
func (t *target) succeed(version int64, what display, now time.Time) {
	t.publishedVersion, t.published, t.publishedAt = version, what, now
	t.verifyAt = t.firstVerify(now)
	t.lease, t.due, t.attempts, t.err, t.refusedSince = time.Time{}, time.Time{}, 0, "", time.Time{}
	t.state = reporterv1.Target_STATE_PENDING
	t.schedule(now)
}

// fail takes in that GitHub could not be told a version. What GitHub shows is
// not known then: the answer may have been lost, not the call. What GitHub
// refused to make, it has not made.
func (t *target) fail(version int64, why failure, now time.Time, random func() float64) {
	t.lease, t.published, t.updated = time.Time{}, display{}, now
	if why.untouched && t.githubID == 0 {
		t.begun = false
	}
	t.attempts++
	t.err = cut(oneLine(why.text), 500)
	t.state = why.state
	switch {
	case why.state == reporterv1.Target_STATE_KEPT && t.version > version:
		t.retryNow(now)
	case why.state == reporterv1.Target_STATE_KEPT:
		t.refuse(now, random)
	case why.state == reporterv1.Target_STATE_PAUSED:
		t.due = now.Add(due.Backoff(t.attempts, firstPause, mostSuspended, random))
	case t.attempts >= mostTries:
		t.keep(fmt.Sprintf("gave up after %d tries: %s", t.attempts, t.err))
	case why.retryAfter > 0:
		t.due = now.Add(why.retryAfter)
	default:
		t.due = now.Add(due.Backoff(t.streak(why), firstPause, mostPause, random))
	}
}

// streak is how many failures in a row count for the next pause. While GitHub
// answers others of the installation, the first of them are bad luck, and the
// target waits no longer for having more of it. After those the pause doubles from
// there: one failure more does not cost minutes.
func (t *target) streak(why failure) int {
	if why.failures > 0 && why.failures < outageFailures {
		return min(t.attempts, 2+max(0, t.attempts-unluckyTries))
	}
	return t.attempts
}

// refuse takes in that GitHub refuses what it is told: a final state is tried
// again for a day, ever more rarely, before it is left to a person.
func (t *target) refuse(now time.Time, random func() float64) {
	if t.refusedSince.IsZero() {
		t.refusedSince, t.attempts = now, 1
		t.verifyAt = t.firstVerify(now)
	}
	switch refused := now.Sub(t.refusedSince); {
	case t.desired.unfinished():
		t.keep(t.err)
	case refused >= refusedFor:
		t.keep(fmt.Sprintf("gave up after %d tries: %s", t.attempts, t.err))
	default:
		t.state = reporterv1.Target_STATE_FAILING
		t.due = now.Add(min(due.Backoff(t.attempts, firstRefusedPause, mostRefusedPause, random), refusedFor-refused))
	}
}

// interrupt takes in that Forge itself cut an attempt short.
func (t *target) interrupt(now time.Time) {
	t.lease, t.published, t.due = time.Time{}, display{}, now
}
