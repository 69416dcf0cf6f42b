package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
)

func TestDeliveriesArePrintedForPeople(t *testing.T) {
	at := func(minute int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 11, 23, 18, minute, 0, 0, time.UTC))
	}
	built := &gatewayv1.Delivery{
		Id: "3f2a91c0", Event: "pull_request", Action: "opened", Repository: "acme/web", ReceiveTime: at(2), PayloadSize: 24000, TraceId: "4bf92f35",
		Forwards: []*gatewayv1.Forward{{Receiver: "scheduler", Decision: &eventv1.Decision{Text: "built", BuildIds: []string{"b1"}}}},
	}
	waiting := &gatewayv1.Delivery{
		Id: "77aa", Event: "push", Repository: "acme/web", ReceiveTime: at(1),
		Forwards: []*gatewayv1.Forward{
			{Receiver: "config", Decision: &eventv1.Decision{Text: "nothing to drop"}},
			{Receiver: "scheduler", Attempts: 3, NextTryTime: at(3), Error: "connection refused"},
		},
	}
	fresh := &gatewayv1.Delivery{Id: "1", Event: "ping", ReceiveTime: at(0), Forwards: []*gatewayv1.Forward{{Receiver: "gateway"}}}
	var list, one strings.Builder
	printDeliveries(&list, []*gatewayv1.Delivery{built, waiting, fresh, {Id: "0", Event: "star"}})
	printDelivery(&one, built)
	for got, want := range map[string]string{
		list.String(): `
RECEIVED             ID        EVENT                REPOSITORY  WHAT BECAME OF IT
2026-11-23 18:02:00  3f2a91c0  pull_request opened  acme/web    built
2026-11-23 18:01:00  77aa      push                 acme/web    not decided after 3 tries, next at 2026-11-23 18:03:00: connection refused
2026-11-23 18:00:00  1         ping                 -           not decided yet
-                    0         star                 -           -
`,
		one.String(): `
delivery    3f2a91c0
event       pull_request opened
repository  acme/web
received    2026-11-23 18:02:00
payload     24000 bytes
trace       4bf92f35
scheduler   built
            build b1
`,
	} {
		if "\n"+got != want {
			t.Errorf("printed\n%swant%s", got, want)
		}
	}
}
