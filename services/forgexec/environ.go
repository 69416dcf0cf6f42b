package forgexec

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// commandEnvironment is what commands get of the container's environment.
func commandEnvironment(container []string, workspace string) map[string]string {
	env := variables(container)
	for name := range env {
		if strings.HasPrefix(name, ours) {
			delete(env, name)
		}
	}
	// A shell's notes about itself, which are wrong in another place.
	for _, name := range []string{"PWD", "OLDPWD", "SHLVL", "_"} {
		delete(env, name)
	}
	if env["PATH"] == "" {
		env["PATH"] = defaultPath
	}
	if env["HOME"] == "" {
		env["HOME"] = filepath.Dir(workspace) // it is there and may be written to
	}
	env[workspaceEnv] = workspace
	return env
}

// joined returns NAME=value lines; of one name the last counts.
func joined(all ...map[string]string) []string {
	env := map[string]string{}
	for _, some := range all {
		maps.Copy(env, some)
	}
	lines := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		lines = append(lines, name+"="+env[name])
	}
	return lines
}
