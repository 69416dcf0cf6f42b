package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
)

type recovery struct {
	query
	Since ago `placeholder:"DURATION" help:"Sweep pull requests changed within this time, such as 72h. Default: since all was known."`
}

// recoverWithin leaves GitHub time to be asked about each repository.
const recoverWithin = 10 * time.Minute

// Run has a running Forge look for what it missed and prints what it found.
func (r recovery) Run() error {
	return ask(r.query, recoverWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*gatewayv1.RecoverDeliveriesResponse, error) {
		return gatewayv1.NewDeliveryServiceClient(conn).RecoverDeliveries(ctx, &gatewayv1.RecoverDeliveriesRequest{Since: r.Since.timestamp()})
	}, printRecovered)
}

func printRecovered(out io.Writer, found *gatewayv1.RecoverDeliveriesResponse) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	list := func(title string, all []*gatewayv1.RecoveredDelivery) {
		if len(all) == 0 {
			return
		}
		say("%s", title)
		for _, one := range all {
			say("  %s  %s  %s %s (%s)", one.GetDeliverTime().AsTime().Format(time.RFC3339), one.GetDeliveryId(), one.GetEvent(), one.GetAction(), one.GetStatus())
		}
	}
	say("GitHub's deliveries since %s: %d, of which %d never arrived.", found.GetSince().AsTime().Format(time.RFC3339),
		found.GetListed(), len(found.GetRedelivered())+len(found.GetGivenUp()))
	list("GitHub was asked to send these again:", found.GetRedelivered())
	list("Refused too often, look at them on the App's settings page under 'Advanced':", found.GetGivenUp())
	say("Pull requests that changed and no delivery told of: %d.", len(found.GetSweptDeliveryIds()))
	for _, id := range found.GetSweptDeliveryIds() {
		say("  %s", id)
	}
}
