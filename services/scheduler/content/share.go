package content

import (
	"context"
	"maps"

	"github.com/forge-ci/forge/services/kit/chunks"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	// mostBases is how many contents of before a new one shares chunks with.
	mostBases = 3
	// leastShared is the part of a pack that must be of use for it to be used further: what
	// else is in it would be kept for nothing.
	leastShared = 0.25
)

// place is where a chunk lies.
type place struct {
	pack   string
	offset int64
	stored int32
	size   int32 // unpacked
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
				known[chunks.Digest(chunk.GetDigest())] = place{pack, chunk.GetOffset(), chunk.GetStored(), chunk.GetSize()}
			}
		}
	}
	used := map[string]int64{}
	seen := map[chunks.Digest]bool{}
	for _, chunk := range p.manifest.GetChunks() {
		digest := chunks.Digest(chunk.GetDigest())
		at, ok := known[digest]
		if ok && at.size != chunk.GetSize() { // else what is well would be found broken
			return fault.New(fault.Invalid, "a chunk has another size than its digest says")
		}
		if ok && !seen[digest] {
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
