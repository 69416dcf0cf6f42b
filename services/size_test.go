package services_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// What is larger than this is hard to enter: it holds more than one concern, or keeps more than one promise.
const (
	maxLines   = 400
	maxMethods = 40
)

func TestFilesAndTypesAreOfASizeToRead(t *testing.T) {
	for _, complaint := range tooLarge(t, os.DirFS(".."), "services") {
		t.Error(complaint)
	}
}

// The checker itself.
func TestTooLargeFilesAndTypesAreReported(t *testing.T) {
	file := func(text string, lines int) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(text + strings.Repeat("\n", lines-strings.Count(text, "\n")))}
	}
	methods := func(receiver string, from, to int) string {
		text := &strings.Builder{}
		fmt.Fprintln(text, "package room")
		for n := from; n <= to; n++ {
			fmt.Fprintf(text, "func (%s) method%d() {}\n", receiver, n)
		}
		return text.String()
	}
	got := tooLarge(t, fstest.MapFS{
		"services/room/long.go":          file("package room\n", maxLines+1),
		"services/room/long_test.go":     file("package room\n", maxLines+2),
		"services/room/fits.go":          file("package room\n", maxLines),
		"services/room/fits.sql":         file("", maxLines+1),
		"services/room/few.go":           file(methods("f *few", 1, maxMethods), maxLines),
		"services/room/many.go":          file(methods("m *many", 1, 30), 100),
		"services/room/more.go":          file(methods("m many", 31, maxMethods+1), 100),
		"services/room/generic_test.go":  file(methods("g *generic[K, V]", 1, maxMethods+1), 100),
		"services/another/many.go":       file(methods("m *many", 1, 30), 100),
		"gen/forge/config/v1/long.pb.go": file("package configv1\n", maxLines+1),
	}, "services")
	want := []string{
		"services/room/long.go has 401 lines: divide it, 400 are the most",
		"services/room/long_test.go has 402 lines: divide it, 400 are the most",
		"services/room.generic has 41 methods: divide it, 40 are the most",
		"services/room.many has 41 methods: divide it, 40 are the most",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// tooLarge names what has too many lines or methods in and below a folder: the Go files, then the types, whose methods
// count in whatever file of the package they stand.
func tooLarge(t *testing.T, tree fs.FS, folder string) []string {
	t.Helper()
	var found []string
	methods := map[string]int{} // by package and type
	err := fs.WalkDir(tree, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".go" {
			return err
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		if lines := bytes.Count(text, []byte("\n")); lines > maxLines {
			found = append(found, fmt.Sprintf("%s has %d lines: divide it, %d are the most", name, lines, maxLines))
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("methods of %s: %w", name, err)
		}
		for _, decl := range file.Decls {
			if method, ok := decl.(*ast.FuncDecl); ok && method.Recv != nil {
				methods[path.Dir(name)+"."+receiver(method.Recv.List[0].Type)]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		if methods[name] > maxMethods {
			found = append(found, fmt.Sprintf("%s has %d methods: divide it, %d are the most", name, methods[name], maxMethods))
		}
	}
	return found
}

// receiver is the name of a receiver's type, without pointer and type parameters.
func receiver(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
