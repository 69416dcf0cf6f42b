package forgexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// exchange sends BuildKit the files of one folder, as far as it asks for them.
type exchange struct {
	build  *imageBuild
	number int32
	ctx    context.Context //nolint:containedctx // fsutil asks its stream for one
	cancel context.CancelFunc
	asked  chan []byte // packets; closed after the last
	left   bool        // it is; of take alone
}

func newExchange(ctx context.Context, build *imageBuild, number int32) *exchange {
	ctx, cancel := context.WithCancel(ctx)
	return &exchange{build: build, number: number, ctx: ctx, cancel: cancel, asked: make(chan []byte, 64)}
}

// take hands on what the other end says, and waits where that is more than can be done.
func (e *exchange) take(packet *schedulerv1.FilePacket) {
	switch {
	case e.left:
	case packet.GetLast():
		e.left = true
		close(e.asked)
		if packet.GetError() != "" {
			e.cancel()
		}
	default:
		select {
		case e.asked <- packet.GetData():
		case <-e.ctx.Done():
		}
	}
}

func (e *exchange) serve(open *schedulerv1.OpenFiles) {
	defer e.cancel()
	last := &schedulerv1.FilePacket{Exchange: e.number, Last: true}
	if err := e.sendFiles(open); err != nil {
		last.Error = err.Error()
	}
	_ = e.build.send(packetRequest(last)) // Recv says why it cannot be sent
}

func packetRequest(packet *schedulerv1.FilePacket) *schedulerv1.BuildImageRequest {
	return &schedulerv1.BuildImageRequest{Message: &schedulerv1.BuildImageRequest_Packet{Packet: packet}}
}

func (e *exchange) sendFiles(open *schedulerv1.OpenFiles) error {
	folder := path.Clean(open.GetFolder())
	root, err := e.build.root.OpenRoot(folder)
	if err != nil {
		return fmt.Errorf("there is no folder %s in the workspace: %w", folder, reason(err))
	}
	defer root.Close() //nolint:errcheck // it was only read
	files, err := fsutil.NewFilterFS(plainFiles{fsutil.NewRootFS(unfollowed{fsutil.NewRoot(root), root}), root}, &fsutil.FilterOpt{
		IncludePatterns: open.GetInclude(), FollowPaths: open.GetFollow(),
		// It differs from build to build, and nothing that was copied with it could be
		// taken from the cache: .dockerignore brings it back by !.git.
		ExcludePatterns: append([]string{repositoryFolder}, open.GetExclude()...),
		Map:             anonymous,
	})
	if err != nil {
		return err
	}
	return fsutil.Send(e.ctx, e, files, nil)
}

// anonymous has files belong to root, whoever they belong to here: the cache is for
// what is in them.
func anonymous(_ string, stat *types.Stat) fsutil.MapResult {
	stat.Uid, stat.Gid = 0, 0
	return fsutil.MapResultKeep
}

// Context implements fsutil.Stream.
func (e *exchange) Context() context.Context { return e.ctx }

// SendMsg implements fsutil.Stream.
func (e *exchange) SendMsg(message any) error {
	packet, ok := message.(*types.Packet)
	if !ok {
		return fmt.Errorf("a %T is no packet", message)
	}
	data, err := packet.MarshalVT()
	if err != nil {
		return err
	}
	return e.build.send(packetRequest(&schedulerv1.FilePacket{Exchange: e.number, Data: data}))
}

// RecvMsg implements fsutil.Stream.
func (e *exchange) RecvMsg(message any) error {
	packet, ok := message.(*types.Packet)
	if !ok {
		return fmt.Errorf("a %T is no packet", message)
	}
	select {
	case <-e.ctx.Done():
		return context.Cause(e.ctx)
	case data, more := <-e.asked:
		if !more {
			return io.EOF
		}
		packet.Reset()
		return packet.UnmarshalVT(data)
	}
}

// unfollowed is a folder in which a link is itself, also where a walk begins at it.
type unfollowed struct {
	fsutil.Root
	root *os.Root
}

// FS implements fsutil.Root.
func (u unfollowed) FS() fs.FS { return unfollowedFS{u.root.FS(), u.root} }

type unfollowedFS struct {
	fs.FS
	root *os.Root
}

// Stat implements fs.StatFS.
func (u unfollowedFS) Stat(name string) (fs.FileInfo, error) { return u.root.Lstat(name) }

// plainFiles opens files alone, and waits for nobody who would write to one: a step may
// have put anything in the place of what was listed.
type plainFiles struct {
	fsutil.FS
	root *os.Root
}

// Open implements fsutil.FS.
func (p plainFiles) Open(name string) (io.ReadCloser, error) {
	file, err := p.root.OpenFile(path.Clean(name), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no plain file any more", name), file.Close())
	}
	return file, nil
}
