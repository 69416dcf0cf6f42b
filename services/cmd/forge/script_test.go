package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"
)

// Each file of testdata/script uses verbs as people do, against one Forge that all
// share: a script that changes something does so in a repository of its own. Besides
// what testscript brings, the commands of script_cmds_test.go are there. $FORGE_DATA_DIR
// and $FORGE_GRPC_ADDRESS are set, so verbs ask as the admin; $URL is where Forge's pages
// are, $GITHUB where GitHub is, $SETTINGS is Forge's settings file.
func TestScripts(t *testing.T) {
	w := startWorld(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), UpdateScripts: os.Getenv("UPDATE") != "", RequireUniqueNames: true,
		Setup: w.setup, Cmds: w.commands(),
	})
}

// Whoever adds a verb shows in a script how it is used, what it prints, and how it fails.
func TestEveryVerbIsInAScript(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for _, verb := range verbPaths(t) {
		used := regexp.MustCompile(`(?m)^[^#\n]*\b` + regexp.QuoteMeta("forge "+verb) + `(\s|$)`)
		if !used.MatchString(all.String()) {
			t.Errorf("no script in testdata/script runs forge %s", verb)
		}
	}
}

// verbPaths are the verbs that do something, such as "builds list".
func verbPaths(t *testing.T) (all []string) {
	t.Helper()
	model := kong.Must(&commands{}, kong.Vars{"grpc_address": "", "engines": ""}).Model
	for _, leaf := range model.Leaves(true) {
		all = append(all, strings.TrimPrefix(leaf.Path(), model.Name+" "))
	}
	if len(all) < 30 {
		t.Fatalf("there are %d verbs", len(all))
	}
	return all
}
