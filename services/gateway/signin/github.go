package signin

import (
	"context"
	"net/http"

	gogithub "github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/github"
)

// personTokens are those of one person, for one question to GitHub.
type personTokens struct {
	asker   *asker
	person  int64
	refused string
}

func (p *personTokens) Token(ctx context.Context) (string, error) {
	return p.asker.token(ctx, p.person, p.refused)
}

// Expire says that GitHub answered 401 to this token.
func (p *personTokens) Expire(token string) { p.refused = token }

// fixedToken is one that GitHub has just handed out.
type fixedToken string

func (f fixedToken) Token(context.Context) (string, error) { return string(f), nil }

// Expire does nothing: there is no other.
func (fixedToken) Expire(string) {}

func (s *asker) as(tokens github.TokenSource) (*gogithub.Client, error) {
	return github.New(github.Config{
		APIURL: s.deps.GitHubAPIURL, Tokens: tokens, Tracer: s.deps.Tracer, Log: s.deps.Log, UserAgent: "forge-gateway", Base: s.base,
	})
}

// Repository is what GitHub says of a repository to somebody who may read it.
type Repository struct {
	ID                 int64
	Owner, Name        string
	Private            bool
	Read, Write, Admin bool
}

// Repository asks GitHub as a person for a repository: by its id, or by its name where
// the id is 0. NotFound: the person may not read it, or it is not there. Unauthenticated:
// the person has to sign in again. Unavailable: GitHub does not say.
func (s *asker) Repository(ctx context.Context, person, id int64, owner, name string) (Repository, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	client, err := s.as(&personTokens{asker: s, person: person})
	if err != nil {
		return Repository{}, err
	}
	var found *gogithub.Repository
	if id != 0 {
		found, _, err = client.Repositories.GetByID(ctx, id)
	} else {
		found, _, err = client.Repositories.Get(ctx, owner, name)
	}
	if err != nil {
		return Repository{}, meaning(err)
	}
	may := found.GetPermissions()
	return Repository{
		ID: found.GetID(), Owner: found.GetOwner().GetLogin(), Name: found.GetName(), Private: found.GetPrivate(),
		Read: !found.GetPrivate() || may["pull"], Write: may["push"], Admin: may["admin"],
	}, nil
}

// InTeam asks GitHub as a person whether they are in a team of an organization.
func (s *asker) InTeam(ctx context.Context, person int64, login, org, team string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	client, err := s.as(&personTokens{asker: s, person: person})
	if err != nil {
		return false, err
	}
	member, _, err := client.Teams.GetTeamMembershipBySlug(ctx, org, team, login)
	if err = meaning(err); fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return member.GetState() == "active", err
}

// meaning is what an answer of GitHub's means for the person that it was asked as.
func meaning(err error) error {
	if err == nil {
		return nil
	}
	outcome := github.Classify(err)
	switch outcome.Kind {
	case fault.NotFound, fault.Denied:
		return fault.New(fault.NotFound, outcome.Text)
	case fault.Unauthenticated:
		return signInAgain()
	case fault.Internal, fault.Invalid, fault.Exists, fault.Conflict, fault.Unavailable, fault.Exhausted:
	}
	return unsure(fault.New(fault.Unavailable, outcome.Text))
}

// whoIs asks GitHub whose a token is that it has just handed out.
func (s *asker) whoIs(ctx context.Context, token string) (id int64, login string, err error) {
	client, err := s.as(fixedToken(token))
	if err != nil {
		return 0, "", err
	}
	user, _, err := client.Users.Get(ctx, "")
	if err != nil {
		return 0, "", meaning(err)
	}
	if user.GetID() == 0 || user.GetLogin() == "" {
		return 0, "", fault.New(fault.Unavailable, "GitHub does not say who signs in")
	}
	return user.GetID(), user.GetLogin(), nil
}

// giveBack has GitHub forget what a person has authorized, as far as it can be reached.
func (s *asker) giveBack(ctx context.Context, token string) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	basic := gogithub.BasicAuthTransport{Username: s.deps.ClientID, Password: s.deps.ClientSecret, Transport: s.base}
	client, err := s.as(fixedToken(""))
	if err != nil {
		return err
	}
	plain := gogithub.NewClient(&http.Client{Transport: &basic})
	plain.BaseURL = client.BaseURL
	if _, err = plain.Authorizations.Revoke(ctx, s.deps.ClientID, token); err != nil {
		return fault.New(fault.Unavailable, github.Classify(err).Text)
	}
	return nil
}
