package kittest

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a name server that knows the IPv4 addresses of one name, whatever it is
// asked for.
type DNS struct {
	conn net.PacketConn

	mu        sync.Mutex
	addresses []netip.Addr
}

// NewDNS starts one that answers until the test ends.
func NewDNS(t testing.TB, addresses ...string) *DNS {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &DNS{conn: conn}
	d.Set(addresses...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.serve()
	}()
	t.Cleanup(func() {
		_ = conn.Close() // ends serve
		<-done
	})
	return d
}

// Address is where it answers, host:port.
func (d *DNS) Address() string { return d.conn.LocalAddr().String() }

// Set says what it answers from now on.
func (d *DNS) Set(addresses ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses = nil
	for _, address := range addresses {
		d.addresses = append(d.addresses, netip.MustParseAddr(address))
	}
}

func (d *DNS) serve() {
	packet := make([]byte, 1<<10)
	for {
		n, from, err := d.conn.ReadFrom(packet)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if query.Unpack(packet[:n]) != nil || len(query.Questions) != 1 {
			continue
		}
		if answer, err := d.answer(query); err == nil {
			_, _ = d.conn.WriteTo(answer, from) // who does not hear it asks again
		}
	}
}

func (d *DNS) answer(query dnsmessage.Message) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked := query.Questions[0]
	answer := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true},
		Questions: query.Questions,
	}
	for _, address := range d.addresses {
		if asked.Type == dnsmessage.TypeA {
			answer.Answers = append(answer.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET},
				Body:   &dnsmessage.AResource{A: address.As4()},
			})
		}
	}
	return answer.Pack()
}
