package config

import (
	"context"
	"fmt"
	"regexp"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// maxCachedConfig is the largest response in bytes that is cached, so that a
// hostile file does not fill the cache. Most are about a thousand bytes.
const maxCachedConfig = 64 << 10

// commitKey is what caches go by: neither part ever comes to mean something else.
type commitKey struct {
	repository int64
	sha        string
}

// configRead is what concurrent calls share a reading by: one that takes an absence
// for final, or one that does not.
type configRead struct {
	commit commitKey
	recent bool
}

func (g grant) commit(sha string) commitKey { return commitKey{g.repository, sha} }

var shaPattern = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func checkSHA(sha string) error {
	if !shaPattern.MatchString(sha) {
		return fault.Newf(fault.Invalid, "%q is not the full sha of a commit", sha)
	}
	return nil
}

// GetBuildConfig implements configv1.BuildConfigServiceServer.
func (s *Service) GetBuildConfig(ctx context.Context, req *configv1.GetBuildConfigRequest) (*configv1.GetBuildConfigResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	if req.GetBranch() != "" {
		return s.branchConfig(ctx, g, req)
	}
	if err := checkSHA(req.GetSha()); err != nil {
		return nil, err
	}
	if req.GetDifference() != nil {
		return differenceConfig(ctx, s, g, req)
	}
	recent := s.recent(req.GetEventTime())
	read, err := s.buildConfig(ctx, g, req.GetSha(), recent)
	if err != nil || req.GetChange() == nil {
		return read, err
	}
	filters := filtersOf(read.GetConfig(), req.GetPart())
	if len(filters) == 0 {
		return read, nil
	}
	if filters, err = s.outside(ctx, g, req, filters); err != nil {
		return nil, err
	}
	return narrowed(read, filters), nil
}

// branchConfig reads the file at the newest commit of a branch.
func (s *Service) branchConfig(ctx context.Context, g grant, req *configv1.GetBuildConfigRequest) (*configv1.GetBuildConfigResponse, error) {
	if req.GetSha() != "" || req.GetChange() != nil {
		return nil, fault.New(fault.Invalid, "a branch stands in place of a commit and of what it changes")
	}
	tip, err := tipOf(ctx, s.clients, g, req.GetBranch())
	switch {
	case refused(err):
		return forbidden(err.Error()), nil
	case err != nil:
		return nil, fmt.Errorf("branch %s of %s: %w", req.GetBranch(), g.fullName(), notYet(err, s.recent(req.GetEventTime())))
	}
	return s.buildConfig(ctx, g, tip, false)
}

// refused reports whether GitHub does not open a repository to the App.
func refused(err error) bool {
	return fault.Is(err, fault.Denied) || fault.Is(err, fault.Conflict)
}

// tipOf is the newest commit of a branch.
func tipOf(ctx context.Context, clients *clients, g grant, branch string) (string, error) {
	client, err := clients.client(ctx, g)
	if err != nil {
		return "", err
	}
	ref, _, err := client.Git.GetRef(ctx, g.owner, g.name, "refs/heads/"+branch)
	if err != nil {
		return "", githubFault(err)
	}
	return ref.GetObject().GetSHA(), nil
}

// buildConfig returns what a commit wants built, whatever it changes.
func (s *Service) buildConfig(ctx context.Context, g grant, sha string, recent bool) (*configv1.GetBuildConfigResponse, error) {
	if g.repository == 0 {
		return s.readConfig(ctx, g, sha, recent)
	}
	key := g.commit(sha)
	if cached, ok := s.configs.Get(key); ok {
		return cached, nil
	}
	return s.reading.do(ctx, configRead{key, recent}, func(ctx context.Context) (*configv1.GetBuildConfigResponse, error) {
		if cached, ok := s.configs.Get(key); ok { // read since the first Get
			return cached, nil
		}
		read, err := s.readConfig(ctx, g, sha, recent)
		lasting := read.GetForbidden() == nil && (read.GetAbsent() == nil || !recent)
		if err == nil && lasting && proto.Size(read) <= maxCachedConfig {
			s.configs.Add(key, read)
		}
		return read, err
	})
}
