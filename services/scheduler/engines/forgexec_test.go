package engines

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestForgexecIsFoundBesideTheExecutableOrInForge(t *testing.T) {
	for _, c := range []struct {
		self     string
		forgexec os.FileMode // 0: none there
		want     []string    // nil: an error
	}{
		{self: "forge", forgexec: 0o755, want: []string{"forgexec"}},
		{self: "scheduler", forgexec: 0o755, want: []string{"forgexec"}},
		{self: "forge", want: []string{"forge", "forgexec"}},
		{self: "forge-linux-amd64", want: []string{"forge-linux-amd64", "forgexec"}},
		{self: "forge", forgexec: 0o644, want: []string{"forge", "forgexec"}}, // not a program
		{self: "scheduler"},
		{self: "scheduler", forgexec: 0o644},
		{self: "forgery"},
	} {
		dir := t.TempDir()
		if c.forgexec != 0 {
			if err := os.WriteFile(filepath.Join(dir, "forgexec"), nil, c.forgexec); err != nil {
				t.Fatal(err)
			}
		}
		path, args, err := beside(filepath.Join(dir, c.self))
		if c.want == nil {
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "forgexec")) {
				t.Errorf("%+v: got %s %v and error %v, want an error that names the place", c, path, args, err)
			}
			continue
		}
		got := append([]string{strings.TrimPrefix(path, dir+"/")}, args...)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, %v", c, got, err)
		}
	}
}

func TestAnExecutableWithoutForgexecSaysWhatToDo(t *testing.T) {
	if _, _, err := Forgexec(); err == nil || !strings.Contains(err.Error(), "put forgexec") {
		t.Errorf("got %v", err) // a test binary is not forge
	}
}
