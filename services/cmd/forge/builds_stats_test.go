package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// An action that the server knows is one of the command line, too.
func TestBuildsAreListedAndCountedByEveryAction(t *testing.T) {
	root := kong.Must(&commands{}, kong.Vars{"grpc_address": "", "engines": ""}).Model.Node
	for _, verb := range []string{"list", "stats"} {
		offered := completed(root, []string{"builds", verb, "--action", ""}, nil)
		for number, name := range schedulerv1.Build_Action_name {
			name = strings.ToLower(strings.TrimPrefix(name, "ACTION_"))
			if number != 0 && !slices.Contains(offered, candidate{value: name}) {
				t.Errorf("forge builds %s --action takes no %s", verb, name)
			}
		}
		if len(offered) != len(schedulerv1.Build_Action_name)-1 {
			t.Errorf("forge builds %s --action takes %v", verb, offered)
		}
	}
}

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
