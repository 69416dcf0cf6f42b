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

// artifactFile is a file of an artifact, as http.ServeContent reads it: nothing of it
// is held but one message.
type artifactFile struct {
	// start has the scheduler send, from a byte on.
	start   func(at int64) (schedulerv1.ArtifactService_DownloadArtifactClient, context.CancelFunc, error)
	request *schedulerv1.DownloadArtifactRequest
	entry   *schedulerv1.FileEntry

	wanted int64 // where the next Read reads
	stream schedulerv1.ArtifactService_DownloadArtifactClient
	cancel context.CancelFunc
	at     int64  // where rest begins
	rest   []byte // of the last message
	err    error  // why it cannot be read
}

// openFile opens a file, by any of its names, or a link.
func openFile(ctx context.Context, client schedulerv1.ArtifactServiceClient, artifact *schedulerv1.Artifact, name string) (*artifactFile, error) {
	f := &artifactFile{request: &schedulerv1.DownloadArtifactRequest{BuildId: artifact.GetBuildId(), Name: artifact.GetName(), File: name}}
	f.start = func(at int64) (schedulerv1.ArtifactService_DownloadArtifactClient, context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(ctx)
		request := proto.CloneOf(f.request)
		request.Offset = at
		stream, err := client.DownloadArtifact(ctx, request)
		return stream, cancel, err
	}
	if err := f.open(0); err != nil {
		return nil, err
	}
	if f.entry.GetType() == schedulerv1.FileEntry_TYPE_HARD_LINK {
		f.close()
		f.request.File, f.entry = f.entry.GetTarget(), nil
		if err := f.open(0); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *artifactFile) open(at int64) error {
	f.close()
	stream, cancel, err := f.start(at)
	var first *schedulerv1.DownloadArtifactResponse
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
		return fmt.Errorf("read file %s of artifact %s: %w", f.request.GetFile(), f.request.GetName(), err)
	}
	f.entry, f.stream, f.cancel, f.at, f.rest = first.GetEntry(), stream, cancel, at, nil
	return nil
}

func (f *artifactFile) close() {
	if f.stream != nil {
		f.cancel()
		f.stream = nil
	}
}

// begin has the first bytes read.
func (f *artifactFile) begin() error {
	if _, err := f.Read(nil); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Seek says where the next Read begins.
func (f *artifactFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.wanted
	case io.SeekEnd:
		offset += f.entry.GetSize()
	}
	f.wanted = offset
	return offset, nil
}

// Read reads on where the one before ended, or where Seek has said.
func (f *artifactFile) Read(p []byte) (int, error) {
	if f.err == nil && f.wanted < f.entry.GetSize() {
		f.err = f.fill()
	}
	if f.err != nil {
		return 0, f.err
	}
	if f.wanted >= f.entry.GetSize() {
		return 0, io.EOF
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	f.at += int64(n)
	f.wanted = f.at
	return n, nil
}

// fill has something in rest.
func (f *artifactFile) fill() error {
	if f.stream == nil || f.at != f.wanted {
		if err := f.open(f.wanted); err != nil {
			return err
		}
	}
	for len(f.rest) == 0 {
		message, err := f.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read file %s of artifact %s: %w", f.request.GetFile(), f.request.GetName(), err)
		}
		f.rest = message.GetData()
	}
	return nil
}
