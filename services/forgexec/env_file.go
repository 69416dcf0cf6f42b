package forgexec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

const (
	envFileEnv = "FORGE_ENV"
	// maxEnvFile is how much steps may write to it, in bytes.
	maxEnvFile = 64 << 10
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// envFile is where steps write variables for those that come after them: lines of
// NAME=value, or a value of several lines between NAME<<END and END.
type envFile struct {
	path string
	set  map[string]string
}

// newEnvFile makes the file beside the workspace: what is unpacked there does not
// reach it.
func newEnvFile(workspace string) (*envFile, error) {
	file, err := os.CreateTemp(filepath.Dir(workspace), ".forge-env-")
	if err != nil {
		file, err = os.CreateTemp("", "forge-env-")
	}
	if err != nil {
		return nil, fmt.Errorf("make the file of %s: %w", envFileEnv, err)
	}
	return &envFile{path: file.Name(), set: map[string]string{}}, file.Close()
}

func (f *envFile) remove() { _ = os.Remove(f.path) }

// read takes up what steps have written so far. Its error is for people; what was
// understood before stays.
func (f *envFile) read() error {
	text, err := readPlainly(f.path)
	if err != nil {
		return err
	}
	set := map[string]string{}
	for n := 0; text != ""; {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		n++
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, isLine := strings.Cut(line, "=")
		if before, end, block := strings.Cut(line, "<<"); block && (!isLine || len(before) < len(name)) {
			var ok bool
			var lines int
			if value, text, lines, ok = until(text, end); !ok || end == "" {
				return fmt.Errorf("%s, line %d: there is no line %q after it, at which the value ends", envFileEnv, n, end)
			}
			name, n = before, n+lines
		} else if !isLine {
			return fmt.Errorf("%s, line %d: expected NAME=value, or NAME<<END and a line END after the value", envFileEnv, n)
		}
		switch {
		case !envName.MatchString(name):
			return fmt.Errorf("%s, line %d: %q cannot be the name of a variable: letters, digits and _, no digit first", envFileEnv, n, name)
		case isOurs(name):
			return fmt.Errorf("%s, line %d: %s is not for steps to set", envFileEnv, n, name)
		}
		set[name] = value
	}
	f.set = set
	return nil
}

// until is the text before the line end, and what comes after it.
func until(text, end string) (value, rest string, lines int, ok bool) {
	var before []string
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		lines++
		if line == end {
			return strings.Join(before, "\n"), text, lines, true
		}
		before = append(before, line)
	}
	return "", "", lines, false
}

// readPlainly reads a file that a step may have replaced by anything: it follows no
// link and waits for nobody.
func readPlainly(path string) (string, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("the file of %s cannot be read: a step removed it, or put something else in its place", envFileEnv)
	}
	defer file.Close() //nolint:errcheck // only read from
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("the file of %s is none any more: a step put something else in its place", envFileEnv)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxEnvFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the file of %s: %w", envFileEnv, err)
	case len(text) > maxEnvFile:
		return "", fmt.Errorf("%s holds more than %d KiB: put large values into files", envFileEnv, maxEnvFile>>10)
	case bytes.IndexByte(text, 0) >= 0:
		return "", errors.New(envFileEnv + " holds a NUL, which no variable can")
	}
	return string(text), nil
}
