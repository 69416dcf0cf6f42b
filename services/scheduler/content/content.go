package content

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/chunks"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Limits bound what is kept.
type Limits struct {
	// Cache is how many bytes the caches of a repository may take as they are stored;
	// CacheAge is how long one stays that nobody restores. Default: 10 GiB and 14 days.
	Cache    int64
	CacheAge time.Duration
	// Artifact is how many bytes one may have; ArtifactAge is how long it is kept
	// where .forge.yml says nothing. Default: 2 GiB and 30 days.
	Artifact    int64
	ArtifactAge time.Duration
}

// Deps is what contents need.
type Deps struct {
	Store *store.Store
	Blobs *blobs.Store
	// Config tells which repository a name is.
	Config  grpc.ClientConnInterface
	Limits  Limits
	Trusted Trusted
	Log     *slog.Logger
	Random  io.Reader
}

// Service keeps contents, and serves CacheService and ArtifactService.
type Service struct {
	schedulerv1.UnimplementedCacheServiceServer
	schedulerv1.UnimplementedArtifactServiceServer
	store        *store.Store
	blobs        *blobs.Store
	repositories configv1.RepositoryServiceClient
	limits       Limits
	trusted      Trusted
	log          *slog.Logger
	random       io.Reader
	writing      chan struct{}

	mu      sync.Mutex
	keeping map[string]int // how many contents each build is keeping
}

// mostWriting is how many contents are written at once: each holds memory.
const mostWriting = 8

// New returns what keeps contents.
func New(d Deps) *Service {
	const day = 24 * time.Hour
	d.Limits.Cache = cmp.Or(d.Limits.Cache, 10<<30)
	d.Limits.CacheAge = cmp.Or(d.Limits.CacheAge, 14*day)
	d.Limits.Artifact = cmp.Or(d.Limits.Artifact, 2<<30)
	d.Limits.ArtifactAge = cmp.Or(d.Limits.ArtifactAge, 30*day)
	return &Service{
		store: d.Store, blobs: d.Blobs, repositories: configv1.NewRepositoryServiceClient(d.Config), limits: d.Limits, trusted: d.Trusted,
		log: d.Log, random: d.Random, writing: make(chan struct{}, mostWriting), keeping: map[string]int{},
	}
}

const (
	folder = "content/"
	// largestManifest is in bytes: about 1,000,000 chunks.
	largestManifest = 64 << 20
	// mostData is what one message brings.
	mostData = 256 << 10
	// mostListed is how many chunks one message lists.
	mostListed = 4096
)

func blobOf(pack string) string { return folder + pack }

// manifest reads what a content consists of. Its error is fault.NotFound where that
// is gone or was changed.
func (s *Service) manifest(ctx context.Context, row *stored) (*schedulerv1.Manifest, error) {
	r, err := s.blobs.Read(ctx, blobOf(row.pack), 0, -1)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(r, largestManifest+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	manifest := &schedulerv1.Manifest{}
	if sha256.Sum256(raw) != chunks.Digest(row.digest) || proto.Unmarshal(raw, manifest) != nil {
		return nil, fault.Newf(fault.NotFound, "blob %s is not what it was when it was written", blobOf(row.pack))
	}
	return manifest, nil
}

// data reads the chunks of a manifest from one to another, as they are stored. What
// lies together is read together.
func (s *Service) data(ctx context.Context, m *schedulerv1.Manifest, from, to int, each func(data []byte) error) error {
	buffer := make([]byte, mostData)
	for from < to {
		first := m.GetChunks()[from]
		end, next := first.GetOffset()+int64(first.GetStored()), from+1
		for ; next < to; next++ {
			chunk := m.GetChunks()[next]
			if chunk.GetPack() != first.GetPack() || chunk.GetOffset() != end {
				break
			}
			end += int64(chunk.GetStored())
		}
		if err := s.run(ctx, m.GetPacks()[first.GetPack()], first.GetOffset(), end, buffer, each); err != nil {
			return err
		}
		from = next
	}
	return nil
}

func (s *Service) run(ctx context.Context, pack string, offset, end int64, buffer []byte, each func(data []byte) error) (err error) {
	r, err := s.blobs.Read(ctx, blobOf(pack), offset, end-offset)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for offset < end {
		n, err := io.ReadFull(r, buffer[:min(int64(len(buffer)), end-offset)])
		if err == io.EOF || err == io.ErrUnexpectedEOF { // a connection that broke wraps them, and harms no blob
			return fault.Newf(fault.NotFound, "blob %s was cut short", blobOf(pack))
		}
		if err != nil {
			return err
		}
		if err := each(buffer[:n]); err != nil {
			return err
		}
		offset += int64(n)
	}
	return nil
}

// chunks reads the chunks of a manifest from one to another, each unpacked and
// checked.
func (s *Service) unpacked(ctx context.Context, m *schedulerv1.Manifest, from, to int, each func(n int, chunk []byte) error) error {
	unpacker, err := chunks.NewUnpacker()
	if err != nil {
		return err
	}
	defer unpacker.Close()
	var packed, chunk []byte
	n := from
	return s.data(ctx, m, from, to, func(data []byte) error {
		packed = append(packed, data...)
		for n < to && len(packed) >= int(m.GetChunks()[n].GetStored()) {
			one := m.GetChunks()[n]
			var err error
			chunk, err = unpacker.Unpack(chunk, packed[:one.GetStored()], int(one.GetSize()), chunks.Digest(one.GetDigest()))
			if err != nil {
				return brokenError{m.GetPacks()[one.GetPack()], fmt.Errorf("chunk %d in blob %s: %w", n, blobOf(m.GetPacks()[one.GetPack()]), err)}
			}
			packed = append(packed[:0], packed[one.GetStored():]...)
			n++
			if err := each(n-1, chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

// brokenError is that a pack does not hold what was written.
type brokenError struct {
	pack string
	error
}

func (b brokenError) Unwrap() error { return b.error }
