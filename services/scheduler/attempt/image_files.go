package attempt

import (
	"context"
	"errors"
	"io"
	"path"
	"sync"

	"github.com/tonistiigi/fsutil/types"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/image"
)

const (
	mostExchanges = 64
	// packetsAhead is how many packets of files wait for BuildKit before the stream does.
	packetsAhead  = 16
	largestPacket = 1 << 20
)

// imageFiles are the files of a workspace, which the runner sends as BuildKit asks for
// them. Several exchanges share its stream.
type imageFiles struct {
	stream schedulerv1.RunnerService_BuildImageServer
	step   *configv1.ImageStep

	sending sync.Mutex
	said    bool // the runner was sent something
	closed  bool // nothing is sent any more

	mu        sync.Mutex
	exchanges map[int32]*fileExchange
}

// fileExchange is one of them.
type fileExchange struct {
	number  int32
	packets chan *schedulerv1.FilePacket
	over    chan struct{} // closed once nobody reads them any more
}

func newImageFiles(stream schedulerv1.RunnerService_BuildImageServer, step *configv1.ImageStep) *imageFiles {
	return &imageFiles{stream: stream, step: step, exchanges: map[int32]*fileExchange{}}
}

func (f *imageFiles) send(response *schedulerv1.BuildImageResponse) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	if f.closed {
		return io.ErrClosedPipe
	}
	f.said = true
	return f.stream.Send(response)
}

// close has nothing be sent from here on: the stream ends with its handler.
func (f *imageFiles) close() {
	f.sending.Lock()
	defer f.sending.Unlock()
	f.closed = true
}

// used reports whether the runner was told anything.
func (f *imageFiles) used() bool {
	f.sending.Lock()
	defer f.sending.Unlock()
	return f.said
}

// receive hands on what the runner sends, until its stream ends. A packet that nobody
// waits for waits itself, and so does the runner.
func (f *imageFiles) receive(ctx context.Context, end context.CancelCauseFunc) {
	for {
		request, err := f.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fault.New(fault.Invalid, "the runner ended the stream before the image was built")
			}
			end(err)
			return
		}
		packet := request.GetPacket()
		if packet == nil || len(packet.GetData()) > largestPacket {
			end(fault.Newf(fault.Invalid, "expected packets of %d bytes at most", largestPacket))
			return
		}
		f.mu.Lock()
		e := f.exchanges[packet.GetExchange()]
		f.mu.Unlock()
		if e == nil {
			end(fault.Newf(fault.Invalid, "there is no exchange %d", packet.GetExchange()))
			return
		}
		select {
		case e.packets <- packet:
		case <-e.over:
		case <-ctx.Done():
			return
		}
	}
}

func (f *imageFiles) open() (*fileExchange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.exchanges) == mostExchanges {
		return nil, fault.Newf(fault.Invalid, "the files are asked for more than %d times", mostExchanges)
	}
	e := &fileExchange{
		number: int32(len(f.exchanges)) + 1, packets: make(chan *schedulerv1.FilePacket, packetsAhead), over: make(chan struct{}), //nolint:gosec // at most 64
	}
	f.exchanges[e.number] = e
	return e, nil
}

func (f *imageFiles) packet(packet *schedulerv1.FilePacket) error {
	return f.send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Packet{Packet: packet}})
}

// DiffCopy implements image.Files.
func (f *imageFiles) DiffCopy(ctx context.Context, want image.Want, stream image.Stream) error {
	var folder string
	switch want.Dir {
	case "context":
		folder = path.Clean(f.step.GetContext())
	case "dockerfile":
		folder = path.Dir(dockerfile(f.step))
	default:
		return fault.Newf(fault.Invalid, "there are no files called %q", want.Dir)
	}
	e, err := f.open()
	if err != nil {
		return err
	}
	defer close(e.over)
	if err := f.send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Open{Open: &schedulerv1.OpenFiles{
		Exchange: e.number, Folder: folder, Include: want.Include, Exclude: want.Exclude, Follow: want.FollowPaths,
	}}}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What BuildKit asks for; it ends with BuildKit's stream, which its handler ends by
	// returning.
	go func() {
		last := &schedulerv1.FilePacket{Exchange: e.number, Last: true}
		if err := f.ask(e, stream); !errors.Is(err, io.EOF) {
			last.Error = err.Error()
			cancel(err)
		}
		_ = f.packet(last) // whoever reads the stream says what became of it
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case packet := <-e.packets:
			if packet.GetError() != "" {
				return fault.Newf(fault.Invalid, "files of the workspace: %s", packet.GetError())
			}
			if packet.GetLast() {
				return nil
			}
			if err := answer(stream, packet); err != nil {
				return err
			}
		}
	}
}

// ask tells the runner what BuildKit asks for, until that has ended.
func (f *imageFiles) ask(e *fileExchange, stream image.Stream) error {
	for {
		var packet types.Packet
		if err := stream.RecvMsg(&packet); err != nil {
			return err
		}
		data, err := packet.MarshalVT()
		if err == nil {
			err = f.packet(&schedulerv1.FilePacket{Exchange: e.number, Data: data})
		}
		if err != nil {
			return err
		}
	}
}

// answer hands BuildKit what the runner answers.
func answer(stream image.Stream, packet *schedulerv1.FilePacket) error {
	var answered types.Packet
	if err := answered.UnmarshalVT(packet.GetData()); err != nil {
		return fault.Newf(fault.Invalid, "files of the workspace: %w", err)
	}
	return stream.SendMsg(&answered)
}
