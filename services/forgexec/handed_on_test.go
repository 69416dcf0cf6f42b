package forgexec

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// A report that cannot be sent would keep all that follow it.
func TestWhatNoReportCanHoldFailsItsStep(t *testing.T) {
	s := newScheduler(t, `printf 'A=1\nB=\377\n' >>"$FORGE_ENV"`)
	s.plan.Outputs = []string{"A", "B"}
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1",
		`"forge: FORGE_ENV holds bytes that are no UTF-8: variables are text\n"`, "end 1 exit 1", "DONE")
}

func TestLongNamesAreCutInTheLog(t *testing.T) {
	for _, write := range []string{
		`{ head -c 60000 /dev/zero | tr '\0' '\1'; echo =x; } >>"$FORGE_ENV"`,
		`{ printf 'A<<'; head -c 60000 /dev/zero | tr '\0' '\1'; } >>"$FORGE_ENV"`,
	} {
		s := newScheduler(t, write)
		s.forgexec(t).wantExit(t, exitReported)
		if story := s.story(); !strings.HasSuffix(story, "end 1 exit 1\nDONE") || len(story) > 1000 {
			t.Errorf("reported %d bytes:\n%.1000s", len(story), story)
		}
	}
}

// What one step wrote wrongly is not the fault of those after it.
func TestWhatIsNoVariableIsOfOneStep(t *testing.T) {
	for write, complaint := range map[string]string{
		`echo nonsense >>"$FORGE_ENV"`:                "FORGE_ENV, line 2: expected NAME=value, or NAME<<END and a line END after the value",
		`rm "$FORGE_ENV"; mkdir -p "$FORGE_ENV/deep"`: "the file of FORGE_ENV is none any more: a step put something else in its place",
		`rm "$FORGE_ENV"`:                             "the file of FORGE_ENV cannot be read: a step removed it, or put something else in its place",
	} {
		t.Run(write, func(t *testing.T) {
			s := newScheduler(t, `echo KEPT=yes >>"$FORGE_ENV"`, write, `echo "$KEPT"; echo NEW=1 >>"$FORGE_ENV"`, `echo "$KEPT $NEW"`).
				when(map[int]configv1.Command_When{3: always, 4: always})
			s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 0",
				"start 2", `"forge: `+complaint+`\n"`, "end 2 exit 1",
				"start 3", `"yes\n"`, "end 3 exit 0", "start 4", `"yes 1\n"`, "end 4 exit 0", "DONE")
		})
	}
}

func TestAValueThatWasInterruptedIsOfNoOtherStep(t *testing.T) {
	s := newScheduler(t, `echo 'NOTES<<END' >>"$FORGE_ENV"; echo ready; sleep 1000`, "echo sweep").when(map[int]configv1.Command_When{2: always})
	f := s.forgexec(t)
	s.awaitOutput(t, "ready")
	s.cancelled <- "enough"
	s.wantStory(t, f, "source 1 entries", "start 1", `"ready\n"`, "end 1 exit 143 stopped", "start 2", `"sweep\n"`, "end 2 exit 0", "CANCELLED enough")
}

// The first step has ended by itself when the time is up; its output has not.
func TestATimeoutBetweenStepsIsAFailureToo(t *testing.T) {
	s := newScheduler(t, "sleep 1000 &", "echo never", "echo logs", "echo sweep").when(map[int]configv1.Command_When{3: onFailure, 4: always})
	s.plan.Timeout = durationpb.New(background * 9 / 10)
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", strings.ReplaceAll(`"`+backgroundNotice+`"`, "\n", `\n`), "end 1 exit 0",
		"start 3", `"logs\n"`, "end 3 exit 0", "start 4", `"sweep\n"`, "end 4 exit 0",
		"TIMED_OUT the build ran into its timeout of "+short(background*9/10))
}

// That a step failed is known, whatever keeps those after it from being run.
func TestAFailureStandsWhereNoOtherStepCanBeRun(t *testing.T) {
	s := newScheduler(t, `rm -r "$FORGE_WORKSPACE"; exit 4`, "echo sweep").when(map[int]configv1.Command_When{2: always})
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 4",
		`"forge: step 2 was not run: the workspace is gone: an earlier step removed it\n"`, "DONE")
}

func TestAPlanFromAFileExitsAsTheStepThatFailedFirst(t *testing.T) {
	plan := &schedulerv1.Plan{Grace: durationpb.New(time.Second), Steps: []*schedulerv1.PlannedStep{
		{Number: 1, Run: "exit 7"}, {Number: 2, Run: "exit 8", When: onFailure}, {Number: 3, Run: "echo sweep", When: always},
	}}
	text, err := protojson.Marshal(plan)
	must(t, err)
	startForgexec(t, nil, []string{"--plan", write(t, "plan.json", text)}, "TMPDIR="+t.TempDir()).wantExit(t, 7)
}
