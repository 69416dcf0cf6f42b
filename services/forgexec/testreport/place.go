package testreport

import (
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// What finding files may cost of one report.
const (
	maxLookups = 200_000
	maxPlaces  = 100 // looked at in one text
	maxPath    = 500 // bytes
	maxLine    = 10_000_000
)

// places finds files of the workspace by what reports call them, which is a path from
// the top, from the folder of the report or of a package, or on another machine.
type places struct {
	report  Report
	bases   []string // folders that names may begin at, the likeliest first
	known   map[string]string
	lookups int
}

func newPlaces(r Report) *places {
	p := &places{report: r, known: map[string]string{}}
	for folder := path.Dir(r.Path); folder != "." && folder != "/"; folder = path.Dir(folder) {
		p.bases = append(p.bases, folder)
	}
	p.bases = append(p.bases, "")
	return p
}

// sources are the folders that classes of Java and its kin are in.
var sources = []string{
	"src/test/java", "src/test/kotlin", "src/test/scala", "src/test/groovy", "src/integrationTest/java", "src/main/java", "src/main/kotlin",
	"src/main/scala", "test", "tests", "src",
}

// file is the path in the workspace of what a report names so; "" where there is no
// such file. Folders are tried before and after the usual ones.
func (p *places) file(name string, folders ...string) string {
	if name == "" || len(name) > 2*maxPath {
		return ""
	}
	key := name + "\x00" + strings.Join(folders, "\x00")
	if found, known := p.known[key]; known {
		return found
	}
	found := p.search(name, folders)
	if len(p.known) < maxLookups {
		p.known[key] = found
	}
	return found
}

func (p *places) search(name string, folders []string) string {
	if rest, isURL := strings.CutPrefix(name, "file://"); isURL {
		if unescaped, err := url.PathUnescape(rest); err == nil {
			rest = unescaped
		}
		name = rest
	}
	name = strings.ReplaceAll(name, `\`, "/")
	if inside, ok := strings.CutPrefix(path.Clean(name), path.Clean(p.report.Workspace)+"/"); ok {
		return p.there(inside)
	}
	if !path.IsAbs(name) {
		for _, folder := range folders {
			if found := p.there(path.Join(folder, name)); found != "" {
				return found
			}
		}
		for _, base := range p.bases {
			if found := p.there(path.Join(base, name)); found != "" {
				return found
			}
		}
		return ""
	}
	// Of another machine's, such as /app/tests/a.php, the end may be a path here.
	parts := strings.Split(strings.Trim(path.Clean(name), "/"), "/")
	for at := 0; at+1 < len(parts); at++ {
		if found := p.there(strings.Join(parts[at:], "/")); found != "" {
			return found
		}
	}
	return ""
}

// there is the path itself if it is one of a file.
func (p *places) there(name string) string {
	name = path.Clean(name)
	if p.lookups >= maxLookups || len(name) > maxPath || path.IsAbs(name) || name == "." || name == ".." || strings.HasPrefix(name, "../") {
		return ""
	}
	p.lookups++
	if !p.report.Exists(name) {
		return ""
	}
	return name
}

// class is the file of a class such as tests.test_shop.TestCart or com.acme.CartTest.
func (p *places) class(name string) string {
	if name == "" || len(name) > maxPath || strings.ContainsAny(name, "/ ") {
		return ""
	}
	if found, known := p.known[name]; known {
		return found
	}
	found := ""
	outer, _, _ := strings.Cut(name, "$")
	parts := strings.Split(outer, ".")
	for n := len(parts); n > 0 && n > len(parts)-3 && found == ""; n-- {
		stem := strings.Join(parts[:n], "/")
		for _, ending := range []string{".py", ".java", ".kt", ".scala", ".groovy", ".php", ".rb"} {
			if found = p.below(stem + ending); found != "" {
				break
			}
		}
	}
	if len(p.known) < maxLookups {
		p.known[name] = found
	}
	return found
}

// below is a file in one of the folders that classes are in.
func (p *places) below(name string) string {
	for _, base := range p.bases {
		if found := p.there(path.Join(base, name)); found != "" {
			return found
		}
		if strings.HasSuffix(name, ".py") {
			continue
		}
		for _, folder := range sources {
			if found := p.there(path.Join(base, folder, name)); found != "" {
				return found
			}
		}
	}
	return ""
}

var (
	// a/b.go:12, "a/b.py", line 12 and a/b.cs(12).
	placePattern = regexp.MustCompile(`([^\s"'()<>\[\]{}:,;|*?]+\.[A-Za-z][A-Za-z0-9]{0,9})(?::|", line |\()(\d{1,8})`)
	// at com.acme.CartTest.adds(CartTest.java:12)
	framePattern = regexp.MustCompile(`\bat (?:[\w.@-]*/)*([\w.$]+)\.[\w$<>]+\(([\w$]+\.(?:java|kt|scala|groovy)):(\d{1,8})\)`)
)

// in is the place in the workspace that a text names first, or first of the preferred
// file, if it names one of that.
func (p *places) in(text, preferred string, folders ...string) (file string, line int32) {
	consider := func(found, number string) (done bool) {
		at, err := strconv.ParseInt(number, 10, 32)
		if found == "" || err != nil || at < 1 || at > maxLine {
			return false
		}
		if file == "" || found == preferred {
			file, line = found, int32(at)
		}
		return found == preferred || preferred == ""
	}
	for _, m := range framePattern.FindAllStringSubmatch(text, maxPlaces) {
		folder := ""
		if at := strings.LastIndexByte(m[1], '.'); at >= 0 {
			folder = strings.ReplaceAll(m[1][:at], ".", "/")
		}
		if consider(p.below(path.Join(folder, m[2])), m[3]) {
			return file, line
		}
	}
	for _, m := range placePattern.FindAllStringSubmatch(text, maxPlaces) {
		if consider(p.file(m[1], folders...), m[2]) {
			return file, line
		}
	}
	return file, line
}

// packageFolders are where the files of a Go package may be: its path without the
// first parts, which say where its module comes from.
func packageFolders(importPath string) []string {
	if importPath == "" || len(importPath) > maxPath || strings.Contains(importPath, " ") {
		return nil
	}
	parts := strings.Split(importPath, "/")
	var folders []string
	for at := range parts {
		folders = append(folders, strings.Join(parts[at:], "/"))
	}
	return folders[:min(len(folders), 20)]
}
