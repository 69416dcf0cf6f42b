package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestWhatAnExplanationLeavesOutIsSaid(t *testing.T) {
	target := &reporterv1.Target{Repository: &eventv1.Repository{Owner: "acme", Name: "shop"}, Sha: "3f2a91c0"}
	answer := &gatewayv1.ExplainAddressResponse{}
	for range oneScreen {
		answer.Targets = append(answer.Targets, target)
	}
	for want := range 4 {
		var out strings.Builder
		printExplanation(&out, answer)
		says := strings.Contains(out.String(), fmt.Sprintf("\nand %d more: forge reports list --repository acme/shop --sha 3f2a91c0\n", want))
		if says != (want > 0) {
			t.Errorf("of %d targets it says %s", len(answer.GetTargets()), &out)
		}
		answer.Targets = append(answer.Targets, target)
	}
}

// Of builds and deliveries, too, and where there may be more than Forge has told, that.
func TestWhatAnExplanationLeavesOutIsListedByAVerb(t *testing.T) {
	for shown, more := range map[int]string{oneScreen: "", oneScreen + 2: "2 more", mostExplained: "at least 15 more"} {
		for of, answer := range map[string]*gatewayv1.ExplainAddressResponse{
			"--pull 7":       {Repository: "acme/shop", PullRequest: 7},
			"--sha 3f2a91c0": {Repository: "acme/shop", Sha: "3f2a91c0"},
		} {
			for range shown {
				answer.Builds = append(answer.Builds, &schedulerv1.Build{Id: "b1"})
				answer.Deliveries = append(answer.Deliveries, &gatewayv1.Delivery{Id: "d1"})
			}
			var out strings.Builder
			printExplanation(&out, answer)
			var got, want []string
			for line := range strings.Lines(out.String()) {
				if strings.Contains(line, "more") {
					got = append(got, line)
				}
			}
			if more != "" {
				for _, noun := range []string{"builds", "deliveries"} {
					want = append(want, fmt.Sprintf("and %s: forge %s list --repository acme/shop %s\n", more, noun, of))
				}
			}
			kittest.Want(t, strings.Join(got, ""), strings.Join(want, ""), "%d of each", shown)
		}
	}
}

func TestAJobIsExplainedByItsTitle(t *testing.T) {
	client := buildsOf{build: builtOf(good, good, bad)}
	id := strings.Repeat("b", 26)
	for address, want := range map[string]string{
		id:                                       id,
		id + "/test (1.26)":                      "b2-3",
		id + "/docs":                             "build " + id + " has no job docs: it has lint, test (1.25), test (1.26)",
		id + "/shop#7":                           id + "/shop#7",
		"acme/shop#7":                            "acme/shop#7",
		"acme/shop@3f2a91c":                      "acme/shop@3f2a91c",
		"acme/shop":                              "acme/shop",
		"https://forge.example.com/builds/" + id: "https://forge.example.com/builds/" + id,
	} {
		got, err := explainable(t.Context(), client, address)
		if err != nil {
			got = err.Error()
		}
		kittest.Want(t, got, want, address)
	}
}

func TestAnExplanationIsPrintedWithWhatItRestsOn(t *testing.T) {
	var out strings.Builder
	printExplanation(&out, &gatewayv1.ExplainAddressResponse{
		Answer: "Nothing was built: no .forge.yml at 3f2a91c.", Advice: "Add a .forge.yml to the branch.",
		Deliveries: []*gatewayv1.Delivery{{
			Id: "d1", Event: "push", Repository: "acme/shop", ReceiveTime: timestamppb.New(time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)),
			Forwards: []*gatewayv1.Forward{{Receiver: "scheduler", Decision: &eventv1.Decision{Text: "no .forge.yml at 3f2a91c"}}},
		}},
	})
	want := `Nothing was built: no .forge.yml at 3f2a91c.
Add a .forge.yml to the branch.

Deliveries:
RECEIVED             ID  EVENT  REPOSITORY  WHAT BECAME OF IT
2026-11-23 18:00:00  d1  push   acme/shop   no .forge.yml at 3f2a91c
`
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}
