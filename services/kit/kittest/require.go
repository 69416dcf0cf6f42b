package kittest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// need is something outside the repository that some tests want.
type need struct {
	there func() bool
	how   string // to get it
}

func needs(t testing.TB) map[string]need {
	return map[string]need{
		"postgres": {
			func() bool { return os.Getenv("TEST_POSTGRES_URL") != "" },
			"set TEST_POSTGRES_URL to a server where databases may be created, like postgres://postgres@127.0.0.1:5432/postgres",
		},
		"pgbouncer": {
			func() bool { return os.Getenv("TEST_POSTGRES_URL") != "" && pgBouncer() != "" },
			"set TEST_POSTGRES_URL and install pgbouncer",
		},
		"docker": {
			func() bool { return dockerAnswers(t.Context()) },
			"start a Docker engine, or name one in DOCKER_HOST",
		},
		"dockerd": {
			func() bool {
				return os.Geteuid() == 0 && installed("dockerd", "unshare")
			},
			"run as root where dockerd and unshare are: a daemon is started, and killed",
		},
		"buildkitd": {
			func() bool { return os.Geteuid() == 0 && installed("buildkitd", "runc") },
			"run as root where runc is, and run `make test`, or `make .bin/.buildkitd` and add .bin to PATH",
		},
		"swarm": {
			func() bool {
				return os.Geteuid() == 0 && installed("dockerd", "unshare", "nsenter", "ip", "iptables")
			},
			"run as root where dockerd, unshare, nsenter, ip and iptables are: Docker engines are started, each in a network of its own",
		},
		"disk": {
			func() bool { return os.Geteuid() == 0 && runtime.GOOS == "linux" && installed("mount", "umount") },
			"run as root on Linux: a small disk is mounted, and filled",
		},
		"browser": {
			func() bool { return Browser() != "" },
			"install chromium",
		},
		"curl": {
			func() bool { return installed("curl") },
			"install curl",
		},
		"soak": {
			func() bool { return os.Getenv("TEST_SOAK") != "" },
			"run make soak, which takes long",
		},
		"payloads": {
			func() bool { return payloadFolder() != "" },
			"name in TEST_PAYLOADS a folder of what GitHub sent, like pull_request.opened.json",
		},
	}
}

// Require skips the test when the named thing ("postgres", "pgbouncer", "docker",
// "dockerd", "buildkitd", "swarm", "disk", "browser", "soak") is not there, and says how to get it. When the comma-separated TEST_REQUIRE
// names it, the test fails instead.
func Require(t testing.TB, name string) {
	t.Helper()
	what, known := needs(t)[name]
	if !known {
		t.Fatalf("kittest.Require: %q is not known", name)
	}
	if what.there() {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("TEST_REQUIRE"), ","), name) {
		t.Fatalf("TEST_REQUIRE asks for %s, which is not there: %s", name, what.how)
	}
	if err := noteSkip(name, t.Name()); err != nil {
		t.Fatalf("TEST_SKIPS: %v", err)
	}
	t.Skipf("SKIPPED for want of %s: %s", name, what.how)
}

// noteSkip appends one line at once, since packages are tested in parallel.
func noteSkip(name, test string) error {
	path := os.Getenv("TEST_SKIPS")
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s: %s\n", name, test)
	return errors.Join(err, file.Close())
}

func installed(programs ...string) bool {
	return !slices.ContainsFunc(programs, func(name string) bool {
		_, err := exec.LookPath(name)
		return err != nil
	})
}

// Browser is the path of the browser that tests drive, "" for none.
func Browser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func dockerAnswers(ctx context.Context) bool {
	network, address := "unix", "/var/run/docker.sock"
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		network, address, _ = strings.Cut(host, "://")
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
