package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	testv1 "google.golang.org/grpc/interop/grpc_testing"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// replicas are servers at one port of several addresses.
type replicas struct {
	target string // a name that leads to them
	dns    *kittest.DNS
	port   int
	served [3]atomic.Int64 // calls
	stop   [3]func() error
}

// address is that of a replica, by its number.
func address(n int) string { return fmt.Sprintf("127.0.0.%d", n+1) }

// newReplicas serves the first two, and has the name lead there.
func newReplicas(t *testing.T, cfg rpc.Config) *replicas {
	t.Helper()
	cfg.Access = public
	first := onTCP(t)
	r := &replicas{port: first.Addr().(*net.TCPAddr).Port, dns: kittest.NewDNS(t, address(0), address(1))}
	r.target = fmt.Sprintf("dns://%s/replicas.test:%d", r.dns.Address(), r.port)
	r.serve(t, cfg, 0, first)
	r.serve(t, cfg, 1, r.listen(t, 1))
	return r
}

func (r *replicas) listen(t *testing.T, n int) net.Listener {
	t.Helper()
	return listen(t, "tcp", fmt.Sprintf("%s:%d", address(n), r.port))
}

func (r *replicas) serve(t *testing.T, cfg rpc.Config, n int, lis net.Listener) {
	t.Helper()
	cfg.Access = public
	r.stop[n] = serve(t, cfg, func(context.Context) error {
		r.served[n].Add(1)
		return nil
	}, lis)
}

func TestCallsSpreadOverReplicas(t *testing.T) {
	r := newReplicas(t, rpc.Config{})
	r.dns.Set(address(0), address(1), address(2))
	r.serve(t, rpc.Config{}, 2, r.listen(t, 2))
	conn := dial(t, r.target, rpc.Peer{Patience: time.Minute})
	kittest.Eventually(t, time.Minute, func() error {
		if err := calls["unary"](t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		for n := range r.served {
			if r.served[n].Load() == 0 {
				return fmt.Errorf("replica %d is not connected yet", n)
			}
		}
		return nil
	})
	const all = 300
	before := [3]int64{r.served[0].Load(), r.served[1].Load(), r.served[2].Load()}
	for range all {
		if err := calls["unary"](t.Context(), conn); err != nil {
			t.Fatal(err)
		}
	}
	for n := range r.served {
		if got := r.served[n].Load() - before[n]; got < all/5 {
			t.Errorf("replica %d served %d calls of %d", n, got, all)
		}
	}
}

// No call fails where replicas stop, and where the only one is started again.
func TestReplicasComeAndGo(t *testing.T) {
	r := newReplicas(t, rpc.Config{Age: 100 * time.Millisecond})
	conn := dial(t, r.target, rpc.Peer{Patience: time.Minute})
	callUntil := func(n int) {
		t.Helper()
		kittest.Eventually(t, time.Minute, func() error {
			for range 10 {
				if err := calls["unary"](t.Context(), conn); err != nil {
					t.Fatal(err)
				}
			}
			if r.served[n].Load() == 0 {
				return fmt.Errorf("replica %d is not called", n)
			}
			return nil
		})
	}
	callUntil(0)
	callUntil(1)
	if err := r.stop[0](); err != nil {
		t.Fatal(err)
	}
	r.served[1].Store(0)
	callUntil(1)
	if err := r.stop[1](); err != nil {
		t.Fatal(err)
	}
	called := make(chan error, 1)
	go func() { called <- calls["unary"](t.Context(), conn) }()
	r.served[0].Store(0)
	r.serve(t, rpc.Config{}, 0, r.listen(t, 0))
	if err := <-called; err != nil {
		t.Errorf("a call while the only replica started: %v", err)
	}
	callUntil(0)
}

func TestCallsWaitForAServerAsLongAsTheirPeerIsPatient(t *testing.T) {
	t.Parallel()
	const nobody, patience = "127.0.0.1:1", time.Second
	for shape, call := range calls {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			err := call(t.Context(), dial(t, nobody, rpc.Peer{Patience: patience}))
			if took := time.Since(begin); took < patience || !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "refused") {
				t.Errorf("after %s: %v", took, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			begin = time.Now()
			err = call(ctx, dial(t, nobody, rpc.Peer{Patience: time.Hour}))
			if took := time.Since(begin); took > time.Minute || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a deadline, after %s: %v", took, err)
			}
			begin = time.Now()
			err = call(t.Context(), dial(t, nobody, rpc.Peer{}))
			if took := time.Since(begin); took > time.Minute || !fault.Is(err, fault.Unavailable) {
				t.Errorf("without patience, after %s: %v", took, err)
			}
		})
	}
}

// Who makes a connection anew loses nothing that goes on over the old one.
func TestAStreamOutlivesTheAgeOfItsConnection(t *testing.T) {
	const age = 2 * time.Second
	aged := make(chan struct{})
	accepted := &counting{Listener: onTCP(t)}
	serve(t, rpc.Config{Access: public, Age: age}, func(ctx context.Context) error {
		select {
		case <-aged:
			return ctx.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}, accepted)
	conn := dial(t, accepted.Addr().String(), rpc.Peer{})
	stream, err := testv1.NewTestServiceClient(conn).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		ended <- err
	}()
	kittest.Eventually(t, time.Minute, func() error {
		select {
		case err := <-ended:
			t.Fatalf("the stream ended with its connection: %v", err)
		default:
		}
		if made := accepted.made.Load(); made < 3 {
			return fmt.Errorf("%d connections were made", made)
		}
		return nil
	})
	close(aged)
	if err := <-ended; err == nil || err.Error() != "EOF" {
		t.Errorf("the stream ended with %v", err)
	}
}

// counting counts the connections that are made.
type counting struct {
	net.Listener
	made atomic.Int64
}

func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.made.Add(1)
	}
	return conn, err
}
