package wire_test

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// healthy asks a process for its health as its supervisor does: with its own
// settings, by exit code.
func (p *process) healthy(flags ...string) (said string, err error) {
	said, _, err = p.askHealth(flags...)
	return said, err
}

// askHealth tells how long a processor was busy with that, too.
func (p *process) askHealth(flags ...string) (said string, busy time.Duration, err error) {
	args := append(append([]string{"health"}, flags...), p.args...)
	if p.name == "forge" {
		args = append(append([]string{"health"}, flags...), p.args[1]) // its address; the first is up
	}
	ask := exec.Command(filepath.Join(binDir, p.name), args...)
	ask.Dir, ask.Env = p.dir, p.env
	out, err := ask.CombinedOutput()
	return string(out), ask.ProcessState.UserTime() + ask.ProcessState.SystemTime(), err
}

func TestHealthIsToldByTheExitCode(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true}, {apart: true, certificates: true}} {
		w := newWorld(t, hello())
		w.deploy(t, d)
		for _, p := range w.processes {
			kittest.Eventually(t, patience, func() error {
				_, err := p.healthy()
				return err
			})
			if said, err := p.healthy(); err != nil || said != "" {
				t.Errorf("%s of %v serves and says %q, %v", p.name, d, said, err)
			}
			if said, err := p.healthy("--ready"); err != nil || said != "" {
				t.Errorf("%s of %v is ready and says %q, %v", p.name, d, said, err)
			}
			p.kill()
			if said, err := p.healthy(); err == nil || !strings.Contains(said, "health of 127.0.0.1:") {
				t.Errorf("%s of %v was killed and says %q, %v", p.name, d, said, err)
			}
		}
	}
}

// Whoever supervises a service asks every few seconds.
func TestHealthIsAskedForAtLittleCost(t *testing.T) {
	const most = 50 * time.Millisecond
	w := newWorld(t, hello())
	w.deploy(t, deployment{})
	p := w.process("forge")
	least := time.Hour
	for range 20 {
		_, busy, err := p.askHealth()
		if err != nil {
			t.Fatal(err)
		}
		least = min(least, busy)
	}
	if least > most {
		t.Errorf("forge health takes %v of a processor, more than %v", least, most)
	}
}

// A service whose database is away serves what needs none, and would not be mended
// by a restart. Calls had better go to another one.
func TestReadinessTellsOfADatabaseThatIsAway(t *testing.T) {
	kittest.Require(t, "postgres")
	w := newWorld(t, hello())
	w.deploy(t, deployment{apart: true, postgres: true})
	admin, err := sql.Open("pgx", os.Getenv("TEST_POSTGRES_URL"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	name := ""
	for _, variable := range w.env {
		if value, found := strings.CutPrefix(variable, "FORGE_DATABASE_URL="); found {
			address, err := url.Parse(value)
			if err != nil {
				t.Fatal(err)
			}
			name = strings.TrimPrefix(address.Path, "/")
		}
	}
	admits := func(connections bool) {
		t.Helper()
		if _, err := admin.ExecContext(t.Context(), fmt.Sprintf("ALTER DATABASE %s WITH ALLOW_CONNECTIONS %v", name, connections)); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.ExecContext(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name); err != nil {
			t.Fatal(err)
		}
	}
	ready := func(p *process) {
		t.Helper()
		kittest.Eventually(t, patience, func() error {
			_, err := p.healthy("--ready")
			return err
		})
	}
	for _, p := range w.processes {
		ready(p)
	}
	admits(false)
	for _, p := range w.processes {
		said, err := p.healthy("--ready")
		if without := "not ready: the database of " + p.name + " does not answer"; p.name == "config" {
			if err != nil {
				t.Errorf("config, which has no database, says %q, %v", said, err)
			}
		} else if err == nil || !strings.Contains(said, without) {
			t.Errorf("%s says %q, %v; want %q", p.name, said, err, without)
		}
		if said, err := p.healthy(); err != nil {
			t.Errorf("%s, which serves, says %q, %v", p.name, said, err)
		}
	}
	admits(true)
	for _, p := range w.processes {
		ready(p)
	}
}
