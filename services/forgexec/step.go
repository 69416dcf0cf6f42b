package forgexec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/mask"
)

// background is how long a step's output may stay open after its shell has ended.
const background = 2 * time.Second

const backgroundNotice = "forge: this step left processes in the background that still held its output; they were stopped. " +
	"To keep one for later steps, send its output elsewhere: command >file 2>&1 &\n"

// GitHub's archives have an empty folder for each submodule.
const submodulesNotice = "forge: .gitmodules is there, but submodules are not asked for: their folders are empty; source: {submodules: true} fills them"

// runner runs the steps of a plan.
type runner struct {
	processes *processes
	workspace *workspace
	environ   map[string]string
	notices   []string  // for the top of the log
	services  []service // that the first step waits for
	planned   bool      // the plan has come
	masker    *mask.Masker
	budget    *budget // of the log
	store     *store  // of what builds keep; nil: plans have none of that
	remains   *remains
	// report may block while too much output waits to be sent.
	report func(*schedulerv1.Report)
}

// halt is why commands are stopped: the cause of a context's end.
type halt struct {
	cause   schedulerv1.Ended_Cause
	message string
	atOnce  bool // without SIGTERM: nobody may run these commands any more
	// late is when even steps end that run after this; nil: none may.
	late context.Context //nolint:containedctx // it outlives the one that this is the cause of
}

func (h *halt) Error() string { return h.message }

func (h *halt) ended() *schedulerv1.Ended {
	return &schedulerv1.Ended{Cause: h.cause, Message: h.message}
}

// halted returns why ctx has ended.
func halted(ctx context.Context) *halt {
	if h, ok := errors.AsType[*halt](context.Cause(ctx)); ok {
		return h
	}
	return &halt{cause: schedulerv1.Ended_CAUSE_STOPPED, message: "forgexec was told to stop"}
}

// steps runs one after the other until one fails, and reports them. When it
// returns nothing of them runs any more.
func (r *runner) steps(ctx context.Context, plan *schedulerv1.Plan) *schedulerv1.Ended {
	r.masker = mask.New(slices.Collect(maps.Values(plan.GetSecrets())))
	ended := r.each(ctx, plan)
	ended.Message = r.masker.String(ended.GetMessage())
	return ended
}

func (r *runner) each(ctx context.Context, plan *schedulerv1.Plan) *schedulerv1.Ended {
	defer r.processes.killRest()
	whole := ctx
	if ended := r.bring(ctx, plan); ended != nil {
		return ended
	}
	caches := r.caches(plan)
	r.restore(ctx, plan, caches)
	if timeout := plan.GetTimeout().AsDuration(); timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout,
			&halt{cause: schedulerv1.Ended_CAUSE_TIMED_OUT, message: "the build ran into its timeout of " + short(timeout), late: ctx})
		defer cancel()
	}
	r.notices = append(r.notices, plan.GetNotices()...)
	_, named := os.Lstat(filepath.Join(r.workspace.path, ".gitmodules"))
	_, filled := os.Lstat(filepath.Join(r.workspace.path, repositoryFolder, "modules"))
	if named == nil && filled != nil {
		r.notices = append(r.notices, submodulesNotice)
	}
	r.budget = &budget{limit: plan.GetLogLimit(), left: plan.GetLogLimit()}
	file, err := newEnvFile(r.workspace.path)
	if err != nil {
		return &schedulerv1.Ended{Cause: schedulerv1.Ended_CAUSE_NOT_RUNNABLE, Message: err.Error()}
	}
	defer file.remove()
	spans := r.takeSpans(ctx, plan)
	file.held = spans.variables()
	s := sequence{runner: r, plan: plan, file: file, spans: spans, ctx: ctx}
	ended := s.run()
	spans.close()
	spans.flush(r.report)
	s.handOn()
	s.readReports()
	r.remains = s.leftBehind()
	return s.keep(whole, ended, caches)
}

// step runs one. An error says, for people, why it could not be started.
func (r *runner) step(ctx context.Context, step *schedulerv1.PlannedStep, last bool, plan *schedulerv1.Plan, env []string) (*schedulerv1.StepEnded, error) {
	dir, err := r.workspace.folder(plan.GetWorkingDirectory())
	if err != nil {
		return nil, err
	}
	shell, err := shellOf(plan.GetShell(), variables(env)["PATH"])
	if err != nil {
		return nil, err
	}
	output, input, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("step %d cannot be started: %w", step.GetNumber(), err)
	}
	defer output.Close() //nolint:errcheck // it was not written to
	enlarge(input)
	killed := memoryKills(os.Getpid(), memoryEvents())
	pid, ended, err := r.processes.start(command{
		argv: append(shell, step.GetRun()), env: env, dir: dir, output: input,
	})
	_ = input.Close() // the command has its own
	if err != nil {
		return nil, fmt.Errorf("step %d cannot be started: %w", step.GetNumber(), err)
	}
	printed := r.begin(step)
	share, masked := r.budget.step(last, printed), r.masker.Stream()
	var sudo sudoWatch
	pump := &pump{r: output, emit: func(data []byte) {
		sudo.look(data)
		share.write(masked.Write(data))
	}}
	closed := make(chan bool, 1)
	go func() { closed <- pump.run() }()
	status, stopped := wait(ctx, pid, plan.GetGrace().AsDuration(), ended, pump)
	eof := <-closed
	share.write(masked.Flush())
	share.end()
	if sudo.seen {
		printed([]byte(sudoNotice))
	}
	if !eof && !stopped {
		signalGroup(pid, syscall.SIGKILL)
		printed([]byte(backgroundNotice))
	}
	return &schedulerv1.StepEnded{
		Number: step.GetNumber(), ExitCode: int32(exitCode(status)), Stopped: stopped, //nolint:gosec // 0 to 255
		OutOfMemory: memoryKills(os.Getpid(), memoryEvents()) > killed,
	}, nil
}

// begin reports that a step has begun, and returns what reports its output.
func (r *runner) begin(step *schedulerv1.PlannedStep) (printed func([]byte)) {
	r.report(&schedulerv1.Report{Event: &schedulerv1.Report_StepStarted{StepStarted: &schedulerv1.StepStarted{Number: step.GetNumber()}}})
	printed = func(data []byte) {
		for part := range slices.Chunk(data, chunk) {
			r.report(&schedulerv1.Report{Event: &schedulerv1.Report_Output{Output: &schedulerv1.Output{Number: step.GetNumber(), Data: part}}})
		}
	}
	for _, notice := range r.notices {
		printed([]byte(notice + "\n"))
	}
	r.notices = nil
	return printed
}

// wait waits for the command. When ctx ends first it stops the whole group, which
// is gone when wait returns.
func wait(ctx context.Context, group int, grace time.Duration, ended <-chan syscall.WaitStatus, pump *pump) (status syscall.WaitStatus, stopped bool) {
	select {
	case status = <-ended:
		pump.finish(time.Now().Add(background))
		return status, false
	case <-ctx.Done():
	}
	if !halted(ctx).atOnce {
		signalGroup(group, syscall.SIGTERM)
		waitGroup(group, time.Now().Add(grace))
	}
	signalGroup(group, syscall.SIGKILL)
	status = <-ended
	pump.finish(time.Now())
	return status, true
}

// shellOf is how a command is handed to a shell, which comes last.
func shellOf(shell configv1.Shell, path string) ([]string, error) {
	program, arguments := "sh", []string{"-e", "-c"}
	if shell == configv1.Shell_SHELL_BASH {
		program, arguments = "bash", []string{"-eo", "pipefail", "-c"}
	}
	for _, folder := range append([]string{"/bin"}, filepath.SplitList(path)...) {
		if at := filepath.Join(folder, program); filepath.IsAbs(at) {
			if found, err := exec.LookPath(at); err == nil {
				return append([]string{found}, arguments...), nil
			}
		}
	}
	if program == "bash" {
		return nil, errors.New("the image has no bash, which .forge.yml asks for: there is none in /bin or PATH; use an image that has it, or leave shell out")
	}
	return nil, errors.New("the image has no shell: steps are run with sh -e, and there is no sh in /bin or PATH; use an image that has one")
}

// short is 30m where String says 30m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
