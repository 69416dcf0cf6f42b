package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// strays are the processes that carry the attempt's mark in their environment or
// stand in its folder. Only a forgexec that was killed leaves any.
func (a attempt) strays() ([]int, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var pids []int
	for _, entry := range processes {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// What cannot be read is another user's, or has ended.
		environ, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		folder, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd"))
		marked := strings.Contains("\x00"+string(environ), "\x00"+a.marker()+"\x00")
		if marked || folder == string(a) || strings.HasPrefix(folder, string(a)+"/") {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
