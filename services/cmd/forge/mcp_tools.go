package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type (
	whyInput struct {
		Address string `json:"address" jsonschema:"Address of a pull request or a commit on GitHub, or acme/shop#7 or acme/shop@3f2a91c; or of a build's page, or a build's id."`
		Status  string `json:"status,omitempty" jsonschema:"Only what stands behind this commit status, such as forge/test."`
	}
	listInput struct {
		Repository  string   `json:"repository,omitempty" jsonschema:"Only of this repository, as owner/name. Needed with pull_request and branch."`
		PullRequest int32    `json:"pull_request,omitempty" jsonschema:"Only of this pull request."`
		Branch      string   `json:"branch,omitempty" jsonschema:"Only of this branch."`
		SHA         string   `json:"sha,omitempty" jsonschema:"Only of this commit, in full."`
		States      []string `json:"states,omitempty" jsonschema:"Only in these states: queued, waiting, blocked, starting, running, passed, failed, errored, cancelled, timed_out."`
		Limit       int32    `json:"limit,omitempty" jsonschema:"At most this many: 20 unless given, 50 at most."`
	}
	buildInput struct {
		Build string `json:"build" jsonschema:"The build's id; of a job BUILD/JOB, such as 7k2.../lint."`
	}
	readInput struct {
		Build string `json:"build" jsonschema:"The build's id. Of a build with jobs BUILD/JOB, or the build where one job alone did not pass."`
		First int64  `json:"first_line,omitempty" jsonschema:"The first line, from 1. Left out: the end of the log."`
		Lines int32  `json:"lines,omitempty" jsonschema:"How many lines: 100 unless given, 400 at most."`
	}
	searchInput struct {
		Build string `json:"build" jsonschema:"The build's id. Of a build with jobs BUILD/JOB, or the build where one job alone did not pass."`
		Query string `json:"query" jsonschema:"What to look for, within a line."`
		Regex bool   `json:"regex,omitempty" jsonschema:"The query is a regular expression, in RE2's syntax."`
		From  int64  `json:"from_line,omitempty" jsonschema:"List what is found from this line on. Left out: from the beginning."`
	}
	retryInput struct {
		Build      string `json:"build" jsonschema:"The build's id."`
		FailedOnly bool   `json:"failed_only,omitempty" jsonschema:"Only the jobs that did not pass."`
	}
	cancelInput struct {
		Build  string `json:"build" jsonschema:"The build's id; of a job BUILD/JOB."`
		Reason string `json:"reason" jsonschema:"Why, for those who look at the build."`
	}
)

func reads() *mcp.ToolAnnotations {
	return &mcp.ToolAnnotations{ReadOnlyHint: true, IdempotentHint: true}
}

func (t toolbox) addReading(server *mcp.Server) {
	addTool(server, t, &mcp.Tool{Name: "why", Annotations: reads(), Description: "Say what became of a pull request, a commit, a build or a status: what was built, why it waits, what failed with the lines printed last, " +
		"what GitHub was told; and if nothing was built, why. Begin here."}, t.why)
	addTool(server, t, &mcp.Tool{Name: "list_builds", Annotations: reads(), Description: "List builds, the newest first: id, repository, what it is for, commit, state and why."}, t.list)
	addTool(server, t, &mcp.Tool{Name: "get_build", Annotations: reads(), Description: "Show one build: state, times, each job and step and how it ended, with exit codes."}, t.get)
	addTool(server, t, &mcp.Tool{Name: "read_log", Annotations: reads(), Description: "Read lines of what a build printed, each with its number: the end of it, or from a line on. A window at a time; the answer says how many lines there are."}, t.read)
	addTool(server, t, &mcp.Tool{Name: "search_log", Annotations: reads(), Description: "Find the lines of a build's log that hold a text or match an expression; the first 20 from a line on are shown, all are counted."}, t.search)
	addTool(server, t, &mcp.Tool{Name: "failed_tests", Annotations: reads(), Description: "List the tests that failed in a build, as their reports have them: message, file and line, whether they fail on the base branch too or are flaky. 50 at most."}, t.failed)
}

func (t toolbox) addWriting(server *mcp.Server) {
	no := false
	addTool(server, t, &mcp.Tool{Name: "retry_build", Annotations: &mcp.ToolAnnotations{DestructiveHint: &no}, Description: "Build the same commit again, as a new build. Of a deploy, this deploys again: ask the person first."}, t.retry)
	addTool(server, t, &mcp.Tool{Name: "cancel_build", Description: "Stop a build that waits or runs. What it has not done stays undone."}, t.cancel)
}

func (t toolbox) why(ctx context.Context, in whyInput) (string, error) {
	address, err := explainable(ctx, schedulerv1.NewBuildServiceClient(t.conn), in.Address)
	if err != nil {
		return "", err
	}
	answer, err := gatewayv1.NewDeliveryServiceClient(t.conn).ExplainAddress(ctx, &gatewayv1.ExplainAddressRequest{Address: address, Context: in.Status})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	printExplanation(&out, answer)
	return out.String(), nil
}

func (t toolbox) list(ctx context.Context, in listInput) (string, error) {
	req := &schedulerv1.ListBuildsRequest{
		Repository: in.Repository, PullRequest: in.PullRequest, Branch: in.Branch, Sha: in.SHA, PageSize: within(in.Limit, 20, mostBuilds),
	}
	for _, state := range in.States {
		value := schedulerv1.Build_State_value["STATE_"+strings.ToUpper(state)]
		if value == 0 {
			return "", usagef("%q is no state of a build", state)
		}
		req.States = append(req.States, schedulerv1.Build_State(value))
	}
	answer, err := schedulerv1.NewBuildServiceClient(t.conn).ListBuilds(ctx, req)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	printBuilds(&out, answer.GetBuilds())
	if answer.GetNextPageToken() != "" {
		out.WriteString("There are more.\n")
	}
	return out.String(), nil
}

// about makes a call about one build, and tells of the build that it answers with.
func (t toolbox) about(ctx context.Context, build string, call func(client schedulerv1.BuildServiceClient, id string) (answer, error)) (string, error) {
	id, err := t.build(ctx, build)
	if err != nil {
		return "", err
	}
	answer, err := call(schedulerv1.NewBuildServiceClient(t.conn), id)
	if err != nil {
		return "", err
	}
	return buildText(answer.GetBuild()), nil
}

func (t toolbox) get(ctx context.Context, in buildInput) (string, error) {
	return t.about(ctx, in.Build, func(client schedulerv1.BuildServiceClient, id string) (answer, error) {
		return client.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: id})
	})
}

func buildText(b *schedulerv1.Build) string {
	var out strings.Builder
	printBuild(&out, b)
	if took := lasted(b); took != "" {
		fmt.Fprintf(&out, "It took %s.\n", took)
	}
	return out.String()
}

// logFor is the build, or job, whose log is meant.
func (t toolbox) logFor(ctx context.Context, named string) (*schedulerv1.Log, string, error) {
	if _, err := t.build(ctx, named); err != nil {
		return nil, "", err
	}
	id, err := logOf(ctx, schedulerv1.NewBuildServiceClient(t.conn), named)
	if err != nil {
		return nil, "", err
	}
	answer, err := schedulerv1.NewLogServiceClient(t.conn).GetLog(ctx, &schedulerv1.GetLogRequest{BuildId: id})
	return answer.GetLog(), id, err
}

func (t toolbox) read(ctx context.Context, in readInput) (string, error) {
	log, id, err := t.logFor(ctx, in.Build)
	if err != nil {
		return "", err
	}
	if log.GetLineCount() == 0 {
		return "Nothing was printed yet.", nil
	}
	lines := within(in.Lines, usualLines, mostLines)
	first := in.First
	if first <= 0 {
		first = max(1, log.GetLineCount()-int64(lines)+1)
	}
	if first > log.GetLineCount() {
		return "", usagef("the log has %d lines", log.GetLineCount())
	}
	var out strings.Builder
	last := first - 1
	err = t.window(ctx, &schedulerv1.ReadLogRequest{BuildId: id, Attempt: log.GetAttempt(), Line: first, PageSize: lines}, func(line *schedulerv1.LogLine) {
		if text := shown(line); out.Len()+len(text) <= mostText-1000 && line.GetNumber() == last+1 {
			out.WriteString(text)
			last = line.GetNumber()
		}
	})
	if err != nil {
		return "", err
	}
	ended := "more may come"
	if log.GetOver() {
		ended = "and has ended"
	}
	return fmt.Sprintf("Lines %d to %d of the log of %s, which has %d %s.\n\n%s", first, last, id, log.GetLineCount(), ended, out.String()), nil
}

// window calls with lines of a log.
func (t toolbox) window(ctx context.Context, req *schedulerv1.ReadLogRequest, do func(*schedulerv1.LogLine)) error {
	stream, err := schedulerv1.NewLogServiceClient(t.conn).ReadLog(ctx, req)
	for err == nil {
		var page *schedulerv1.ReadLogResponse
		if page, err = stream.Recv(); err != nil {
			break
		}
		for _, line := range page.GetLines() {
			do(line)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (t toolbox) search(ctx context.Context, in searchInput) (string, error) {
	log, id, err := t.logFor(ctx, in.Build)
	if err != nil {
		return "", err
	}
	stream, err := schedulerv1.NewLogServiceClient(t.conn).SearchLog(ctx, &schedulerv1.SearchLogRequest{
		BuildId: id, Attempt: log.GetAttempt(), Query: in.Query, Regex: in.Regex, AroundLine: max(1, in.From), MaxHits: mostHits,
	})
	var hits []int64
	var last *schedulerv1.SearchLogResponse
	for err == nil {
		var some *schedulerv1.SearchLogResponse
		if some, err = stream.Recv(); err != nil {
			break
		}
		last = some
		for _, line := range some.GetLines() {
			if !some.GetBefore() && len(hits) < mostHits && (len(hits) == 0 || hits[len(hits)-1] != line) {
				hits = append(hits, line)
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		return "", err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%q is %d times in the log of %s, which has %d lines", in.Query, last.GetHitCount(), id, log.GetLineCount())
	if last.GetIncomplete() {
		out.WriteString("; the search took too long, there may be more")
	}
	fmt.Fprintf(&out, ". From line %d on:\n\n", max(1, in.From))
	for _, hit := range hits {
		err := t.window(ctx, &schedulerv1.ReadLogRequest{BuildId: id, Attempt: log.GetAttempt(), Line: hit, PageSize: 1}, func(line *schedulerv1.LogLine) { out.WriteString(shown(line)) })
		if err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

func (t toolbox) failed(ctx context.Context, in buildInput) (string, error) {
	id, err := t.build(ctx, in.Build)
	if err != nil {
		return "", err
	}
	answer, err := schedulerv1.NewTestServiceClient(t.conn).ListTests(ctx, &schedulerv1.ListTestsRequest{
		BuildId: id, PageSize: mostFailures, States: []schedulerv1.Test_State{schedulerv1.Test_STATE_FAILED, schedulerv1.Test_STATE_ERRORED},
	})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	printFailed(&out, answer)
	return out.String(), nil
}

func (t toolbox) retry(ctx context.Context, in retryInput) (string, error) {
	return t.about(ctx, in.Build, func(client schedulerv1.BuildServiceClient, id string) (answer, error) {
		return client.RetryBuild(ctx, &schedulerv1.RetryBuildRequest{BuildId: id, FailedOnly: in.FailedOnly})
	})
}

func (t toolbox) cancel(ctx context.Context, in cancelInput) (string, error) {
	return t.about(ctx, in.Build, func(client schedulerv1.BuildServiceClient, id string) (answer, error) {
		return client.CancelBuild(ctx, &schedulerv1.CancelBuildRequest{BuildId: id, Message: in.Reason})
	})
}
