package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/chunks"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

const (
	// packSize is from where on a pack gets no more chunks, in bytes.
	packSize = 32 << 20
	// largestIndex bounds the list of files, in bytes.
	largestIndex = 256 << 20
	// discardWithin bounds what follows a save that broke off.
	discardWithin = time.Minute
	// mostFiles is how many an artifact has: people see them all listed.
	mostFiles = 100_000
)

// PutStream is the stream of one content that is being kept.
type PutStream interface {
	Recv() (*schedulerv1.PutContentRequest, error)
	Send(answer *schedulerv1.PutContentResponse) error
}

// Put keeps what an attempt brings, whole or not at all. begin was received already.
func (s *Service) Put(ctx context.Context, b *store.Build, begin *schedulerv1.PutContentRequest_Begin, stream PutStream) error {
	if !s.takes(b.GetId()) {
		return fault.Newf(fault.Unavailable, "this build is keeping %d contents already", mostOfBuild)
	}
	defer s.gives(b.GetId())
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	p := &put{Service: s, stream: stream, build: b, begin: begin}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	if err := p.receive(ctx); err != nil {
		p.discard(ctx)
		return err
	}
	return p.commit(ctx)
}

// mostOfBuild is how many contents a build keeps at once: one, and one whose
// connection broke without a word. So no build has all places.
const mostOfBuild = 2

func (s *Service) takes(buildID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeping[buildID] >= mostOfBuild {
		return false
	}
	s.keeping[buildID]++
	return true
}

func (s *Service) gives(buildID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeping[buildID]--; s.keeping[buildID] == 0 {
		delete(s.keeping, buildID)
	}
}

type put struct {
	*Service
	stream PutStream
	build  *store.Build
	begin  *schedulerv1.PutContentRequest_Begin

	content  stored
	manifest *schedulerv1.Manifest
	packs    map[string]int32 // by id, their place in the manifest
	lacking  []int32
	same     map[chunks.Digest]int32 // where a chunk comes more than once, the first
	written  map[string]int64        // the sizes of new packs
	begun    []string                // new packs, whole or not
	most     int64                   // bytes it may have
}

func (p *put) receive(ctx context.Context) error {
	if err := p.list(ctx); err != nil {
		return err
	}
	return p.write(ctx)
}

// discard removes what was written for nothing, which counts for no limit. What it
// cannot remove is left to the sweep.
func (p *put) discard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardWithin)
	defer cancel()
	for _, id := range p.begun {
		err := p.blobs.Remove(ctx, blobOf(id))
		if err == nil {
			err = p.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
				return t.Exec(ctx, `DELETE FROM packs WHERE id = $1`, id)
			})
		}
		if err != nil {
			p.log.WarnContext(ctx, "what was not kept is not removed; the sweep tries again", "blob", blobOf(id), "error", err)
		}
	}
}

func (p *put) prepare(ctx context.Context) (err error) {
	p.content = stored{
		repositoryID: p.build.GetRepository().GetId(), repository: wording.FullName(p.build.GetRepository()),
		scope: p.scopeOf(p.build), buildID: p.build.GetId(), attempt: p.build.GetAttempt(), size: p.begin.GetSize(), files: p.begin.GetFiles(),
	}
	if p.content.id, err = p.newID(); err != nil {
		return err
	}
	now := p.store.Now()
	p.most = p.limits.Artifact
	switch asked := p.begin.GetContent().(type) {
	case *schedulerv1.PutContentRequest_Begin_Cache:
		if err := checkKey(asked.Cache); err != nil {
			return err
		}
		p.content.kind, p.content.version, p.content.name = kindCache, asked.Cache.GetVersion(), asked.Cache.GetKey()
		p.content.expires, p.most = now.Add(p.limits.CacheAge), p.limits.Cache
		there, err := p.one(ctx, `repository_id = $1 AND kind = 1 AND scope = $2 AND version = $3 AND name = $4`,
			p.content.repositoryID, p.content.scope.name, p.content.version, p.content.name)
		if err != nil {
			return err
		}
		if there != nil {
			return fault.Newf(fault.Exists, "%s was saved before", p.content.name)
		}
	case *schedulerv1.PutContentRequest_Begin_Artifact:
		artifact := planned(p.build, asked.Artifact)
		if artifact == nil {
			return fault.Newf(fault.Invalid, "this job leaves no artifact %q", asked.Artifact)
		}
		p.content.kind, p.content.version, p.content.name = kindArtifact, p.build.GetId(), asked.Artifact
		p.content.expires = now.Add(p.limits.ArtifactAge)
		if keep := artifact.GetKeep().AsDuration(); keep > 0 {
			p.content.expires = now.Add(keep)
		}
	default:
		return fault.New(fault.Invalid, "keep a cache or an artifact")
	}
	if p.content.kind == kindArtifact && p.begin.GetFiles() > mostFiles {
		return fault.Newf(fault.Exhausted, "it has %d files, and an artifact has at most %d", p.begin.GetFiles(), mostFiles)
	}
	if p.begin.GetSize() < 0 || p.begin.GetFiles() < 0 || p.begin.GetChunks() < 0 {
		return fault.New(fault.Invalid, "sizes are not negative")
	}
	if p.begin.GetSize() > p.most || p.begin.GetChunks() > p.most/chunks.Least+2*mostListed {
		return p.tooLarge(p.begin.GetSize())
	}
	return nil
}

func (p *put) tooLarge(size int64) error {
	return fault.Newf(fault.Exhausted, "it has %d MiB, and at most %d MiB are kept", size>>20, p.most>>20)
}

// list receives what the content consists of, and asks for what there is not yet.
func (p *put) list(ctx context.Context) error {
	p.manifest = &schedulerv1.Manifest{}
	for int64(len(p.manifest.GetChunks())) < p.begin.GetChunks() {
		message, err := p.stream.Recv()
		if err != nil {
			return err
		}
		part := message.GetManifest()
		if len(part.GetChunks()) == 0 || len(part.GetChunks()) > mostListed {
			return fault.Newf(fault.Invalid, "the chunks come first, 1 to %d in a message", mostListed)
		}
		p.manifest.Chunks, p.manifest.IndexChunks = append(p.manifest.Chunks, part.GetChunks()...), part.GetIndexChunks()
	}
	if err := p.check(); err != nil {
		return err
	}
	if err := p.share(ctx); err != nil {
		return err
	}
	for from := 0; ; from += mostListed {
		to := min(from+mostListed, len(p.lacking))
		part := &schedulerv1.PutContentResponse_Lacking{Chunks: p.lacking[min(from, to):to], Last: to == len(p.lacking)}
		err := p.stream.Send(&schedulerv1.PutContentResponse{Message: &schedulerv1.PutContentResponse_Lacking_{Lacking: part}})
		if err != nil || part.GetLast() {
			return err
		}
	}
}

func (p *put) check() error {
	all := p.manifest.GetChunks()
	index := int(p.manifest.GetIndexChunks())
	if int64(len(all)) != p.begin.GetChunks() || index < 0 || index > len(all) {
		return fault.New(fault.Invalid, "the list of chunks is not as long as was said")
	}
	var size, ofIndex int64
	for n, chunk := range all {
		if len(chunk.GetDigest()) != sha256.Size || chunk.GetSize() < 1 || chunk.GetSize() > chunks.Most {
			return fault.Newf(fault.Invalid, "chunk %d: expected a digest of %d bytes and a size of 1 to %d", n, sha256.Size, chunks.Most)
		}
		if n >= index {
			size += int64(chunk.GetSize())
		} else {
			ofIndex += int64(chunk.GetSize())
		}
	}
	if ofIndex > largestIndex || size+ofIndex > p.most {
		return p.tooLarge(size + ofIndex)
	}
	if size != p.begin.GetSize() {
		return fault.New(fault.Invalid, "the chunks do not add up to the size")
	}
	return nil
}

// write receives the chunks that were asked for into packs.
func (p *put) write(ctx context.Context) error {
	for rest := p.lacking; len(rest) > 0; {
		id, err := p.addPack(ctx, &p.content)
		if err != nil {
			return err
		}
		p.begun = append(p.begun, id)
		number := p.packNumber(id)
		var size int64
		err = p.blobs.Put(ctx, blobOf(id), func(w io.Writer) error {
			for len(rest) > 0 && size < packSize {
				message, err := p.stream.Recv()
				if err != nil {
					return err
				}
				data, chunk := message.GetData(), p.manifest.GetChunks()[rest[0]]
				if most := int(chunk.GetSize()) + chunks.MostPacked - chunks.Most; len(data) == 0 || len(data) > most {
					return fault.Newf(fault.Invalid, "expected chunk %d, packed, of at most %d bytes", rest[0], most)
				}
				if _, err := w.Write(data); err != nil {
					return err
				}
				chunk.Pack, chunk.Offset, chunk.Stored = number, size, int32(len(data)) //nolint:gosec // see above
				size += int64(len(data))
				rest = rest[1:]
			}
			return nil
		})
		if err != nil {
			return err
		}
		p.written[id] = size
	}
	for _, chunk := range p.manifest.GetChunks() {
		if first, ok := p.same[chunks.Digest(chunk.GetDigest())]; ok {
			from := p.manifest.GetChunks()[first]
			chunk.Pack, chunk.Offset, chunk.Stored = from.GetPack(), from.GetOffset(), from.GetStored()
		}
	}
	message, err := p.stream.Recv()
	if err != nil {
		return err
	}
	if message.GetCommit() == nil {
		return fault.New(fault.Invalid, "expected the commit")
	}
	return nil
}

// commit makes it one that is found.
func (p *put) commit(ctx context.Context) error {
	raw, err := proto.Marshal(p.manifest)
	if err != nil {
		return err
	}
	if len(raw) > largestManifest {
		return fault.Newf(fault.Exhausted, "it consists of more than %d chunks", len(p.manifest.GetChunks()))
	}
	if p.content.pack, err = p.addPack(ctx, &p.content); err != nil {
		return err
	}
	digest := sha256.Sum256(raw)
	p.content.digest = digest[:]
	if err := p.blobs.Put(ctx, blobOf(p.content.pack), func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	}); err != nil {
		return err
	}
	p.written[p.content.pack] = int64(len(raw))
	var bytes int64
	for _, size := range p.written {
		bytes += size
	}
	err = p.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		a, err := t.Attempt(ctx, p.content.buildID, p.content.attempt)
		if err != nil {
			return err
		}
		if a.Ended {
			return fault.New(fault.Conflict, "the attempt has ended: nothing of it is kept any more")
		}
		if p.content.kind == kindArtifact { // of an attempt before
			if err := p.replace(ctx, t); err != nil {
				return err
			}
		}
		if err := add(ctx, t, &p.content); err != nil {
			return err
		}
		for _, pack := range append(p.manifest.GetPacks(), p.content.pack) {
			if err := usePack(ctx, t, p.content.id, pack, p.written[pack]); err != nil {
				return err
			}
		}
		t.Notify(store.BuildTopic(p.content.buildID))
		return nil
	})
	if err != nil {
		return err
	}
	if p.content.kind == kindCache {
		if err := p.evict(ctx, p.content.repositoryID, p.content.id); err != nil {
			p.log.WarnContext(ctx, "caches are not evicted; the sweep tries again", "repository", p.content.repository, "error", err)
		}
	}
	return p.stream.Send(&schedulerv1.PutContentResponse{Message: &schedulerv1.PutContentResponse_Kept_{Kept: &schedulerv1.PutContentResponse_Kept{Stored: bytes}}})
}

func (p *put) replace(ctx context.Context, t *store.Tx) error {
	ids, err := sqldb.Collect(ctx, t, scanText, `SELECT id FROM contents WHERE repository_id = $1 AND kind = 2 AND version = $2 AND name = $3`,
		p.content.repositoryID, p.content.version, p.content.name)
	return errors.Join(err, remove(ctx, t, ids...))
}
