package kittest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer runs PgBouncer before a database until the test ends, and returns the
// URL that leads through it. It has two connections to the server and lends them
// for one transaction at a time. It needs Require(t, "pgbouncer") before.
func PgBouncer(t testing.TB, database string) string {
	t.Helper()
	server, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	_ = lis.Close() // PgBouncer takes it over
	target := fmt.Sprintf("host=%s port=%d user=%s", server.Host, server.Port, server.User)
	if server.Password != "" {
		target += " password='" + strings.ReplaceAll(server.Password, "'", "''") + "'"
	}
	ini := filepath.Join(t.TempDir(), "pgbouncer.ini")
	if err := os.WriteFile(ini, fmt.Appendf(nil, `[databases]
* = %s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
`, target, port), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{ini}
	if os.Geteuid() == 0 {
		args = []string{"-u", "nobody", ini} // it does not run as root
	}
	said := &strings.Builder{}
	process := exec.CommandContext(context.WithoutCancel(t.Context()), pgBouncer(), args...)
	process.Stdout, process.Stderr = said, said
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = process.Wait() // it ends by a signal
		close(exited)
	}()
	t.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM) // it may have ended
		<-exited
		if t.Failed() {
			t.Logf("PgBouncer said:\n%s", said)
		}
	})
	through := url.URL{Scheme: "postgres", User: url.User(server.User), Host: "127.0.0.1:" + port, Path: "/" + server.Database, RawQuery: "sslmode=disable"}
	db, err := sql.Open("pgx", through.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	Eventually(t, 10*time.Second, func() error { return db.PingContext(t.Context()) })
	return through.String()
}

// pgBouncer is the path of PgBouncer, "" for none. Debian has it where the PATH of
// people does not lead.
func pgBouncer() string {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}
