package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestWebhooksAreALineEach(t *testing.T) {
	at := func(minute int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 11, 23, 18, minute, 0, 0, time.UTC))
	}
	var out bytes.Buffer
	printWebhooks(&out, []*schedulerv1.OutgoingWebhook{
		{Name: "metrics", Host: "https://metrics.example.com", Sent: 7, SendTime: at(1)},
		{Name: "away", Host: "https://away.example.com", Waiting: 12, Refused: 1, Dropped: 3, Error: "it answered 503", ErrorTime: at(2)},
	})
	for _, want := range []string{"metrics  https://metrics.example.com  7     0        0        0", "away     https://away.example.com     0     12       1        3        -", "it answered 503"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if printWebhooks(&out, nil); !strings.Contains(out.String(), "FORGE_WEBHOOKS_OUT") {
		t.Errorf("%s", out.String())
	}
}
