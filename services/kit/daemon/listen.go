package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// maxSocketPath is the room for a path in sockaddr_un on Linux, its final NUL
// left out.
const maxSocketPath = 107

// Listen is net.Listen, without multipath TCP, and with errors that say what to do;
// the caller adds the name of the setting. On "unix" the socket of a dead process is replaced, that
// of a live one is not, and everybody on the machine may connect: what a socket
// lets people do is for the directory's mode and the server to decide.
//
// An address that is taken may be free in a moment: a process that is killed
// while it starts another leaves its listeners to that one until it has begun.
func Listen(ctx context.Context, network, address string) (net.Listener, error) {
	for end := time.Now().Add(takenPatience); ; time.Sleep(takenPause) {
		lis, err := listen(ctx, network, address)
		if _, is := errors.AsType[taken](err); !is || time.Now().After(end) {
			return lis, err
		}
	}
}

const takenPatience, takenPause = time.Second, 20 * time.Millisecond

// taken says that somebody else listens there.
type taken string

func (t taken) Error() string { return string(t) }

func listen(ctx context.Context, network, address string) (net.Listener, error) {
	if network == "unix" {
		return listenUnix(address)
	}
	config := net.ListenConfig{}
	config.SetMultipathTCP(false) // such a socket takes no filters, which a stop that hangs up on nobody needs
	lis, err := config.Listen(ctx, network, address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: %w", address, taken("the port is in use by another process"))
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, reason(err))
	}
	return lis, nil
}

func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, a socket's may have %d at most; choose a shorter directory",
			path, len(path), maxSocketPath)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	lis, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, reason(err))
	}
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // builds of any user connect, as Listen says
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), lis.Close())
	}
	return lis, nil
}

// removeStale removes a socket at path that nobody listens on any more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is no socket is in the way")
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		return errors.Join(taken("another process listens there"), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return reason(err)
	}
	return os.Remove(path)
}

// reason drops the operation and address that package net puts before an error.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
