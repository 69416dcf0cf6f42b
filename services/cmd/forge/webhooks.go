package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type webhooks struct {
	List listWebhooks `cmd:"" default:"withargs" help:"List them."`
}

type listWebhooks struct{ query }

// Run prints a line an address.
func (l listWebhooks) Run() error {
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*schedulerv1.ListOutgoingWebhooksResponse, error) {
		return schedulerv1.NewOutgoingWebhookServiceClient(conn).ListOutgoingWebhooks(ctx, &schedulerv1.ListOutgoingWebhooksRequest{})
	}, func(out io.Writer, all *schedulerv1.ListOutgoingWebhooksResponse) {
		printWebhooks(out, all.GetWebhooks())
	})
}

func printWebhooks(out io.Writer, all []*schedulerv1.OutgoingWebhook) {
	if len(all) == 0 {
		fmt.Fprintln(out, "no address is told of builds: FORGE_WEBHOOKS_OUT names them") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"NAME", "ADDRESS", "SENT", "WAITING", "REFUSED", "DROPPED", "LAST", "LAST ERROR"}}
	for _, w := range all {
		last, failed := "-", cmp.Or(w.GetError(), "-")
		if w.GetSendTime() != nil {
			last = localTime(w.GetSendTime())
		}
		if w.GetErrorTime() != nil {
			failed = localTime(w.GetErrorTime()) + " " + failed
		}
		row := []string{w.GetName(), w.GetHost()}
		for _, n := range []int64{w.GetSent(), w.GetWaiting(), w.GetRefused(), w.GetDropped()} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, append(row, last, failed))
	}
	printTable(out, rows)
}
