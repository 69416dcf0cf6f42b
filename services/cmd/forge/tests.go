package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

type tests struct {
	Failed  failedTests `cmd:"" help:"What failed in a build, where, and whether it does on the base branch."`
	Slow    slowTests   `cmd:"" help:"The slowest tests of a build."`
	Flaky   flakyTests  `cmd:"" help:"What has passed and failed on one commit within two weeks."`
	History testHistory `cmd:"" help:"The results of one test, newest first."`
}

type failedTests struct {
	query
	Build string `arg:"" help:"Its id, or BUILD/JOB for one of its jobs."`
	Limit count  `default:"50" help:"At most this many."`
}

// Run prints each test with what it says.
func (f failedTests) Run() error {
	req := &schedulerv1.ListTestsRequest{States: []schedulerv1.Test_State{schedulerv1.Test_STATE_FAILED, schedulerv1.Test_STATE_ERRORED}}
	return listTests(f.query, f.Build, f.Limit, req, printFailed)
}

type slowTests struct {
	query
	Build string `arg:"" help:"Its id, or BUILD/JOB for one of its jobs."`
	Limit count  `default:"20" help:"At most this many."`
}

// Run prints a line a test.
func (s slowTests) Run() error {
	return listTests(s.query, s.Build, s.Limit, &schedulerv1.ListTestsRequest{Order: schedulerv1.ListTestsRequest_ORDER_SLOWEST}, printSlow)
}

// listTests asks for tests of a build.
func listTests(q query, build string, limit count, req *schedulerv1.ListTestsRequest, text func(io.Writer, *schedulerv1.ListTestsResponse)) error {
	return ask(q, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListTestsResponse, err error) {
		if req.BuildId, err = resolve(ctx, schedulerv1.NewBuildServiceClient(conn), build); err != nil {
			return nil, err
		}
		client := schedulerv1.NewTestServiceClient(conn)
		all = &schedulerv1.ListTestsResponse{}
		all.Tests, all.NextPageToken, err = upTo(limit, func(size int32, token string) ([]*schedulerv1.Test, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := client.ListTests(ctx, req)
			all.Summary = page.GetSummary()
			return page.GetTests(), page.GetNextPageToken(), err
		})
		return all, err
	}, text)
}

// testName is what people call a test: with its class, where its name is not all.
func testName(suite, class, name string) string {
	group := cmp.Or(class, suite)
	if group == "" || strings.Contains(name, group) {
		return name
	}
	return group + " " + name
}

func printFailed(out io.Writer, all *schedulerv1.ListTestsResponse) {
	sum := all.GetSummary()
	failed := sum.GetFailed() + sum.GetErrored()
	ran := failed + sum.GetPassed() + sum.GetSkipped()
	line := fmt.Sprintf("%s of %d failed", wording.Count(int(failed), "test"), ran)
	if ran == 0 {
		line = "no tests were reported: see reports in .forge.yml, and the end of the log"
	}
	if sum != nil && sum.FailsOnBase != nil {
		line += fmt.Sprintf(", %d of them also on %s", sum.GetFailsOnBase(), sum.GetBaseRef())
	}
	if sum.GetFlaky() > 0 {
		line += fmt.Sprintf("; %d flaky", sum.GetFlaky())
	}
	fmt.Fprintln(out, line) //nolint:errcheck // out is memory
	for _, t := range all.GetTests() {
		line := "\n" + wording.Value(t.GetState()) + " " + testName(t.GetSuite(), t.GetClass(), t.GetName())
		if t.GetJob() != "" {
			line += " in " + t.GetJob()
		}
		if t.GetFailsOnBase() {
			line += ", also on " + sum.GetBaseRef()
		}
		if t.GetFlaky() {
			line += ", flaky"
		}
		fmt.Fprintln(out, line) //nolint:errcheck // as above
		if t.GetFile() != "" {
			fmt.Fprintf(out, "  %s:%d\n", t.GetFile(), t.GetLine()) //nolint:errcheck // as above
		}
		for text := range strings.Lines(t.GetMessage()) {
			fmt.Fprintf(out, "  %s\n", strings.TrimRight(text, "\n")) //nolint:errcheck // as above
		}
	}
	if more := failed - int64(len(all.GetTests())); more > 0 {
		fmt.Fprintf(out, "\nand %d more: --limit shows them\n", more) //nolint:errcheck // as above
	}
}

func printSlow(out io.Writer, all *schedulerv1.ListTestsResponse) {
	if len(all.GetTests()) == 0 {
		fmt.Fprintln(out, "no test took 50 ms or more") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"TOOK", "TEST", "STATE", "JOB"}}
	for _, t := range all.GetTests() {
		rows = append(rows, []string{
			t.GetDuration().AsDuration().Round(time.Millisecond).String(), testName(t.GetSuite(), t.GetClass(), t.GetName()), wording.Value(t.GetState()), t.GetJob(),
		})
	}
	printTable(out, rows)
}

type flakyTests struct {
	query
	Repository string `arg:"" placeholder:"OWNER/NAME" help:"The repository."`
	Pull       int32  `placeholder:"NUMBER" help:"Only of this pull request; else of what was merged and pushed."`
	Limit      count  `default:"50" help:"At most this many."`
}

// Run prints a line a test.
func (f flakyTests) Run() error {
	req := &schedulerv1.ListFlakyTestsRequest{Repository: f.Repository, PullRequest: f.Pull}
	return ask(f.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListFlakyTestsResponse, err error) {
		all = &schedulerv1.ListFlakyTestsResponse{}
		all.Tests, all.NextPageToken, err = upTo(f.Limit, func(size int32, token string) ([]*schedulerv1.FlakyTest, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := schedulerv1.NewTestServiceClient(conn).ListFlakyTests(ctx, req)
			return page.GetTests(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, f.Repository, len(all.GetTests()), err)
	}, printFlaky)
}

func printFlaky(out io.Writer, all *schedulerv1.ListFlakyTestsResponse) {
	if len(all.GetTests()) == 0 {
		fmt.Fprintln(out, "no test has passed and failed on one commit within two weeks") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"COMMITS", "TEST", "LAST", "COMMIT", "FAILED IN", "PASSED IN"}}
	for _, t := range all.GetTests() {
		rows = append(rows, []string{
			strconv.FormatInt(t.GetCommits(), 10), testName(t.GetSuite(), t.GetClass(), t.GetName()), localTime(t.GetLastTime()), wording.Short(t.GetSha()),
			t.GetFailedBuildId(), t.GetPassedBuildId(),
		})
	}
	printTable(out, rows)
}

type testHistory struct {
	query
	Repository string `arg:"" placeholder:"OWNER/NAME" help:"The repository."`
	Name       string `arg:"" help:"The test's name, as its report has it."`
	Class      string `help:"Only of this class."`
	Suite      string `help:"Only of this suite."`
	Limit      count  `default:"20" help:"At most this many."`
}

// Run prints a line a result.
func (h testHistory) Run() error {
	if h.Name == "" {
		return usagef("expected the name of a test")
	}
	req := &schedulerv1.ListTestHistoryRequest{Repository: h.Repository, Name: h.Name, Class: h.Class, Suite: h.Suite}
	return ask(h.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListTestHistoryResponse, err error) {
		all = &schedulerv1.ListTestHistoryResponse{}
		all.Tests, all.NextPageToken, err = upTo(h.Limit, func(size int32, token string) ([]*schedulerv1.Test, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := schedulerv1.NewTestServiceClient(conn).ListTestHistory(ctx, req)
			return page.GetTests(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, h.Repository, len(all.GetTests()), err)
	}, printHistory)
}

func printHistory(out io.Writer, all *schedulerv1.ListTestHistoryResponse) {
	rows := [][]string{{"TIME", "STATE", "TOOK", "COMMIT", "OF", "BUILD"}}
	for _, t := range all.GetTests() {
		of := t.GetBranch()
		if t.GetPullRequest() != 0 && of == "" {
			of = fmt.Sprintf("#%d", t.GetPullRequest())
		}
		state := wording.Value(t.GetState())
		if t.GetFlaky() {
			state += ", flaky"
		}
		rows = append(rows, []string{
			localTime(t.GetCreateTime()), state, t.GetDuration().AsDuration().Round(time.Millisecond).String(), wording.Short(t.GetSha()), cmp.Or(of, "-"), t.GetBuildId(),
		})
	}
	printTable(out, rows)
}
