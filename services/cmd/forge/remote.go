package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
)

// remote is a running Forge, as its admin calls it. Verbs that do embed it.
type remote struct {
	settings.Common
	settings.GRPC
}

// callWithin is for what Forge answers by itself.
const callWithin = 30 * time.Second

// call connects and calls with the admin token or, where there is none, as who has
// signed in by forge login.
func (r remote) call(within time.Duration, do func(context.Context, grpc.ClientConnInterface) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return r.session(ctx, true, do)
}

// session is call for as long as ctx lasts. What anyone may ask who knows a build needs
// no token: it goes without one where there is none.
func (r remote) session(ctx context.Context, needed bool, do func(context.Context, grpc.ClientConnInterface) error) error {
	_, missing := os.Stat(filepath.Join(r.DataDir, "admin-token"))
	if r.AdminToken != "" || missing == nil {
		admin, err := r.Admin()
		if err != nil {
			return err
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+admin)
	} else if k, err := readKept(); err == nil {
		return do(ctx, k.conn())
	} else if needed {
		return usagef("no admin token: set FORGE_ADMIN_TOKEN, or FORGE_DATA_DIR to where Forge keeps it, or sign in by forge login: %w", missing)
	}
	conn, err := rpc.Dial(r.GRPCAddress, rpc.Peer{})
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be sent
	err = do(ctx, conn)
	if _, said := status.FromError(err); !said && fault.KindOf(err) == fault.Internal || errors.As(err, new(usageError)) {
		return err // not of Forge
	}
	return from(r.GRPCAddress, err)
}

// query is a verb that asks a running Forge and prints the answer.
type query struct {
	remote
	output
}

// ask calls Forge and prints the answer, for people as text writes it.
func ask[A proto.Message](q query, within time.Duration, do func(context.Context, grpc.ClientConnInterface) (A, error), text func(io.Writer, A)) error {
	var answer A
	err := q.call(within, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		answer, err = do(ctx, conn)
		return err
	})
	if err != nil {
		return err
	}
	return q.print(answer, func(out io.Writer) { text(out, answer) })
}

// from says which Forge an error is of, or that none is there: an answer of
// Forge's own that it cannot do something now has details.
func from(address string, err error) error {
	if err == nil {
		return nil
	}
	answer, _ := status.FromError(err)
	switch {
	case answer.Code() == codes.Unavailable && len(answer.Details()) == 0:
		return codedError{exitNobody, fmt.Errorf("no Forge answers at %s: set FORGE_GRPC_ADDRESS to where it serves gRPC, or start it with forge up: %w", address, err)}
	case answer.Code() == codes.Unimplemented:
		return fmt.Errorf("another service is at %s (FORGE_GRPC_ADDRESS): where they run apart, deliveries are the gateway's, reports the reporter's "+
			"and all else is the scheduler's: %w", address, err)
	}
	return fmt.Errorf("the Forge at %s (FORGE_GRPC_ADDRESS): %w", address, err)
}

// upTo asks for pages until there are as many as wanted, or no more. It returns
// the token of the next page, too.
func upTo[R any](limit count, page func(size int32, token string) ([]R, string, error)) (all []R, token string, err error) {
	for len(all) < int(limit) {
		some, next, err := page(int32(min(int(limit)-len(all), 500)), token) //nolint:gosec // 500 at most
		if err != nil {
			return nil, "", err
		}
		all, token = append(all, some...), next
		if token == "" {
			break
		}
	}
	return all, token, nil
}
