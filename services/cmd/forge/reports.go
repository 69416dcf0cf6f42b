package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/wording"
)

type reports struct {
	List   listReports  `cmd:"" default:"withargs" help:"List what GitHub is to be told, the latest first, and whether it was."`
	Show   showReport   `cmd:"" help:"Show one, with the latest calls for it."`
	Retry  retryReport  `cmd:"" help:"Try again at once to tell one."`
	Verify verifyReport `cmd:"" help:"Read what GitHub shows of one, and have it told again where that differs."`
}

type listReports struct {
	query
	Repository string   `aliases:"repo" placeholder:"OWNER/NAME" help:"Only of this repository."`
	SHA        commit   `name:"sha" help:"Only of this commit, in full."`
	State      []string `enum:"pending,told,failing,paused,kept" placeholder:"STATE" help:"Only in these states, such as failing,kept."`
	Limit      count    `default:"20" help:"At most this many."`
}

// Run prints a line a target.
func (l listReports) Run() error {
	req := &reporterv1.ListTargetsRequest{Repository: l.Repository, Sha: string(l.SHA)}
	for _, state := range l.State {
		req.States = append(req.States, reporterv1.Target_State(reporterv1.Target_State_value["STATE_"+strings.ToUpper(state)]))
	}
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *reporterv1.ListTargetsResponse, err error) {
		client := reporterv1.NewReporterServiceClient(conn)
		all = &reporterv1.ListTargetsResponse{}
		all.Targets, all.NextPageToken, err = upTo(l.Limit, func(size int32, token string) ([]*reporterv1.Target, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := client.ListTargets(ctx, req)
			return page.GetTargets(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, l.Repository, len(all.GetTargets()), err)
	}, func(out io.Writer, all *reporterv1.ListTargetsResponse) { printReports(out, all.GetTargets()) })
}

func printReports(out io.Writer, all []*reporterv1.Target) {
	if len(all) == 0 {
		fmt.Fprintln(out, "nothing to tell") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"CHANGED", "ID", "REPOSITORY", "COMMIT", "WHAT", "STATE", "GITHUB IS TO SHOW"}}
	for _, t := range all {
		rows = append(rows, []string{
			localTime(t.GetUpdateTime()), t.GetId(), wording.FullName(t.GetRepository()), wording.Short(t.GetSha()),
			channel(t), wording.Value(t.GetState()), desired(t),
		})
	}
	printTable(out, rows)
}

// channel is what GitHub shows a target as, and where.
func channel(t *reporterv1.Target) string {
	return wording.Value(t.GetKind()) + " " + t.GetContext()
}

// desired is what GitHub is to show; where it cannot be told, why.
func desired(t *reporterv1.Target) string {
	if t.GetError() != "" {
		return t.GetError()
	}
	if t.GetDescription() == "" {
		return t.GetDesiredState()
	}
	return t.GetDesiredState() + ": " + t.GetDescription()
}

func printReport(out io.Writer, t *reporterv1.Target, calls []*reporterv1.Call) {
	rows := [][]string{
		{"report", t.GetId()},
		{"repository", wording.FullName(t.GetRepository())},
		{"commit", t.GetSha()},
		{"what", channel(t)},
		{"to show", strings.TrimSuffix(t.GetDesiredState()+": "+t.GetDescription(), ": ")},
		{"link", t.GetTargetUrl()},
		{"state", wording.Value(t.GetState())},
		{"told", localTime(t.GetTellTime())},
		{"read back", localTime(t.GetVerifyTime())},
	}
	if t.GetError() != "" {
		rows = append(rows, []string{"error", fmt.Sprintf("%s (tries: %d, next at %s)", t.GetError(), t.GetAttempts(), localTime(t.GetNextTryTime()))})
	}
	for _, c := range calls {
		answer := strconv.Itoa(int(c.GetStatus()))
		if c.GetError() != "" {
			answer = c.GetError()
		}
		rows = append(rows, []string{"call", fmt.Sprintf("%s  %s → %s  %s", localTime(c.GetTime()), c.GetRequest(), answer, c.GetRequestId())})
	}
	printTable(out, rows)
}

// oneReport is a verb about one target.
type oneReport struct {
	query
	ID string `arg:"" help:"The id that the list shows."`
}

type showReport struct{ oneReport }

// Run shows a target.
func (s showReport) Run() error {
	return ask(s.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*reporterv1.GetTargetResponse, error) {
		return reporterv1.NewReporterServiceClient(conn).GetTarget(ctx, &reporterv1.GetTargetRequest{TargetId: s.ID})
	}, func(out io.Writer, answer *reporterv1.GetTargetResponse) {
		printReport(out, answer.GetTarget(), answer.GetCalls())
	})
}

type retryReport struct{ oneReport }

// Run tries again to tell a target.
func (r retryReport) Run() error {
	return ask(r.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*reporterv1.RetryTargetResponse, error) {
		return reporterv1.NewReporterServiceClient(conn).RetryTarget(ctx, &reporterv1.RetryTargetRequest{TargetId: r.ID})
	}, func(out io.Writer, answer *reporterv1.RetryTargetResponse) { printReport(out, answer.GetTarget(), nil) })
}

type verifyReport struct{ oneReport }

// Run reads back what GitHub shows.
func (v verifyReport) Run() error {
	return ask(v.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*reporterv1.VerifyTargetResponse, error) {
		return reporterv1.NewReporterServiceClient(conn).VerifyTarget(ctx, &reporterv1.VerifyTargetRequest{TargetId: v.ID})
	}, func(out io.Writer, answer *reporterv1.VerifyTargetResponse) {
		if answer.GetDifference() == "" {
			_, _ = fmt.Fprintln(out, "GitHub shows what it was told")
			return
		}
		_, _ = fmt.Fprintf(out, "told again, because GitHub showed %s\n", answer.GetDifference())
	})
}
