package rpc

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// Origin is where a call comes from, as a room of Config.Behalf has found out or, without
// one, as the connection says.
type Origin struct {
	Way        string `json:"way,omitempty"`        // such as page or api; "": over gRPC
	Credential string `json:"credential,omitempty"` // what a person has shown; "" where it was no person's
	Address    string `json:"address,omitempty"`    // of the caller, without a port
	Agent      string `json:"agent,omitempty"`      // what the caller says it is: nothing proves it
}

type (
	originKey struct{}
	serverKey struct{}
)

// longestAgent bounds what a caller says of itself, in bytes.
const longestAgent = 200

// From returns a context whose calls come from there. Only a room that has found that out
// calls it.
func From(ctx context.Context, o Origin) context.Context {
	o.Agent = printable(o.Agent)
	return context.WithValue(ctx, originKey{}, o)
}

// OriginOf returns where the call that ctx belongs to comes from; outside of a call of a
// Server, what From was given.
func OriginOf(ctx context.Context) Origin {
	s, served := ctx.Value(serverKey{}).(*Server)
	if !served {
		o, _ := ctx.Value(originKey{}).(Origin)
		return o
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if told := md.Get(originHeader); len(told) == 1 && slices.Contains(s.cfg.Behalf, Caller(ctx).Room) {
		var o Origin
		if json.Unmarshal([]byte(told[0]), &o) == nil {
			return o
		}
	}
	o := Origin{Agent: printable(strings.Join(md.Get("user-agent"), " "))}
	if from, ok := peer.FromContext(ctx); ok && from.Addr != nil && from.Addr.Network() != pipeNetwork {
		o.Address = from.Addr.String()
		if host, _, err := net.SplitHostPort(o.Address); err == nil {
			o.Address = host
		}
	}
	return o
}

// printable is a text without what a terminal would take for a command, and not too long.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	return strings.ToValidUTF8(text[:min(len(text), longestAgent)], "")
}
