package wire_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// healthy asks a process for its health as its supervisor does: with its own
// settings, by exit code.
func (p *process) healthy() (said string, err error) {
	args := append([]string{"health"}, p.args...)
	if p.name == "forge" {
		args = append([]string{"health"}, p.args[1]) // its address; the first is up
	}
	ask := exec.Command(filepath.Join(binDir, p.name), args...)
	ask.Dir, ask.Env = p.dir, p.env
	out, err := ask.CombinedOutput()
	return string(out), err
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
			p.kill()
			if said, err := p.healthy(); err == nil || !strings.Contains(said, "health of 127.0.0.1:") {
				t.Errorf("%s of %v was killed and says %q, %v", p.name, d, said, err)
			}
		}
	}
}
