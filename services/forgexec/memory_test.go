package forgexec

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKillsAtTheMemoryLimitAreCounted(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	two := write("memory.events", "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n")
	one := write("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
	for _, c := range []struct {
		pid   int
		files []string
		want  int
	}{
		{1, []string{two, "/nonexistent"}, 2},
		{1, []string{"/nonexistent", one}, 3},
		{1, []string{"/nonexistent"}, 0},
		{17, []string{two}, 0},
	} {
		if got := memoryKills(c.pid, c.files); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
