package reporter

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
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
	_, known := views[b.GetState()]
	err := requireFields("report", b.GetRepository(), map[string]bool{
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
	allLeased := true
	err = s.store.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		s.unlease(leased) // where the transaction is tried again
		leased = nil
		siblings, err := s.store.siblings(ctx, tx, b.GetRepository().GetId(), b.GetSha(), b.GetContext())
		if err != nil {
			return err
		}
		for _, kind := range s.kinds(req, siblings) {
			t := target{id: buildTarget(kind, b), kind: kind}
			if i := slices.IndexFunc(siblings, func(one target) bool { return one.id == t.id }); i >= 0 {
				t = siblings[i]
			}
			if t.version >= req.GetVersion() {
				continue
			}
			t.setReport(req, payload)
			t.traceparent = telemetry.Traceparent(ctx)
			now := s.deps.Now()
			t.schedule(now)
			if s.lease(&t, now) {
				leased = append(leased, t)
				t.begun = true
			} else {
				allLeased = false
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
	s.returnLeases(ctx, s.handoff.put(leased))
	if allLeased {
		s.loop.Wake()
	} else {
		s.wake()
	}
	return &reporterv1.ReportResponse{}, nil
}

// setReport sets what GitHub is to show to a build's newest state.
func (t *target) setReport(req *reporterv1.ReportRequest, payload []byte) {
	b := req.GetBuild()
	t.version = req.GetVersion()
	t.setDesired(req)
	if channelOf(t.kind).perBuild {
		t.payload = payload
	}
	t.repository, t.installationID = b.GetRepository(), b.GetInstallationId()
	t.sha, t.context, t.buildID = b.GetSha(), b.GetContext(), b.GetId()
}

// kinds are what a build is told as. What was begun under another setting is
// told to its end. The commit status shows one build of those that share it.
func (s *Service) kinds(req *reporterv1.ReportRequest, siblings []target) []reporterv1.Target_Kind {
	b := req.GetBuild()
	kinds := slices.Clone(reportedAs()[s.deps.Report])
	deploys := b.GetEnvironment() != "" && b.GetAction() != schedulerv1.Build_ACTION_STOP
	if deploys && b.GetPartOf() == "" { // the whole is deployed, not each job
		kinds = append(kinds, reporterv1.Target_KIND_DEPLOYMENT)
	}
	for _, t := range siblings {
		if !slices.Contains(kinds, t.kind) && t.id == buildTarget(t.kind, b) {
			kinds = append(kinds, t.kind)
		}
	}
	return slices.DeleteFunc(kinds, func(kind reporterv1.Target_Kind) bool { return req.GetStanding() != shown && !channelOf(kind).perBuild })
}

// buildTarget is the id of a build's target: its own, or the one that all builds
// of the commit's context share.
func buildTarget(kind reporterv1.Target_Kind, b *schedulerv1.Build) string {
	key := []string{b.GetSha(), b.GetContext()}
	if channelOf(kind).perBuild {
		key = append(key, b.GetId())
	}
	return targetID(kind, b.GetRepository().GetId(), key...)
}

// requireFields returns fault.Invalid, naming all that is missing.
func requireFields(what string, repository *eventv1.Repository, missing map[string]bool) error {
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
