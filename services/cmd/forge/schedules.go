package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type schedules struct {
	List listSchedules `cmd:"" default:"withargs" help:"List them."`
}

type listSchedules struct {
	query
	Repository string `aliases:"repo" placeholder:"OWNER/NAME" help:"Only this repository."`
	Limit      count  `default:"50" help:"At most this many."`
}

// Run prints a line a schedule.
func (l listSchedules) Run() error {
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListSchedulesResponse, err error) {
		client := schedulerv1.NewScheduleServiceClient(conn)
		all = &schedulerv1.ListSchedulesResponse{}
		all.Schedules, all.NextPageToken, err = upTo(l.Limit, func(size int32, token string) ([]*schedulerv1.Schedule, string, error) {
			page, err := client.ListSchedules(ctx, &schedulerv1.ListSchedulesRequest{Repository: l.Repository, PageSize: size, PageToken: token})
			return page.GetSchedules(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, l.Repository, len(all.GetSchedules()), err)
	}, func(out io.Writer, all *schedulerv1.ListSchedulesResponse) {
		printSchedules(out, all.GetSchedules())
	})
}

func printSchedules(out io.Writer, all []*schedulerv1.Schedule) {
	if len(all) == 0 {
		fmt.Fprintln(out, "no file asks for a schedule") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"REPOSITORY", "SCHEDULE", "CRON", "ZONE", "NEXT", "LAST", "BUILD", "STATE"}}
	for _, c := range all {
		next, last, said := "-", "-", cmp.Or(c.GetMessage(), "-")
		if c.GetNextTime() != nil {
			next = localTime(c.GetNextTime())
		}
		if c.GetLastTime() != nil {
			last = localTime(c.GetLastTime())
		}
		if c.GetProblem() != "" {
			said += "; as the file last was without errors: " + c.GetProblem()
		}
		rows = append(rows, []string{c.GetRepository(), c.GetName(), c.GetCron(), c.GetZone(), next, last, cmp.Or(c.GetLastBuildId(), "-"), said})
	}
	printTable(out, rows)
}
