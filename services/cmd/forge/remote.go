package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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

// call connects and calls with the admin token.
func (r remote) call(within time.Duration, do func(context.Context, grpc.ClientConnInterface) error) error {
	if _, err := os.Stat(filepath.Join(r.DataDir, "admin-token")); r.AdminToken == "" && err != nil {
		return fmt.Errorf("no admin token: set FORGE_ADMIN_TOKEN, or FORGE_DATA_DIR to where Forge keeps it: %w", err)
	}
	admin, err := r.Admin()
	if err != nil {
		return err
	}
	conn, err := rpc.Dial(r.GRPCAddress, rpc.Peer{})
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be sent
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+admin), within)
	defer cancel()
	return from(r.GRPCAddress, do(ctx, conn))
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
		return fmt.Errorf("no Forge answers at %s: set FORGE_GRPC_ADDRESS to where it serves gRPC, or start it with forge up: %w", address, err)
	case answer.Code() == codes.Unimplemented:
		return fmt.Errorf("another service is at %s (FORGE_GRPC_ADDRESS): where they run apart, deliveries are the gateway's, reports the reporter's "+
			"and all else is the scheduler's: %w", address, err)
	}
	return fmt.Errorf("the Forge at %s (FORGE_GRPC_ADDRESS): %w", address, err)
}

// count is how many are wanted.
type count int

// Validate refuses to ask for none.
func (c count) Validate() error {
	if c < 1 {
		return errors.New("expected 1 or more")
	}
	return nil
}

// ago is a time before now.
type ago time.Duration

// UnmarshalText reads a duration.
func (a *ago) UnmarshalText(text []byte) error {
	duration, err := time.ParseDuration(string(text))
	if err != nil || duration <= 0 {
		return fmt.Errorf("expected a duration such as 90m or 72h but got %q", text)
	}
	*a = ago(duration)
	return nil
}

// moment is nil where nothing was given.
func (a ago) moment() *timestamppb.Timestamp {
	if a == 0 {
		return nil
	}
	return timestamppb.New(time.Now().Add(-time.Duration(a)))
}

// commit is a commit's id.
type commit string

// Validate refuses what finds nothing.
func (c commit) Validate() error {
	if _, err := hex.DecodeString(string(c)); c != "" && (err != nil || len(c) != 40 && len(c) != 64) {
		return fmt.Errorf("expected the id of a commit in full, 40 digits, but got %q; forge builds show and git rev-parse print it", string(c))
	}
	return nil
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

// output is how a verb prints what it was answered. Verbs that do embed it.
type output struct {
	JSON bool `name:"json" help:"Print the answer as JSON."`
}

// print prints the answer as JSON, or has text written for people.
func (o output) print(answer proto.Message, text func(io.Writer)) error {
	if o.JSON {
		return printJSON(os.Stdout, answer)
	}
	var all strings.Builder
	text(&all)
	_, err := io.WriteString(os.Stdout, all.String())
	return err
}

// printJSON prints as the JSON API answers, indented.
func printJSON(out io.Writer, answer proto.Message) error {
	compact, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
	if err != nil {
		return err
	}
	var value json.RawMessage = compact
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ") // protojson's own varies on purpose
	return encoder.Encode(value)
}

// printTable prints rows whose columns are aligned.
func printTable(out io.Writer, rows [][]string) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(table, strings.TrimRight(strings.Join(row, "\t"), "\t")) //nolint:errcheck // out is memory
	}
	_ = table.Flush()
}
