package forgexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type imageServer = grpc.BidiStreamingServer[schedulerv1.BuildImageRequest, schedulerv1.BuildImageResponse]

// BuildImage implements schedulerv1.RunnerServiceServer.
func (s *fakeScheduler) BuildImage(stream imageServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	return s.image(first.GetBegin(), stream)
}

// taker takes files as BuildKit does.
type taker struct {
	imageServer

	exchange int32
	crossed  int // bytes
}

func (k *taker) SendMsg(message any) error {
	data, err := message.(*types.Packet).MarshalVT()
	if err != nil {
		return err
	}
	return k.Send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Packet{Packet: &schedulerv1.FilePacket{Exchange: k.exchange, Data: data}}})
}

func (k *taker) RecvMsg(message any) error {
	request, err := k.Recv()
	if err != nil {
		return err
	}
	k.crossed += proto.Size(request)
	packet := request.GetPacket()
	switch {
	case packet.GetError() != "":
		return errors.New(packet.GetError())
	case packet.GetLast():
		return io.EOF
	}
	message.(*types.Packet).Reset()
	return message.(*types.Packet).UnmarshalVT(packet.GetData())
}

// take takes what is asked for of a folder; taken are the files by path, links with what
// they lead to.
func (k *taker) take(dest string, open *schedulerv1.OpenFiles) (taken []string, err error) {
	k.exchange++
	open.Exchange = k.exchange
	if err := k.Send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Open{Open: open}}); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dest, 0o700); err != nil {
		return nil, err
	}
	if err := fsutil.Receive(k.Context(), k, dest, fsutil.ReceiveOpt{}); err != nil {
		return nil, err
	}
	err = filepath.WalkDir(dest, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dest, path)
		switch {
		case err != nil || entry.IsDir():
		case entry.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			name += " -> " + to
			taken = append(taken, name)
		case entry.Type().IsRegular():
			text, readErr := os.ReadFile(path)
			taken, err = append(taken, name+"="+strings.TrimSpace(string(text[:min(len(text), 20)]))), readErr
		default:
			taken = append(taken, name+" "+entry.Type().String())
		}
		return err
	})
	slices.Sort(taken)
	return taken, err
}

func (k *taker) say(text string) error {
	return k.Send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Log{Log: []byte(text)}})
}

func (k *taker) built(reference string) error {
	return k.Send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Built_{Built: &schedulerv1.BuildImageResponse_Built{Reference: reference, Digest: "sha256:1"}}})
}

// imaging has an image step between commands.
func imaging(t *testing.T, before, after string, image func(begin *schedulerv1.BuildImageRequest_Begin, stream imageServer) error) *fakeScheduler {
	t.Helper()
	s := newScheduler(t, before, "", after)
	s.plan.Steps[1].Image = &schedulerv1.PlannedStep_ImageStep{Output: "WEB_IMAGE", Variables: []string{"FLAVOUR"}}
	s.plan.Steps[1].Name = "image"
	s.plan.Outputs = []string{"WEB_IMAGE"}
	s.plan.Secrets = map[string]string{"TOKEN": "hunter2-hunter2"}
	s.image = image
	return s
}

func TestImageStepSendsWhatIsAskedForAndHandsOnItsName(t *testing.T) {
	var context, dockerfile []string
	var wrong error
	dir := t.TempDir()
	s := imaging(t,
		"mkdir -p web/sub .git; echo one >web/a; echo two >web/sub/b; echo git >.git/HEAD; echo no >web/c; echo FLAVOUR=plain >>$FORGE_ENV; ln -s sub/b web/link",
		`echo "$WEB_IMAGE $FLAVOUR"`,
		func(begin *schedulerv1.BuildImageRequest_Begin, stream imageServer) error {
			k := &taker{imageServer: stream}
			if got := fmt.Sprint(begin.GetNumber(), begin.GetVariables()); got != "2 map[FLAVOUR:plain]" {
				wrong = errors.New("begin: " + got)
			}
			var err error
			if dockerfile, err = k.take(filepath.Join(dir, "all"), &schedulerv1.OpenFiles{Folder: "."}); err == nil {
				context, err = k.take(filepath.Join(dir, "some"), &schedulerv1.OpenFiles{Folder: "web", Follow: []string{"a", "link"}, Exclude: []string{"c"}})
			}
			wrong = errors.Join(wrong, err, k.say("#1 hunter2-hunter2 is masked\n"))
			return k.built("registry.example/web@sha256:1")
		})
	s.wantStory(t, s.forgexec(t),
		"source 1 entries", "start 1", "end 1 exit 0", "start 2", `"#1 *** is masked\n"`, "end 2 exit 0",
		"start 3", `"registry.example/web@sha256:1 plain\n"`, "end 3 exit 0", `outputs map["WEB_IMAGE":"registry.example/web@sha256:1"]`, "DONE")
	if wrong != nil {
		t.Error(wrong)
	}
	if want := []string{"file=content", "web/a=one", "web/c=no", "web/link -> sub/b", "web/sub/b=two"}; !slices.Equal(dockerfile, want) {
		t.Errorf("of the workspace %q, want %q", dockerfile, want)
	}
	if want := []string{"a=one", "link -> sub/b", "sub/b=two"}; !slices.Equal(context, want) {
		t.Errorf("of the context %q, want %q", context, want)
	}
}

// No link and no path leads out of the workspace, nobody waits for a pipe that somebody
// put there, and a folder that is not there is an error.
func TestImageStepSendsNothingFromElsewhere(t *testing.T) {
	dir := t.TempDir()
	var out, up, fifo error
	var links []string
	s := imaging(t,
		"mkdir x; ln -s /etc x/etc; ln -s ../../../../../../etc/passwd x/passwd; mkfifo x/pipe; ln -s /etc out; echo here >x/here", "true",
		func(_ *schedulerv1.BuildImageRequest_Begin, stream imageServer) error {
			k := &taker{imageServer: stream}
			_, out = k.take(filepath.Join(dir, "1"), &schedulerv1.OpenFiles{Folder: "out"})
			_, up = k.take(filepath.Join(dir, "2"), &schedulerv1.OpenFiles{Folder: "../.."})
			links, fifo = k.take(filepath.Join(dir, "3"), &schedulerv1.OpenFiles{Folder: "x", Follow: []string{"etc/hostname", "passwd", "pipe", "here"}})
			return k.built("")
		})
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 0", "start 2",
		`"forge: WEB_IMAGE is not set: the image has a name elsewhere once it is pushed\n"`, "end 2 exit 0", "start 3", "end 3 exit 0", "DONE")
	if out == nil || up == nil {
		t.Errorf("a link to /etc: %v; a path upwards: %v", out, up)
	}
	if want := []string{"etc -> /etc", "here=here", "passwd -> ../../../../../../etc/passwd", "pipe p---------"}; fifo != nil || !slices.Equal(links, want) {
		t.Errorf("%q, %v, want %q", links, fifo, want)
	}
}

// A context of 1 GB of which 1 MB is used: what is not asked for stays where it is.
func TestImageStepSendsLittleOfALargeContext(t *testing.T) {
	k := &taker{}
	dir := t.TempDir()
	s := imaging(t, "truncate -s 1G huge; head -c 1000000 /dev/urandom >used", "true",
		func(_ *schedulerv1.BuildImageRequest_Begin, stream imageServer) error {
			k.imageServer = stream
			if _, err := k.take(dir, &schedulerv1.OpenFiles{Folder: ".", Follow: []string{"used"}}); err != nil {
				return err
			}
			return k.built("x@sha256:1")
		})
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 0", "start 2", "end 2 exit 0", "start 3", "end 3 exit 0",
		`outputs map["WEB_IMAGE":"x@sha256:1"]`, "DONE")
	if k.crossed < 1_000_000 || k.crossed > 1_100_000 {
		t.Errorf("%d bytes crossed the stream", k.crossed)
	}
}

// However the call ends, the step ends once, with whose fault it is.
func TestImageStepThatFails(t *testing.T) {
	broken := func(text string) string { return `step 2 "image": no image was built: ` + text }
	for name, c := range map[string]struct {
		end   func(k *taker) error
		lines []string
	}{
		"its files": {
			func(*taker) error { return status.Error(codes.InvalidArgument, "Dockerfile, line 3: hunter2-hunter2") },
			[]string{`"forge: Dockerfile, line 3: ***\n"`, "end 2 exit 1", "DONE Dockerfile, line 3: ***"},
		},
		"a registry": {func(k *taker) error {
			err := k.Send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Failed{Failed: "registry.example is away"}})
			return errors.Join(err, k.say("not heard"))
		}, []string{`"forge: ` + strings.ReplaceAll(broken("registry.example is away"), `"`, `\"`) + `\n"`, "end 2 exit 1", "IMAGE " + broken("registry.example is away")}},
		"a scheduler that goes": {
			func(k *taker) error {
				_ = k.say("begun\n")
				return status.Error(codes.Unavailable, "gone")
			},
			[]string{`"begun\nforge: ` + strings.ReplaceAll(broken("the connection to the scheduler broke off: gone"), `"`, `\"`) + `\n"`, "end 2 exit 1", "IMAGE " + broken("the connection to the scheduler broke off: gone")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			s := imaging(t, "true", "true", func(_ *schedulerv1.BuildImageRequest_Begin, stream imageServer) error {
				calls++
				return c.end(&taker{imageServer: stream})
			})
			s.wantStory(t, s.forgexec(t), append([]string{"source 1 entries", "start 1", "end 1 exit 0", "start 2"}, c.lines...)...)
			if calls != 1 {
				t.Errorf("%d calls", calls)
			}
		})
	}
}

// A BuildKit that cannot be reached yet is waited for.
func TestImageStepWaitsForWhatBuilds(t *testing.T) {
	calls := 0
	s := imaging(t, "true", "true", func(_ *schedulerv1.BuildImageRequest_Begin, stream imageServer) error {
		if calls++; calls < 3 {
			return status.Error(codes.Unavailable, "no BuildKit")
		}
		return (&taker{imageServer: stream}).built("x@sha256:1")
	})
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 0", "start 2", "end 2 exit 0", "start 3", "end 3 exit 0",
		`outputs map["WEB_IMAGE":"x@sha256:1"]`, "DONE")
}

// A timeout ends an image step as any other.
func TestImageStepIsStopped(t *testing.T) {
	gone := make(chan error, 1)
	s := imaging(t, "true", "true", func(_ *schedulerv1.BuildImageRequest_Begin, stream imageServer) error {
		_ = (&taker{imageServer: stream}).say("begun\n")
		<-stream.Context().Done()
		gone <- context.Cause(stream.Context())
		return nil
	})
	f := s.forgexec(t)
	s.awaitOutput(t, "begun")
	s.cancelled <- "enough"
	s.wantStory(t, f, "source 1 entries", "start 1", "end 1 exit 0", "start 2", `"begun\n"`, "end 2 exit 1 stopped", "CANCELLED enough")
	if err := <-gone; err == nil {
		t.Error("the call goes on")
	}
}
