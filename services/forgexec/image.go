package forgexec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	// imagePatience is for how long an image waits for a scheduler, or a BuildKit, that
	// is away.
	imagePatience = time.Minute
	// mostExchanges is how many folders BuildKit may ask for in one build.
	mostExchanges = 64
)

// imageStep has the scheduler build an image, and sends it the files that BuildKit asks
// for. Its error says, for people, why the step is nobody's fault here: it is over all
// the same.
func (s *sequence) imageStep(ctx context.Context, step *schedulerv1.PlannedStep, last bool) (*schedulerv1.StepEnded, error) {
	printed := s.begin(step)
	share, masked := s.budget.step(last, printed), s.masker.Stream()
	end := &schedulerv1.StepEnded{Number: step.GetNumber(), ExitCode: 1}
	built, err := s.buildImage(ctx, step, func(data []byte) { share.write(masked.Write(data)) })
	share.write(masked.Flush())
	share.end()
	switch {
	case ctx.Err() != nil && err != nil:
		end.Stopped = true
		return end, nil //nolint:nilerr // who has stopped it knows
	case status.Code(err) == codes.InvalidArgument:
		s.fails(printed, status.Convert(err).Message())
		return end, nil
	case err != nil:
		text, _ := plain(err)
		err = fmt.Errorf("step %d %q: no image was built: %s", step.GetNumber(), step.GetName(), text)
		s.print(printed, err.Error())
		return end, err
	}
	end.ExitCode = 0
	switch name := step.GetImage().GetOutput(); {
	case name == "":
	case built.GetReference() == "":
		s.print(printed, name+" is not set: the image has a name elsewhere once it is pushed")
	default:
		if problem := s.file.add(name, built.GetReference()); problem != nil {
			s.fails(printed, problem.Error())
			end.ExitCode = 1
		}
	}
	return end, nil
}

// fails says in the log why a step fails that runs no command, and, of the first that has
// failed, to the server: without secrets, as people read it.
func (s *sequence) fails(printed func([]byte), why string) {
	s.print(printed, why)
	if !s.failed {
		s.because = s.masker.String(why)
	}
}

// print puts a line of ours into the output of a step.
func (s *sequence) print(printed func([]byte), text string) {
	printed([]byte("forge: " + strings.TrimSpace(s.masker.String(text)) + "\n"))
}

// brokenOffError is the end of a stream after which the call is not made again: what it
// asked for may have been done.
type brokenOffError struct{ text string }

func (b brokenOffError) Error() string { return b.text }

func (s *sequence) buildImage(ctx context.Context, step *schedulerv1.PlannedStep, log func([]byte)) (built *schedulerv1.BuildImageResponse_Built, err error) {
	if s.store == nil {
		return nil, errors.New("an image is built by Forge alone, and there is none here")
	}
	root, err := os.OpenRoot(s.workspace.path)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it was only read
	begin := &schedulerv1.BuildImageRequest_Begin{RunnerId: s.store.runnerID, Number: step.GetNumber(), Variables: map[string]string{}}
	for _, name := range step.GetImage().GetVariables() {
		if value, set := s.file.set[name]; set {
			begin.Variables[name] = value
		}
	}
	heard := false
	err = s.store.call(ctx, imagePatience, func(ctx context.Context, client schedulerv1.RunnerServiceClient) error {
		stream, err := client.BuildImage(ctx)
		if err != nil {
			return err
		}
		build := &imageBuild{stream: stream, root: root, exchanges: map[int32]*exchange{}, log: log}
		built, err = build.run(ctx, begin)
		heard = heard || build.heard
		if heard && (status.Code(err) == codes.Unavailable || status.Code(err) == codes.Aborted) {
			text, _ := plain(err)
			return brokenOffError{"the connection to the scheduler broke off: " + text}
		}
		return err
	})
	return built, err
}

type imageStream = grpc.BidiStreamingClient[schedulerv1.BuildImageRequest, schedulerv1.BuildImageResponse]

// imageBuild is one call of BuildImage.
type imageBuild struct {
	stream imageStream
	root   *os.Root
	log    func([]byte)
	heard  bool // the server has begun

	sending   sync.Mutex
	exchanges map[int32]*exchange // of run alone
}

func (b *imageBuild) send(request *schedulerv1.BuildImageRequest) error {
	b.sending.Lock()
	defer b.sending.Unlock()
	return b.stream.Send(request)
}

func (b *imageBuild) run(ctx context.Context, begin *schedulerv1.BuildImageRequest_Begin) (*schedulerv1.BuildImageResponse_Built, error) {
	var working sync.WaitGroup
	defer working.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// An error of Send is said by Recv, in words.
	_ = b.send(&schedulerv1.BuildImageRequest{Message: &schedulerv1.BuildImageRequest_Begin_{Begin: begin}})
	for {
		message, err := b.stream.Recv()
		if err != nil {
			return nil, err
		}
		b.heard = true
		switch m := message.GetMessage().(type) {
		case *schedulerv1.BuildImageResponse_Open:
			if len(b.exchanges) == mostExchanges || b.exchanges[m.Open.GetExchange()] != nil {
				return nil, errors.New("the scheduler asks for files more often than it may")
			}
			e := newExchange(ctx, b, m.Open.GetExchange())
			b.exchanges[m.Open.GetExchange()] = e
			working.Go(func() { e.serve(m.Open) })
		case *schedulerv1.BuildImageResponse_Packet:
			if e := b.exchanges[m.Packet.GetExchange()]; e != nil {
				e.take(m.Packet)
			}
		case *schedulerv1.BuildImageResponse_Log:
			b.log(m.Log)
		case *schedulerv1.BuildImageResponse_Built_:
			return m.Built, nil
		case *schedulerv1.BuildImageResponse_Failed:
			return nil, brokenOffError{m.Failed}
		}
	}
}

// add sets a variable for the steps that follow.
func (f *envFile) add(name, value string) error {
	text := f.text
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	text += name + "=" + value + "\n"
	set, err := f.parse(text)
	if err != nil {
		return err
	}
	if len(text) > maxEnvFile {
		return fmt.Errorf("%s holds more than %d KiB: put large values into files", envFileEnv, maxEnvFile>>10)
	}
	f.text, f.set = text, maps.Clone(set)
	f.restore()
	return nil
}
