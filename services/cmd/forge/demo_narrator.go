package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

// pulse is how often the narrator looks at what is new.
const pulse = 20 * time.Millisecond

// narrator prints what happens: what GitHub sent, what Forge decided, what the
// builds did and what GitHub shows.
type narrator struct {
	world    *world
	out      io.Writer
	chapters int
	seen     int             // deliveries narrated
	built    map[string]bool // builds narrated
}

// paint colours text on a terminal that wants it (https://no-color.org).
func (n *narrator) paint(colour, text string) string {
	if file, ok := n.out.(*os.File); !ok || !wantsColour(file) {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (n *narrator) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(n.out, format, args...) // a reader who has left is no fault of the story
}

func (n *narrator) chapter(title string) {
	n.chapters++
	n.printf("\n%s\n", n.paint(bold, fmt.Sprintf("%d. %s", n.chapters, title)))
}

// linef prints what somebody did.
func (n *narrator) linef(who, format string, args ...any) {
	n.printf("  %-8s %s\n", who, fmt.Sprintf(format, args...))
}

// watch narrates until ctx ends.
func (n *narrator) watch(ctx context.Context) error {
	err := n.until(ctx, "", func() (bool, error) { return false, nil })
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// until narrates until done, an error, or, where there is something to wait for,
// until patience ends.
func (n *narrator) until(ctx context.Context, what string, done func() (bool, error)) error {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	var late <-chan time.Time
	if what != "" {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	for {
		if err := n.catchUp(ctx); err != nil {
			return err
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return fmt.Errorf("waited %s in vain for %s", patience, what)
		case <-n.world.exited:
			return errors.New("forge up has ended")
		case <-tick.C:
		}
	}
}

// catchUp narrates the new deliveries and their outcome.
func (n *narrator) catchUp(ctx context.Context) error {
	deliveries := n.world.sim.Deliveries()
	for _, d := range deliveries[n.seen:] {
		n.seen++
		if err := n.delivery(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (n *narrator) delivery(ctx context.Context, sent githubsim.Delivery) error {
	name := strings.TrimSpace(sent.Event + " " + sent.Action)
	if sent.StatusCode != http.StatusOK {
		n.linef("GitHub", "sent %s: Forge answered %q", name, sent.Status)
		return nil
	}
	kept, err := n.decided(ctx, sent.GUID)
	if err != nil {
		return err
	}
	for _, forward := range kept.GetForwards() {
		decision := forward.GetDecision()
		if forward.GetReceiver() != "scheduler" && len(kept.GetForwards()) > 1 {
			continue // the others drop what they cached
		}
		if len(decision.GetBuildIds()) == 0 {
			n.linef(n.paint(dim, "GitHub"), "%s", n.paint(dim, fmt.Sprintf("sent %s; %s", name, decision.GetText())))
			continue
		}
		n.linef("GitHub", "sent %s", name)
		n.linef("Forge", "%s", n.paint(bold, decision.GetText()))
		for _, id := range decision.GetBuildIds() {
			if err := n.build(ctx, id, decision.GetReason()); err != nil {
				return err
			}
		}
	}
	return nil
}

// decided waits for what was decided about a delivery.
func (n *narrator) decided(ctx context.Context, id string) (*gatewayv1.Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		answer, err := n.world.calls.deliveries.GetDelivery(n.world.calls.admin(ctx), &gatewayv1.GetDeliveryRequest{DeliveryId: id})
		if err != nil && !fault.Is(err, fault.Unavailable) {
			return nil, fmt.Errorf("look up delivery %s: %w", id, err)
		}
		if answer.GetDelivery().GetState() > gatewayv1.Delivery_STATE_PENDING {
			return answer.GetDelivery(), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("delivery %s is not decided: %w", id, ctx.Err())
		case <-tick.C:
		}
	}
}

// build narrates one build until it has ended and GitHub shows so.
func (n *narrator) build(ctx context.Context, id string, why eventv1.Reason) error {
	if n.built[id] || why == eventv1.Reason_REASON_DUPLICATE {
		return nil
	}
	if n.built == nil {
		n.built = map[string]bool{}
	}
	n.built[id] = true
	updates, err := n.world.calls.builds.WatchBuild(ctx, &schedulerv1.WatchBuildRequest{BuildId: id})
	if err != nil {
		return fmt.Errorf("watch build %s: %w", id, err)
	}
	steps, jobs := map[int32]schedulerv1.Step_State{}, map[string]schedulerv1.Build_State{}
	var last *schedulerv1.Build
	for {
		update, err := updates.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("watch build %s: %w", id, err)
		}
		last = update.GetBuild()
		n.jobs(last, jobs)
		if err := n.steps(ctx, last, steps); err != nil {
			return err
		}
	}
	return n.status(ctx, last)
}

// jobs narrates the jobs that have begun or ended since the last call.
func (n *narrator) jobs(build *schedulerv1.Build, narrated map[string]schedulerv1.Build_State) {
	for _, job := range build.GetJobs() {
		state := job.GetState()
		if narrated[job.GetId()] == state || state < schedulerv1.Build_STATE_RUNNING {
			continue
		}
		narrated[job.GetId()] = state
		n.linef("job", "%s: %s", n.paint(bold, job.GetTitle()), jobLine(job))
	}
}

// steps narrates the steps that have begun or ended since the last call.
func (n *narrator) steps(ctx context.Context, build *schedulerv1.Build, narrated map[int32]schedulerv1.Step_State) error {
	for i, step := range build.GetSteps() {
		number, state := step.GetNumber(), step.GetState()
		if state <= schedulerv1.Step_STATE_PENDING || state == schedulerv1.Step_STATE_SKIPPED || narrated[number] == state {
			continue
		}
		if narrated[number] == schedulerv1.Step_STATE_UNSPECIFIED {
			n.linef("step", "%d of %d: %s", number, build.GetStepCount(), n.paint(bold, step.GetName()))
		}
		narrated[number] = state
		if state == schedulerv1.Step_STATE_RUNNING {
			continue
		}
		end := build.GetLogSize()
		if next := i + 1; next < len(build.GetSteps()) && build.GetSteps()[next].GetStartTime() != nil {
			end = build.GetSteps()[next].GetLogOffset()
		}
		if err := n.output(ctx, build, step.GetLogOffset(), end); err != nil {
			return err
		}
		took := step.GetEndTime().AsTime().Sub(step.GetStartTime().AsTime()).Round(time.Millisecond)
		if state == schedulerv1.Step_STATE_PASSED {
			n.linef("", "%s in %s", n.paint(green, "✓ passed"), took)
		} else {
			n.linef("", "%s with exit code %d in %s", n.paint(red, "✗ ended"), step.GetExitCode(), took)
		}
	}
	return nil
}

// output prints a part of a build's log.
func (n *narrator) output(ctx context.Context, build *schedulerv1.Build, from, to int64) error {
	log, err := n.world.calls.builds.WatchLog(ctx, &schedulerv1.WatchLogRequest{BuildId: build.GetId(), Attempt: build.GetAttempt(), Offset: from})
	if err != nil {
		return fmt.Errorf("log of build %s: %w", build.GetId(), err)
	}
	var text []byte
	for {
		chunk, err := log.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("log of build %s: %w", build.GetId(), err)
		}
		text = append(text, chunk.GetData()...)
	}
	text = text[:min(int64(len(text)), max(0, to-from))]
	for line := range strings.Lines(string(text)) {
		n.linef("", "%s %s", n.paint(dim, "│"), strings.TrimRight(line, "\n"))
	}
	return nil
}

// status narrates what GitHub shows of the build, until it shows the end.
func (n *narrator) status(ctx context.Context, build *schedulerv1.Build) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	var read int
	colours := map[string]string{"success": green, "failure": red, "error": red, "pending": amber}
	for {
		history, err := n.world.sim.StatusHistory(demoOwner, demoRepo, build.GetSha())
		if err != nil {
			return err
		}
		for ; read < len(history); read++ {
			shown := history[read]
			if shown.Context != build.GetContext() {
				continue
			}
			n.linef("GitHub", "shows %s: %s, %s", shown.Context, n.paint(colours[shown.State], shown.State), shown.Description)
			if shown.State != "pending" {
				n.linef("", "%s", n.paint(dim, shown.TargetURL))
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("GitHub does not show how build %s ended: %w", build.GetId(), ctx.Err())
		case <-tick.C:
		}
	}
}
