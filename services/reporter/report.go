package reporter

import (
	"context"
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

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
	kind, repositoryID := reporterv1.Target_KIND_STATUS, b.GetRepository().GetId()
	err = s.store.change(ctx, targetID(kind, repositoryID, b.GetSha(), b.GetContext()), kind, repositoryID, func(t *target) {
		if req.GetVersion() <= t.version {
			return
		}
		t.version, t.want = req.GetVersion(), showing(b)
		t.repository, t.installationID = b.GetRepository(), b.GetInstallationId()
		t.sha, t.context, t.buildID = b.GetSha(), b.GetContext(), b.GetId()
		t.traceparent = telemetry.Traceparent(ctx)
		t.schedule(s.deps.Now())
	})
	if err != nil {
		return nil, err
	}
	s.loop.Wake()
	return &reporterv1.ReportResponse{}, nil
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
	s.loop.Wake()
	return &reporterv1.PromoteResponse{}, nil
}

// lacking is fault.Invalid where something is missing.
func lacking(what string, repository *eventv1.Repository, missing map[string]bool) error {
	missing["repository"] = repository.GetId() == 0 || repository.GetOwner() == "" || repository.GetName() == ""
	var names []string
	for _, name := range []string{"repository", "sha", "context", "state", "version", "head", "base"} {
		if missing[name] {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fault.Newf(fault.Invalid, "the %s lacks its %s", what, strings.Join(names, ", "))
}
