package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestTestsArePrintedForPeople(t *testing.T) {
	var out strings.Builder
	printFailed(&out, &schedulerv1.ListTestsResponse{
		Summary: &schedulerv1.TestSummary{Passed: 10, Failed: 2, Errored: 1, Flaky: 1, FailsOnBase: new(int64(1)), BaseRef: "main"},
		Tests: []*schedulerv1.Test{
			{Class: "shop", Name: "total", State: schedulerv1.Test_STATE_FAILED, File: "a_test.go", Line: 3, Message: "got 1\nwant 2", Job: "test (1.26)", FailsOnBase: true},
			{Suite: "unit", Name: "unit crash", State: schedulerv1.Test_STATE_ERRORED, Flaky: true},
		},
	})
	kittest.Want(t, out.String(), `3 tests of 13 failed, 1 of them also on main; 1 flaky

failed shop total in test (1.26), also on main
  a_test.go:3
  got 1
  want 2

errored unit crash, flaky

and 1 more: --limit shows them
`, "failed")

	out.Reset()
	printFailed(&out, &schedulerv1.ListTestsResponse{})
	kittest.Want(t, out.String(), "no tests were reported: see reports in .forge.yml, and the end of the log\n", "none")

	out.Reset()
	printSlow(&out, &schedulerv1.ListTestsResponse{Tests: []*schedulerv1.Test{
		{Class: "shop", Name: "total", State: schedulerv1.Test_STATE_PASSED, Duration: durationpb.New(1234567 * time.Microsecond)},
	}})
	kittest.Want(t, out.String(), "TOOK    TEST        STATE  JOB\n1.235s  shop total  passed\n", "slow")

	out.Reset()
	printFlaky(&out, &schedulerv1.ListFlakyTestsResponse{})
	kittest.Want(t, out.String(), "no test has passed and failed on one commit within two weeks\n", "flaky")

	out.Reset()
	printHistory(&out, &schedulerv1.ListTestHistoryResponse{Tests: []*schedulerv1.Test{
		{State: schedulerv1.Test_STATE_PASSED, Sha: "0123456789abcdef", PullRequest: 7, BuildId: "b1"}, {State: schedulerv1.Test_STATE_FAILED, Flaky: true, Branch: "main", Sha: "0123456789abcdef", BuildId: "b2"},
	}})
	kittest.Want(t, out.String(), "TIME  STATE          TOOK  COMMIT   OF    BUILD\n-     passed         0s    0123456  #7    b1\n-     failed, flaky  0s    0123456  main  b2\n", "history")
}
