package gateway

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// leftovers plays the scheduler's ArtifactService.
type leftovers struct {
	schedulerv1.UnimplementedArtifactServiceServer
	listed []*schedulerv1.Artifact
	// all are the entries of each of them, and what follows each; entries may be what no
	// honest builder would list.
	all   []leftover
	err   error         // of all calls
	cut   atomic.Int64  // if there: the scheduler ends with DATA_LOSS before this byte of a file
	hold  chan struct{} // if there: downloads wait for it after their first message
	calls atomic.Int64  // of DownloadArtifact
	sent  atomic.Value  // the build of the last of them, a string
}

type leftover struct {
	entry *schedulerv1.FileEntry
	data  string
}

// leaves adds a file.
func (l *leftovers) leaves(name, data string) {
	l.all = append(l.all, leftover{&schedulerv1.FileEntry{
		Type: schedulerv1.FileEntry_TYPE_FILE, Name: name, Mode: 0o644, Size: int64(len(data)), Modified: at(0).AsTime().UnixNano(),
	}, data})
}

func (l *leftovers) adds(kind schedulerv1.FileEntry_Type, name, target string) {
	l.all = append(l.all, leftover{&schedulerv1.FileEntry{Type: kind, Name: name, Target: target, Mode: 0o755, Modified: at(0).AsTime().UnixNano()}, ""})
}

func (l *leftovers) ListArtifacts(_ context.Context, req *schedulerv1.ListArtifactsRequest) (*schedulerv1.ListArtifactsResponse, error) {
	if req.GetBuildId() == "none" {
		return nil, fault.New(fault.NotFound, "no build none")
	}
	return &schedulerv1.ListArtifactsResponse{Artifacts: l.listed}, l.err
}

// ListArtifactFiles gives pages of 500. A page token is where the page begins.
func (l *leftovers) ListArtifactFiles(_ context.Context, req *schedulerv1.ListArtifactFilesRequest) (*schedulerv1.ListArtifactFilesResponse, error) {
	from, _ := strconv.Atoi(req.GetPageToken())
	to := min(from+500, len(l.all))
	answer := &schedulerv1.ListArtifactFilesResponse{}
	for _, one := range l.all[from:to] {
		answer.Files = append(answer.Files, one.entry)
	}
	if to < len(l.all) {
		answer.NextPageToken = strconv.Itoa(to)
	}
	return answer, l.err
}

func (l *leftovers) DownloadArtifact(req *schedulerv1.DownloadArtifactRequest, out grpc.ServerStreamingServer[schedulerv1.DownloadArtifactResponse]) error {
	l.calls.Add(1)
	l.sent.Store(req.GetBuildId())
	if req.GetFile() == "" {
		for _, one := range l.all {
			if err := l.send(one, 0, out); err != nil {
				return err
			}
		}
		return l.err
	}
	n := slices.IndexFunc(l.all, func(one leftover) bool { return one.entry.GetName() == req.GetFile() })
	if n < 0 {
		return fault.Newf(fault.NotFound, "artifact %s has no file %q", req.GetName(), req.GetFile())
	}
	return l.send(l.all[n], req.GetOffset(), out)
}

func (l *leftovers) send(one leftover, from int64, out grpc.ServerStreamingServer[schedulerv1.DownloadArtifactResponse]) error {
	if err := out.Send(&schedulerv1.DownloadArtifactResponse{Message: &schedulerv1.DownloadArtifactResponse_Entry{Entry: one.entry}}); err != nil {
		return err
	}
	if l.hold != nil {
		select {
		case <-l.hold:
		case <-out.Context().Done():
		}
	}
	const piece = 10_000
	for n := from; n < int64(len(one.data)); n += piece {
		if cut := l.cut.Load(); cut > 0 && n+piece > cut {
			return status.Error(codes.DataLoss, "chunk 7 in blob content/x is not what it was")
		}
		data := one.data[n:min(n+piece, int64(len(one.data)))]
		if err := out.Send(&schedulerv1.DownloadArtifactResponse{Message: &schedulerv1.DownloadArtifactResponse_Data{Data: []byte(data)}}); err != nil {
			return err
		}
	}
	return nil
}
