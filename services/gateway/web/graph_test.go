package web

import (
	"fmt"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestGraphPutsEachJobBehindWhatItNeeds(t *testing.T) {
	passed, failed, waiting := schedulerv1.Build_STATE_PASSED, schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_WAITING
	g := graphOf([]*schedulerv1.Job{
		{Id: "b-1", Name: "package", Title: "package", Needs: []string{"lint", "test", "a job that is not here"}, State: waiting},
		{Id: "b-2", Name: "lint", Title: "lint", State: passed},
		{Id: "b-3", Name: "test", Title: "test (1)", State: failed},
		{Id: "b-4", Name: "test", Title: "test (2)", State: passed},
		{Id: "b-5", Name: "deploy", Title: "deploy", Needs: []string{"package"}, State: waiting},
	})
	got := map[string]string{}
	for _, n := range g.Nodes {
		got[n.Name] = fmt.Sprint(n.X/nodeStepX, n.Y/nodeStepY, " ", n.State, ": ", n.Text, " ", n.Job)
	}
	for name, want := range map[string]string{
		"lint": "0 0 passed: passed b-2", "test": "0 1 failed: 1 failed, 1 passed ", "package": "1 0 waiting: waiting b-1", "deploy": "2 0 waiting: waiting b-5",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if len(g.Edges) != 3 {
		t.Errorf("edges %q", g.Edges)
	}
}

func TestGraphIsLeftOutWhereItWouldTellNothing(t *testing.T) {
	if g := graphOf([]*schedulerv1.Job{{Name: "a"}, {Name: "b"}}); g != nil {
		t.Errorf("jobs that need nothing: %+v", g)
	}
	if g := graphOf([]*schedulerv1.Job{{Name: "a", Needs: []string{"b"}}, {Name: "b", Needs: []string{"a"}}}); g != nil {
		t.Errorf("a circle: %+v", g)
	}
}

func TestGraphBoundsItsNames(t *testing.T) {
	long := strings.Repeat("ä", 100)
	g := graphOf([]*schedulerv1.Job{{Name: long}, {Name: "b", Needs: []string{long}}})
	if name := g.Nodes[0].Name; name != strings.Repeat("ä", nodeLetters-1)+"…" || g.Nodes[0].Whole != long {
		t.Errorf("%q", name)
	}
}
