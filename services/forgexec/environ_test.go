package forgexec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHomeIsAFolderThatCanBeWrittenTo(t *testing.T) {
	dir := t.TempDir()
	workspace := filepath.Join(dir, "workspace")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "home")
	for home, want := range map[string]string{
		dir: dir, "": own, "/nonexistent": own, file: own, ".": own,
	} {
		got := commandEnvironment([]string{"HOME=" + home}, workspace)["HOME"]
		if got != want {
			t.Errorf("HOME=%s: commands get %s, want %s", home, got, want)
		}
		if err := os.WriteFile(filepath.Join(got, "mine"), nil, 0o600); err != nil {
			t.Errorf("HOME=%s: %v", home, err)
		}
	}
}

func TestHomeIsAboveTheWorkspaceWhereNoneCanBeMade(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "home"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := usableHome("/nonexistent", filepath.Join(dir, "workspace")); got != dir {
		t.Errorf("got %s, want %s", got, dir)
	}
}

func TestTokenComesAsALine(t *testing.T) {
	for in, want := range map[string]string{"abc\n": "abc", "abc\nrest": "abc", "": "", "abc": "", strings.Repeat("a", 2<<10) + "\n": ""} {
		got, err := awaitToken(strings.NewReader(in))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: %q, %v", in, got, err)
		}
	}
}
