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
	"unicode/utf8"
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
	text string // as it was last understood
	set  map[string]string
	held map[string]string // what steps do not set, besides what isOurs
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

func (f *envFile) remove() { _ = os.RemoveAll(f.path) }

// read takes up what steps have written so far. Its error is for people; the file is
// then made anew with what was understood before, so that no other step is blamed.
func (f *envFile) read() error {
	text, err := readPlainly(f.path)
	if err == nil {
		var set map[string]string
		if set, err = f.parse(text); err == nil {
			f.text, f.set = text, set
			return nil
		}
	}
	f.restore()
	return err
}

// restore puts the file in the place of whatever is there now. Where it cannot, the
// next step is told what the last was.
func (f *envFile) restore() {
	f.remove()
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	_, _ = file.WriteString(f.text)
	_ = file.Close()
}

func (f *envFile) parse(text string) (map[string]string, error) {
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
				return nil, fmt.Errorf("%s, line %d: there is no line %q after it, at which the value ends", envFileEnv, n, clip(end))
			}
			name, n = before, n+lines
		} else if !isLine {
			return nil, fmt.Errorf("%s, line %d: expected NAME=value, or NAME<<END and a line END after the value", envFileEnv, n)
		}
		switch {
		case !envName.MatchString(name):
			return nil, fmt.Errorf("%s, line %d: %q cannot be the name of a variable: letters, digits and _, no digit first", envFileEnv, n, clip(name))
		case isOurs(name), f.held[name] != "":
			return nil, fmt.Errorf("%s, line %d: %s is not for steps to set", envFileEnv, n, clip(name))
		}
		set[name] = value
	}
	return set, nil
}

// clip is enough of a text to know it by.
func clip(text string) string {
	const most = 100
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
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
	case !utf8.Valid(text): // no report can hand it on
		return "", errors.New(envFileEnv + " holds bytes that are no UTF-8: variables are text")
	}
	return string(text), nil
}
