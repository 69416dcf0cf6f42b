package forgexec

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/forgexec/tree"
	"github.com/forge-ci/forge/services/kit/chunks"
)

// put keeps what is listed, and returns how many bytes of it were not there before.
// Its error is codes.AlreadyExists where somebody else was faster.
func (s *store) put(ctx context.Context, patience time.Duration, begin *schedulerv1.PutContentRequest_Begin, listing *tree.Listing) (stored int64, err error) {
	manifest, err := digests(ctx, listing)
	if err != nil {
		return 0, err
	}
	begin.RunnerId, begin.Size, begin.Files, begin.Chunks = s.runnerID, listing.Size, listing.Files, int64(len(manifest.GetChunks()))
	err = s.call(ctx, patience, func(ctx context.Context, client schedulerv1.RunnerServiceClient) error {
		stream, err := client.PutContent(ctx)
		if err != nil {
			return err
		}
		if err = send(ctx, stream, begin, manifest, listing); errors.Is(err, io.EOF) { // the other end has ended it
			_, err = stream.Recv()
			if err == nil {
				err = status.Error(codes.Unavailable, "the stream ended")
			}
			return err
		}
		if err != nil {
			return err
		}
		answer, err := stream.Recv()
		stored = answer.GetKept().GetStored()
		return err
	})
	return stored, err
}

// digests cuts what is listed into chunks: the index apart, so that files which stay
// as they are stay the same chunks. It reads while what it has read is hashed.
func digests(ctx context.Context, listing *tree.Listing) (*schedulerv1.Manifest, error) {
	index, err := listing.Index.Reader()
	if err != nil {
		return nil, err
	}
	defer index.Close() //nolint:errcheck // it is only read
	content, err := listing.Content()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	group, ctx := errgroup.WithContext(ctx)
	read := &pieces{ctx: ctx, full: make(chan []byte, ahead), empty: make(chan []byte, ahead+2)}
	manifest := &schedulerv1.Manifest{}
	group.Go(func() error {
		defer close(read.full)
		count := int32(0)
		add := func(chunk []byte) error {
			count++
			return read.add(append(read.room()[:0], chunk...))
		}
		if err := chunks.Split(index, add); err != nil {
			return err
		}
		manifest.IndexChunks = count
		return chunks.Split(content, add)
	})
	group.Go(func() error {
		for piece := range read.full {
			digest := sha256.Sum256(piece)
			manifest.Chunks = append(manifest.Chunks, &schedulerv1.Chunk{Digest: digest[:], Size: int32(len(piece))}) //nolint:gosec // see chunks.Most
			read.free(piece)
		}
		return nil
	})
	return manifest, group.Wait()
}

type putStream = grpc.BidiStreamingClient[schedulerv1.PutContentRequest, schedulerv1.PutContentResponse]

func send(ctx context.Context, stream putStream, begin *schedulerv1.PutContentRequest_Begin, manifest *schedulerv1.Manifest, listing *tree.Listing) error {
	if err := stream.Send(&schedulerv1.PutContentRequest{Message: &schedulerv1.PutContentRequest_Begin_{Begin: begin}}); err != nil {
		return err
	}
	all := manifest.GetChunks()
	for from := 0; from < len(all); from += mostListed {
		part := &schedulerv1.Manifest{Chunks: all[from:min(from+mostListed, len(all))], IndexChunks: manifest.GetIndexChunks()}
		if err := stream.Send(&schedulerv1.PutContentRequest{Message: &schedulerv1.PutContentRequest_Manifest{Manifest: part}}); err != nil {
			return err
		}
	}
	lacking, err := receiveLacking(stream, len(all))
	if err != nil {
		return err
	}
	if err := sendChunks(ctx, stream, manifest, lacking, listing); err != nil {
		return err
	}
	return stream.Send(&schedulerv1.PutContentRequest{Message: &schedulerv1.PutContentRequest_Commit_{Commit: &schedulerv1.PutContentRequest_Commit{}}})
}

func receiveLacking(stream putStream, most int) ([]int32, error) {
	var lacking []int32
	for {
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		for _, n := range answer.GetLacking().GetChunks() {
			if int(n) >= most || len(lacking) > 0 && n <= lacking[len(lacking)-1] || n < 0 {
				return nil, errors.New("the scheduler asks for chunks that there are not")
			}
			lacking = append(lacking, n)
		}
		if answer.GetLacking() == nil || answer.GetLacking().GetLast() {
			return lacking, nil
		}
	}
}

// sendChunks reads chunks once more while those before them are packed and sent.
func sendChunks(ctx context.Context, stream putStream, manifest *schedulerv1.Manifest, lacking []int32, listing *tree.Listing) error {
	index, err := listing.Index.Reader()
	if err != nil {
		return err
	}
	defer index.Close() //nolint:errcheck // it is only read
	content, err := listing.Content()
	if err != nil {
		return err
	}
	defer content.Close()
	packer, err := chunks.NewPacker()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	read := &pieces{ctx: ctx, full: make(chan []byte, ahead), empty: make(chan []byte, ahead+2)}
	group.Go(func() error {
		defer close(read.full) // what follows an error is never committed
		next := 0
		for _, wanted := range lacking {
			if err := pass(manifest, next, int(wanted), index, content); err != nil {
				return err
			}
			next = int(wanted) + 1
			chunk := manifest.GetChunks()[wanted]
			piece := read.room()[:chunk.GetSize()]
			var from io.Reader = content
			if wanted < manifest.GetIndexChunks() {
				from = index
			}
			if _, err := io.ReadFull(from, piece); err != nil {
				return err
			}
			if sha256.Sum256(piece) != chunks.Digest(chunk.GetDigest()) {
				return tree.ChangedError{Name: "a file"}
			}
			if err := read.add(piece); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		var packed []byte // a message is copied when it is sent
		for piece := range read.full {
			packed = packer.Pack(packed[:0], piece)
			message := &schedulerv1.PutContentRequest_Data{Data: packed}
			read.free(piece)
			if err := stream.Send(&schedulerv1.PutContentRequest{Message: message}); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// pass goes over the chunks between two.
func pass(manifest *schedulerv1.Manifest, from, to int, index io.Reader, content *tree.Content) error {
	var ofIndex, ofContent int64
	for n := from; n < to; n++ {
		if n < int(manifest.GetIndexChunks()) {
			ofIndex += int64(manifest.GetChunks()[n].GetSize())
		} else {
			ofContent += int64(manifest.GetChunks()[n].GetSize())
		}
	}
	if _, err := io.CopyN(io.Discard, index, ofIndex); err != nil {
		return err
	}
	return content.Skip(ofContent)
}
