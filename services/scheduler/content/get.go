package content

import (
	"context"
	"errors"
	"strings"
	"unicode"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	longestKey = 512 // bytes
	mostKeys   = 10
)

// Get sends an attempt what it asks for, of what it may have.
func (s *Service) Get(ctx context.Context, b *store.Build, request *schedulerv1.GetContentRequest, send func(*schedulerv1.GetContentResponse) error) error {
	var found *stored
	var exact bool
	var err error
	switch asked := request.GetContent().(type) {
	case *schedulerv1.GetContentRequest_Cache:
		if err := checkKey(asked.Cache); err != nil {
			return err
		}
		found, exact, err = s.findCache(ctx, b, asked.Cache)
	case *schedulerv1.GetContentRequest_Artifact:
		found, err = s.neededArtifact(ctx, b, asked.Artifact)
		exact = true
	default:
		return fault.New(fault.Invalid, "ask for a cache or an artifact")
	}
	if err != nil {
		return err
	}
	if found == nil {
		return fault.New(fault.NotFound, "nothing was saved for it yet")
	}
	err = s.sendContent(ctx, found, exact, request.GetVerify(), send)
	if _, ok := errors.AsType[brokenError](err); ok || fault.Is(err, fault.NotFound) {
		if err := s.drop(ctx, found, err); err != nil {
			return err
		}
		return fault.New(fault.NotFound, "what was saved is broken, and was removed")
	}
	if err != nil || found.kind != kindCache {
		return err
	}
	return s.touch(ctx, found)
}

func (s *Service) sendContent(ctx context.Context, found *stored, exact, verify bool, send func(*schedulerv1.GetContentResponse) error) error {
	manifest, err := s.manifest(ctx, found)
	if err != nil {
		return err
	}
	all := manifest.GetChunks()
	if verify {
		if err := s.unpacked(ctx, manifest, 0, len(all), func(int, []byte) error { return nil }); err != nil {
			return err
		}
	}
	first := &schedulerv1.GetContentResponse_Found{Key: found.name, Exact: exact, Size: found.size, Files: found.files, Chunks: int64(len(all))}
	if err := send(&schedulerv1.GetContentResponse{Message: &schedulerv1.GetContentResponse_Found_{Found: first}}); err != nil {
		return err
	}
	for from := 0; from < len(all); from += mostListed {
		part := &schedulerv1.Manifest{IndexChunks: manifest.GetIndexChunks()}
		for _, chunk := range all[from:min(from+mostListed, len(all))] {
			part.Chunks = append(part.Chunks, &schedulerv1.Chunk{Digest: chunk.GetDigest(), Size: chunk.GetSize(), Stored: chunk.GetStored()})
		}
		if err := send(&schedulerv1.GetContentResponse{Message: &schedulerv1.GetContentResponse_Manifest{Manifest: part}}); err != nil {
			return err
		}
	}
	return s.data(ctx, manifest, 0, len(all), func(data []byte) error {
		return send(&schedulerv1.GetContentResponse{Message: &schedulerv1.GetContentResponse_Data{Data: data}})
	})
}

func checkKey(key *schedulerv1.CacheKey) error {
	all := append([]string{key.GetVersion(), key.GetKey()}, key.GetRestore()...)
	if len(key.GetRestore()) > mostKeys || key.GetKey() == "" || key.GetVersion() == "" {
		return fault.Newf(fault.Invalid, "a cache has a key, a version, and at most %d keys to restore from", mostKeys)
	}
	for _, text := range all {
		if len(text) > longestKey || strings.ContainsFunc(text, unicode.IsControl) {
			return fault.Newf(fault.Invalid, "a key of a cache is one line of at most %d bytes", longestKey)
		}
	}
	return nil
}

// findCache is the cache of the key itself or, of those whose keys begin as asked,
// the newest; nil where there is none that the build may read.
func (s *Service) findCache(ctx context.Context, b *store.Build, key *schedulerv1.CacheKey) (found *stored, exact bool, err error) {
	const where = `repository_id = $1 AND kind = 1 AND scope = $2 AND version = $3`
	scopes := readable(s.scopeOf(b))
	for _, scope := range scopes {
		found, err = s.one(ctx, where+` AND name = $4`, b.GetRepository().GetId(), scope, key.GetVersion(), key.GetKey())
		if found != nil || err != nil {
			return found, true, err
		}
	}
	for _, prefix := range key.GetRestore() {
		if prefix == "" {
			continue
		}
		for _, scope := range scopes {
			one, err := s.one(ctx, where+` AND substr(name, 1, length($4)) = $4 ORDER BY create_time DESC LIMIT 1`,
				b.GetRepository().GetId(), scope, key.GetVersion(), prefix)
			if err != nil {
				return nil, false, err
			}
			if one != nil && (found == nil || one.created.After(found.created)) {
				found = one
			}
		}
		if found != nil {
			return found, false, nil
		}
	}
	return nil, false, nil
}

// neededArtifact is what a job has left that this one needs.
func (s *Service) neededArtifact(ctx context.Context, b *store.Build, asked *schedulerv1.NeededArtifact) (*stored, error) {
	needed, err := s.Needed(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, one := range needed {
		if one.GetBuildId() == asked.GetBuildId() && one.GetName() == asked.GetName() {
			return s.one(ctx, `kind = 2 AND build_id = $1 AND name = $2 AND repository_id = $3`, asked.GetBuildId(), asked.GetName(), b.GetRepository().GetId())
		}
	}
	return nil, fault.New(fault.NotFound, "this job needs no such artifact")
}

// Needed are the artifacts of the jobs that a job needs.
func (s *Service) Needed(ctx context.Context, b *store.Build) ([]*schedulerv1.NeededArtifact, error) {
	if !b.IsJob() || len(b.GetNeeds()) == 0 {
		return nil, nil
	}
	jobs, err := store.JobsOf(ctx, s.store.DB.Read(), b.GetPartOf(), "")
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	needs := map[string]bool{}
	for _, name := range b.GetNeeds() {
		needs[name] = true
	}
	var needed []*schedulerv1.NeededArtifact
	for _, job := range jobs {
		if !needs[job.ConfigJob().GetName()] {
			continue
		}
		left, err := s.all(ctx, `kind = 2 AND build_id = $1 ORDER BY name`, job.GetId())
		if err != nil {
			return nil, err
		}
		for _, one := range left {
			needed = append(needed, &schedulerv1.NeededArtifact{BuildId: job.GetId(), Name: one.name})
		}
	}
	return needed, nil
}
