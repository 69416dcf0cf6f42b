package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

func TestBuildsEnvironmentsAndReportsArePrintedForPeople(t *testing.T) {
	at := func(minute int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 11, 23, 18, minute, 0, 0, time.UTC))
	}
	exit := int32(3)
	shop := &eventv1.Repository{Owner: "acme", Name: "shop"}
	failed := &schedulerv1.Build{
		Id: "b2", Url: "http://forge.example/builds/b2", Repository: shop, Context: "forge/test", PullRequest: 7, Title: "Add a till", Actor: "ada",
		Sha: "3f2a91c0d5b6", State: schedulerv1.Build_STATE_FAILED, Message: `step 2 "unit tests" ended with exit code 3`, Attempt: 2, RetryOf: "b0", Machine: "worker-2",
		CreateTime: at(2), StartTime: at(3), EndTime: at(4), DeliveryId: "d1", TraceId: "t1",
		Steps: []*schedulerv1.Step{
			{Number: 1, Name: "vet", State: schedulerv1.Step_STATE_PASSED},
			{Number: 2, Name: "unit tests", State: schedulerv1.Step_STATE_FAILED, ExitCode: &exit},
		},
	}
	mistyped := &schedulerv1.Build{
		Id: "b3", Repository: shop, Context: "forge/push", Sha: "77aa", State: schedulerv1.Build_STATE_TIMED_OUT, CreateTime: at(1),
		ConfigProblems: []*configv1.ConfigInvalid_Problem{{Line: 2, Column: 1, Message: "unknown key"}},
	}
	deploy := func(id, sha string) *schedulerv1.Build {
		return &schedulerv1.Build{Id: id, Sha: sha, Title: "Sell " + id, EndTime: at(5)}
	}
	busy := &schedulerv1.Environment{
		Repository: "acme/shop", Name: "staging", Deployed: deploy("d1", "aaaaaaaaa"), Deploying: deploy("d2", "bbbbbbbbb"),
		Waiting: []*schedulerv1.Build{deploy("d3", "ccccccccc")},
	}
	frozen := &schedulerv1.Environment{Repository: "acme/shop", Name: "production", FreezeTime: at(6), FreezeMessage: "the fair"}
	kept := &reporterv1.Target{
		Id: "t1", Kind: reporterv1.Target_KIND_CHECK_RUN, Repository: shop, Sha: "3f2a91c0d5b6", Context: "forge/test", State: reporterv1.Target_STATE_KEPT,
		DesiredState: "success", Description: "Passed in 3s", TargetUrl: "http://forge.example/builds/b2", Error: "checks: write is missing", Attempts: 4, UpdateTime: at(7),
	}
	toldOne := &reporterv1.Target{
		Id: "t2", Kind: reporterv1.Target_KIND_STATUS, Repository: shop, Sha: "3f2a91c0d5b6", Context: "forge/test", State: reporterv1.Target_STATE_TOLD,
		DesiredState: "success", Description: "Passed in 3s", TellTime: at(8), UpdateTime: at(8),
	}
	printed := func(say func(out *strings.Builder)) string {
		var out strings.Builder
		say(&out)
		return "\n" + out.String()
	}
	for _, c := range []struct{ got, want string }{
		{printed(func(out *strings.Builder) { printBuilds(out, []*schedulerv1.Build{failed, mistyped}) }), `
CREATED              ID  REPOSITORY  WHAT     COMMIT   STATE
2026-11-23 18:02:00  b2  acme/shop   test #7  3f2a91c  failed: step 2 "unit tests" ended with exit code 3
2026-11-23 18:01:00  b3  acme/shop   push     77aa     timed out
`},
		{printed(func(out *strings.Builder) { printBuild(out, failed) }), `
build       b2
page        http://forge.example/builds/b2
repository  acme/shop
for         test #7 · Add a till
commit      3f2a91c0d5b6
by          ada
state       failed: step 2 "unit tests" ended with exit code 3
repeats     b0
machine     worker-2
attempt     2
created     2026-11-23 18:02:00
started     2026-11-23 18:03:00
ended       2026-11-23 18:04:00
delivery    d1
trace       t1
step 1      passed: vet
step 2      failed (exit 3): unit tests
`},
		{printed(func(out *strings.Builder) { printEnvironments(out, []*schedulerv1.Environment{busy, frozen}) }), `
REPOSITORY  ENVIRONMENT  RUNS           SINCE                NOW
acme/shop   staging      aaaaaaa by d1  2026-11-23 18:05:00  deploying bbbbbbb by d2
acme/shop   production   -              -                    frozen: the fair
`},
		{printed(func(out *strings.Builder) { printEnvironment(out, busy) }), `
environment  staging of acme/shop
runs         aaaaaaa by d1 · Sell d1
since        2026-11-23 18:05:00
deploying    bbbbbbb by d2 · Sell d2
waiting      ccccccc by d3 · Sell d3
`},
		{printed(func(out *strings.Builder) { printReports(out, []*reporterv1.Target{toldOne, kept}) }), `
CHANGED              ID  REPOSITORY  COMMIT   WHAT                  STATE  GITHUB IS TO SHOW
2026-11-23 18:08:00  t2  acme/shop   3f2a91c  status forge/test     told   success: Passed in 3s
2026-11-23 18:07:00  t1  acme/shop   3f2a91c  check run forge/test  kept   checks: write is missing
`},
		{printed(func(out *strings.Builder) {
			printReport(out, kept, []*reporterv1.Call{{Time: at(7), Request: "POST /repos/acme/shop/check-runs", Status: 403, RequestId: "r1"}})
		}), `
report      t1
repository  acme/shop
commit      3f2a91c0d5b6
what        check run forge/test
to show     success: Passed in 3s
link        http://forge.example/builds/b2
state       kept
told        -
read back   -
error       checks: write is missing (tries: 4, next at -)
call        2026-11-23 18:07:00  POST /repos/acme/shop/check-runs → 403  r1
`},
	} {
		if c.got != c.want {
			t.Errorf("printed%swant%s", c.got, c.want)
		}
	}
	if got := printed(func(out *strings.Builder) { printBuild(out, mistyped) }); !strings.Contains(got, ".forge.yml:2:1: unknown key") {
		t.Errorf("printed%s", got)
	}
}

func TestAsManyPagesAreAskedForAsAreWanted(t *testing.T) {
	asked := 0
	page := func(size int32, _ string) ([]string, string, error) {
		asked++
		return make([]string, min(size, 2)), "next", nil
	}
	for limit, want := range map[count]int{0: 0, 1: 1, 2: 1, 5: 3} {
		asked = 0
		if all, _, err := upTo(limit, page); err != nil || len(all) != int(limit) || asked != want {
			t.Errorf("of %d: %d in %d pages, %v", limit, len(all), asked, err)
		}
	}
	last := func(int32, string) ([]string, string, error) { return []string{"one"}, "", nil }
	if all, token, err := upTo(9, last); len(all) != 1 || token != "" || err != nil {
		t.Errorf("%v, %q, %v", all, token, err)
	}
}

// Of each reason for which builds wait there is something to read.
func TestWhateverBuildsWaitForIsPrinted(t *testing.T) {
	for number := range schedulerv1.Build_Reason_name {
		reason := schedulerv1.Build_Reason(number)
		text, waits := wording.Waits(reason)
		if !waits {
			continue
		}
		want := "starting: " + text
		b := &schedulerv1.Build{State: schedulerv1.Build_STATE_STARTING, Reason: reason}
		var list, one strings.Builder
		printBuilds(&list, []*schedulerv1.Build{b})
		printBuild(&one, b)
		job := jobLine(&schedulerv1.Job{State: b.GetState(), Reason: reason})
		if !strings.Contains(list.String(), want) || !strings.Contains(one.String(), want) || job != want {
			t.Errorf("%v: in a list %q, alone %q, a job %q", reason, list.String(), one.String(), job)
		}
	}
}

func TestBuildTellsForHowLongItWaited(t *testing.T) {
	at := func(second int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 11, 23, 18, 0, second, 0, time.UTC))
	}
	b := &schedulerv1.Build{State: schedulerv1.Build_STATE_STARTING, Waits: []*schedulerv1.Wait{
		{Reason: schedulerv1.Build_REASON_ENVIRONMENT_BUSY, StartTime: at(0), EndTime: at(200)},
		{Reason: schedulerv1.Build_REASON_CAPACITY, StartTime: at(200), EndTime: at(200)},
		{Reason: schedulerv1.Build_REASON_CAPACITY, StartTime: at(230), EndTime: at(233)},
		{Reason: schedulerv1.Build_REASON_IMAGE_PULL, StartTime: at(240)},
	}}
	var out strings.Builder
	printBuild(&out, b)
	if want := "3m20s for environment busy, 3s for capacity\n"; !strings.Contains(out.String(), want) {
		t.Errorf("printed %s, want %s", out.String(), want)
	}
}

// A remote run has no status on GitHub that it could be called by.
func TestARemoteRunIsToldOf(t *testing.T) {
	for want, b := range map[string]*schedulerv1.Build{
		"REMOTE run by ada: passed\n": {State: good, RemoteBy: "ada"},
		"remote run: passed\n":        {State: good, Job: "lint"},
		"forge/test: passed\n":        {State: good, Context: "forge/test"},
	} {
		var out strings.Builder
		told := changes{}
		told.print(&out, b)
		if out.String() != want {
			t.Errorf("told %q, want %q", out.String(), want)
		}
	}
}

func TestABuildThatStillRunsIsAskedToStop(t *testing.T) {
	for state, asked := range map[schedulerv1.Build_State]bool{running: true, schedulerv1.Build_STATE_CANCELLED: false} {
		var out strings.Builder
		printCancelled(&out, &schedulerv1.Build{Id: "b1", State: state})
		if says := strings.HasPrefix(out.String(), "it is asked to stop; forge builds watch b1 tells when it has\n"); says != asked || !strings.Contains(out.String(), "build ") {
			t.Errorf("%v: %s", state, &out)
		}
	}
}
