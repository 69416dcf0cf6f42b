package forgexec

import (
	"context"
	"net"
	"time"
)

// await returns when one of the addresses takes a connection, or with the error
// of the last try when none has for long: who waits for this may be gone.
func await(ctx context.Context, addresses []string) error {
	const within, often, patience = 10 * time.Minute, 50 * time.Millisecond, time.Second
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	dialer := net.Dialer{Timeout: patience}
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		var err error
		for _, address := range addresses {
			var conn net.Conn
			if conn, err = dialer.DialContext(ctx, "tcp", address); err == nil {
				return conn.Close()
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
