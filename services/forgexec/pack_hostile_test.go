package forgexec

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is wrong with a pack, it is an error, and in time.
func TestMalformedPacksAreErrors(t *testing.T) {
	dir, name := manyDeltas(t)
	blobs, _ := objectsIn(t, dir)
	random := rand.New(rand.NewPCG(3, 4))
	for _, suffix := range []string{packSuffix, packIndexSuffix} {
		whole, err := os.ReadFile(name + suffix)
		if err != nil {
			t.Fatal(err)
		}
		at := t.TempDir()
		other := map[string]string{packSuffix: packIndexSuffix, packIndexSuffix: packSuffix}[suffix]
		if err := os.Link(name+other, filepath.Join(at, "pack"+other)); err != nil {
			t.Fatal(err)
		}
		for n := range 200 {
			broken := bytes.Clone(whole)
			for range 1 + n%20 {
				broken[random.IntN(len(broken))] = byte(random.Uint32())
			}
			if n%4 == 0 {
				broken = broken[:random.IntN(len(broken))]
			}
			if err := os.WriteFile(filepath.Join(at, "pack"+suffix), broken, 0o600); err != nil {
				t.Fatal(err)
			}
			if p, err := openedPack(t, at, "pack"); err == nil {
				readAny(p, blobs[random.IntN(len(blobs)-5):][:5])
			}
		}
	}
}

// readAny reads some files, well or not, and none of more than a gigabyte.
func readAny(p *packReader, blobs []string) {
	for _, blob := range blobs {
		_ = readBlob(p, blob, io.Discard, func(size int64) error {
			if size > 1<<30 {
				return errPack
			}
			return nil
		})
	}
}

// FuzzPack reads the files of a pack in which anything may stand.
func FuzzPack(f *testing.F) {
	dir := f.TempDir()
	gitIn(f, dir, "init", "-q")
	text := strings.Repeat("a line that is there often\n", 40)
	for n, content := range []string{text, text + "one more\n", "begin\n" + text} {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o600); err != nil {
			f.Fatal(n, err)
		}
		gitIn(f, dir, "add", "-A")
		gitIn(f, dir, "commit", "-q", "-m", "a change")
	}
	gitIn(f, dir, "repack", "-adfq")
	blobs, _ := objectsIn(f, dir)
	packs, err := filepath.Glob(filepath.Join(dir, ".git/objects/pack/*.pack"))
	if err != nil || len(packs) != 1 {
		f.Fatal(packs, err)
	}
	pack, err := os.ReadFile(packs[0])
	if err != nil {
		f.Fatal(err)
	}
	index, err := os.ReadFile(strings.TrimSuffix(packs[0], packSuffix) + packIndexSuffix)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pack, index)
	f.Add(pack[:len(pack)/2], index)
	f.Add(pack, index[:len(index)/2])
	file, err := os.Create(filepath.Join(f.TempDir(), "pack"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = file.Close() })
	f.Fuzz(func(t *testing.T, pack, content []byte) {
		index, err := newPackIndex(content)
		if err != nil {
			return
		}
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(pack, 0); err != nil {
			t.Fatal(err)
		}
		whole := newGrowing(file)
		whole.size = int64(len(pack))
		whole.end(nil)
		readAny(newPackReader(whole, index), blobs)
	})
}

// FuzzDelta applies anything: the result has the size that was told, or it is an error.
func FuzzDelta(f *testing.F) {
	text := []byte("a base of some bytes")
	f.Add(text, []byte{20, 4, 0x90, 4})
	f.Add(text, []byte{20, 3, 3, 'x', 'y', 'z'})
	f.Add(text, []byte{20, 8, 0x91, 16, 4, 4, 'm', 'o', 'r', 'e'})
	f.Add(text, []byte{20, 0x80, 0x80, 4, 0x80})
	f.Add(text, []byte{20, 1, 0})
	f.Fuzz(func(t *testing.T, text, delta []byte) {
		var result bytes.Buffer
		told := int64(-1)
		err := patch(bufio.NewWriter(&result), &base{memory: text, size: int64(len(text))}, bufio.NewReader(bytes.NewReader(delta)), func(size int64) error {
			if told = size; size > 1<<20 {
				return errPack
			}
			return nil
		})
		if int64(result.Len()) > max(told, 0) || err == nil && int64(result.Len()) != told {
			t.Errorf("%d bytes of %d: %v", result.Len(), told, err)
		}
	})
}
