package forgexec

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	env["HOME"] = usableHome(env["HOME"], workspace)
	env[workspaceEnv] = workspace
	return env
}

// usableHome returns home if commands can write there, else a folder beside the
// workspace that it makes. A container's user without an entry in /etc/passwd has
// the home "/", and that of "nobody" does not exist: npm, go and pip fail there.
func usableHome(home, workspace string) string {
	if writable(home) {
		return home
	}
	own := filepath.Join(filepath.Dir(workspace), "home")
	if err := os.Mkdir(own, 0o700); err != nil && !writable(own) {
		return filepath.Dir(workspace)
	}
	return own
}

// writable reports whether this process may make files in the folder.
func writable(folder string) bool {
	const write, search = 2, 1 // W_OK and X_OK of access(2)
	info, err := os.Stat(folder)
	return err == nil && info.IsDir() && filepath.IsAbs(folder) && syscall.Access(folder, write|search) == nil
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
