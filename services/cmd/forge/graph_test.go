package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestGraphIsDrawn(t *testing.T) {
	files, err := filepath.Glob("testdata/graph/*.yml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files, error %v", len(files), err)
	}
	var all strings.Builder
	for _, file := range files {
		fmt.Fprintf(&all, "== %s\n", strings.TrimSuffix(filepath.Base(file), ".yml"))
		if err := (check{File: file, Graph: true}).run(os.Stdin, &all); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	kittest.Golden(t, "graph", []byte(all.String()))
}

func TestNoGraphOfAFileThatIsWrong(t *testing.T) {
	var out strings.Builder
	err := check{File: "-", Graph: true}.run(strings.NewReader("image: busybox\njobs: {a: {needs: b, execute: make}, b: {needs: a, execute: make}}\n"), &out)
	if err == nil || !strings.HasPrefix(out.String(), "standard input:2:49: jobs.b.needs: none of these could begin: a needs b, which needs a") {
		t.Errorf("error %v after\n%s", err, &out)
	}
}
