package kittest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports of tests lie below those that the kernel gives to outgoing connections, one of
// which could take a port before its server does.
const (
	lowestPort = 10_000
	testPorts  = 20_000
)

// FreePort is a port on which nobody listens, and that no other test of this machine is
// given before this one ends.
func FreePort(t testing.TB) int {
	t.Helper()
	port, claim, err := claimPort(lowestPort, testPorts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = claim.Close() })
	return port
}

// FreeAddress is a FreePort of 127.0.0.1.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(t))
}

// claimPort returns one of so many ports from lowest on. It is claimed until the claim is
// closed, or its process has ended: names of Linux's abstract sockets are of one network
// namespace, as ports are, and leave nothing behind.
func claimPort(lowest, ports int) (port int, claim net.Listener, err error) {
	first := rand.IntN(ports)
	for n := range ports {
		port = lowest + (first+n)%ports
		if claim, err = net.Listen("unix", fmt.Sprintf("@forge-test-port-%d", port)); err != nil {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			return port, claim, listener.Close()
		}
		_ = claim.Close()
	}
	return 0, nil, errors.New("no port is free")
}
