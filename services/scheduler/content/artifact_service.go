package content

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	mostArtifacts = 2000
	// largestEntry is in bytes: two names of PATH_MAX and some numbers.
	largestEntry = 16 << 10
)

// ListArtifacts lists what a build has left.
func (s *Service) ListArtifacts(ctx context.Context, req *schedulerv1.ListArtifactsRequest) (*schedulerv1.ListArtifactsResponse, error) {
	b, err := store.ReadBuild(ctx, s.store.DB.Read(), req.GetBuildId(), "")
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	found, err := s.all(ctx, `kind = 2 AND expire_time > $2 AND (build_id = $1 OR build_id IN (SELECT id FROM builds WHERE part_of = $1 AND part_of <> ''))
		ORDER BY build_id, name LIMIT $3`, b.GetId(), sqldb.Micros(s.store.Now()), mostArtifacts)
	if err != nil {
		return nil, err
	}
	answer := &schedulerv1.ListArtifactsResponse{}
	for _, one := range found {
		answer.Artifacts = append(answer.Artifacts, &schedulerv1.Artifact{
			BuildId: one.buildID, Name: one.name, Size: one.size, Files: one.files,
			CreateTime: timestamppb.New(one.created), ExpireTime: timestamppb.New(one.expires),
		})
	}
	return answer, nil
}

// artifact is one that somebody asks for: a build's own, or else that of its only job which
// has left one of that name.
func (s *Service) artifact(ctx context.Context, buildID, name string) (*schedulerv1.Manifest, error) {
	found, err := s.all(ctx, `kind = 2 AND name = $2 AND expire_time > $3
		AND (build_id = $1 OR build_id IN (SELECT id FROM builds WHERE part_of = $1 AND part_of <> '')) ORDER BY build_id`, buildID, name, sqldb.Micros(s.store.Now()))
	if err != nil {
		return nil, err
	}
	if own := slices.IndexFunc(found, func(one *stored) bool { return one.buildID == buildID }); own >= 0 {
		found = found[own : own+1]
	}
	switch len(found) {
	case 1:
	case 0:
		return nil, fault.Newf(fault.NotFound, "build %s has no artifact %q, or it is past its time", buildID, name)
	default:
		var jobs []string
		for _, one := range found {
			jobs = append(jobs, one.buildID)
		}
		return nil, fault.Newf(fault.Invalid, "several jobs of build %s have left %q: ask for that of one of %s", buildID, name, strings.Join(jobs, ", "))
	}
	manifest, err := s.manifest(ctx, found[0])
	if fault.Is(err, fault.NotFound) {
		return nil, status.Error(codes.DataLoss, err.Error())
	}
	return manifest, err
}

// entries hands on what an artifact holds, and where in its content each file
// begins, until told to stop.
func (s *Service) entries(ctx context.Context, m *schedulerv1.Manifest, each func(entry *schedulerv1.FileEntry, offset int64) (more bool, err error)) error {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	read := make(chan struct{})
	go func() {
		defer close(read)
		w.CloseWithError(s.unpacked(ctx, m, 0, int(m.GetIndexChunks()), func(_ int, chunk []byte) error {
			_, err := w.Write(chunk)
			return err
		}))
	}()
	defer func() {
		cancel()
		_ = r.Close()
		<-read
	}()
	buffered := bufio.NewReaderSize(r, 64<<10)
	for offset := int64(0); ; {
		entry := &schedulerv1.FileEntry{}
		err := protodelim.UnmarshalOptions{MaxSize: largestEntry}.UnmarshalFrom(buffered, entry)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		more, err := each(entry, offset)
		if err != nil || !more {
			return err
		}
		offset += entry.GetSize()
	}
}

// ListArtifactFiles lists files of an artifact.
func (s *Service) ListArtifactFiles(ctx context.Context, req *schedulerv1.ListArtifactFilesRequest) (*schedulerv1.ListArtifactFilesResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var skip int64
	if err := rpc.ParsePageToken(req.GetPageToken(), &skip); err != nil {
		return nil, err
	}
	manifest, err := s.artifact(ctx, req.GetBuildId(), req.GetName())
	if err != nil {
		return nil, err
	}
	answer := &schedulerv1.ListArtifactFilesResponse{}
	n := int64(0)
	err = s.entries(ctx, manifest, func(entry *schedulerv1.FileEntry, _ int64) (bool, error) {
		if entry.GetType() == schedulerv1.FileEntry_TYPE_FOLDER {
			return true, nil
		}
		if n++; n <= skip {
			return true, nil
		}
		if len(answer.GetFiles()) == size {
			answer.NextPageToken = rpc.PageToken(skip + int64(size))
			return false, nil
		}
		answer.Files = append(answer.Files, entry)
		return true, nil
	})
	return answer, broken(err)
}

// broken says in gRPC's word that what was stored is not there any more.
func broken(err error) error {
	if _, ok := errors.AsType[brokenError](err); ok || fault.Is(err, fault.NotFound) {
		return status.Error(codes.DataLoss, err.Error())
	}
	return err
}

type downloadStream = grpc.ServerStreamingServer[schedulerv1.DownloadArtifactResponse]

// DownloadArtifact sends files of an artifact.
func (s *Service) DownloadArtifact(req *schedulerv1.DownloadArtifactRequest, stream downloadStream) error {
	ctx := stream.Context()
	manifest, err := s.artifact(ctx, req.GetBuildId(), req.GetName())
	if err != nil {
		return err
	}
	if req.GetFile() == "" {
		return broken(s.sendAll(ctx, manifest, stream))
	}
	var found *schedulerv1.FileEntry
	var at int64
	err = s.entries(ctx, manifest, func(entry *schedulerv1.FileEntry, offset int64) (bool, error) {
		if entry.GetName() != req.GetFile() || entry.GetType() == schedulerv1.FileEntry_TYPE_FOLDER {
			return true, nil
		}
		found, at = entry, offset
		return false, nil
	})
	if err != nil {
		return broken(err)
	}
	if found == nil {
		return fault.Newf(fault.NotFound, "artifact %s has no file %q", req.GetName(), req.GetFile())
	}
	length := found.GetSize() - req.GetOffset()
	if req.GetOffset() < 0 || length < 0 || req.GetLength() < 0 {
		return status.Error(codes.OutOfRange, fmt.Sprintf("the file has %d bytes", found.GetSize()))
	}
	if req.GetLength() > 0 {
		length = min(length, req.GetLength())
	}
	if err := stream.Send(&schedulerv1.DownloadArtifactResponse{Message: &schedulerv1.DownloadArtifactResponse_Entry{Entry: found}}); err != nil {
		return err
	}
	return broken(s.sendPart(ctx, manifest, at+req.GetOffset(), length, stream))
}

// sendPart sends bytes of the content.
func (s *Service) sendPart(ctx context.Context, m *schedulerv1.Manifest, offset, length int64, stream downloadStream) error {
	from := int(m.GetIndexChunks())
	begin := int64(0) // of the chunk from
	for from < len(m.GetChunks()) && begin+int64(m.GetChunks()[from].GetSize()) <= offset {
		begin += int64(m.GetChunks()[from].GetSize())
		from++
	}
	to, end := from, begin
	for to < len(m.GetChunks()) && end < offset+length {
		end += int64(m.GetChunks()[to].GetSize())
		to++
	}
	if length == 0 {
		return nil
	}
	return s.unpacked(ctx, m, from, to, func(_ int, chunk []byte) error {
		part := chunk[max(offset-begin, 0):min(offset+length-begin, int64(len(chunk)))]
		begin += int64(len(chunk))
		return stream.Send(&schedulerv1.DownloadArtifactResponse{Message: &schedulerv1.DownloadArtifactResponse_Data{Data: part}})
	})
}

// sendAll sends each entry, and each file's bytes after it.
func (s *Service) sendAll(ctx context.Context, m *schedulerv1.Manifest, stream downloadStream) error {
	var list []*schedulerv1.FileEntry
	err := s.entries(ctx, m, func(entry *schedulerv1.FileEntry, _ int64) (bool, error) {
		list = append(list, entry)
		return true, nil
	})
	if err != nil {
		return err
	}
	var left int64 // of the file whose entry was sent last
	next := func() error {
		for left == 0 && len(list) > 0 {
			if err := stream.Send(&schedulerv1.DownloadArtifactResponse{Message: &schedulerv1.DownloadArtifactResponse_Entry{Entry: list[0]}}); err != nil {
				return err
			}
			left, list = list[0].GetSize(), list[1:]
		}
		return nil
	}
	if err := next(); err != nil {
		return err
	}
	return s.unpacked(ctx, m, int(m.GetIndexChunks()), len(m.GetChunks()), func(_ int, chunk []byte) error {
		for len(chunk) > 0 {
			if err := next(); err != nil {
				return err
			}
			n := min(int64(len(chunk)), left)
			if n == 0 {
				return fault.New(fault.Internal, "there is more than the listed files hold")
			}
			if err := stream.Send(&schedulerv1.DownloadArtifactResponse{Message: &schedulerv1.DownloadArtifactResponse_Data{Data: chunk[:n]}}); err != nil {
				return err
			}
			left, chunk = left-n, chunk[n:]
		}
		return next()
	})
}
