package forgexec

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// manyDeltas is a repository whose files are deltas of each other, and its pack without
// suffix. The options are git repack's.
func manyDeltas(t *testing.T, options ...string) (dir, name string) {
	t.Helper()
	dir = t.TempDir()
	gitIn(t, dir, "init", "-q")
	random := rand.New(rand.NewPCG(1, 2))
	var lines []string
	for n := range 2000 {
		lines = append(lines, fmt.Sprintf("line %d is %d\n", n, random.Uint64()))
	}
	large := strings.Repeat("not much is in this one\n", maxInMemory/20)
	for version := range 40 {
		for range 20 {
			lines[random.IntN(len(lines))] = fmt.Sprintf("line of version %d is %d\n", version, random.Uint64())
		}
		files := map[string]string{"text": strings.Join(lines, ""), "empty": "", fmt.Sprintf("small-%d", version): lines[version]}
		if version%20 == 0 {
			files[fmt.Sprintf("large-%d", version)] = large + lines[version]
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		gitIn(t, dir, "add", "-A")
		gitIn(t, dir, "commit", "-q", "-m", "a change")
	}
	gitIn(t, dir, append(options, "repack", "-adfq", "--depth=50", "--window=60")...)
	packs, err := filepath.Glob(filepath.Join(dir, ".git/objects/pack/*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	return dir, strings.TrimSuffix(packs[0], ".pack")
}

// openedPack reads a pack that is whole.
func openedPack(t testing.TB, dir, name string) (*packReader, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	index, err := openPackIndex(root, name+packIndexSuffix)
	if err != nil {
		return nil, err
	}
	t.Cleanup(index.close)
	file, err := root.Open(name + packSuffix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	whole := newGrowing(file)
	whole.size = info.Size()
	whole.end(nil)
	return newPackReader(whole, index), nil
}

// readBlob is a file of a pack by its name in hexadecimal.
func readBlob(p *packReader, name string, w io.Writer, room func(int64) error) error {
	object, err := parseObjectName(name)
	if err != nil {
		return err
	}
	return p.blob(w, object, room)
}

// objectsIn are the names and kinds of all objects.
func objectsIn(t testing.TB, dir string) (blobs, others []string) {
	t.Helper()
	for line := range strings.Lines(gitIn(t, dir, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)")) {
		name, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "blob" {
			blobs = append(blobs, name)
		} else {
			others = append(others, name)
		}
	}
	return blobs, others
}

func anyRoom(int64) error { return nil }

func TestFilesAreReadFromAPack(t *testing.T) {
	for name, options := range map[string][]string{"by offset": nil, "by name": {"-c", "repack.useDeltaBaseOffset=false"}} {
		t.Run(name, func(t *testing.T) {
			dir, name := manyDeltas(t, options...)
			p, err := openedPack(t, filepath.Dir(name), filepath.Base(name))
			if err != nil {
				t.Fatal(err)
			}
			blobs, others := objectsIn(t, dir)
			if deltas := strings.Count(gitIn(t, dir, "verify-pack", "-v", name+".idx"), "chain length"); deltas < 5 || len(blobs) < 80 {
				t.Fatalf("%d lengths of chains, %d blobs", deltas, len(blobs))
			}
			for _, blob := range blobs {
				var got bytes.Buffer
				told := int64(-1)
				err := readBlob(p, blob, &got, func(size int64) error { told = size; return nil })
				if err != nil || told != int64(got.Len()) {
					t.Fatalf("%s: %v, %d bytes of %d", blob, err, got.Len(), told)
				}
				if sum := hashOf(got.Bytes()); sum != blob {
					t.Fatalf("%s: read %s", blob, sum)
				}
			}
			for _, other := range append(others, strings.Repeat("0", 40), strings.Repeat("f", 40), "abc", "") {
				if err := readBlob(p, other, io.Discard, anyRoom); err == nil {
					t.Errorf("%q is taken for a file", other)
				}
			}
			full := errors.New("no room")
			if err := readBlob(p, blobs[0], io.Discard, func(int64) error { return full }); !errors.Is(err, full) {
				t.Errorf("without room: %v", err)
			}
		})
	}
}

// hashOf is the name that git gives a file.
func hashOf(content []byte) string {
	return fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(content), content)))
}
