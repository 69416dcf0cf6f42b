package daemon_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	lis, err := daemon.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	return lis
}

func refused(t *testing.T, network, address, want string) {
	t.Helper()
	lis, err := daemon.Listen(t.Context(), network, address)
	if err == nil {
		lis.Close()
		t.Fatalf("listening on %s went well, want: %s", address, want)
	}
	if got := err.Error(); !strings.HasPrefix(got, "listen on "+address+": ") || !strings.Contains(got, want) {
		t.Errorf("got:  %s\nwant: listen on %s: … %s", got, address, want)
	}
}

func TestPortInUseIsNamed(t *testing.T) {
	holder := listen(t, "tcp", "127.0.0.1:0")
	refused(t, "tcp", holder.Addr().String(), "the port is in use by another process")
}

func TestAddressThatIsFreeInAMomentIsWaitedFor(t *testing.T) {
	for network, address := range map[string]string{"tcp": kittest.FreeAddress(t), "unix": filepath.Join(t.TempDir(), "s")} {
		holder := listen(t, network, address)
		time.AfterFunc(50*time.Millisecond, func() { holder.Close() })
		listen(t, network, address)
	}
}

func TestUnknownHostIsNamed(t *testing.T) {
	refused(t, "tcp", "nowhere.invalid:1", "nowhere.invalid")
}

func TestSocketIsOpenToEveryUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listen(t, "unix", path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o666 {
		t.Errorf("mode %o, want 666", got)
	}
}

func TestSocketOfADeadProcessIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead := listen(t, "unix", path).(*net.UnixListener)
	dead.SetUnlinkOnClose(false) // as SIGKILL leaves it
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	listen(t, "unix", path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("nobody answers on the new socket: %v", err)
	}
	conn.Close()
}

func TestSocketOfALiveProcessIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listen(t, "unix", path)
	refused(t, "unix", path, "another process listens there")
}

func TestFileInTheWayOfASocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, "unix", path, "a file that is no socket is in the way")
	if content, err := os.ReadFile(path); err != nil || string(content) != "precious" {
		t.Errorf("the file is now %q, %v", content, err)
	}
}

func TestSocketPathHasAGreatestLength(t *testing.T) {
	dir := t.TempDir()
	longest := filepath.Join(dir, strings.Repeat("s", 107-len(dir)-1))
	listen(t, "unix", longest)
	refused(t, "unix", longest+"s", "108 bytes, a socket's may have 107 at most")
}

func TestSocketInAMissingDirectory(t *testing.T) {
	refused(t, "unix", filepath.Join(t.TempDir(), "gone", "s"), "no such file or directory")
}
