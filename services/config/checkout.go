package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
)

// wanted is what a request wants checked out.
func wanted(req *configv1.GetSourceRequest) (mirror.Want, error) {
	source := req.GetCheckout()
	want := mirror.Want{SHA: req.GetSha(), History: int(source.GetHistory()), PullRequest: int(req.GetPullRequest())}
	switch {
	case req.GetRepository().GetId() == 0:
		return want, fault.New(fault.Invalid, "the repository lacks its id, which a checkout needs")
	case want.History < 0 || want.History > 0 && source.GetFullHistory():
		return want, fault.New(fault.Invalid, "the history is a number of commits, or all of it")
	case source.GetFullHistory():
		want.History = mirror.All
	}
	if want.History != 0 {
		want.Base = req.GetBase()
	}
	return want, nil
}

// checkoutName is the name that a checkout is kept by. The base's tip in it is the one
// there was when it was made.
func checkoutName(of commitKey, want mirror.Want) string {
	kind := sha256.Sum256(fmt.Appendf(nil, "%d %s", want.History, want.Base))
	return fmt.Sprintf("%s%d-%s-%x%s", sourcesFolder, of.repository, of.sha, kind[:8], checkoutSuffix)
}

// checkout makes a checkout while it is read.
func (s *Service) checkout(ctx context.Context, g grant, want mirror.Want) (io.ReadCloser, error) {
	if s.mirrors == nil {
		return nil, fault.New(fault.Unavailable, "this config keeps no mirrors to check out from")
	}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	go func() { w.CloseWithError(s.mirrors.Checkout(ctx, s.remote(g), want, w)) }()
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
func (s *Service) remote(g grant) mirror.Remote {
	tokens := clientTokens{s.tokens, g}
	return mirror.Remote{
		ID: g.repository, Noun: g.fullName(), URL: fmt.Sprintf("%s/%s.git", s.pages, g.fullName()),
		Token: tokens.Token, Rejected: tokens.Expire,
	}
}
