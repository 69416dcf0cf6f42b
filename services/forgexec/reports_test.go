package forgexec

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const junitFile = `<testsuite name="unit"><testcase name="adds" time="0.5"/><testcase name="total"><failure message="got 1">file:3: got 1</failure></testcase></testsuite>`

// reporting has the steps write files, which are read as JUnit XML.
func reporting(t *testing.T, globs []string, steps ...string) *fakeScheduler {
	t.Helper()
	s := newScheduler(t, steps...)
	s.plan.Reports = &configv1.Reports{Junit: globs}
	return s
}

// reported are the results that have come, and the lines that the log has about
// reports.
func (s *fakeScheduler) reported() (results, said []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, report := range s.reports {
		for _, test := range report.GetTests().GetTests() {
			results = append(results, fmt.Sprintf("%s %s %s:%d %q", strings.TrimPrefix(test.GetState().String(), "STATE_"), test.GetName(), test.GetFile(), test.GetLine(), test.GetMessage()))
		}
		for _, f := range report.GetTests().GetFindings() {
			results = append(results, fmt.Sprintf("%s %s %s:%d %q", strings.TrimPrefix(f.GetLevel().String(), "LEVEL_"), f.GetRule(), f.GetFile(), f.GetLine(), f.GetMessage()))
		}
		for line := range strings.Lines(string(report.GetOutput().GetData())) {
			if strings.HasPrefix(line, "forge: ") {
				said = append(said, strings.TrimSpace(line))
			}
		}
	}
	return results, said
}

func (s *fakeScheduler) wantReported(t *testing.T, f *forgexec, results, said []string) {
	t.Helper()
	f.wantExit(t, exitReported)
	gotResults, gotSaid := s.reported()
	if !slices.Equal(gotResults, results) || !slices.Equal(gotSaid, said) {
		t.Errorf("reported\n%s\nand said\n%s\nwant\n%s\nand\n%s", strings.Join(gotResults, "\n"), strings.Join(gotSaid, "\n"), strings.Join(results, "\n"), strings.Join(said, "\n"))
	}
}

var (
	junitResults = []string{`PASSED adds :0 ""`, `FAILED total :0 "got 1\nfile:3: got 1"`}
	junitSaid    = []string{"forge: reports: 2 tests, 1 of them failed"}
)

func script(name, text string) string {
	return fmt.Sprintf("mkdir -p $(dirname %s); cat >%s <<'EOF'\n%s\nEOF\n", name, name, text)
}

func TestReportsAreReadAfterTheLastStep(t *testing.T) {
	for name, steps := range map[string][]string{
		"all passed":    {script("out/a.xml", junitFile), "true"},
		"a step failed": {script("out/a.xml", junitFile), "exit 3", "echo never"},
	} {
		t.Run(name, func(t *testing.T) {
			s := reporting(t, []string{"out/*.xml", "**/a.xml"}, steps...)
			s.wantReported(t, s.forgexec(t), junitResults, junitSaid)
			if !s.hellos[0].GetReadsReports() {
				t.Error("it does not say that it reads reports")
			}
			if story := s.story(); !strings.Contains(story, "DONE") {
				t.Errorf("reports changed the end:\n%s", story)
			}
		})
	}
}

func TestReportsAreReadOfWhatWasStopped(t *testing.T) {
	s := reporting(t, []string{"a.xml"}, script("a.xml", junitFile)+"echo ready; sleep 1000")
	f := s.forgexec(t)
	s.awaitOutput(t, "ready")
	s.cancelled <- "enough"
	s.wantReported(t, f, junitResults, junitSaid)

	s = reporting(t, []string{"a.xml"}, script("a.xml", junitFile)+"sleep 1000")
	s.plan.Timeout = durationpb.New(3 * time.Second)
	s.wantReported(t, s.forgexec(t), junitResults, junitSaid)
}

func TestEachKindOfReportIsRead(t *testing.T) {
	s := newScheduler(t, script("go.json", `{"Action":"output","Package":"a/b","Test":"TestX","Output":"    x_test.go:5: no\n"}`+"\n"+`{"Action":"fail","Package":"a/b","Test":"TestX"}`)+
		script("b/x_test.go", "package b")+script("lint.sarif", `{"runs":[{"results":[{"ruleId":"r","level":"error","message":{"text":"bad"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"file"},"region":{"startLine":1}}}]}]}]}`))
	s.plan.Reports = &configv1.Reports{Go: []string{"go.json"}, Sarif: []string{"*.sarif"}}
	s.wantReported(t, s.forgexec(t), []string{`FAILED TestX b/x_test.go:5 "x_test.go:5: no"`, `ERROR r file:1 "bad"`},
		[]string{"forge: reports: 1 tests, 1 of them failed; 1 findings"})
}

func TestWhatIsNoReportIsALineInTheLog(t *testing.T) {
	s := reporting(t, []string{"*.xml", "none/*.xml", "out/**", "lib/x.xml"},
		"echo '<html/>' >a.xml; ln -s /etc/passwd b.xml; mkfifo c.xml; mkdir d.xml; ln -s /etc out; mkdir real; echo '<testsuite/>' >real/x.xml; ln -s real lib; truncate -s 600M e.xml")
	s.wantReported(t, s.forgexec(t), nil, []string{
		`forge: "a.xml" is no report that can be read: it is no JUnit XML: it begins with <html>, not with <testsuites> or <testsuite>`,
		`forge: "b.xml" is no report that can be read: a link leads to it, which is not followed`,
		`forge: "c.xml" is no report that can be read: it is no plain file`,
		`forge: "e.xml" is no report that can be read: it has 600 MiB, and 512 are read at most`,
		`forge: reports.junit: no file matches "none/*.xml"`,
		`forge: reports.junit: no file matches "out/**"`,
		`forge: "lib/x.xml" is no report that can be read: a link leads to it, which is not followed`,
	})
}

func TestComplaintsAboutReportsAreFew(t *testing.T) {
	s := reporting(t, []string{"*.xml"}, "for i in $(seq 2000); do echo >$i.xml; done")
	s.forgexec(t).wantExit(t, exitReported)
	results, said := s.reported()
	if len(results) > 0 || len(said) != maxReportLines || said[len(said)-1] != "forge: what else is wrong with reports is left out" {
		t.Errorf("%d results, said %q", len(results), said)
	}
}

func TestSecretsAreMaskedInReports(t *testing.T) {
	secret := strings.Repeat("hunter2-", 40)
	long := strings.Repeat("x", 3900) + secret
	s := reporting(t, []string{"*.xml"}, `cat >a.xml <<EOF
<testsuite name="s $TOKEN"><testcase classname="c" name="$(printf 'n%.0s' $(seq 400))$TOKEN"><failure message="with $TOKEN">`+long[:3900]+`$TOKEN
$(printf %s "$TOKEN" | base64 -w0)</failure></testcase>
<testcase name="$TOKEN.txt" file="$TOKEN.txt" line="3"/></testsuite>
EOF
echo >$TOKEN.txt`)
	s.plan.Secrets = map[string]string{"TOKEN": secret}
	s.forgexec(t).wantExit(t, exitReported)
	results, _ := s.reported()
	all := strings.Join(results, "\n")
	if len(results) != 2 || strings.Contains(all, "hunter") || strings.Contains(all, "aHVud") || strings.Count(all, "***") < 3 {
		t.Errorf("reported\n%s", all)
	}
}

func TestReportsComeInBatchesAndWithinBounds(t *testing.T) {
	s := newScheduler(t, `awk 'BEGIN { for (i = 0; i < 20000; i++) print "{\"Action\":\"pass\",\"Package\":\"p\",\"Test\":\"test_" i "\"}" }' >a.json
		awk 'BEGIN { printf "{\"runs\":[{\"results\":["; for (i = 0; i < 5010; i++) printf "%s{\"ruleId\":\"rule_%d\"}", i ? "," : "", i; print "]}]}" }' >b.sarif`)
	s.plan.Reports = &configv1.Reports{Go: []string{"a.json"}, Sarif: []string{"b.sarif"}}
	s.cutEvery = 20
	s.forgexec(t).wantExit(t, exitReported)
	results, said := s.reported()
	if len(results) != 20_000+maxFindings || results[19_999] != `PASSED test_19999 :0 ""` || !strings.Contains(results[20_000+maxFindings-1], " rule_4999 ") {
		t.Errorf("%d results", len(results))
	}
	if want := "forge: reports: 20000 tests, 0 of them failed; 5000 findings; 10 more of both are left out, for they are too many"; !slices.Equal(said, []string{want}) {
		t.Errorf("said %q", said)
	}
	for _, report := range s.reports {
		if tests := report.GetTests(); tests != nil && bulk(report) > 2*testBatch {
			t.Errorf("a report of %d bytes", bulk(report))
		}
	}
}

func TestTestsAreToldUpToABound(t *testing.T) {
	told, leftOut := 0, int64(0)
	tests := &tests{batch: &schedulerv1.TestReport{}, report: func(r *schedulerv1.Report) {
		told, leftOut = told+len(r.GetTests().GetTests()), leftOut+r.GetTests().GetLeftOut()
		if bulk(r) > 2*testBatch {
			t.Errorf("a report of %d bytes", bulk(r))
		}
	}}
	for range maxTests + 10 {
		must(t, tests.test(&schedulerv1.Test{Name: "adds", State: schedulerv1.Test_STATE_PASSED}))
	}
	tests.send()
	if told != maxTests || tests.count != maxTests || leftOut != 10 || tests.leftOut != 10 {
		t.Errorf("%d told of %d, %d left out, %d said to be", told, tests.count, leftOut, tests.leftOut)
	}
}

func TestAnOldPlanAsksForNoReports(t *testing.T) {
	s := newScheduler(t, script("a.xml", junitFile))
	s.wantReported(t, s.forgexec(t), nil, nil)
}
