package attempt

import (
	"testing"
	"time"
)

func TestStartGetsTheTimeThatIsLeft(t *testing.T) {
	for _, c := range []struct{ timeout, over, want time.Duration }{
		{15 * time.Minute, 0, 15 * time.Minute},
		{15 * time.Minute, 5 * time.Minute, 10 * time.Minute},
		{15 * time.Minute, time.Hour, startLeast},
		{time.Second, time.Hour, time.Second},
	} {
		if got := startWithin(c.timeout, c.over); got != c.want {
			t.Errorf("%v, of which %v are over: %v, want %v", c.timeout, c.over, got, c.want)
		}
	}
}
