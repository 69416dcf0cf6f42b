package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/forge-ci/forge/services/kit/fault"
)

func TestKindOfLooksThroughWrapping(t *testing.T) {
	notFound := fault.New(fault.NotFound, "no build b1")
	for name, c := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"none":                        {errors.New("disk full"), fault.Internal},
		"nil":                         {nil, fault.Internal},
		"own":                         {notFound, fault.NotFound},
		"wrapped":                     {fmt.Errorf("show build: %w", notFound), fault.NotFound},
		"joined":                      {errors.Join(errors.New("close"), notFound), fault.NotFound},
		"outermost wins":              {fault.Newf(fault.Conflict, "retry: %w", notFound), fault.Conflict},
		"made internal again":         {fault.Newf(fault.Internal, "corrupt row: %w", notFound), fault.Internal},
		"deadline":                    {fmt.Errorf("ask GitHub: %w", context.DeadlineExceeded), fault.Unavailable},
		"deadline with another kind":  {fault.Newf(fault.Exhausted, "rate: %w", context.DeadlineExceeded), fault.Exhausted},
		"cancelled is nobody's fault": {context.Canceled, fault.Internal},
	} {
		if got := fault.KindOf(c.err); got != c.want {
			t.Errorf("%s: KindOf(%v) = %s, want %s", name, c.err, got, c.want)
		}
	}
}

func TestNoErrorIsOfNoKind(t *testing.T) {
	if fault.Is(nil, fault.Internal) {
		t.Error("nil is Internal")
	}
	if !fault.Is(errors.New("disk full"), fault.Internal) {
		t.Error("an error without a kind is not Internal")
	}
}

func TestNewfKeepsTextAndCause(t *testing.T) {
	cause := errors.New("connection refused")
	err := fault.Newf(fault.Unavailable, "ask %s: %w", "config", cause)
	if err.Error() != "ask config: connection refused" {
		t.Errorf("text: %q", err)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
}
