package gateway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// handshake is the time in which who has begun to connect is through with it: a
// balancer's, which is near.
const handshake = 10 * time.Millisecond

// lastCalls is a listener that accepts, as it closes, who has connected already. To close
// a socket resets those, and GitHub sends no webhook twice by itself.
type lastCalls struct {
	net.Listener

	mu   sync.Mutex
	left []net.Conn
}

func (l *lastCalls) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if !errors.Is(err, net.ErrClosed) {
		return conn, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.left) == 0 {
		return nil, err
	}
	conn, l.left = l.left[0], l.left[1:]
	return conn, nil
}

func (l *lastCalls) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if socket, ok := l.Listener.(syscall.Conn); ok {
		if raw, err := socket.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // it fails where the socket is closed
				deafen(int(fd))
				time.Sleep(handshake)
				l.left = accepted(int(fd))
			})
		}
	}
	return l.Listener.Close()
}

// accepted are the connections that wait at a socket, which blocks nobody.
func accepted(socket int) (conns []net.Conn) {
	for {
		fd, _, err := syscall.Accept(socket)
		if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ECONNABORTED) {
			continue
		}
		if err != nil {
			return conns // EAGAIN: there is no other
		}
		syscall.CloseOnExec(fd)
		file := os.NewFile(uintptr(fd), fmt.Sprintf("connection %d", fd))
		if conn, err := net.FileConn(file); err == nil {
			conns = append(conns, conn)
		}
		_ = file.Close() // the connection has a descriptor of its own
	}
}
