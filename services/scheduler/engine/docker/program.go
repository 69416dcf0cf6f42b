package docker

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// program is forgexec, as it is brought into containers.
type program struct {
	path     string
	args     []string
	platform string // os/architecture, as images have it

	mu     sync.Mutex
	placed map[string]fs.FileInfo // by folder
}

// openProgram refuses what would not start in a container.
func openProgram(command []string) (*program, error) {
	if len(command) == 0 {
		return nil, errors.New("no command line for forgexec")
	}
	p := &program{path: command[0], args: command[1:], placed: map[string]fs.FileInfo{}}
	file, err := elf.Open(p.path)
	if unread, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("forgexec: %w", unread)
	}
	if err != nil {
		return nil, fmt.Errorf("forgexec (%s) is no program for Linux, which containers need: build it with GOOS=linux", p.path)
	}
	defer file.Close() //nolint:errcheck // it was not written to
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, fmt.Errorf("forgexec (%s) is not static and needs libraries that images may not have: build it with CGO_ENABLED=0", p.path)
	}
	architecture := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[file.Machine]
	if architecture == "" {
		return nil, fmt.Errorf("forgexec (%s) is for %v: Forge runs builds on amd64 and arm64", p.path, file.Machine)
	}
	p.platform = "linux/" + architecture
	return p, nil
}

// archive hands over a tar of a folder that anybody may write to, and of the program
// in it if it is wanted.
func (p *program) archive(folder string, program bool, put func(tar io.Reader) error) error {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	// As /tmp: the image's user makes the workspace.
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: 0o1777}); err != nil {
		return err
	}
	if !program {
		if err := w.Close(); err != nil {
			return err
		}
		return put(&head)
	}
	file, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was not written to
	info, err := file.Stat()
	if err != nil {
		return err
	}
	name := path.Join(folder, programName)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	// A file fills blocks of 512 bytes; two empty ones are the end.
	tail := make([]byte, -info.Size()&511+1024)
	return put(io.MultiReader(&head, io.LimitReader(file, info.Size()), bytes.NewReader(tail)))
}

// isProgram reports whether a file is one that place makes.
func isProgram(name string) bool { return name == programName || strings.HasPrefix(name, unfinished) }

// unfinished begins the names of copies under way.
const unfinished = ".forgexec-"

// place puts the program into a folder, for containers that see it. What runs from
// a copy of another version runs on.
func (p *program) place(dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	target := filepath.Join(dir, programName)
	if found, err := os.Stat(target); err == nil && p.placed[dir] != nil && os.SameFile(found, p.placed[dir]) {
		return nil
	}
	if err := runnable(dir); err != nil {
		return err
	}
	source, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer source.Close()                                         //nolint:errcheck // it was not written to
	left, _ := filepath.Glob(filepath.Join(dir, unfinished+"*")) // by one that was killed; the pattern is right
	for _, file := range left {
		_ = os.Remove(file)
	}
	copied, err := os.CreateTemp(dir, unfinished+"*")
	if err != nil {
		return err
	}
	defer os.Remove(copied.Name()) //nolint:errcheck // it has its name by then
	_, err = io.Copy(copied, source)
	err = errors.Join(err, copied.Chmod(0o755), copied.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(copied.Name(), target); err != nil {
		return err
	}
	p.placed[dir], err = os.Stat(target)
	return err
}
