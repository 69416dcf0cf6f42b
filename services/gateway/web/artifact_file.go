package web

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// artifactFile is a file of an artifact, or a link.
type artifactFile struct {
	received

	client  schedulerv1.ArtifactServiceClient
	request *schedulerv1.DownloadArtifactRequest
	entry   *schedulerv1.FileEntry
}

// openFile opens a file, by any of its names, or a link.
func openFile(ctx context.Context, client schedulerv1.ArtifactServiceClient, artifact *schedulerv1.Artifact, name string) (*artifactFile, error) {
	f := &artifactFile{
		client:  client,
		request: &schedulerv1.DownloadArtifactRequest{BuildId: artifact.GetBuildId(), Name: artifact.GetName(), File: name},
	}
	f.start = func(at int64) (func() ([]byte, error), context.CancelFunc, error) { return f.open(ctx, at) }
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	if f.entry.GetType() == schedulerv1.FileEntry_TYPE_HARD_LINK {
		f.close()
		f.request.File, f.entry = f.entry.GetTarget(), nil
		if err := f.look(ctx); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// look finds what the file is, and has it sent from its first byte on.
func (f *artifactFile) look(ctx context.Context) error {
	next, cancel, err := f.open(ctx, 0)
	if err == nil {
		f.sends(0, next, cancel)
	}
	return err
}

// open has the scheduler send, from a byte on.
func (f *artifactFile) open(ctx context.Context, at int64) (next func() ([]byte, error), _ context.CancelFunc, err error) {
	ctx, cancel := context.WithCancel(ctx)
	request := proto.CloneOf(f.request)
	request.Offset = at
	var first *schedulerv1.DownloadArtifactResponse
	stream, err := f.client.DownloadArtifact(ctx, request)
	if err == nil {
		first, err = stream.Recv()
	}
	if err == nil && first.GetEntry() == nil {
		err = fault.New(fault.Internal, "the scheduler sends no entry of the file")
	}
	if err == nil && f.entry != nil && !proto.Equal(f.entry, first.GetEntry()) {
		err = fault.New(fault.Unavailable, "the file was replaced meanwhile")
	}
	if err != nil {
		cancel()
		return nil, nil, f.unread(err)
	}
	f.entry, f.size = first.GetEntry(), first.GetEntry().GetSize()
	return func() ([]byte, error) {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, f.unread(err)
		}
		return message.GetData(), nil
	}, cancel, nil
}

func (f *artifactFile) unread(err error) error {
	return fmt.Errorf("read file %s of artifact %s: %w", f.request.GetFile(), f.request.GetName(), err)
}
