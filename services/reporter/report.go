package reporter

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// maxReported bounds the output that comes with a report.
const maxReported = 64 << 10

// Report stores how a build stands.
func (s *Service) Report(ctx context.Context, req *reporterv1.ReportRequest) (*reporterv1.ReportResponse, error) {
	b := req.GetBuild()
	_, known := looks[b.GetState()]
	err := lacking("report", b.GetRepository(), map[string]bool{
		"sha": b.GetSha() == "", "context": b.GetContext() == "", "state": !known, "version": req.GetVersion() <= 0,
	})
	if err != nil {
		return nil, err
	}
	if len(req.GetOutput()) > maxReported {
		return nil, fault.Newf(fault.Invalid, "the report's output has %d bytes, %d are taken", len(req.GetOutput()), maxReported)
	}
	payload, err := proto.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("report of build %s: %w", b.GetId(), err)
	}
	var leased []target
	all := true
	err = s.store.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		s.unlease(leased) // of a transaction that is tried again
		leased = nil
		siblings, err := s.store.siblings(ctx, tx, b.GetRepository().GetId(), b.GetSha(), b.GetContext())
		if err != nil || slices.ContainsFunc(siblings, func(t target) bool { return t.version >= req.GetVersion() }) {
			return err
		}
		if err := s.leaveBehind(ctx, tx, siblings, b); err != nil {
			return err
		}
		for _, kind := range s.kinds(b, siblings) {
			t := target{id: buildTarget(kind, b), kind: kind}
			if i := slices.IndexFunc(siblings, func(one target) bool { return one.id == t.id }); i >= 0 {
				t = siblings[i]
			}
			t.report(b, req.GetVersion(), payload)
			t.traceparent = telemetry.Traceparent(ctx)
			now := s.deps.Now()
			t.schedule(now)
			if s.lease(&t, now) {
				leased = append(leased, t)
				t.begun = true
			} else {
				all = false
			}
			if err := save(ctx, tx, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.unlease(leased)
		return nil, sqldb.Kind(fmt.Errorf("report of build %s: %w", b.GetId(), err))
	}
	s.giveUp(ctx, s.handover.put(leased))
	if all {
		s.loop.Wake()
	} else {
		s.wake()
	}
	return &reporterv1.ReportResponse{}, nil
}

// report has a build's newest state shown.
func (t *target) report(b *schedulerv1.Build, version int64, payload []byte) {
	t.version = version
	t.show(b)
	if t.kind != reporterv1.Target_KIND_STATUS {
		t.payload = payload
	}
	t.repository, t.installationID = b.GetRepository(), b.GetInstallationId()
	t.sha, t.context, t.buildID = b.GetSha(), b.GetContext(), b.GetId()
}

// kinds are what a build is told as. What was begun under another setting is
// told to its end.
func (s *Service) kinds(b *schedulerv1.Build, siblings []target) []reporterv1.Target_Kind {
	kinds := slices.Clone(reports()[s.deps.Report])
	if b.GetEnvironment() != "" {
		kinds = append(kinds, reporterv1.Target_KIND_DEPLOYMENT)
	}
	for _, t := range siblings {
		if !slices.Contains(kinds, t.kind) && t.id == buildTarget(t.kind, b) {
			kinds = append(kinds, t.kind)
		}
	}
	return kinds
}

// reports is what each value of FORGE_REPORT has told.
func reports() map[string][]reporterv1.Target_Kind {
	return map[string][]reporterv1.Target_Kind{
		"statuses": {reporterv1.Target_KIND_STATUS},
		"checks":   {reporterv1.Target_KIND_CHECK_RUN},
		"both":     {reporterv1.Target_KIND_STATUS, reporterv1.Target_KIND_CHECK_RUN},
	}
}

// buildTarget is the id of a build's target: a status is shared by all builds of
// the commit's context, a check run or a deployment is one build's.
func buildTarget(kind reporterv1.Target_Kind, b *schedulerv1.Build) string {
	key := []string{b.GetSha(), b.GetContext()}
	if kind != reporterv1.Target_KIND_STATUS {
		key = append(key, b.GetId())
	}
	return targetID(kind, b.GetRepository().GetId(), key...)
}

// leaveBehind ends what GitHub shows of builds that another one has taken the
// place of: nothing more will be reported of them.
func (s *Service) leaveBehind(ctx context.Context, tx *sql.Tx, siblings []target, by *schedulerv1.Build) error {
	for _, t := range siblings {
		if t.kind == reporterv1.Target_KIND_STATUS || t.buildID == by.GetId() || !t.want.unfinished() && t.want.state != actionRequired {
			continue
		}
		left := &reporterv1.ReportRequest{}
		if err := proto.Unmarshal(t.payload, left); err != nil {
			return fmt.Errorf("payload of target %s: %w", t.id, err)
		}
		left.Build.State, left.Build.Reason = schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_SUPERSEDED
		left.Build.Message = "Superseded by another build of the same commit"
		payload, err := proto.Marshal(left)
		if err != nil {
			return fmt.Errorf("payload of target %s: %w", t.id, err)
		}
		t.payload = payload
		t.show(left.GetBuild())
		t.schedule(s.deps.Now())
		if err := save(ctx, tx, t); err != nil {
			return err
		}
	}
	return nil
}

// Promote stores that a pull request is to be open.
func (s *Service) Promote(ctx context.Context, req *reporterv1.PromoteRequest) (*reporterv1.PromoteResponse, error) {
	err := lacking("promotion", req.GetRepository(), map[string]bool{
		"head": req.GetHead() == "", "base": req.GetBase() == "", "sha": req.GetSha() == "",
	})
	if err != nil {
		return nil, err
	}
	kind, repositoryID := reporterv1.Target_KIND_PROMOTION, req.GetRepository().GetId()
	err = s.store.change(ctx, targetID(kind, repositoryID, req.GetHead(), req.GetBase()), kind, repositoryID, func(t *target) {
		if req.GetSha() == t.sha {
			return
		}
		t.version++
		// What became of the last one does not matter: it may be merged by now.
		t.want, t.told = shown{state: "open", url: req.GetBuildUrl()}, shown{}
		t.repository, t.installationID = req.GetRepository(), req.GetInstallationId()
		t.sha, t.context, t.head, t.base = req.GetSha(), req.GetHead()+" → "+req.GetBase(), req.GetHead(), req.GetBase()
		t.traceparent = telemetry.Traceparent(ctx)
		t.schedule(s.deps.Now())
	})
	if err != nil {
		return nil, err
	}
	s.wake()
	return &reporterv1.PromoteResponse{}, nil
}

// Answer stores how a comment is answered.
func (s *Service) Answer(ctx context.Context, req *reporterv1.AnswerRequest) (*reporterv1.AnswerResponse, error) {
	_, known := reactions()[req.GetReaction()]
	err := lacking("answer", req.GetRepository(), map[string]bool{
		"comment": req.GetCommentId() <= 0, "pull request": req.GetText() != "" && req.GetPullRequest() <= 0,
		"reaction or text": !known && req.GetText() == "",
	})
	if err != nil {
		return nil, err
	}
	if text := cut(printable(req.GetText()), maxAnswer); text != req.GetText() {
		req = proto.CloneOf(req)
		req.Text = text
	}
	payload, err := proto.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("answer to comment %d: %w", req.GetCommentId(), err)
	}
	kind, repositoryID := reporterv1.Target_KIND_COMMENT, req.GetRepository().GetId()
	err = s.store.change(ctx, targetID(kind, repositoryID, strconv.FormatInt(req.GetCommentId(), 10)), kind, repositoryID, func(t *target) {
		if t.version > 0 {
			return
		}
		t.version, t.payload = 1, payload
		t.want = shown{state: "answered", description: cut(oneLine(req.GetText()), maxDescription)}
		t.repository, t.installationID = req.GetRepository(), req.GetInstallationId()
		t.context, t.pullRequest = fmt.Sprintf("comment %d", req.GetCommentId()), req.GetPullRequest()
		t.traceparent = telemetry.Traceparent(ctx)
		t.schedule(s.deps.Now())
	})
	if err != nil {
		return nil, err
	}
	s.wake()
	return &reporterv1.AnswerResponse{}, nil
}

// lacking is fault.Invalid where something is missing.
func lacking(what string, repository *eventv1.Repository, missing map[string]bool) error {
	missing["repository"] = repository.GetId() == 0 || repository.GetOwner() == "" || repository.GetName() == ""
	var names []string
	for _, name := range []string{
		"repository", "sha", "context", "state", "version", "head", "base", "comment", "pull request", "reaction or text",
	} {
		if missing[name] {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fault.Newf(fault.Invalid, "the %s lacks its %s", what, strings.Join(names, ", "))
}
