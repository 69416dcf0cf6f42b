package forgexec

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestAwaitReturnsWhenAnyOfTheAddressesAnswers(t *testing.T) {
	late := kittest.FreeAddress(t)
	done := make(chan int, 1)
	go func() {
		done <- Main(t.Context(), []string{"--await", "127.0.0.1:1", "--await", late}, nil, nil, io.Discard, io.Discard)
	}()
	select {
	case code := <-done:
		t.Fatalf("exit %d while nothing answers", code)
	default:
	}
	server, err := net.Listen("tcp", late)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	if code := <-done; code != 0 {
		t.Errorf("exit %d", code)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if code := Main(ended, []string{"--await", "127.0.0.1:1"}, nil, nil, io.Discard, io.Discard); code != exitFailed {
		t.Errorf("exit %d where nothing ever answers", code)
	}
}
