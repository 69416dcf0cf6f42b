package mirror_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/config/mirror"
)

// A checkout is the same, byte by byte, in another process, too.
func TestCheckoutIsTheSameAgain(t *testing.T) {
	r := newRig(t)
	r.commit(map[string]string{"a": "1", "b/c": "2", "d": strings.Repeat("long ", 1000), ".gitattributes": "a text eol=crlf\n"})
	r.git("tag", "v1")
	sha := r.commit(map[string]string{"a": "2"})
	for _, want := range []mirror.Want{{}, {History: 1}, {History: mirror.All}, {Packed: true}, {History: mirror.All, Packed: true}} {
		want.SHA, want.Base = sha, "main"
		var streams [2]bytes.Buffer
		for i := range streams {
			mirrors, err := mirror.New(t.Context(), mirror.Config{Dir: r.dir, MaxBytes: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			if err := mirrors.Checkout(t.Context(), r.remote(), want, &streams[i]); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(streams[0].Bytes(), streams[1].Bytes()) {
			t.Errorf("%+v: %d and %d bytes, which differ", want, streams[0].Len(), streams[1].Len())
		}
	}
}
