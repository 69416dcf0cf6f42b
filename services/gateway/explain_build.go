package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/terminal"
	"github.com/forge-ci/forge/services/wording"
)

// How much of a log an explanation has, in lines and in bytes of each.
const (
	lastLines    = 15
	lastLineSize = 400
)

// ofBuild finds what is known of one build, or one job of a build: that, and the delivery
// that asked for it.
func (s *Service) ofBuild(ctx context.Context, id string, answer *gatewayv1.ExplainAddressResponse) error {
	found, err := schedulerv1.NewBuildServiceClient(s.deps.Receivers["scheduler"]).GetBuild(rpc.Onward(ctx), &schedulerv1.GetBuildRequest{BuildId: id})
	if err != nil {
		return err
	}
	b := found.GetBuild()
	answer.Repository, answer.PullRequest, answer.Sha = wording.FullName(b.GetRepository()), b.GetPullRequest(), b.GetSha()
	answer.Builds, answer.Build = []*schedulerv1.Build{b}, b
	if b.GetDeliveryId() == "" {
		return nil
	}
	told, err := s.GetDelivery(ctx, &gatewayv1.GetDeliveryRequest{DeliveryId: b.GetDeliveryId()})
	if err == nil {
		told.Delivery.Headers, told.Delivery.Payload = nil, nil
		answer.Deliveries = []*gatewayv1.Delivery{told.GetDelivery()}
	}
	if fault.Is(err, fault.NotFound) { // it was pruned since
		return nil
	}
	return err
}

// behind leaves of the builds those that a status stands for, and finds the job where it
// stands for one.
func (s *Service) behind(ctx context.Context, answer *gatewayv1.ExplainAddressResponse, status string) error {
	var shown []string
	for _, b := range answer.GetBuilds() {
		if b.GetContext() == status {
			answer.Builds = slices.DeleteFunc(answer.GetBuilds(), func(b *schedulerv1.Build) bool { return b.GetContext() != status })
			return nil
		}
		shown = append(shown, b.GetContext())
	}
	builds := schedulerv1.NewBuildServiceClient(s.deps.Receivers["scheduler"])
	for _, b := range answer.GetBuilds() {
		title, isJob := strings.CutPrefix(status, b.GetContext()+"/")
		if !isJob {
			continue
		}
		whole, err := builds.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: b.GetId()})
		if err != nil {
			return err
		}
		for _, job := range whole.GetBuild().GetJobs() {
			if job.GetTitle() != title {
				continue
			}
			found, err := builds.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: job.GetId()})
			if err == nil {
				answer.Builds, answer.Build = []*schedulerv1.Build{found.GetBuild()}, found.GetBuild()
			}
			return err
		}
	}
	slices.Sort(shown)
	if shown = slices.Compact(shown); len(shown) == 0 {
		return nil // nothing was built at all, which is said
	}
	return fault.Newf(fault.NotFound, "nothing here stands behind the status %s: there are %s", status, strings.Join(shown, ", "))
}

// detail adds what the build that the answer is about came to, what it printed last, and
// what GitHub was told. What cannot be asked for now is left out.
func (s *Service) detail(ctx context.Context, answer *gatewayv1.ExplainAddressResponse, status string) {
	scheduler := s.deps.Receivers["scheduler"]
	if len(answer.GetBuilds()) > 0 && answer.GetBuild() == nil {
		found, err := schedulerv1.NewBuildServiceClient(scheduler).GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: answer.GetBuilds()[0].GetId()})
		answer.Build = found.GetBuild()
		if err != nil {
			answer.Build = answer.GetBuilds()[0]
			s.leftOut(ctx, "build", err)
		}
	}
	var err error
	if answer.LastLines, answer.LastLinesJob, err = lastLinesOf(ctx, schedulerv1.NewLogServiceClient(scheduler), answer.GetBuild()); err != nil {
		s.leftOut(ctx, "log", err)
	}
	sha := answer.GetSha()
	if sha == "" {
		sha = answer.GetBuild().GetSha()
	}
	if sha == "" {
		sha = telling(answer.GetDeliveries()).GetSha()
	}
	if sha == "" {
		return
	}
	told, err := reporterv1.NewReporterServiceClient(s.deps.Receivers["reporter"]).ListTargets(ctx, &reporterv1.ListTargetsRequest{
		Repository: answer.GetRepository(), Sha: sha, PageSize: explained,
	})
	if err != nil {
		s.leftOut(ctx, "reports", err)
	}
	answer.Targets = slices.DeleteFunc(told.GetTargets(), func(t *reporterv1.Target) bool {
		another := answer.GetBuild() != nil && t.GetRepository().GetId() != answer.GetBuild().GetRepository().GetId()
		return another || status != "" && t.GetContext() != status
	})
}

func (s *Service) leftOut(ctx context.Context, what string, err error) {
	s.deps.Log.WarnContext(ctx, "an explanation is left without a part", "part", what, "error", err)
}

// lastLinesOf are the last lines of a build that did not pass, or of its first job that did
// not: those of the step that failed, where one did.
func lastLinesOf(ctx context.Context, logs schedulerv1.LogServiceClient, b *schedulerv1.Build) (lines []string, job string, err error) {
	id, attempt := b.GetId(), b.GetAttempt()
	if !broken(b.GetState()) {
		return nil, "", nil
	}
	if len(b.GetJobs()) > 0 {
		at := slices.IndexFunc(b.GetJobs(), func(j *schedulerv1.Job) bool {
			return broken(j.GetState()) && !j.GetMayFail() && j.GetAttempt() > 0
		})
		if at < 0 {
			return nil, "", nil
		}
		id, attempt, job = b.GetJobs()[at].GetId(), b.GetJobs()[at].GetAttempt(), b.GetJobs()[at].GetTitle()
	}
	if attempt == 0 {
		return nil, "", nil
	}
	found, err := logs.GetLog(ctx, &schedulerv1.GetLogRequest{BuildId: id})
	if err != nil {
		return nil, "", fmt.Errorf("log of build %s: %w", id, err)
	}
	last := found.GetLog().GetLineCount()
	for _, step := range b.GetSteps() {
		for _, printed := range found.GetLog().GetSteps() {
			if step.GetState() == schedulerv1.Step_STATE_FAILED && printed.GetNumber() == step.GetNumber() && printed.GetLineCount() > 0 {
				last = printed.GetFirstLine() + printed.GetLineCount() - 1
			}
		}
	}
	if last == 0 {
		return nil, "", nil
	}
	stream, err := logs.ReadLog(ctx, &schedulerv1.ReadLogRequest{BuildId: id, Attempt: found.GetLog().GetAttempt(), Line: max(1, last-lastLines+1), PageSize: lastLines})
	for err == nil {
		var page *schedulerv1.ReadLogResponse
		if page, err = stream.Recv(); err != nil {
			break
		}
		for _, line := range page.GetLines() {
			if line.GetNumber() <= last && len(lines) < lastLines {
				lines = append(lines, clipped(terminal.Text(line.GetText())))
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, "", fmt.Errorf("log of build %s: %w", id, err)
	}
	return lines, job, nil
}

// broken reports whether a build has ended otherwise than it should.
func broken(state schedulerv1.Build_State) bool {
	return state > schedulerv1.Build_STATE_PASSED && state != schedulerv1.Build_STATE_CANCELLED
}

func clipped(line string) string {
	if len(line) <= lastLineSize {
		return line
	}
	return strings.ToValidUTF8(line[:lastLineSize], "") + "…"
}

// withoutOthers leaves out what became of another repository that had the name before:
// who can read the one need not have been able to read the other.
func (s *Service) withoutOthers(ctx context.Context, answer *gatewayv1.ExplainAddressResponse) error {
	owner, name, _ := strings.Cut(answer.GetRepository(), "/")
	found, err := configv1.NewRepositoryServiceClient(s.deps.Receivers["config"]).GetRepository(ctx, &configv1.GetRepositoryRequest{Owner: owner, Name: name})
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied) { // the App does not see it
		answer.Deliveries, answer.Builds = nil, nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("repository %s: %w", answer.GetRepository(), err)
	}
	id, since := found.GetRepository().GetId(), time.Time{}
	answer.Builds = slices.DeleteFunc(answer.GetBuilds(), func(b *schedulerv1.Build) bool {
		another := b.GetRepository().GetId() != id
		if at := b.GetCreateTime().AsTime(); another && at.After(since) {
			since = at
		}
		return another
	})
	answer.Deliveries = slices.DeleteFunc(answer.GetDeliveries(), func(d *gatewayv1.Delivery) bool {
		return !since.IsZero() && !d.GetReceiveTime().AsTime().After(since)
	})
	return nil
}

// withoutInternals leaves out of deliveries what is for those alone who run this Forge.
func withoutInternals(all []*gatewayv1.Delivery) {
	for _, d := range all {
		d.TraceId, d.InstallationId = "", 0
		for _, way := range d.GetForwards() {
			way.Error = ""
		}
	}
}
