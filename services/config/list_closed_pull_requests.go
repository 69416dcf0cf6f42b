package config

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/go-github/v62/github"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// ListClosedPullRequests implements configv1.PullRequestServiceServer.
func (s *Service) ListClosedPullRequests(req *configv1.ListClosedPullRequestsRequest, stream grpc.ServerStreamingServer[configv1.ListClosedPullRequestsResponse]) error {
	ctx, accounts := stream.Context(), map[string]*allowance{}
	for _, one := range req.GetPullRequests() {
		g, err := grantFor(one.GetRepository(), one.GetInstallationId(), roomConfig)
		if err == nil && g.repository == 0 {
			err = fault.New(fault.Invalid, "the repository lacks its id")
		}
		if err != nil {
			return err
		}
		account := strings.ToLower(g.owner)
		if accounts[account] == nil {
			accounts[account] = &allowance{frugal: req.GetFrugal()}
		}
		of := accounts[account]
		if of.over {
			continue
		}
		payload, rate, err := closing(ctx, s.clients, g, int(one.GetNumber()))
		of.spend(rate)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied) || fault.Is(err, fault.Conflict):
			s.log.WarnContext(ctx, "asking about a pull request failed; it counts as open", "repository", g.fullName(), "number", one.GetNumber(), "error", err)
		case err != nil:
			of.over = true
			s.log.WarnContext(ctx, "asking about a pull request failed; those of its account count as open until they are asked about again",
				"repository", g.fullName(), "number", one.GetNumber(), "error", err)
		case payload != nil:
			if err := stream.Send(&configv1.ListClosedPullRequestsResponse{Payload: payload}); err != nil {
				return err
			}
		}
	}
	return nil
}

// allowance is how much of the calls that GitHub allows an account one look spends.
type allowance struct {
	frugal bool
	calls  int
	over   bool // GitHub is asked no more
}

// spend counts a call, after which GitHub has so many left; it has no limit where it
// says none.
func (a *allowance) spend(rate github.Rate) {
	a.calls++
	if a.frugal && rate.Limit > 0 {
		a.over = a.calls >= rate.Limit/10 || rate.Remaining < rate.Limit/2
	}
}

// closing is the payload of the webhook that tells that a pull request was closed; nil
// where GitHub does not say that it is.
func closing(ctx context.Context, clients *clients, g grant, number int) (payload []byte, rate github.Rate, err error) {
	client, err := clients.client(ctx, g)
	if err != nil {
		return nil, rate, err
	}
	installation, _, err := clients.tokens.resolve(ctx, g)
	if err != nil {
		return nil, rate, err
	}
	pull, resp, err := client.PullRequests.Get(ctx, g.owner, g.name, number)
	if resp != nil {
		rate = resp.Rate
	}
	if err != nil {
		return nil, rate, githubFault(err)
	}
	in := pull.GetBase().GetRepo()
	if in.GetID() != g.repository || pull.GetNumber() != number {
		return nil, rate, fault.Newf(fault.NotFound, "another repository is called %s now", g.fullName())
	}
	if pull.GetState() != "closed" || pull.GetClosedAt().IsZero() {
		return nil, rate, nil
	}
	payload, err = json.Marshal(closedEvent(pull, in, installation.GetId()))
	if err != nil {
		return nil, rate, fmt.Errorf("pull request %d: %w", number, err)
	}
	return payload, rate, nil
}

// closedEvent is what the webhook tells of a pull request that is closed. Who closed it
// is known of a merge alone.
func closedEvent(pull *github.PullRequest, in *github.Repository, installation int64) *github.PullRequestEvent {
	return &github.PullRequestEvent{
		Action: new("closed"), Number: pull.Number, PullRequest: pull, Repo: in, Sender: pull.MergedBy,
		Installation: &github.Installation{ID: &installation},
	}
}
