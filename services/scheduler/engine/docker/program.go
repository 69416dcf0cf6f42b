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
	"slices"
)

// program is forgexec, as it is copied into containers.
type program struct {
	path     string
	args     []string
	platform string // os/architecture, as images have it
}

// openProgram refuses what would not start in a container.
func openProgram(command []string) (program, error) {
	if len(command) == 0 {
		return program{}, errors.New("no command line for forgexec")
	}
	p := program{path: command[0], args: command[1:]}
	file, err := elf.Open(p.path)
	if unread, ok := errors.AsType[*fs.PathError](err); ok {
		return program{}, fmt.Errorf("forgexec: %w", unread)
	}
	if err != nil {
		return program{}, fmt.Errorf("forgexec (%s) is no program for Linux, which containers need: build it with GOOS=linux", p.path)
	}
	defer file.Close() //nolint:errcheck // it was not written to
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return program{}, fmt.Errorf("forgexec (%s) is not static and needs libraries that images may not have: build it with CGO_ENABLED=0", p.path)
	}
	architecture := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[file.Machine]
	if architecture == "" {
		return program{}, fmt.Errorf("forgexec (%s) is for %v: Forge runs builds on amd64 and arm64", p.path, file.Machine)
	}
	p.platform = "linux/" + architecture
	return p, nil
}

// archive hands over a tar of the program that is to be unpacked into "/".
func (p program) archive(put func(tar io.Reader) error) error {
	file, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was not written to
	info, err := file.Stat()
	if err != nil {
		return err
	}
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	for _, header := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: path.Base(home) + "/", Mode: 0o1777}, // as /tmp: the image's user makes the workspace
		{Typeflag: tar.TypeReg, Name: programPath[1:], Mode: 0o755, Size: info.Size()},
	} {
		if err := w.WriteHeader(&header); err != nil {
			return err
		}
	}
	// A file fills blocks of 512 bytes; two empty ones are the end.
	tail := make([]byte, -info.Size()&511+1024)
	return put(io.MultiReader(&head, io.LimitReader(file, info.Size()), bytes.NewReader(tail)))
}
