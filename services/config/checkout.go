package config

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-github/v62/github"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
)

// checkouts makes what builds check out.
type checkouts struct {
	mirrors *mirror.Mirrors // nil where there are none
	tokens  *tokens
	pages   string // the root of what git fetches
	// repository reads what GitHub says of one.
	repository func(context.Context, grant) (*github.Client, *eventv1.Repository, error)
}

// wanted is what a request wants checked out.
func (c checkouts) wanted(g grant, req *configv1.GetSourceRequest) (mirror.Want, error) {
	want, err := Wanted(req)
	if req.GetCheckout().GetSubmodules() {
		want.Submodule = func(ctx context.Context, address string) (mirror.Remote, error) {
			return c.submodule(ctx, g, address, req.GetFork())
		}
	}
	return want, err
}

// Wanted is what a request wants checked out, but for where submodules are.
func Wanted(req *configv1.GetSourceRequest) (want mirror.Want, err error) {
	source := req.GetCheckout()
	want = mirror.Want{SHA: req.GetSha(), History: int(source.GetHistory()), PullRequest: int(req.GetPullRequest()), Into: req.GetIntoSha(), LFS: source.GetLfs(), Packed: req.GetPacked()}
	switch {
	case want.History < 0 || want.History > 0 && source.GetFullHistory():
		return want, fault.New(fault.Invalid, "the history is a number of commits, or all of it")
	case source.GetFullHistory():
		want.History = mirror.All
	}
	if want.History != 0 {
		want.Base, want.Tag = req.GetBase(), req.GetTag()
	}
	if strings.ContainsFunc(want.Tag, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return want, fault.New(fault.Invalid, "git has no tags of such a name")
	}
	switch {
	case want.Into != "" && req.GetDifference() != nil:
		return want, fault.New(fault.Invalid, "a difference is not merged")
	case want.Into != "":
		return want, checkSHA(want.Into)
	case req.GetDifference() != nil:
		want.Difference, err = readDifference(req.GetDifference())
	}
	return want, err
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
	merged, err := Merged(s.checkouts.mirrors.Merge(ctx, s.checkouts.remote(g), mirror.Want{SHA: req.GetSha(), Into: req.GetIntoSha(), PullRequest: int(req.GetPullRequest())}))
	if err != nil {
		return nil, notYet(err, s.recent(req.GetEventTime()))
	}
	return merged, nil
}

// Merged answers with what came of a merge.
func Merged(sha string, err error) (*configv1.MergeResponse, error) {
	if conflict, ok := errors.AsType[*mirror.ConflictError](err); ok {
		return &configv1.MergeResponse{Conflicts: conflict.Error()}, nil
	}
	return &configv1.MergeResponse{Sha: sha}, err
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

// checkoutName is the name that a checkout is kept by. The base's tip and other tags
// than the build's own are in it as they were when it was made. What a fork gets has a name of its own: it may lack
// submodules, and nothing that it asked for is served to others.
func checkoutName(of commitKey, want mirror.Want, fork bool) string {
	kind := sha256.Sum256(fmt.Appendf(nil, "%t %d %t %t %t %s %s %s%s", fork, want.History, want.Submodule != nil, want.LFS, want.Packed, want.Into, want.Base, want.Tag, differenceName(want.Difference)))
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

// submodule is the repository of a submodule: on this GitHub alone, and a private one
// only where the App is installed on it and the commit is no fork's. An address that
// is not on this GitHub is refused, since config would reach places for whoever
// writes .gitmodules.
func (c checkouts) submodule(ctx context.Context, parent grant, address string, fork bool) (mirror.Remote, error) {
	owner, name, err := c.repositoryAt(address)
	if err != nil {
		return mirror.Remote{}, err
	}
	g := grant{owner: owner, name: name, room: roomConfig}
	if strings.EqualFold(g.fullName(), parent.fullName()) {
		return c.remote(parent), nil
	}
	if !fork {
		_, found, err := c.repository(ctx, g)
		if err == nil {
			g.repository, g.owner, g.name = found.GetId(), found.GetOwner(), found.GetName()
			return c.remote(g), nil
		}
		if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Conflict) {
			return mirror.Remote{}, err
		}
	}
	// Nobody's token: it is there for all, or not at all. It has a mirror of its own,
	// since no id is known of it.
	sum := sha256.Sum256([]byte(strings.ToLower(g.fullName())))
	remote := c.remote(g)
	remote.ID = -int64(binary.BigEndian.Uint64(sum[:]) >> 2)
	remote.Hidden = "it does not exist, or it is private and the App is not installed on it"
	if fork {
		remote.Hidden = "it does not exist, or it is private, and a fork's commit gets public ones alone"
	}
	remote.Token, remote.Rejected = func(context.Context) (string, error) { return "", nil }, func(string) {}
	return remote, nil
}

// repositoryAt reads the address of a repository of this GitHub, as people write it.
func (c checkouts) repositoryAt(address string) (owner, name string, err error) {
	pages, err := url.Parse(c.pages)
	if err != nil {
		return "", "", err
	}
	if at, rest, isSSH := strings.Cut(address, ":"); isSSH && strings.HasPrefix(at, "git@") && !strings.HasPrefix(rest, "//") {
		address = "ssh://" + at + "/" + rest // git@github.com:octo/lib.git
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() != pages.Hostname() || !slices.Contains([]string{"https", "http", "ssh", "git"}, u.Scheme) {
		return "", "", fault.Newf(fault.Invalid, "%q is not on %s", address, pages.Hostname())
	}
	owner, name, ok := strings.Cut(strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git"), "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return "", "", fault.Newf(fault.Invalid, "%q is no repository of %s", address, pages.Hostname())
	}
	return owner, name, nil
}
