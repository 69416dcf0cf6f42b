package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

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
	if err := do(ctx, conn); err != nil {
		return fmt.Errorf("the Forge at %s (FORGE_GRPC_ADDRESS): %w", r.GRPCAddress, err)
	}
	return nil
}

// upTo asks for pages until there are as many as wanted, or no more. It returns
// the token of the next page, too.
func upTo[R any](limit int, page func(size int32, token string) ([]R, string, error)) (all []R, token string, err error) {
	for len(all) < limit {
		some, next, err := page(int32(min(limit-len(all), 500)), token) //nolint:gosec // 500 at most
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
