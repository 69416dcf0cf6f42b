package wire_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// The scheduler is killed ten times while one build runs. The build notices
// nothing: it passes, each command runs once, and each line it printed is in its
// log, once.
func TestABuildOutlivesTenKillsOfTheScheduler(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true, postgres: true}} {
		t.Run(d.String(), func(t *testing.T) {
			if d.postgres {
				kittest.Require(t, "postgres")
			}
			w := newWorld(t, nil)
			gates := filepath.Join(w.dir, "gates")
			if err := os.Mkdir(gates, 0o700); err != nil {
				t.Fatal(err)
			}
			w.outlive(t, d, "busybox", gates, func(_ *schedulerv1.Build, gate string) {
				if err := os.WriteFile(filepath.Join(gates, gate), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// outlive runs a build of three steps, each of which prints a count until its
// gate, a file in the folder gates as the build sees it, is there.
func (w *world) outlive(t *testing.T, d deployment, image, gates string, open func(b *schedulerv1.Build, gate string)) {
	t.Helper()
	w.push(t, "main", files(".forge.yml", lines(
		"image: "+image,
		"environment: {GATES: '"+gates+"'}",
		"execute: [sh count.sh one, sh count.sh two, sh count.sh three]",
	), "count.sh", lines(
		"i=0",
		`until [ -e "$GATES/$1" ]; do i=$((i+1)); echo "$1 $i"; sleep 0.01; done`,
		`echo "$1 is over"`,
	)))
	w.deploy(t, d)
	_, sha := w.propose(t, "change", files("notes", "a thought\n"))
	struck := w.processes[0]
	if d.apart {
		struck = w.process("scheduler")
	}
	opens := map[int]string{3: "one", 7: "two"} // after that many kills
	b := &schedulerv1.Build{}
	for kills := 1; kills <= 10; kills++ {
		b = w.printsMore(t, sha, b.GetLogSize())
		time.Sleep(time.Duration(rand.Int64N(int64(100 * time.Millisecond)))) // so that it hits anything
		struck.kill()
		if gate := opens[kills]; gate != "" {
			open(b, gate)
		}
		struck.begin(t)
	}
	b = w.printsMore(t, sha, b.GetLogSize())
	open(b, "three")
	w.shows(t, sha, "forge/test", "success")
	w.countIsWhole(t, b.GetId(), "one", "two", "three")
	if !d.apart { // apart, the scheduler answers at another address
		w.says(t, "three is over\n", "logs", "--follow", "--tail=1", b.GetId())
	}
	if all := w.builds(t, sha); len(all) != 1 || all[0].GetAttempt() != 1 {
		t.Errorf("it took more than one attempt: %v", all)
	}
}

// printsMore waits until the build of a commit has printed more than so much.
func (w *world) printsMore(t *testing.T, sha string, size int64) (b *schedulerv1.Build) {
	t.Helper()
	builds := schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler"))
	kittest.Eventually(t, patience, func() error {
		list, err := builds.ListBuilds(asAdmin(t.Context()), &schedulerv1.ListBuildsRequest{Sha: sha})
		if err != nil {
			return err
		}
		if len(list.GetBuilds()) == 0 {
			return errors.New("there is no build yet")
		}
		answer, err := builds.GetBuild(t.Context(), &schedulerv1.GetBuildRequest{BuildId: list.GetBuilds()[0].GetId()})
		if b = answer.GetBuild(); err == nil && b.GetLogSize() <= size {
			err = fmt.Errorf("%d bytes printed, as before: %v", size, b)
		}
		return err
	})
	return b
}

// countIsWhole: each step has printed 1, 2, 3 and so on, and that it is over;
// nothing is missing, doubled or in another order.
func (w *world) countIsWhole(t *testing.T, id string, steps ...string) {
	t.Helper()
	var text strings.Builder
	stream, err := schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler")).WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id})
	for err == nil {
		var part *schedulerv1.WatchLogResponse
		part, err = stream.Recv()
		text.Write(part.GetData())
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	n := 1
	for line := range strings.Lines(text.String()[max(0, strings.Index(text.String(), steps[0]+" 1\n")):]) { // the engine's words stand before
		switch line = strings.TrimSpace(line); {
		case len(steps) > 0 && line == fmt.Sprintf("%s %d", steps[0], n):
			n++
		case len(steps) > 0 && line == steps[0]+" is over":
			steps, n = steps[1:], 1
		default:
			t.Fatalf("%q where line %d of %q is due", line, n, steps)
		}
	}
	if len(steps) > 0 {
		t.Errorf("the log ends before %v is over", steps)
	}
}
