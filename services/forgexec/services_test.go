package forgexec

import (
	"net"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestFirstStepWaitsForServices(t *testing.T) {
	address := kittest.FreeAddress(t)
	s := newScheduler(t, "echo ran; env | grep FORGE_RUNNER_AWAIT || echo unseen")
	f := s.forgexec(t, "FORGE_RUNNER_AWAIT=db="+address+",cache="+address+"/30s")
	late, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Close() }()
	f.wantExit(t, exitReported)
	output := string(s.output())
	for _, want := range []string{"service db is ready after ", "service cache is ready after ", "ran\nunseen\n"} {
		if !strings.Contains(output, want) {
			t.Errorf("output %q, without %q", output, want)
		}
	}
}

func TestServiceThatDoesNotListenEndsTheBuildWithoutAStep(t *testing.T) {
	s := newScheduler(t, "echo never")
	f := s.forgexec(t, "FORGE_RUNNER_AWAIT=db=127.0.0.1:1/100ms")
	s.wantStory(t, f, "source 1 entries", "SERVICE_NOT_READY service db did not listen at port 1 within 100ms")
}

func TestServicesThatCannotBeReadAreRefused(t *testing.T) {
	for _, list := range []string{"db", "db=db", "db=db:1/soon"} {
		if services, err := parseServices(list); err == nil || !strings.Contains(err.Error(), "NAME=HOST:PORT") {
			t.Errorf("%s: %v, %v", list, services, err)
		}
	}
	if services, err := parseServices(""); len(services) != 0 || err != nil {
		t.Errorf("none: %v, %v", services, err)
	}
}
