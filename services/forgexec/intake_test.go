package forgexec

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// sendRest sends what goOn has come after the source that broke off, byte by byte.
func (s *fakeScheduler) sendRest(stream grpc.BidiStreamingServer[schedulerv1.AttachRequest, schedulerv1.AttachResponse], begun *schedulerv1.SourceBegun) error {
	source, offset := s.goOn(begun)
	for ; offset < len(source); offset++ {
		chunk := &schedulerv1.SourceChunk{Data: source[offset : offset+1], Offset: int64(offset)}
		if err := stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Source{Source: chunk}}); err != nil {
			return err
		}
	}
	return stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Source{Source: &schedulerv1.SourceChunk{Last: true, Offset: int64(offset)}}})
}

// A source that broke off goes on where the runner is, if it is the same; another one
// begins anew, and what was unpacked of the first is gone.
func TestAnInterruptedSourceGoesOn(t *testing.T) {
	first := tarball(t, folder("top/"), file("top/file", "content\n"), file("top/old", "old\n"))
	other := tarball(t, folder("top/"), file("top/file", "other\n"), file("top/new", "new\n"))
	for name, c := range map[string]struct {
		goOn     func(begun int) (source []byte, offset int)
		story    string
		attached int
	}{
		"where it is":  {func(begun int) ([]byte, int) { return first, begun }, `"file\nold\ncontent\n"`, 2},
		"with another": {func(int) ([]byte, int) { return other, 0 }, `"file\nnew\nother\n"`, 2},
		"elsewhere": {func(begun int) ([]byte, int) {
			if begun == 0 {
				return first, 0
			}
			return first, begun - 1
		}, `"file\nold\ncontent\n"`, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScheduler(t, "ls; cat file")
			s.source, s.breakSource = first, true
			s.goOn = func(begun *schedulerv1.SourceBegun) ([]byte, int) {
				n := begun.GetBytes()
				if sum := sha256.Sum256(first[:n]); n > 0 && !bytes.Equal(sum[:], begun.GetSha256()) {
					t.Errorf("the digest of the first %d bytes is %x", n, begun.GetSha256())
				}
				return c.goOn(int(n))
			}
			s.wantStory(t, s.forgexec(t), "source 2 entries", "start 1", c.story, "end 1 exit 0", "DONE")
			if len(s.hellos) != c.attached {
				t.Errorf("attached %d times, want %d", len(s.hellos), c.attached)
			}
			if got := s.hellos[1].GetSourceBegun().GetBytes(); got != int64(len(first)/2) {
				t.Errorf("the runner has %d bytes, want %d", got, len(first)/2)
			}
		})
	}
}

// All of a source has come, and the connection breaks before anybody was told.
func TestASourceThatIsWholeIsNotAskedForAgain(t *testing.T) {
	s := newScheduler(t, "cat file")
	s.breakSource = true
	s.goOn = func(*schedulerv1.SourceBegun) ([]byte, int) { return s.source, 0 }
	s.cutEvery = 1
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", `"content\n"`, "end 1 exit 0", "DONE")
	for _, hello := range s.hellos[2:] {
		if !hello.GetHasSource() {
			t.Error("the source is asked for again")
		}
	}
}
