package main

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
)

type why struct {
	query
	Address string `arg:"" help:"Of a pull request or a commit on GitHub, or acme/shop#7."`
}

// Run says what was built of a pull request or a commit, and if nothing was, why.
func (w why) Run() error {
	return ask(w.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*gatewayv1.ExplainAddressResponse, error) {
		return gatewayv1.NewDeliveryServiceClient(conn).ExplainAddress(ctx, &gatewayv1.ExplainAddressRequest{Address: w.Address})
	}, printExplanation)
}

func printExplanation(out io.Writer, answer *gatewayv1.ExplainAddressResponse) {
	say := func(text string) {
		if text != "" {
			fmt.Fprintln(out, text) //nolint:errcheck // out is memory
		}
	}
	say(answer.GetAnswer())
	say(answer.GetAdvice())
	if len(answer.GetBuilds()) > 0 {
		say("\nBuilds:")
		printBuilds(out, answer.GetBuilds())
	}
	if len(answer.GetDeliveries()) > 0 {
		say("\nDeliveries:")
		printDeliveries(out, answer.GetDeliveries())
	}
}
