package scheduler

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	shown  = "3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4"
	forged = "3f2a91c0d5b6ffffffffffffffffffffffffffff" // begins alike
)

// An outsider has shown one commit, and pushes another that a comment about the
// first could mean. Each row is an attack, or its honest counterpart.
func TestOlderCommentApprovesNoNewerCommit(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		told bool // the push was heard of before the comment's event
		// after is how long after the push was heard of the comment was written.
		after    time.Duration
		approves bool
	}{
		"by 7 digits":                          {"/forge approve " + shown[:7], true, time.Minute, false},
		"by 11 digits":                         {"/forge approve " + shown[:11], true, time.Minute, false},
		"by a prefix, comment older":           {"/forge approve " + shown[:12], true, -time.Minute, false},
		"by a prefix, just older":              {"/forge approve " + shown[:12], true, -time.Millisecond, false},
		"by the push's own sha, comment older": {"/forge approve " + forged, true, -time.Minute, false},
		"by a prefix, push not heard of":       {"/forge approve " + shown[:12], false, -time.Minute, false},
		"by the sha that was shown":            {"/forge approve " + shown, true, -time.Minute, false},
		"honest, by a prefix":                  {"/forge approve " + forged[:12], true, time.Second, true},
		"honest, by a longer prefix":           {"/forge approve " + forged[:20], true, time.Minute, true},
		"honest, by the whole sha":             {"/forge approve " + forged, true, time.Minute, true},
		"honest, within the second":            {"/forge approve " + forged, true, 0, true},
		"honest, push not heard of":            {"/forge approve " + forged, false, time.Minute, true},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				r.send(r.github.shows(fromFork("eve", opened(1, shown))))
				r.clock.Advance(time.Hour)
				pushed := r.clock.Now()
				push := sentBy("eve", r.github.shows(fromFork("eve", synchronize(shown, forged, noon.Add(time.Minute)))))
				push.ReceiveTime = timestamppb.New(pushed)
				if c.told {
					r.send(push)
				}
				comment := commentBy("ada", c.body)
				comment.GetIssueComment().CreateTime = timestamppb.New(pushed.Add(c.after))
				d := r.send(comment)
				if approves := d.GetReason() == eventv1.Reason_REASON_APPROVED; approves != c.approves {
					t.Errorf("decided %v", d)
				}
				if !c.told {
					r.send(push)
				}
				var of *schedulerv1.Build
				for _, b := range r.all() {
					if b.GetSha() == forged {
						of = b
					}
				}
				if blocked := of.GetState() == schedulerv1.Build_STATE_BLOCKED; blocked == c.approves || (of.GetApprovedBy() == "ada") != c.approves {
					t.Errorf("the newer commit: %v", of)
				}
			})
		})
	}
}

// A comment without its time approves nothing.
func TestCommentOfUnknownTimeApprovesNothing(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	r.send(r.github.shows(fromFork("eve", opened(1, shown))))
	comment := commentBy("ada", "/forge approve "+shown)
	comment.GetIssueComment().CreateTime = nil
	if d := r.send(comment); d.GetReason() != eventv1.Reason_REASON_STALE {
		t.Errorf("decided %v", d)
	}
}

func TestBlockedBuildShowsTheLineToCopy(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	blocked := r.build(r.send(r.github.shows(fromFork("eve", opened(1, shown)))).GetBuildIds()[0])
	_, line, _ := strings.Cut(blocked.GetMessage(), ": ")
	if line != "/forge approve "+shown[:12] {
		t.Fatalf("the build says %q", blocked.GetMessage())
	}
	if d := r.send(commentBy("ada", line)); d.GetReason() != eventv1.Reason_REASON_APPROVED {
		t.Errorf("%q: %v", line, d)
	}
}
