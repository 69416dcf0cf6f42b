package web

import (
	"path"
	"strings"
)

// fileKind is how a file is sent.
type fileKind struct {
	mime  string
	shown bool // in the browser, rather than stored
}

// kindOf is the kind of a file by its name. What a browser would run comes as bytes
// to store: HTML, SVG and XML, and also scripts and styles, which Forge's own pages
// must never be made to load.
func kindOf(name string) fileKind {
	extension := strings.ToLower(strings.TrimPrefix(path.Ext(path.Base(name)), "."))
	if kind, known := fileKinds()[extension]; known {
		return kind
	}
	return fileKind{mime: "application/octet-stream"}
}

// fileKinds are the kinds by extension. They are not the machine's, which differ.
func fileKinds() map[string]fileKind {
	kinds := map[string]fileKind{
		"avif": {"image/avif", true}, "bmp": {"image/bmp", true}, "gif": {"image/gif", true}, "ico": {"image/x-icon", true},
		"jpeg": {"image/jpeg", true}, "jpg": {"image/jpeg", true}, "png": {"image/png", true}, "webp": {"image/webp", true},

		"7z": {"application/x-7z-compressed", false}, "bz2": {"application/x-bzip2", false}, "gz": {"application/gzip", false},
		"jar": {"application/java-archive", false}, "mp4": {"video/mp4", false}, "pdf": {"application/pdf", false},
		"tar": {"application/x-tar", false}, "tgz": {"application/gzip", false}, "wasm": {"application/wasm", false},
		"webm": {"video/webm", false}, "xz": {"application/x-xz", false}, "zip": {"application/zip", false}, "zst": {"application/zstd", false},
	}
	for _, text := range []string{
		"c", "cfg", "conf", "cpp", "csv", "diff", "go", "h", "ini", "java", "json", "jsonl", "kt", "lcov", "log", "md", "out", "patch",
		"py", "rb", "rs", "sarif", "sh", "sha256", "sql", "tap", "toml", "tsv", "txt", "yaml", "yml",
	} {
		kinds[text] = fileKind{"text/plain; charset=utf-8", true}
	}
	return kinds
}
