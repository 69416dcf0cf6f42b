package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"

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
	// mostFiles is how many an artifact has: people see them all listed.
	mostFiles = 100_000
	// mostBases is how many contents of before a new one shares chunks with.
	mostBases = 3
	// leastShared is the part of a pack that must be of use for it to be used further: what
	// else is in it would be kept for nothing.
	leastShared = 0.25
)

// PutStream is the stream of one content that is being kept.
type PutStream interface {
	Recv() (*schedulerv1.PutContentRequest, error)
	Send(answer *schedulerv1.PutContentResponse) error
}

// Put keeps what an attempt brings, whole or not at all. begin was received already.
func (s *Service) Put(ctx context.Context, b *store.Build, begin *schedulerv1.PutContentRequest_Begin, stream PutStream) error {
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
	if err := p.list(ctx); err != nil {
		return err
	}
	if err := p.write(ctx); err != nil {
		return err
	}
	return p.commit(ctx)
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
	most := p.limits.Artifact
	switch asked := p.begin.GetContent().(type) {
	case *schedulerv1.PutContentRequest_Begin_Cache:
		if err := checkKey(asked.Cache); err != nil {
			return err
		}
		p.content.kind, p.content.version, p.content.name = kindCache, asked.Cache.GetVersion(), asked.Cache.GetKey()
		p.content.expires, most = now.Add(p.limits.CacheAge), p.limits.Cache
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
	if p.begin.GetSize() > most || p.begin.GetChunks() > most/chunks.Least+2*mostListed {
		return fault.Newf(fault.Exhausted, "it has %d MiB, and at most %d MiB are kept", p.begin.GetSize()>>20, most>>20)
	}
	return nil
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
	var size int64
	for n, chunk := range all {
		if len(chunk.GetDigest()) != sha256.Size || chunk.GetSize() < 1 || chunk.GetSize() > chunks.Most {
			return fault.Newf(fault.Invalid, "chunk %d: expected a digest of %d bytes and a size of 1 to %d", n, sha256.Size, chunks.Most)
		}
		if n >= index {
			size += int64(chunk.GetSize())
		}
	}
	if size != p.begin.GetSize() {
		return fault.New(fault.Invalid, "the chunks do not add up to the size")
	}
	return nil
}

// place is where a chunk lies.
type place struct {
	pack   string
	offset int64
	stored int32
}

// share finds chunks that are there already: in contents that the build could read.
// So nobody learns by it what others have, or gets it by naming it.
func (p *put) share(ctx context.Context) error {
	known := map[chunks.Digest]place{}
	sizes := map[string]int64{}
	bases, err := p.bases(ctx)
	if err != nil {
		return err
	}
	for _, base := range bases {
		manifest, err := p.Service.manifest(ctx, base)
		if err != nil { // then it is none
			p.log.WarnContext(ctx, "nothing is shared with a content that cannot be read", "repository", base.repository, "name", base.name, "error", err)
			continue
		}
		alive, err := p.sizes(ctx, base.id)
		if err != nil {
			return err
		}
		maps.Copy(sizes, alive)
		for _, chunk := range manifest.GetChunks() {
			pack := manifest.GetPacks()[chunk.GetPack()]
			if _, ok := alive[pack]; ok {
				known[chunks.Digest(chunk.GetDigest())] = place{pack, chunk.GetOffset(), chunk.GetStored()}
			}
		}
	}
	used := map[string]int64{}
	seen := map[chunks.Digest]bool{}
	for _, chunk := range p.manifest.GetChunks() {
		digest := chunks.Digest(chunk.GetDigest())
		if at, ok := known[digest]; ok && !seen[digest] {
			used[at.pack] += int64(at.stored)
			seen[digest] = true
		}
	}
	p.packs, p.same, p.written = map[string]int32{}, map[chunks.Digest]int32{}, map[string]int64{}
	for n, chunk := range p.manifest.GetChunks() {
		digest := chunks.Digest(chunk.GetDigest())
		at, ok := known[digest]
		if ok && float64(used[at.pack]) >= leastShared*float64(sizes[at.pack]) {
			chunk.Pack, chunk.Offset, chunk.Stored = p.packNumber(at.pack), at.offset, at.stored
			continue
		}
		if _, twice := p.same[digest]; !twice {
			p.same[digest] = int32(n)
			p.lacking = append(p.lacking, int32(n))
		}
	}
	return nil
}

func (p *put) packNumber(id string) int32 {
	n, ok := p.packs[id]
	if !ok {
		n = int32(len(p.packs)) //nolint:gosec // there are fewer packs than chunks
		p.packs[id] = n
		p.manifest.Packs = append(p.manifest.Packs, id)
	}
	return n
}

// bases are the newest of the same kind that the build could read.
func (p *put) bases(ctx context.Context) ([]*stored, error) {
	var all []*stored
	for _, scope := range readable(p.content.scope) {
		where, value := `version = $4`, p.content.version
		if p.content.kind == kindArtifact {
			where, value = `name = $4`, p.content.name
		}
		found, err := p.all(ctx, `repository_id = $1 AND kind = $2 AND scope = $3 AND `+where+` ORDER BY create_time DESC LIMIT $5`,
			p.content.repositoryID, int32(p.content.kind), scope, value, mostBases)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// write receives the chunks that were asked for into packs.
func (p *put) write(ctx context.Context) error {
	for rest := p.lacking; len(rest) > 0; {
		id, err := p.addPack(ctx, &p.content)
		if err != nil {
			return err
		}
		number := p.packNumber(id)
		var size int64
		err = p.blobs.Put(ctx, blobOf(id), func(w io.Writer) error {
			for len(rest) > 0 && size < packSize {
				message, err := p.stream.Recv()
				if err != nil {
					return err
				}
				data := message.GetData()
				if len(data) == 0 || len(data) > chunks.MostPacked {
					return fault.Newf(fault.Invalid, "expected chunk %d, packed, of at most %d bytes", rest[0], chunks.MostPacked)
				}
				if _, err := w.Write(data); err != nil {
					return err
				}
				chunk := p.manifest.GetChunks()[rest[0]]
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
