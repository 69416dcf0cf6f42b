package forgexec

import (
	"fmt"
	"os"
	"strings"
)

// memoryEvents are where a container sees what became of its own limit, by cgroup
// version 2 and 1. Both have a line "oom_kill N".
// https://docs.kernel.org/admin-guide/cgroup-v2.html
func memoryEvents() []string {
	return []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}
}

// memoryKills is how many processes the kernel has ended at the memory limit so
// far. Outside a container these files count what others do: then it is 0.
func memoryKills(pid int, files []string) (kills int) {
	if pid != 1 {
		return 0
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // the one of the other version is not there
		for line := range strings.Lines(string(text)) {
			if n, _ := fmt.Sscanf(line, "oom_kill %d", &kills); n == 1 {
				return kills
			}
		}
	}
	return 0
}
