package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// buildsOf answers with one build, whichever is asked for.
type buildsOf struct {
	schedulerv1.BuildServiceClient
	build *schedulerv1.Build
}

func (b buildsOf) GetBuild(context.Context, *schedulerv1.GetBuildRequest, ...grpc.CallOption) (*schedulerv1.GetBuildResponse, error) {
	return &schedulerv1.GetBuildResponse{Build: b.build}, nil
}

func builtOf(states ...schedulerv1.Build_State) *schedulerv1.Build {
	b := &schedulerv1.Build{Id: "b2", JobCount: int32(len(states))}
	for n, state := range states {
		title := []string{"lint", "test (1.25)", "test (1.26)", "package"}[n]
		name, _, _ := strings.Cut(title, " (")
		b.Jobs = append(b.Jobs, &schedulerv1.Job{Id: "b2-" + string(rune('1'+n)), Title: title, Name: name, State: state, Attempt: 1})
	}
	return b
}

const (
	good = schedulerv1.Build_STATE_PASSED
	bad  = schedulerv1.Build_STATE_FAILED
)

func TestJobIsNamedByItsTitleOrSoMuchAsIsEnough(t *testing.T) {
	client := buildsOf{build: builtOf(good, good, bad, good)}
	for named, want := range map[string]string{
		"b2":             "b2",
		"b2-3":           "b2-3",
		"b2/lint":        "b2-1",
		"b2/test (1.26)": "b2-3",
		"b2/pack":        "b2-4",
		"b2/test":        "build b2 has several jobs called test: test (1.25), test (1.26)",
		"b2/test (":      "build b2 has several jobs called test (: test (1.25), test (1.26)",
		"b2/docs":        "build b2 has no job docs: it has lint, test (1.25), test (1.26), package",
		"b2/":            "b2/ names no job: write b2/JOB, or leave the / out",
	} {
		got, err := resolve(t.Context(), client, named)
		if err != nil {
			got = err.Error()
		}
		kittest.Want(t, got, want, named)
	}
	if _, err := resolve(t.Context(), buildsOf{build: &schedulerv1.Build{Id: "b2"}}, "b2/lint"); err == nil || err.Error() != "build b2 has no jobs: leave /lint out" {
		t.Errorf("%v", err)
	}
}

func TestLogOfABuildIsThatOfTheJobWhichFailed(t *testing.T) {
	left := builtOf(good, schedulerv1.Build_STATE_CANCELLED)
	left.Jobs[1].Attempt = 0
	for name, c := range map[string]struct {
		build *schedulerv1.Build
		want  string
	}{
		"without jobs": {&schedulerv1.Build{Id: "b2"}, "b2"},
		"one failed":   {builtOf(good, bad, good), "b2-2"},
		"one alone":    {builtOf(good), "b2-1"},
		"two failed":   {builtOf(bad, good, bad), "each job has a log of its own: ask for b2/JOB, where JOB is one that did not pass: lint, test (1.26)"},
		"all passed":   {builtOf(good, good), "each job has a log of its own: ask for b2/JOB, where JOB is one of lint, test (1.25)"},
		"never run":    {left, "each job has a log of its own: ask for b2/JOB, where JOB is one of lint, test (1.25)"},
	} {
		got, err := logOf(t.Context(), buildsOf{build: c.build}, "b2")
		if err != nil {
			got = err.Error()
		}
		kittest.Want(t, got, c.want, name)
	}
}

func TestContainerOfABuildIsThatOfTheJobWhoseIsKept(t *testing.T) {
	keeping := func(numbers ...int) *schedulerv1.Build {
		b := builtOf(bad, bad, bad)
		b.Jobs[1].KeptUntilTime = timestamppb.New(time.Now().Add(-time.Hour))
		for _, n := range numbers {
			b.Jobs[n].KeptUntilTime = timestamppb.New(time.Now().Add(time.Hour))
		}
		return b
	}
	for name, c := range map[string]struct {
		build *schedulerv1.Build
		want  string
	}{
		"without jobs": {&schedulerv1.Build{Id: "b2"}, "b2"},
		"one kept":     {keeping(2), "b2-3"},
		"two kept":     {keeping(0, 2), "each job has a container of its own: ask for b2/JOB, where JOB is one whose container is kept: lint, test (1.26)"},
		"none kept":    {keeping(), "each job has a container of its own, and none of build b2 is kept: its jobs are lint, test (1.25), test (1.26)"},
		"one failed":   {builtOf(good, bad), "b2-2"},
		"one alone":    {builtOf(bad), "b2-1"},
	} {
		got, err := containerOf(t.Context(), buildsOf{build: c.build}, "b2")
		if err != nil {
			got = err.Error()
		}
		kittest.Want(t, got, c.want, name)
	}
}

func TestJobsArePrintedForPeople(t *testing.T) {
	b := builtOf(good, bad)
	b.Url, b.Context = "http://forge.example/builds/b2", "forge/test"
	b.Jobs[0].StartTime, b.Jobs[0].EndTime = timestamppb.New(time.Unix(0, 0)), timestamppb.New(time.Unix(72, 0))
	b.Jobs[1].Message = `step 1 "go test" ended with exit code 1`
	var out strings.Builder
	printBuild(&out, b)
	for _, want := range []string{"job lint         passed after 1m12s\n", `job test (1.25)  failed: step 1 "go test" ended with exit code 1` + "\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	printBuild(&out, &schedulerv1.Build{Id: "b2-2", Job: "test (1.25)", PartOf: "b2", Needs: []string{"lint", "vet"}})
	for _, want := range []string{"job         test (1.25)\n", "of build    b2\n", "needs       lint, vet\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
}
