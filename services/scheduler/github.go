package scheduler

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// asker asks GitHub what no event can be trusted to tell. Its errors have the
// kinds of package fault.
type asker struct {
	tokens    configv1.TokenServiceClient
	transport *http.Transport
	deps      Deps
}

func newAsker(deps Deps) (*asker, error) {
	a := &asker{tokens: configv1.NewTokenServiceClient(deps.Config), transport: kitgithub.NewTransport(), deps: deps}
	_, err := a.client(nil, 0) // the address is checked once, here
	return a, err
}

// client calls with tokens for one repository.
func (a *asker) client(repository *eventv1.Repository, installationID int64) (*github.Client, error) {
	return kitgithub.New(kitgithub.Config{
		APIURL: a.deps.GitHubAPIURL, Tracer: a.deps.Tracer, Log: a.deps.Log, Base: a.transport,
		Tokens: &tokenSource{tokens: a.tokens, request: &configv1.CreateTokenRequest{
			Repository: repository, InstallationId: installationID,
		}},
	})
}

// tokenSource is config as the token source of one client. Config shares its
// tokens, so none is kept here.
type tokenSource struct {
	tokens  configv1.TokenServiceClient
	request *configv1.CreateTokenRequest
}

func (s *tokenSource) Token(ctx context.Context) (string, error) {
	answer, err := s.tokens.CreateToken(ctx, s.request)
	if err != nil {
		return "", fmt.Errorf("no token for GitHub: %w", err)
	}
	return answer.GetToken(), nil
}

func (s *tokenSource) Expire(token string) { s.request.RejectedToken = token }

// failure gives an error of a call its kind. To whoever sent us an event, Invalid
// would say that the event is to blame.
func failure(err error) error {
	outcome := kitgithub.Classify(err)
	if outcome.Kind == fault.Invalid {
		outcome.Kind = fault.Internal
	}
	return fault.New(outcome.Kind, outcome.Text)
}

// mayWrite reports whether somebody has write access to the event's repository.
// What an event says of it can be stale. Bots have none: GitHub knows no
// permission of theirs.
func (a *asker) mayWrite(ctx context.Context, event *eventv1.Event, who *eventv1.Account) (bool, error) {
	if who.GetLogin() == "" || who.GetType() == eventv1.Account_TYPE_BOT {
		return false, nil
	}
	repository := event.GetRepository()
	client, err := a.client(repository, event.GetInstallationId())
	if err != nil {
		return false, err
	}
	level, _, err := client.Repositories.GetPermissionLevel(ctx, repository.GetOwner(), repository.GetName(), who.GetLogin())
	if err != nil {
		err = failure(err)
		if fault.Is(err, fault.NotFound) {
			return false, nil
		}
		return false, fmt.Errorf("permission of %s: %w", who.GetLogin(), err)
	}
	return level.GetPermission() == "admin" || level.GetPermission() == "write", nil
}

// pullRequest is a pull request of the event's repository as it is now.
func (a *asker) pullRequest(ctx context.Context, event *eventv1.Event, number int32) (*eventv1.PullRequest, error) {
	repository := event.GetRepository()
	client, err := a.client(repository, event.GetInstallationId())
	if err != nil {
		return nil, err
	}
	p, _, err := client.PullRequests.Get(ctx, repository.GetOwner(), repository.GetName(), int(number))
	if err != nil {
		return nil, fmt.Errorf("read #%d: %w", number, failure(err))
	}
	pull := &eventv1.PullRequest{
		Number: number, Title: p.GetTitle(), HtmlUrl: p.GetHTMLURL(), Open: p.GetState() == "open",
		Author: &eventv1.Account{Login: p.GetUser().GetLogin()}, CommitCount: int32(p.GetCommits()), //nolint:gosec // GitHub lists 250 at most
		Head:       &eventv1.PullRequestBranch{Ref: p.GetHead().GetRef(), Sha: p.GetHead().GetSHA()},
		Base:       &eventv1.PullRequestBranch{Ref: p.GetBase().GetRef(), Sha: p.GetBase().GetSHA()},
		UpdateTime: timestamppb.New(p.GetUpdatedAt().Time),
	}
	if from := p.GetHead().GetRepo(); from != nil {
		pull.Head.Repository = &eventv1.Repository{Id: from.GetID()}
	}
	return pull, nil
}

// repository is a repository as it is now.
func (a *asker) repository(ctx context.Context, owner, name string) (*eventv1.Repository, error) {
	client, err := a.client(&eventv1.Repository{Owner: owner, Name: name}, 0)
	if err != nil {
		return nil, err
	}
	repo, _, err := client.Repositories.Get(ctx, owner, name)
	if err != nil {
		return nil, fmt.Errorf("repository %s/%s: %w", owner, name, failure(err))
	}
	return &eventv1.Repository{
		Id: repo.GetID(), Owner: repo.GetOwner().GetLogin(), Name: repo.GetName(), DefaultBranch: repo.GetDefaultBranch(),
		Private: repo.GetPrivate(), Fork: repo.GetFork(), Archived: repo.GetArchived(),
	}, nil
}

// branchCommit is a commit that a branch holds.
type branchCommit struct {
	repository *eventv1.Repository
	branch     string
	sha, title string
	newest     bool
}

// branchCommit finds a commit of a branch: the newest where sha is empty. One
// that the branch does not hold is fault.NotFound, whether GitHub has it or not:
// through a repository all commits of its forks can be read.
func (a *asker) branchCommit(ctx context.Context, owner, name, branch, sha string) (branchCommit, error) {
	repository, err := a.repository(ctx, owner, name)
	if err != nil {
		return branchCommit{}, err
	}
	client, err := a.client(&eventv1.Repository{Owner: owner, Name: name}, 0)
	if err != nil {
		return branchCommit{}, err
	}
	found := branchCommit{branch: branch, sha: sha, repository: repository}
	if branch == "" {
		found.branch = repository.GetDefaultBranch()
	}
	tip, _, err := client.Git.GetRef(ctx, owner, name, branchRef+found.branch)
	if err != nil {
		return branchCommit{}, fmt.Errorf("branch %s: %w", found.branch, failure(err))
	}
	if found.newest = sha == "" || sha == tip.GetObject().GetSHA(); found.newest {
		found.sha = tip.GetObject().GetSHA()
	} else if err := holds(ctx, client, found, tip.GetObject().GetSHA()); err != nil {
		return branchCommit{}, err
	}
	commit, _, err := client.Repositories.GetCommit(ctx, owner, name, found.sha, nil)
	if err != nil {
		return branchCommit{}, fmt.Errorf("commit %s: %w", short(found.sha), failure(err))
	}
	found.title = firstLine(commit.GetCommit().GetMessage())
	return found, nil
}

// holds is an error unless the commit lies on its branch, whose newest is tip.
func holds(ctx context.Context, client *github.Client, c branchCommit, tip string) error {
	owner, name := c.repository.GetOwner(), c.repository.GetName()
	compared, _, err := client.Repositories.CompareCommits(ctx, owner, name, tip, c.sha, &github.ListOptions{PerPage: 1})
	if err != nil {
		err = failure(err)
	}
	status := compared.GetStatus()
	switch {
	case fault.Is(err, fault.NotFound), err == nil && status != "behind" && status != "identical":
		return fault.Newf(fault.NotFound, "branch %s of %s/%s does not hold the commit %s", c.branch, owner, name, c.sha)
	case err != nil:
		return fmt.Errorf("compare %s with %s: %w", c.branch, short(c.sha), err)
	}
	return nil
}

func firstLine(message string) string {
	line, _, _ := strings.Cut(message, "\n")
	return strings.TrimSpace(line)
}
