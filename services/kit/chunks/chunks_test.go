package chunks_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/forge-ci/forge/services/kit/chunks"
)

func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

// split returns the digests, and checks that the chunks make up the stream.
func split(t testing.TB, r io.Reader, want []byte) []chunks.Digest {
	t.Helper()
	var digests []chunks.Digest
	var got []byte
	last := false
	err := chunks.Split(r, func(chunk []byte) error {
		if last || len(chunk) > chunks.Most {
			t.Errorf("a chunk of %d bytes, after a short one: %v", len(chunk), last)
		}
		last = len(chunk) < chunks.Least
		digests = append(digests, sha256.Sum256(chunk))
		got = append(got, chunk...)
		return nil
	})
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("split %d bytes into %d, error %v", len(want), len(got), err)
	}
	return digests
}

func TestAChangeChangesFewChunks(t *testing.T) {
	whole := noise(8 << 20)
	before := split(t, bytes.NewReader(whole), whole)
	changed := slices.Insert(slices.Clone(whole), 3<<20, []byte("a few bytes more")...)
	after := split(t, iotest.HalfReader(bytes.NewReader(changed)), changed)
	var fresh int
	for _, digest := range after {
		if !slices.Contains(before, digest) {
			fresh++
		}
	}
	if fresh == 0 || fresh > 3 || len(after) < 80 {
		t.Errorf("%d of %d chunks are new", fresh, len(after))
	}
}

func TestShortStreamsAreOneChunk(t *testing.T) {
	for _, size := range []int{0, 1, chunks.Least - 1, chunks.Least} {
		data := noise(size)
		if got := split(t, bytes.NewReader(data), data); len(got) != min(size, 1) {
			t.Errorf("%d bytes are %d chunks", size, len(got))
		}
	}
}

func TestErrorsOfTheStreamAreHandedOn(t *testing.T) {
	want := errors.New("no more")
	err := chunks.Split(io.MultiReader(bytes.NewReader(noise(100)), iotest.ErrReader(want)), func([]byte) error { return nil })
	if !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
	if err := chunks.Split(bytes.NewReader(noise(100)), func([]byte) error { return want }); !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
}

func TestWhatWasChangedIsFound(t *testing.T) {
	packer, err := chunks.NewPacker()
	if err != nil {
		t.Fatal(err)
	}
	unpacker, err := chunks.NewUnpacker()
	if err != nil {
		t.Fatal(err)
	}
	defer unpacker.Close()
	chunk := append(noise(1000), make([]byte, chunks.Most-1000)...)
	digest, packed := sha256.Sum256(chunk), packer.Pack(nil, chunk)
	if got, err := unpacker.Unpack(nil, packed, len(chunk), digest); err != nil || !bytes.Equal(got, chunk) {
		t.Fatalf("unpack: %v", err)
	}
	bomb := packer.Pack(nil, make([]byte, 64<<20))
	for name, c := range map[string]struct {
		packed []byte
		size   int
		digest chunks.Digest
	}{
		"another digest":    {packed, len(chunk), sha256.Sum256(nil)},
		"a changed byte":    {append(append(slices.Clone(packed[:500]), packed[500]^1), packed[501:]...), len(chunk), digest},
		"cut short":         {packed[:len(packed)-1], len(chunk), digest},
		"another size":      {packed, len(chunk) - 1, digest},
		"no size":           {packed, -1, digest},
		"more than may be":  {bomb, 64 << 20, sha256.Sum256(make([]byte, 64<<20))},
		"more than is said": {bomb, chunks.Most, digest},
		"nothing":           {nil, len(chunk), digest},
		"something after":   {append(slices.Clone(packed), packed...), len(chunk), digest},
	} {
		if got, err := unpacker.Unpack(nil, c.packed, c.size, c.digest); !errors.Is(err, chunks.ErrBroken) {
			t.Errorf("%s: %d bytes, error %v", name, len(got), err)
		}
	}
}
