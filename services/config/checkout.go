package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
)

// checkouts makes what builds check out.
type checkouts struct {
	mirrors *mirror.Mirrors // nil where there are none
	tokens  *tokens
	pages   string // the root of what git fetches
}

// wanted is what a request wants checked out.
func wanted(req *configv1.GetSourceRequest) (mirror.Want, error) {
	source := req.GetCheckout()
	want := mirror.Want{SHA: req.GetSha(), History: int(source.GetHistory()), PullRequest: int(req.GetPullRequest()), Into: req.GetIntoSha()}
	switch {
	case want.History < 0 || want.History > 0 && source.GetFullHistory():
		return want, fault.New(fault.Invalid, "the history is a number of commits, or all of it")
	case source.GetFullHistory():
		want.History = mirror.All
	}
	if want.History != 0 {
		want.Base = req.GetBase()
	}
	if want.Into != "" {
		return want, checkSHA(want.Into)
	}
	return want, nil
}

// Merge implements configv1.SourceServiceServer.
func (s *Service) Merge(ctx context.Context, req *configv1.MergeRequest) (*configv1.MergeResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkSHA(req.GetSha()), checkSHA(req.GetIntoSha())); err != nil {
		return nil, err
	}
	if err := s.checkouts.possible(g); err != nil {
		return nil, err
	}
	merged, err := s.checkouts.mirrors.Merge(ctx, s.checkouts.remote(g), mirror.Want{SHA: req.GetSha(), Into: req.GetIntoSha(), PullRequest: int(req.GetPullRequest())})
	if conflict, ok := errors.AsType[*mirror.ConflictError](err); ok {
		return &configv1.MergeResponse{Conflicts: conflict.Error()}, nil
	}
	if err != nil {
		return nil, notYet(err, s.recent(req.GetEventTime()))
	}
	return &configv1.MergeResponse{Sha: merged}, nil
}

// possible is an error where there can be no mirror.
func (c checkouts) possible(g grant) error {
	switch {
	case g.repository == 0:
		return fault.New(fault.Invalid, "the repository lacks its id, which a checkout needs")
	case c.mirrors == nil:
		return fault.New(fault.Unavailable, "this config keeps no mirrors to check out from")
	}
	return nil
}

// checkoutName is the name that a checkout is kept by. The base's tip in it is the one
// there was when it was made.
func checkoutName(of commitKey, want mirror.Want) string {
	kind := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", want.History, want.Into, want.Base))
	return fmt.Sprintf("%s%d-%s-%x%s", sourcesFolder, of.repository, of.sha, kind[:8], checkoutSuffix)
}

// open makes a checkout while it is read.
func (c checkouts) open(ctx context.Context, g grant, want mirror.Want) (io.ReadCloser, error) {
	if err := c.possible(g); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	go func() { w.CloseWithError(c.mirrors.Checkout(ctx, c.remote(g), want, w)) }()
	return &pipe{PipeReader: r, cancel: cancel}, nil
}

// pipe is a checkout that is read while it is made.
type pipe struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (p *pipe) Close() error {
	p.cancel()
	return p.PipeReader.Close()
}

// remote is a repository as git fetches it, with config's own tokens.
func (c checkouts) remote(g grant) mirror.Remote {
	tokens := clientTokens{c.tokens, g}
	return mirror.Remote{
		ID: g.repository, Noun: g.fullName(), URL: fmt.Sprintf("%s/%s.git", c.pages, g.fullName()),
		Token: tokens.Token, Rejected: tokens.Expire,
	}
}
