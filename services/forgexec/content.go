package forgexec

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/forgexec/tree"
	"github.com/forge-ci/forge/services/kit/chunks"
)

const (
	// mostListed is how many chunks one message lists.
	mostListed = 4096
	// mostEntries is how many files, folders and links a cache or an artifact has.
	mostEntries = 1_000_000
	// largestIndex bounds the list of them, in bytes.
	largestIndex = 256 << 20
	// cachePatience is for how long a cache waits for a scheduler that is away.
	cachePatience = 20 * time.Second
	// ahead is how many chunks wait between those that make and those that use them.
	ahead = 8
)

// store moves what builds keep to and from Forge. Each transfer has a connection of
// its own: on that of the log, lines would wait behind it.
type store struct {
	dial     func() (*grpc.ClientConn, error)
	token    string
	runnerID string
}

// call makes one transfer, again where it broke off: patience is for how long.
func (s *store) call(ctx context.Context, patience time.Duration, do func(context.Context, schedulerv1.RunnerServiceClient) error) error {
	pause := firstPause
	for begin := time.Now(); ; {
		err := s.once(ctx, do)
		code := status.Code(err)
		if deadline, bounded := ctx.Deadline(); (code == codes.Canceled || code == codes.DeadlineExceeded) && bounded && time.Until(deadline) < time.Second {
			<-ctx.Done() // the other end has the same deadline, and saw it a little earlier
		}
		if ctx.Err() != nil && err != nil {
			return context.Cause(ctx)
		}
		if code != codes.Unavailable && code != codes.Aborted || time.Since(begin) > patience {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause/2)): //nolint:gosec // it only spreads runners
		}
		pause = min(2*pause, longestPause)
	}
}

func (s *store) once(ctx context.Context, do func(context.Context, schedulerv1.RunnerServiceClient) error) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it has done its work, or failed at it
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, tokenKey, s.token))
	defer cancel()
	return do(ctx, schedulerv1.NewRunnerServiceClient(conn))
}

// get makes what is found at and below these paths. Its error is codes.NotFound where
// there is nothing; nothing is left of what could not be made whole.
func (s *store) get(ctx context.Context, patience time.Duration, request *schedulerv1.GetContentRequest, roots []string) (found *schedulerv1.GetContentResponse_Found, err error) {
	request.RunnerId = s.runnerID
	err = s.call(ctx, patience, func(ctx context.Context, client schedulerv1.RunnerServiceClient) error {
		stream, err := client.GetContent(ctx, request)
		if err != nil {
			return err
		}
		found, err = receive(ctx, stream, roots)
		return err
	})
	if errors.Is(err, chunks.ErrBroken) && !request.GetVerify() { // the scheduler believes nobody but itself
		request.Verify = true
		return s.get(ctx, patience, request, roots)
	}
	return found, err
}

// receive makes what a stream brings. A chunk is unpacked while the files of those
// before it are written.
func receive(ctx context.Context, stream grpc.ServerStreamingClient[schedulerv1.GetContentResponse], roots []string) (*schedulerv1.GetContentResponse_Found, error) {
	found, listed, indexed, err := receiveManifest(stream)
	if err != nil {
		return nil, err
	}
	index, err := tree.NewIndex()
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	content := &pieces{ctx: ctx, full: make(chan []byte, ahead), empty: make(chan []byte, ahead+2)}
	ready := make(chan struct{})
	group.Go(func() error {
		content.err = unpackChunks(stream, listed, func(n int, piece []byte) error {
			if n >= indexed {
				return content.add(piece)
			}
			_, err := index.Write(piece)
			content.free(piece)
			return err
		}, func(n int) error {
			if n != indexed {
				return nil
			}
			if index.Size > largestIndex {
				return errors.New("it has too many files")
			}
			if err := index.Close(); err != nil {
				return err
			}
			close(ready)
			return nil
		}, content.room)
		close(content.full)
		return content.err
	})
	group.Go(func() error {
		select {
		case <-ready:
			return tree.Make(roots, index, content)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return found, group.Wait()
}

// unpackChunks hands on each chunk that a stream brings. before is told how many
// were handed on; room is where the next goes.
func unpackChunks(
	stream grpc.ServerStreamingClient[schedulerv1.GetContentResponse], listed []*schedulerv1.Chunk,
	each func(n int, piece []byte) error, before func(n int) error, room func() []byte,
) error {
	unpacker, err := chunks.NewUnpacker()
	if err != nil {
		return err
	}
	defer unpacker.Close()
	from := &streamReader{recv: func() ([]byte, error) {
		message, err := stream.Recv()
		return message.GetData(), err
	}}
	packed := make([]byte, chunks.MostPacked)
	for n, chunk := range listed {
		if err := before(n); err != nil {
			return err
		}
		if _, err := io.ReadFull(from, packed[:chunk.GetStored()]); err != nil {
			return fmt.Errorf("chunk %d: %w", n, err)
		}
		piece, err := unpacker.Unpack(room(), packed[:chunk.GetStored()], int(chunk.GetSize()), chunks.Digest(chunk.GetDigest()))
		if err != nil {
			return fmt.Errorf("chunk %d, %x: %w", n, chunk.GetDigest(), err)
		}
		if err := each(n, piece); err != nil {
			return err
		}
	}
	return before(len(listed))
}

func receiveManifest(stream grpc.ServerStreamingClient[schedulerv1.GetContentResponse]) (found *schedulerv1.GetContentResponse_Found, listed []*schedulerv1.Chunk, indexed int, err error) {
	first, err := stream.Recv()
	if err != nil {
		return nil, nil, 0, err
	}
	found = first.GetFound()
	for int64(len(listed)) < found.GetChunks() {
		part, err := stream.Recv()
		if err != nil {
			return nil, nil, 0, err
		}
		if len(part.GetManifest().GetChunks()) == 0 {
			return nil, nil, 0, errors.New("its list of chunks is not whole")
		}
		listed = append(listed, part.GetManifest().GetChunks()...)
		indexed = int(part.GetManifest().GetIndexChunks())
	}
	for _, chunk := range listed {
		if stored := chunk.GetStored(); stored < 0 || stored > chunks.MostPacked || len(chunk.GetDigest()) != sha256.Size {
			return nil, nil, 0, errors.New("its list of chunks is broken")
		}
	}
	if indexed < 0 || indexed > len(listed) {
		return nil, nil, 0, errors.New("its list of chunks is broken")
	}
	return found, listed, indexed, nil
}

// streamReader reads the messages of a stream as one.
type streamReader struct {
	recv func() ([]byte, error)
	data []byte
}

func (s *streamReader) Read(p []byte) (int, error) {
	for len(s.data) == 0 {
		var err error
		if s.data, err = s.recv(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

// pieces are unpacked chunks on their way to the files.
type pieces struct {
	ctx   context.Context //nolint:containedctx // of both ends
	full  chan []byte
	err   error // why it was closed; nil at the end
	empty chan []byte
	piece []byte // that is being read
	rest  []byte // of it
}

// room is a buffer for the next piece.
func (p *pieces) room() []byte {
	select {
	case buffer := <-p.empty:
		return buffer
	default:
		return make([]byte, 0, chunks.Most)
	}
}

func (p *pieces) free(piece []byte) {
	select {
	case p.empty <- piece:
	default:
	}
}

func (p *pieces) add(piece []byte) error {
	select {
	case p.full <- piece:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pieces) Read(to []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.piece != nil {
			p.free(p.piece)
			p.piece = nil
		}
		select {
		case piece, more := <-p.full:
			if !more {
				return 0, cmp.Or(p.err, io.EOF)
			}
			p.piece, p.rest = piece, piece
		case <-p.ctx.Done():
			return 0, p.ctx.Err()
		}
	}
	n := copy(to, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
