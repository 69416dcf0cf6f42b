package docker

import (
	"fmt"
	"syscall"
)

// runnable is an error where no program may run from a folder, in a container that
// it is mounted into no more than here.
func runnable(dir string) error {
	const noExec = 0x8 // ST_NOEXEC
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if stat.Flags&noExec != 0 {
		return fmt.Errorf("%s is mounted noexec", dir)
	}
	return nil
}
