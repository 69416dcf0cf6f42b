package kittest

import (
	"net"
	"slices"
	"strconv"
	"testing"
)

func TestNoTwoTestsHaveAPort(t *testing.T) {
	const lowest, ports = 31_000, 4 // FreePort gives none of these
	busy, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(lowest+1))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	claims := map[int]net.Listener{}
	for range ports - 1 {
		port, claim, err := claimPort(lowest, ports)
		if err != nil {
			t.Fatal(err)
		}
		defer claim.Close()
		if claims[port] != nil || port == lowest+1 || port < lowest || port >= lowest+ports {
			t.Errorf("port %d is given, after %v", port, claims)
		}
		claims[port] = claim
	}
	if port, _, err := claimPort(lowest, ports); err == nil {
		t.Errorf("port %d is given once more", port)
	}
	claims[lowest+2].Close()
	if port, claim, err := claimPort(lowest, ports); err != nil || port != lowest+2 {
		t.Errorf("given back was %d, given is %d: %v", lowest+2, port, err)
	} else {
		claim.Close()
	}
}

func TestAFreePortIsOneThatAServerCanHave(t *testing.T) {
	var ports []int
	for range 50 {
		port := FreePort(t)
		if slices.Contains(ports, port) {
			t.Errorf("port %d is given twice", port)
		}
		ports = append(ports, port)
	}
	server, err := net.Listen("tcp", FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
}
