// Package engines is the table of all engines: it makes the one that is set, and
// finds forgexec for it.
package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Forgexec finds what runs inside builds: the program forgexec beside this
// executable, else this executable with the argument "forgexec", if it is forge.
func Forgexec() (path string, args []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, fmt.Errorf("find forgexec: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", nil, fmt.Errorf("find forgexec: %w", err)
	}
	return beside(self)
}

func beside(self string) (path string, args []string, err error) {
	path = filepath.Join(filepath.Dir(self), "forgexec")
	if found, err := exec.LookPath(path); err == nil {
		return found, nil, nil
	}
	if name := filepath.Base(self); name == "forge" || strings.HasPrefix(name, "forge-") {
		return self, []string{"forgexec"}, nil
	}
	return "", nil, fmt.Errorf("there is no program %s, which runs inside builds: put forgexec of the same version there", path)
}
