package graph

import (
	"strings"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// parse reads jobs written as "test#1 needs lint,vet on failure may-fail: failed"; what
// stands after a # tells cells of one job apart, and without a state a job waits.
func parse(t *testing.T, text string) []*store.Build {
	t.Helper()
	states := map[string]schedulerv1.Build_State{}
	for state := schedulerv1.Build_STATE_QUEUED; state <= schedulerv1.Build_STATE_TIMED_OUT; state++ {
		states[strings.ReplaceAll(wording.Value(state), " ", "_")] = state
	}
	reasons := map[string]schedulerv1.Build_Reason{
		"left-out": schedulerv1.Build_REASON_CONDITION, "not-run": schedulerv1.Build_REASON_NEED_FAILED, "failed-fast": schedulerv1.Build_REASON_FAIL_FAST,
	}
	var jobs []*store.Build
	for line := range strings.SplitSeq(text, ";") {
		said, state, _ := strings.Cut(strings.TrimSpace(line), ": ")
		words := strings.Fields(said)
		name, _, _ := strings.Cut(words[0], "#")
		job := &configv1.Job{Name: name, Title: words[0], Condition: &configv1.Condition{}}
		for i, word := range words {
			switch word {
			case "needs":
				job.Needs = strings.Split(words[i+1], ",")
			case "on":
				job.Condition.On = []configv1.Condition_On{configv1.Condition_On(configv1.Condition_On_value["ON_"+strings.ToUpper(words[i+1])])}
			case "may-fail":
				job.MayFail = true
			}
		}
		b := &store.Build{
			Build:  &schedulerv1.Build{PartOf: "whole", Job: words[0], Needs: job.GetNeeds(), MayFail: job.GetMayFail(), State: schedulerv1.Build_STATE_WAITING, Reason: schedulerv1.Build_REASON_NEEDS},
			Config: &configv1.BuildConfig{Execute: &configv1.Pipeline{Jobs: []*configv1.Job{job}}},
		}
		switch reason, known := reasons[state]; {
		case known:
			b.State, b.Reason = schedulerv1.Build_STATE_CANCELLED, reason
		case state != "":
			if b.State = states[state]; b.State == schedulerv1.Build_STATE_UNSPECIFIED {
				t.Fatalf("there is no state %q", state)
			}
			b.Reason = schedulerv1.Build_REASON_UNSPECIFIED
		}
		jobs = append(jobs, b)
	}
	return jobs
}

func TestWhatBecomesOfJobsThatWait(t *testing.T) {
	for jobs, want := range map[string]string{
		"a; b; c":                                          "a queued; b queued; c queued",
		"a: running; b needs a":                            "",
		"a: passed; b needs a":                             "b queued",
		"a: failed; b needs a":                             "b cancelled not run: needs a, which failed",
		"a: errored; b needs a":                            "b cancelled not run: needs a, which errored",
		"a: timed_out; b needs a":                          "b cancelled not run: needs a, which timed out",
		"a: cancelled; b needs a":                          "b cancelled not run: needs a, which was cancelled",
		"a: failed; b needs a; c needs b":                  "b cancelled not run: needs a, which failed; c cancelled not run: needs b, which was not run",
		"c needs b; b needs a; a: failed":                  "b cancelled not run: needs a, which failed; c cancelled not run: needs b, which was not run",
		"a may-fail: failed; b needs a":                    "b queued",
		"a may-fail: errored; b needs a":                   "b queued",
		"a: left-out; b needs a":                           "b queued",
		"a: not-run; b needs a":                            "b cancelled not run: needs a, which was not run",
		"a#1: passed; a#2: running; b needs a":             "",
		"a#1: failed; a#2: running; b needs a":             "b cancelled not run: needs a#1, which failed",
		"a#1: passed; a#2: passed; b needs a":              "b queued",
		"a#1: passed; a#2 may-fail: failed; b needs a":     "b queued",
		"a: passed; b: running; c needs a,b":               "",
		"a: failed; b: running; c needs a,b on failure":    "",
		"a: failed; b: passed; c needs a,b on failure":     "c queued",
		"a: passed; b: passed; c needs a,b on failure":     "c cancelled not run: nothing that it needs has failed",
		"a may-fail: failed; c needs a on failure":         "c cancelled not run: nothing that it needs has failed",
		"a: failed; b needs a; c needs b on failure":       "b cancelled not run: needs a, which failed; c queued",
		"a: failed; c needs a on always":                   "c queued",
		"a: passed; c needs a on always":                   "c queued",
		"a: running; c needs a on always":                  "",
		"a: failed; b needs a on always; c needs b":        "b queued",
		"a: starting; b: queued; c needs a; d needs b; e":  "e queued",
		"a: passed; b needs a; c needs b; d needs b,c; e2": "b queued; e2 queued",
	} {
		var got []string
		for _, job := range Advance(parse(t, jobs), now) {
			got = append(got, strings.TrimSpace(job.GetJob()+" "+wording.Value(job.GetState())+" "+job.GetMessage()))
			switch ended := store.Ended(job.GetState()); {
			case ended && (job.GetEndTime() == nil || !job.Due.IsZero()):
				t.Errorf("%s: %s has ended, at %v, and is due at %v", jobs, job.GetJob(), job.GetEndTime(), job.Due)
			case !ended && !job.Due.Equal(now):
				t.Errorf("%s: %s is due at %v", jobs, job.GetJob(), job.Due)
			}
		}
		kittest.Want(t, strings.Join(got, "; "), want, jobs)
	}
}

func TestWhatABuildHasComeTo(t *testing.T) {
	for jobs, want := range map[string]string{
		"a: passed; b: passed":                                                        "passed",
		"a: passed; b may-fail: failed":                                               "passed 1 of 2 jobs did not pass, and may fail: b",
		"a may-fail: failed":                                                          "passed 1 of 1 jobs did not pass, and may fail: a",
		"a may-fail: cancelled":                                                       "cancelled 1 of 1 jobs was cancelled: a",
		"a may-fail: cancelled; b: left-out":                                          "cancelled 1 of 2 jobs was cancelled: a",
		"a may-fail: cancelled; b: passed":                                            "passed 1 of 2 jobs did not pass, and may fail: a",
		"a: passed; b: left-out":                                                      "passed",
		"a: left-out; b: left-out":                                                    "cancelled the if of no job holds",
		"lint: failed; test: passed":                                                  "failed 1 of 2 jobs failed: lint",
		"lint: failed; test: failed; e2e: passed":                                     "failed 2 of 3 jobs failed: lint, test",
		"lint: failed; test: not-run":                                                 "failed 1 of 2 jobs failed: lint",
		"lint: failed; test: failed-fast; e2e: passed":                                "failed 1 of 3 jobs failed: lint",
		"lint: failed; test: errored":                                                 "failed 2 of 2 jobs did not pass: lint, test",
		"lint: timed_out; test: errored":                                              "timed out 2 of 2 jobs did not pass: lint, test",
		"lint: timed_out; test: passed":                                               "timed out 1 of 2 jobs timed out: lint",
		"lint: errored; test: not-run":                                                "errored 1 of 2 jobs errored: lint",
		"lint: cancelled; test: passed":                                               "cancelled 1 of 2 jobs was cancelled: lint",
		"lint: cancelled; test: cancelled; e2e: not-run":                              "cancelled 2 of 3 jobs were cancelled: lint, test",
		"lint: passed; a: failed; b may-fail: failed":                                 "failed 1 of 3 jobs failed: a",
		"a: failed; b: failed; c: failed; d: failed; e: failed":                       "failed 5 of 5 jobs failed: a, b, c, d, e",
		"a: failed; b: failed; c: failed; d: failed; e: failed; f: failed; g: failed": "failed 7 of 7 jobs failed: a, b, c, d, e and 2 more",
		"a: left-out; b may-fail: not-run; c: passed":                                 "passed 1 of 3 jobs did not pass, and may fail: b",
	} {
		built := parse(t, jobs)
		if !Ended(built) {
			t.Fatalf("%s: not all have ended", jobs)
		}
		state, reason, message := Total(built)
		kittest.Want(t, strings.TrimSpace(wording.Value(state)+" "+message), want, jobs)
		if passed := state == schedulerv1.Build_STATE_PASSED; passed != (reason == schedulerv1.Build_REASON_UNSPECIFIED) {
			t.Errorf("%s: %v because of %v", jobs, state, reason)
		}
	}
}

func TestWhoNeedsAJob(t *testing.T) {
	jobs := parse(t, "lint; test#1 needs lint; test#2 needs lint; package needs test; docs; publish needs package,docs")
	for name, want := range map[string]string{
		"lint": "lint package publish test", "test": "package publish test", "docs": "docs publish", "publish": "publish",
	} {
		all := Dependents(jobs, name)
		var got []string
		for _, known := range []string{"docs", "lint", "package", "publish", "test"} {
			if all[known] {
				got = append(got, known)
			}
		}
		kittest.Want(t, strings.Join(got, " "), want, name)
	}
}
