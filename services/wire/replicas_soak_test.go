package wire_test

import (
	"cmp"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
)

const (
	stormLasts  = 5 * time.Minute
	strikeEvery = 2 * time.Second
)

// Three replicas of each service take a hundred deliveries a second, and pull requests
// that are built, for five minutes while every two seconds one process of any kind is
// killed. Nothing that was accepted is lost or decided twice, no command runs twice and
// GitHub shows what is true in the end. TEST_RATE is another number of deliveries a
// second, TEST_LASTS another time.
func TestSoakThreeReplicasOfEachAreKilledUnderLoad(t *testing.T) {
	kittest.Require(t, "soak")
	rate, err := strconv.Atoi(cmp.Or(os.Getenv("TEST_RATE"), "100"))
	if err != nil || rate < 1 {
		t.Fatalf("TEST_RATE is a number of deliveries a second, not %q", os.Getenv("TEST_RATE"))
	}
	lasts, err := time.ParseDuration(cmp.Or(os.Getenv("TEST_LASTS"), stormLasts.String()))
	if err != nil {
		t.Fatalf("TEST_LASTS: %v", err)
	}
	replicasAreKilled(t, lasts, rate)
}

// The same, as short as it means something: 300 deliveries and five kills.
func TestThreeReplicasOfEachAreKilledUnderLoad(t *testing.T) {
	replicasAreKilled(t, 10*time.Second, 30)
}

func replicasAreKilled(t *testing.T, lasts time.Duration, rate int) {
	t.Helper()
	kittest.Require(t, "postgres")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := newStorm(t, deployment{apart: true, postgres: true, replicas: 3}, seed)
	begin := time.Now()
	rain, stop := s.rain(rate)
	strikes := time.NewTicker(strikeEvery)
	defer strikes.Stop()
	for time.Since(begin) < lasts {
		s.work()
		<-strikes.C
		s.strikeOne()
	}
	stop()
	raged := time.Since(begin)
	s.calm()
	t.Logf("%d pull requests and %d other deliveries, %.0f a second, %d of them sent again, %d kills in %v, calm after another %v", len(s.proposals),
		len(rain.accepted), float64(len(rain.accepted))/raged.Seconds(), rain.again.Load(), s.kills, raged.Round(time.Second), (time.Since(begin) - raged).Round(time.Second))
	rain.isKnown()
	s.everyDeliveryIsDecided()
	builds := s.everyBuildIsRight()
	s.everyCommandRanOnce(builds)
	s.nothingIsLeft()
}

// strikeOne kills one process of any kind and starts it again at once.
func (s *storm) strikeOne() {
	p := s.processes[s.random.IntN(len(s.processes))]
	select {
	case <-p.exited:
		s.t.Fatalf("%s ended by itself: %v\n%s", p.name, p.err, p.output)
	default:
	}
	p.kill()
	s.kills++
	p.begin(s.t)
}
