package image

import (
	"context"
	"io"
	"sync"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"

	"github.com/forge-ci/forge/services/kit/mask"
)

// maskedLog writes BuildKit's progress as plain text.
type maskedLog struct {
	mu     sync.Mutex
	w      io.Writer
	stream *mask.Stream
}

func (l *maskedLog) Write(piece []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(piece)
	_, err := l.w.Write(l.stream.Write(append([]byte(nil), piece...)))
	return n, err
}

func (l *maskedLog) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.Write(l.stream.Flush())
	return err
}

// show reads status to its end, which comes when BuildKit has stopped. Each command's output is masked by itself first: what
// runs beside it could else tear a secret in two.
func (l *maskedLog) show(ctx context.Context, status <-chan *bkclient.SolveStatus, masker *mask.Masker) error {
	display, err := progressui.NewDisplay(l, progressui.PlainMode)
	if err != nil {
		for range status { // BuildKit waits until each was taken
		}
		return err
	}
	masked := make(chan *bkclient.SolveStatus)
	go func() {
		defer close(masked)
		streams := commandStreams{}
		for s := range status {
			streams.mask(s, masker)
			masked <- s
		}
	}()
	_, err = display.UpdateFrom(ctx, masked)
	return err
}

// commandStreams are outputs of commands, by what runs them and where they write to.
type commandStreams map[digest.Digest]map[int]*mask.Stream

func (c commandStreams) mask(s *bkclient.SolveStatus, masker *mask.Masker) {
	for _, log := range s.Logs {
		if c[log.Vertex] == nil {
			c[log.Vertex] = map[int]*mask.Stream{}
		}
		stream := c[log.Vertex][log.Stream]
		if stream == nil {
			stream = masker.Stream()
			c[log.Vertex][log.Stream] = stream
		}
		log.Data = stream.Write(log.Data)
	}
	for _, v := range s.Vertexes {
		if v.Completed == nil {
			continue
		}
		for number, stream := range c[v.Digest] {
			if rest := stream.Flush(); len(rest) > 0 {
				s.Logs = append(s.Logs, &bkclient.VertexLog{Vertex: v.Digest, Stream: number, Data: rest, Timestamp: *v.Completed})
			}
		}
		delete(c, v.Digest)
	}
}
