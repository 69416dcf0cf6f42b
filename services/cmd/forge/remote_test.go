package main

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestErrorsSayWhichForgeOrThatThereIsNone(t *testing.T) {
	busy, err := status.New(codes.Unavailable, "GitHub is down").WithDetails(&errdetails.ErrorInfo{Domain: "forge"})
	if err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		"no Forge answers at x:1: set FORGE_GRPC_ADDRESS to where it serves gRPC": status.Error(codes.Unavailable, "connection error"),
		"the Forge at x:1 (FORGE_GRPC_ADDRESS): GitHub is down":                   errors.New("GitHub is down"),
		"the Forge at x:1 (FORGE_GRPC_ADDRESS): rpc error":                        busy.Err(),
		"another service is at x:1 (FORGE_GRPC_ADDRESS)":                          status.Error(codes.Unimplemented, "unknown service"),
	} {
		if got := from("x:1", err); !strings.HasPrefix(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%v, want %s", got, want)
		}
	}
	if err := from("x:1", nil); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}
