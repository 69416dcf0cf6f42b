package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckPrintsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	good, bad := filepath.Join(dir, "good.yml"), filepath.Join(dir, "bad.yml")
	for path, text := range map[string]string{good: "image: busybox\nexecute: make\n", bad: "image: busybox\nexceute: make\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ file, write, in, out, fails string }{
		{file: good, out: good + ": nothing is wrong\n"},
		{file: bad, out: bad + ":2:1: unknown key \"exceute\", did you mean \"execute\"?\n  2 | exceute: make\n    | ^\n", fails: "bad.yml cannot be built from"},
		{file: "-", in: "image: busybox\nexecute: [make]", out: "standard input: nothing is wrong\n"},
		{file: "-", in: strings.Repeat("\n", 1<<20), out: "standard input:1:1: the file is larger than 256 KiB: " +
			"move long scripts into files of the repository and call them\n", fails: "cannot be built from"},
		{file: filepath.Join(dir, "none.yml"), fails: "none.yml: no such file"},
		{fails: "there is no .forge.yml in this folder"},
		{write: ".forge.yaml", out: ".forge.yaml: nothing is wrong\n"},
		{write: ".forge.yml", fails: "there are .forge.yml and .forge.yaml in this folder: keep one of them"},
	} {
		if c.write != "" {
			if err := os.WriteFile(c.write, []byte("image: busybox\nexecute: make\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var out strings.Builder
		err := check{File: c.file}.run(strings.NewReader(c.in), &out)
		if out.String() != c.out {
			t.Errorf("%s prints\n%swant\n%s", c.file, &out, c.out)
		}
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: error %v, want %q", c.file, err, c.fails)
		}
	}
}
