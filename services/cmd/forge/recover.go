package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
)

type recovery struct {
	settings.Common
	settings.GRPC
	Since time.Duration `placeholder:"DURATION" help:"Sweep pull requests changed within this time, such as 72h. Default: since all was known."`
}

// recoverWithin leaves GitHub time to be asked about each repository.
const recoverWithin = 10 * time.Minute

// Run has a running Forge look for what it missed and prints what it found.
func (r recovery) Run() error {
	admin, err := r.Admin()
	if err != nil {
		return err
	}
	conn, err := rpc.Dial(r.GRPCAddress, rpc.Peer{})
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be sent
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+admin), recoverWithin)
	defer cancel()
	req := &gatewayv1.RecoverDeliveriesRequest{}
	if r.Since > 0 {
		req.Since = timestamppb.New(time.Now().Add(-r.Since))
	}
	found, err := gatewayv1.NewDeliveryServiceClient(conn).RecoverDeliveries(ctx, req)
	if err != nil {
		return fmt.Errorf("recover by the Forge at %s (FORGE_GRPC_ADDRESS): %w", r.GRPCAddress, err)
	}
	return printRecovered(os.Stdout, found)
}

func printRecovered(out io.Writer, found *gatewayv1.RecoverDeliveriesResponse) error {
	var text []byte
	say := func(format string, args ...any) { text = fmt.Appendf(text, format+"\n", args...) }
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
	_, err := out.Write(text)
	return err
}
