package web

import (
	"strings"
	"testing"
)

// A block of the sheet that is not closed would hold all that comes after it, and a
// browser says nothing.
func TestSheetIsClosed(t *testing.T) {
	sheet, err := pageFiles.ReadFile("page/forge.css")
	if err != nil {
		t.Fatal(err)
	}
	depth := 0
	for n, line := range strings.Split(string(sheet), "\n") {
		if strings.HasPrefix(line, "/*") && depth != 0 {
			t.Errorf("line %d begins a section within a block", n+1)
		}
		depth += strings.Count(line, "{") - strings.Count(line, "}")
	}
	if depth != 0 {
		t.Errorf("%d blocks are not closed", depth)
	}
}
