package engine

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/forge-ci/forge/services/scheduler"
	"github.com/forge-ci/forge/services/scheduler/engine/process"
)

// config is what any engine may need.
type config struct {
	dataDir  string
	forgexec []string
	log      *slog.Logger
}

// engines is every engine, by the name it is set by.
func engines() []struct {
	name string
	make func(config) (scheduler.Engine, error)
} {
	return []struct {
		name string
		make func(config) (scheduler.Engine, error)
	}{
		{"process", func(c config) (scheduler.Engine, error) {
			return process.New(process.Config{Dir: filepath.Join(c.dataDir, "process"), Forgexec: c.forgexec, Log: c.log})
		}},
	}
}

// Names lists the engines for people.
func Names() string {
	var names []string
	for _, e := range engines() {
		names = append(names, e.name)
	}
	return strings.Join(names, ", ")
}

// New makes the engine of that name, which keeps what it must in dataDir.
func New(name, dataDir string, log *slog.Logger) (scheduler.Engine, error) {
	for _, e := range engines() {
		if e.name != name {
			continue
		}
		path, args, err := Forgexec()
		if err != nil {
			return nil, err
		}
		made, err := e.make(config{dataDir: dataDir, forgexec: append([]string{path}, args...), log: log})
		if err != nil {
			return nil, fmt.Errorf("engine %s (FORGE_ENGINE): %w", name, err)
		}
		return made, nil
	}
	return nil, fmt.Errorf("FORGE_ENGINE is %q: use %s", name, Names())
}
