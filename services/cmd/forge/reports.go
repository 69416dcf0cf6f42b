package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
)

type reports struct {
	List   listReports  `cmd:"" default:"withargs" help:"List what GitHub is to be told, the latest first, and whether it was."`
	Show   showReport   `cmd:"" help:"Show one, with the latest calls for it."`
	Retry  retryReport  `cmd:"" help:"Try again at once to tell one."`
	Verify verifyReport `cmd:"" help:"Read what GitHub shows of one, and have it told again where that differs."`
}

type listReports struct {
	remote
	output
	Repository string   `placeholder:"OWNER/NAME" help:"Only of this repository."`
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
	all := &reporterv1.ListTargetsResponse{}
	err := l.call(callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		client := reporterv1.NewReporterServiceClient(conn)
		all.Targets, all.NextPageToken, err = upTo(l.Limit, func(size int32, token string) ([]*reporterv1.Target, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := client.ListTargets(ctx, req)
			return page.GetTargets(), page.GetNextPageToken(), err
		})
		return err
	})
	if err != nil {
		return err
	}
	return l.print(all, func(out io.Writer) { printReports(out, all.GetTargets()) })
}

func printReports(out io.Writer, all []*reporterv1.Target) {
	if len(all) == 0 {
		fmt.Fprintln(out, "nothing to tell") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"CHANGED", "ID", "REPOSITORY", "COMMIT", "WHAT", "STATE", "GITHUB IS TO SHOW"}}
	for _, t := range all {
		rows = append(rows, []string{
			moment(t.GetUpdateTime()), t.GetId(), t.GetRepository().GetOwner() + "/" + t.GetRepository().GetName(), short(t.GetSha()),
			told(t), stateOf(t.GetState().String()), toShow(t),
		})
	}
	printTable(out, rows)
}

// told is what a target is told as.
func told(t *reporterv1.Target) string {
	kind := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(t.GetKind().String(), "KIND_")), "_", " ")
	return kind + " " + t.GetContext()
}

// toShow is what GitHub is to show; where it cannot be told, why.
func toShow(t *reporterv1.Target) string {
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
		{"repository", t.GetRepository().GetOwner() + "/" + t.GetRepository().GetName()},
		{"commit", t.GetSha()},
		{"what", told(t)},
		{"to show", strings.TrimSuffix(t.GetDesiredState()+": "+t.GetDescription(), ": ")},
		{"link", t.GetTargetUrl()},
		{"state", stateOf(t.GetState().String())},
		{"told", moment(t.GetTellTime())},
		{"read back", moment(t.GetVerifyTime())},
	}
	if t.GetError() != "" {
		rows = append(rows, []string{"error", fmt.Sprintf("%s (tries: %d, next at %s)", t.GetError(), t.GetAttempts(), moment(t.GetNextTryTime()))})
	}
	for _, c := range calls {
		answer := strconv.Itoa(int(c.GetStatus()))
		if c.GetError() != "" {
			answer = c.GetError()
		}
		rows = append(rows, []string{"call", fmt.Sprintf("%s  %s → %s  %s", moment(c.GetTime()), c.GetRequest(), answer, c.GetRequestId())})
	}
	printTable(out, rows)
}

// oneReport is a verb about one target.
type oneReport struct {
	remote
	output
	ID string `arg:"" help:"The id that the list shows."`
}

func (o oneReport) client(do func(context.Context, reporterv1.ReporterServiceClient) error) error {
	return o.call(callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		return do(ctx, reporterv1.NewReporterServiceClient(conn))
	})
}

type showReport struct{ oneReport }

// Run shows a target.
func (s showReport) Run() error {
	var said *reporterv1.GetTargetResponse
	err := s.client(func(ctx context.Context, client reporterv1.ReporterServiceClient) (err error) {
		said, err = client.GetTarget(ctx, &reporterv1.GetTargetRequest{TargetId: s.ID})
		return err
	})
	if err != nil {
		return err
	}
	return s.print(said, func(out io.Writer) { printReport(out, said.GetTarget(), said.GetCalls()) })
}

type retryReport struct{ oneReport }

// Run tries again to tell a target.
func (r retryReport) Run() error {
	var said *reporterv1.RetryTargetResponse
	err := r.client(func(ctx context.Context, client reporterv1.ReporterServiceClient) (err error) {
		said, err = client.RetryTarget(ctx, &reporterv1.RetryTargetRequest{TargetId: r.ID})
		return err
	})
	if err != nil {
		return err
	}
	return r.print(said, func(out io.Writer) { printReport(out, said.GetTarget(), nil) })
}

type verifyReport struct{ oneReport }

// Run reads back what GitHub shows.
func (v verifyReport) Run() error {
	var said *reporterv1.VerifyTargetResponse
	err := v.client(func(ctx context.Context, client reporterv1.ReporterServiceClient) (err error) {
		said, err = client.VerifyTarget(ctx, &reporterv1.VerifyTargetRequest{TargetId: v.ID})
		return err
	})
	if err != nil {
		return err
	}
	return v.print(said, func(out io.Writer) {
		if said.GetDifference() == "" {
			_, _ = fmt.Fprintln(out, "GitHub shows what it was told")
			return
		}
		_, _ = fmt.Fprintf(out, "told again, because GitHub showed %s\n", said.GetDifference())
	})
}
