package forgexec

import (
	"syscall"
	"time"
)

// changeTime is when a file or what is known of it was changed last.
func changeTime(stat *syscall.Stat_t) time.Time { return time.Unix(stat.Ctim.Unix()) }
