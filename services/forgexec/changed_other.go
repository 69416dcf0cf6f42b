//go:build !linux

package forgexec

import (
	"syscall"
	"time"
)

// changeTime is zero where it is not known, which costs git one look at the file.
func changeTime(*syscall.Stat_t) time.Time { return time.Unix(0, 0) }
