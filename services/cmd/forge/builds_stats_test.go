package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestStatisticsArePrintedALineADay(t *testing.T) {
	var out strings.Builder
	printStats(&out, []*schedulerv1.BuildDay{
		{Date: "2026-11-26", Passed: 2, Failed: 1, Cancelled: 4, MedianDuration: durationpb.New(90500 * time.Millisecond)},
		{Date: "2026-11-27"},
	})
	want := `DAY         PASSED  FAILED  ERRORED  CANCELLED  PASS RATE  MEDIAN
2026-11-26  2       1       0        4          66 %       1m31s
2026-11-27  0       0       0        0          -          -
`
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}
