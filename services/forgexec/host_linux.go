package forgexec

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// keepToOurselves keeps the token from the commands (a process that is not
// dumpable has no readable environment in /proc) and makes their orphans ours.
// Both are as good as the kernel allows; nothing depends on them for being right.
func keepToOurselves() {
	closeOnExec()
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// children are the processes whose parent this is.
func children() []int {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close() //nolint:errcheck // it was not written to
	names, _ := proc.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		// proc(5): pid (name) state parent …; the name may hold anything.
		var state rune
		var parent int
		_, err = fmt.Sscanf(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " %c %d", &state, &parent)
		if err == nil && parent == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// pipeSize is within what anybody may ask for, 1 MiB.
const pipeSize = 512 << 10

// enlarge has a pipe take more before its writer waits for its reader: both get
// further each time they run. Where that is not granted the pipe stays as it is.
func enlarge(pipe *os.File) {
	if raw, err := pipe.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}
