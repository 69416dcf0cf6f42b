package docker

import (
	"errors"
	"testing"
)

func TestContainersThatWaitTakeATwentiethOfTheFreeMemory(t *testing.T) {
	const gigabyte = int64(1) << 30
	meminfo := func(text string) func() ([]byte, error) {
		return func() ([]byte, error) { return []byte(text), nil }
	}
	available := func(kilobytes string) func() ([]byte, error) {
		return meminfo("MemTotal:       16316412 kB\nMemFree:          123456 kB\nMemAvailable:   " + kilobytes + " kB\nHugePages_Total:       0\n")
	}
	for what, c := range map[string]struct {
		room        room
		asked, want int
	}{
		"much":                            {room{16 * gigabyte, true, available("8388608")}, 4, 4},
		"enough for all":                  {room{16 * gigabyte, true, available("983040")}, 4, 4},
		"a little less":                   {room{16 * gigabyte, true, available("983039")}, 4, 3},
		"hardly any":                      {room{16 * gigabyte, true, available("204800")}, 4, 0},
		"more than the engine has":        {room{gigabyte / 2, true, available("8388608")}, 4, 2},
		"fewer are asked for":             {room{16 * gigabyte, true, available("8388608")}, 1, 1},
		"another machine":                 {room{gigabyte / 2, false, available("8388608")}, 4, 2},
		"this machine does not say":       {room{gigabyte, true, func() ([]byte, error) { return nil, errors.New("no such file") }}, 9, 4},
		"an older kernel":                 {room{gigabyte, true, meminfo("MemFree: 1024 kB\n")}, 9, 4},
		"the engine does not say":         {room{0, false, nil}, 4, 4},
		"the engine does not say, nearby": {room{0, true, available("204800")}, 4, 0},
	} {
		if got := c.room.most(c.asked); got != c.want {
			t.Errorf("%s: %d of %d wait, want %d", what, got, c.asked, c.want)
		}
	}
	for host, local := range map[string]bool{"unix:///var/run/docker.sock": true, "tcp://10.0.0.7:2376": false} {
		if got := roomOf(gigabyte, host); got.local != local {
			t.Errorf("%s is this machine: %v", host, got.local)
		}
	}
}
