package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type buildStats struct {
	query
	Repository string   `arg:"" placeholder:"OWNER/NAME" help:"The repository."`
	Days       int32    `default:"30" help:"How many days, up to today; at most 90."`
	Action     []string `enum:"test,staging,deploy_staging,deploy_production,push,closed,release,schedule,manual,deploy,preview,stop" placeholder:"ACTION" help:"Only these actions, such as test,push."`
}

// Run prints a line a day.
func (b buildStats) Run() error {
	return ask(b.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*schedulerv1.GetBuildStatisticsResponse, error) {
		answer, err := schedulerv1.NewBuildServiceClient(conn).GetBuildStatistics(ctx, &schedulerv1.GetBuildStatisticsRequest{
			Repository: b.Repository, Days: b.Days, Actions: actions(b.Action),
		})
		return answer, heardOf(ctx, conn, b.Repository, counted(answer.GetDays()), err)
	}, func(out io.Writer, answer *schedulerv1.GetBuildStatisticsResponse) { printStats(out, answer.GetDays()) })
}

// counted is how many builds there were.
func counted(days []*schedulerv1.BuildDay) (all int) {
	for _, d := range days {
		all += int(d.GetPassed() + d.GetFailed() + d.GetErrored() + d.GetCancelled())
	}
	return all
}

func printStats(out io.Writer, days []*schedulerv1.BuildDay) {
	rows := [][]string{{"DAY", "PASSED", "FAILED", "ERRORED", "CANCELLED", "PASS RATE", "MEDIAN"}}
	for _, d := range days {
		rate, median := "-", "-"
		if ran := d.GetPassed() + d.GetFailed() + d.GetErrored(); ran > 0 {
			rate = fmt.Sprintf("%d %%", d.GetPassed()*100/ran)
		}
		if d.GetMedianDuration() != nil {
			median = d.GetMedianDuration().AsDuration().Round(time.Second).String()
		}
		rows = append(rows, []string{
			d.GetDate(), strconv.Itoa(int(d.GetPassed())), strconv.Itoa(int(d.GetFailed())), strconv.Itoa(int(d.GetErrored())),
			strconv.Itoa(int(d.GetCancelled())), rate, median,
		})
	}
	printTable(out, rows)
}
