package traceparent_test

import (
	"regexp"
	"testing"

	"github.com/forge-ci/forge/services/kit/traceparent"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestASpanBelowKeepsTheTrace(t *testing.T) {
	step := traceparent.Below(parent, "step 1")
	if !regexp.MustCompile(`^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01$`).MatchString(step) {
		t.Errorf("it is %q", step)
	}
	if traceparent.Below(parent, "step 1") != step || traceparent.SpanID(step) != step[36:52] {
		t.Errorf("it is another one: %q, %q", traceparent.Below(parent, "step 1"), traceparent.SpanID(step))
	}
	for _, other := range []string{parent, traceparent.Below(parent, "step 2"), traceparent.Below(step, "step 1")} {
		if other == step {
			t.Errorf("another span is %q, too", other)
		}
	}
}

func TestBelowNothingIsNothing(t *testing.T) {
	for _, none := range []string{"", "nonsense", "00--b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7-01", "a-b-c-d"} {
		if got := traceparent.Below(none, "step 1"); got != "" {
			t.Errorf("below %q is %q", none, got)
		}
	}
	if got := traceparent.SpanID("nonsense"); got != "" {
		t.Errorf("it has the id %q", got)
	}
}
