package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
)

type deliveries struct {
	List      listDeliveries    `cmd:"" default:"withargs" help:"List them, newest first, with what became of each."`
	Show      showDelivery      `cmd:"" help:"Show one, with what each service decided."`
	Redeliver redeliverDelivery `cmd:"" help:"Have one decided again."`
}

type listDeliveries struct {
	query
	Event      string `placeholder:"KIND" help:"Only this kind of event, such as pull_request."`
	Repository string `aliases:"repo" placeholder:"OWNER/NAME" help:"Only this repository."`
	Pull       int32  `placeholder:"NUMBER" help:"Only what tells of this pull request; with --repository."`
	SHA        commit `name:"sha" help:"Only what tells of this commit, in full."`
	State      string `enum:",pending,decided,kept" default:"" help:"Only those that are pending, decided, or kept for a person because tries ran out."`
	Since      ago    `placeholder:"DURATION" help:"Only those received within this time, such as 2h."`
	Limit      count  `default:"20" help:"At most this many."`
}

// Run prints a line a delivery.
func (l listDeliveries) Run() error {
	req := &gatewayv1.ListDeliveriesRequest{Event: l.Event, Repository: l.Repository, PullRequest: l.Pull, Sha: string(l.SHA), ReceiveTimeFrom: l.Since.timestamp()}
	if l.State != "" {
		req.State = gatewayv1.Delivery_State(gatewayv1.Delivery_State_value["STATE_"+strings.ToUpper(l.State)])
	}
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *gatewayv1.ListDeliveriesResponse, err error) {
		client := gatewayv1.NewDeliveryServiceClient(conn)
		all = &gatewayv1.ListDeliveriesResponse{}
		all.Deliveries, all.NextPageToken, err = upTo(l.Limit, func(size int32, token string) ([]*gatewayv1.Delivery, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := client.ListDeliveries(ctx, req)
			return page.GetDeliveries(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, l.Repository, len(all.GetDeliveries()), err)
	}, func(out io.Writer, all *gatewayv1.ListDeliveriesResponse) { printDeliveries(out, all.GetDeliveries()) })
}

func printDeliveries(out io.Writer, all []*gatewayv1.Delivery) {
	if len(all) == 0 {
		fmt.Fprintln(out, "no deliveries") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"RECEIVED", "ID", "EVENT", "REPOSITORY", "WHAT BECAME OF IT"}}
	for _, d := range all {
		rows = append(rows, []string{
			localTime(d.GetReceiveTime()), d.GetId(), eventName(d), cmp.Or(d.GetRepository(), "-"), outcome(d),
		})
	}
	printTable(out, rows)
}

// outcome is the decision that people wait for: where the scheduler takes part,
// its own.
func outcome(d *gatewayv1.Delivery) string {
	forwards := d.GetForwards()
	if len(forwards) == 0 {
		return "-"
	}
	n := max(0, slices.IndexFunc(forwards, func(f *gatewayv1.Forward) bool { return f.GetReceiver() == "scheduler" }))
	return outcomeAt(forwards[n])
}

// outcomeAt is what became of a delivery at one receiver.
func outcomeAt(f *gatewayv1.Forward) string {
	switch {
	case f.GetDecision() != nil:
		return f.GetDecision().GetText()
	case f.GetError() != "":
		return fmt.Sprintf("not decided after %d tries, next at %s: %s", f.GetAttempts(), localTime(f.GetNextTryTime()), f.GetError())
	default:
		return "not decided yet"
	}
}

func eventName(d *gatewayv1.Delivery) string {
	return strings.TrimSpace(d.GetEvent() + " " + d.GetAction())
}

type showDelivery struct {
	query
	ID      string `arg:"" help:"X-GitHub-Delivery."`
	Payload bool   `help:"Print the payload alone, as GitHub sent it."`
}

// Run prints all that is known of a delivery.
func (s showDelivery) Run() error {
	var answer *gatewayv1.GetDeliveryResponse
	err := s.call(callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		answer, err = gatewayv1.NewDeliveryServiceClient(conn).GetDelivery(ctx, &gatewayv1.GetDeliveryRequest{DeliveryId: s.ID})
		return err
	})
	if err != nil {
		return err
	}
	if s.Payload {
		_, err := os.Stdout.Write(answer.GetDelivery().GetPayload())
		return err
	}
	return s.print(answer, func(out io.Writer) { printDelivery(out, answer.GetDelivery()) })
}

func printDelivery(out io.Writer, d *gatewayv1.Delivery) {
	rows := [][]string{
		{"delivery", d.GetId()},
		{"event", eventName(d)},
		{"repository", cmp.Or(d.GetRepository(), "-")},
		{"received", localTime(d.GetReceiveTime())},
		{"payload", fmt.Sprintf("%d bytes", d.GetPayloadSize())},
		{"trace", cmp.Or(d.GetTraceId(), "-")},
	}
	for _, f := range d.GetForwards() {
		rows = append(rows, []string{f.GetReceiver(), outcomeAt(f)})
		for _, id := range f.GetDecision().GetBuildIds() {
			rows = append(rows, []string{"", "build " + id})
		}
	}
	printTable(out, rows)
}

type redeliverDelivery struct {
	query
	ID string `arg:"" help:"X-GitHub-Delivery."`
}

// Run has a delivery decided again.
func (r redeliverDelivery) Run() error {
	return ask(r.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*gatewayv1.RedeliverDeliveryResponse, error) {
		return gatewayv1.NewDeliveryServiceClient(conn).RedeliverDelivery(ctx, &gatewayv1.RedeliverDeliveryRequest{DeliveryId: r.ID})
	}, func(out io.Writer, _ *gatewayv1.RedeliverDeliveryResponse) {
		_, _ = fmt.Fprintf(out, "%s is decided again; forge deliveries show %[1]s tells how\n", r.ID)
	})
}
