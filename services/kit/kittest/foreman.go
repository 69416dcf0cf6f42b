package kittest

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Foreman is whom the commands of builds ask whether they may go on, from
// wherever they run. He counts how often they begin, each run once, whichever
// way his answer got lost.
type Foreman struct {
	host, port string

	mu    sync.Mutex
	begun map[string]map[string]bool // by build, its runs
	all   bool                       // may go on
	free  map[string]bool            // builds that may
}

// NewForeman answers at this host's address until the test ends.
func NewForeman(t testing.TB, address string) *Foreman {
	t.Helper()
	f := &Foreman{begun: map[string]map[string]bool{}, free: map[string]bool{}}
	f.host, f.port, _ = net.SplitHostPort(ServeAt(t, address, f))
	return f
}

// ServeAt serves at an address of this host, which others than its own processes may
// reach, until the test ends. It returns host and port.
func ServeAt(t testing.TB, address string, handler http.Handler) (hostPort string) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		_ = server.Serve(listener) // it is closed, which is an error to it
		close(served)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return listener.Addr().String()
}

// Script is what a build of busybox runs.
func (f *Foreman) Script() string {
	return fmt.Sprintf(`run=$(cat /proc/sys/kernel/random/uuid)
ask() { printf "GET /$1/$FORGE_BUILD_ID/$run HTTP/1.0\r\n\r\n" | nc -w 5 %s %s | grep -q "$2"; }
until ask begin noted; do sleep 1; done
echo begun
until ask word "go on"; do sleep 1; done
`, f.host, f.port)
}

func (f *Foreman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	question, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	build, run, _ := strings.Cut(rest, "/")
	f.mu.Lock()
	defer f.mu.Unlock()
	switch question {
	case "begin":
		if f.begun[build] == nil {
			f.begun[build] = map[string]bool{}
		}
		f.begun[build][run] = true
		_, _ = fmt.Fprintln(w, "noted")
	case "word":
		if f.all || f.free[build] {
			_, _ = fmt.Fprintln(w, "go on")
		}
	}
}

// Runs is how often the commands of a build have begun.
func (f *Foreman) Runs(build string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.begun[build])
}

// Let has these builds go on.
func (f *Foreman) Let(builds ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, build := range builds {
		f.free[build] = true
	}
}

// LetAll has all builds go on, those to come, too, or takes that back.
func (f *Foreman) LetAll(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = on
}
