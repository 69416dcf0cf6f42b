package docker

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

const (
	// waitingMemory is what one container that waits takes (RSS, measured).
	waitingMemory = 12 << 20
	// waitingShare is the part of the free memory that all of them may take: 5 %.
	waitingShare = 20
)

// room is the memory for containers that wait.
type room struct {
	total int64                  // of the Docker engine's machine; 0 where it does not say
	local bool                   // that is this machine
	read  func() ([]byte, error) // this machine's /proc/meminfo
}

func roomOf(total int64, host string) room {
	return room{total: total, local: strings.HasPrefix(host, "unix://"), read: func() ([]byte, error) { return os.ReadFile("/proc/meminfo") }}
}

// free is how many bytes are, as far as anybody says: on another machine, what it has.
// false: nobody does.
func (r room) free() (bytes int64, known bool) {
	if r.local {
		if meminfo, err := r.read(); err == nil {
			available, found := memAvailable(meminfo)
			if found && r.total > 0 {
				available = min(available, r.total)
			}
			if found {
				return available, true
			}
		}
	}
	return r.total, r.total > 0
}

// most is how many containers may wait of so many.
func (r room) most(asked int) int {
	free, known := r.free()
	if !known {
		return asked
	}
	return min(asked, int(free/waitingShare/waitingMemory))
}

// memAvailable is what proc(5) calls MemAvailable, in bytes.
func memAvailable(meminfo []byte) (available int64, found bool) {
	for line := range bytes.Lines(meminfo) {
		fields := strings.Fields(string(line))
		if len(fields) == 3 && fields[0] == "MemAvailable:" && fields[2] == "kB" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			return kilobytes << 10, err == nil
		}
	}
	return 0, false
}
