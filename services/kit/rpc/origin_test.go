package rpc_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/forge-ci/forge/services/kit/rpc"
)

// Where a call comes from is believed of a room that calls for people, and of nobody else.
func TestWhereACallComesFrom(t *testing.T) {
	told := rpc.Origin{Way: "page", Credential: "session", Address: "192.0.2.7", Agent: "Firefox"}
	for name, c := range map[string]struct {
		over network
		peer rpc.Peer
		from rpc.Origin
		want func(rpc.Origin) bool
	}{
		"a room that calls for people": {tcp, rpc.Peer{Room: "gateway", Token: "g1"}, told, func(o rpc.Origin) bool { return o == told }},
		"another room":                 {tcp, rpc.Peer{Room: "scheduler", Token: "s1"}, told, fromHere},
		"a room without proof":         {tcp, rpc.Peer{Room: "gateway"}, told, fromHere},
		"nobody in particular":         {tcp, rpc.Peer{}, told, fromHere},
		"a room that says nothing":     {tcp, rpc.Peer{Room: "gateway", Token: "g1"}, rpc.Origin{}, func(o rpc.Origin) bool { return o == rpc.Origin{} }},
		"an agent that is no text": {tcp, rpc.Peer{Room: "gateway", Token: "g1"}, rpc.Origin{Agent: "a\x1b[2J\n" + strings.Repeat("b", 1000)}, func(o rpc.Origin) bool {
			return len(o.Agent) == 200 && strings.HasPrefix(o.Agent, "a[2Jb")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var got rpc.Origin
			lis := c.over.listen(t)
			serve(t, rpc.Config{
				AdminToken: "adm", Behalf: []string{"gateway"}, RoomTokens: map[string]string{"scheduler": "s1", "gateway": "g1"},
				Access: map[string]rpc.Access{unaryMethod: {Public: true}},
			}, func(ctx context.Context) error {
				got = rpc.OriginOf(ctx)
				return nil
			}, lis)
			ctx := metadata.AppendToOutgoingContext(rpc.From(t.Context(), c.from), "forge-origin-bin", `{"way":"comment","address":"6.6.6.6"}`)
			if err := calls["unary"](ctx, c.over.dial(t, lis, c.peer)); err != nil {
				t.Fatal(err)
			}
			if !c.want(got) {
				t.Errorf("it comes from %+v", got)
			}
			raw, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err := calls["unary"](ctx, closing(t, raw, err)); err != nil || !fromHere(got) {
				t.Errorf("a client of another make: it comes from %+v, %v", got, err)
			}
		})
	}
}

// fromHere is that the connection alone says where a call comes from.
func fromHere(o rpc.Origin) bool {
	return o.Way == "" && o.Credential == "" && (o.Address == "127.0.0.1" || o.Address == "::1") && strings.HasPrefix(o.Agent, "grpc-go/")
}
