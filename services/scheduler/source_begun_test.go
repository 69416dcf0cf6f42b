package scheduler

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// A runner gets what it lacks of a source, from where it is; and all of it where what
// it has is of another one.
func TestSourceGoesOnWhereTheRunnerIs(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		token := r.spec(r.built(opened(1, "aaa")), 1).Runner.Token
		for _, c := range []struct {
			begun, want string
		}{
			{"", "0 tar, 3 ball, 7 last"},
			{"ta", "2 r, 3 ball, 7 last"},
			{"tar", "3 ball, 7 last"},
			{"tarba", "5 ll, 7 last"},
			{"tarball", "7 last"},
			{"tart", "0 tar, 3 ball, 7 last"},
			{"bar", "0 tar, 3 ball, 7 last"},
			{"tarballs", "0 tar, 3 ball, 7 last"},
		} {
			sum := sha256.Sum256([]byte(c.begun))
			hello := &schedulerv1.Hello{RunnerId: "runner", HasPlan: true, SourceBegun: &schedulerv1.SourceBegun{Bytes: int64(len(c.begun)), Sha256: sum[:]}}
			u := r.stream(token, hello)
			u.recv() // welcome
			var got []string
			for last := false; !last; {
				chunk := u.recv().GetSource()
				if last = chunk.GetLast(); last {
					got = append(got, fmt.Sprintf("%d last", chunk.GetOffset()))
				} else {
					got = append(got, fmt.Sprintf("%d %s", chunk.GetOffset(), chunk.GetData()))
				}
			}
			kittest.Want(t, strings.Join(got, ", "), c.want, "after "+c.begun)
			u.leave()
		}
	})
}
