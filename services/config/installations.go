package config

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// installations is what is known of where the App is installed. What is not
// known is asked of GitHub before the answer is no.
type installations struct {
	app   *github.AppsService
	pages string // root of GitHub's pages
	now   func() time.Time

	mu    sync.Mutex
	known map[int64]*configv1.Installation // never changed once in here
	// version counts the changes: what a refresh read while one happened may be
	// older than it.
	version int
}

// refreshTries bounds how often a list is read again because something changed
// meanwhile.
const refreshTries = 3

// refresh reads all installations and returns how many there are.
func (i *installations) refresh(ctx context.Context) (int, error) {
	for try := 1; ; try++ {
		i.mu.Lock()
		before := i.version
		i.mu.Unlock()
		all, err := i.listAll(ctx)
		if err != nil {
			return 0, err
		}
		i.mu.Lock()
		if i.version == before || try == refreshTries {
			i.known = all
			i.mu.Unlock()
			return len(all), nil
		}
		i.mu.Unlock()
	}
}

func (i *installations) listAll(ctx context.Context) (map[int64]*configv1.Installation, error) {
	all := map[int64]*configv1.Installation{}
	options := &github.ListOptions{PerPage: 100}
	for {
		page, resp, err := i.app.ListInstallations(ctx, options)
		if err != nil {
			return nil, appFailure(err)
		}
		for _, one := range page {
			read, err := i.read(one)
			if err != nil {
				return nil, err
			}
			all[read.GetId()] = read
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return all, nil
		}
	}
}

// all is what is known, in no order.
func (i *installations) all() []*configv1.Installation {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := make([]*configv1.Installation, 0, len(i.known))
	for _, one := range i.known {
		all = append(all, one)
	}
	return all
}

// find is the installation that opens a repository: by id where the caller knows
// it and it still exists, else by owner.
func (i *installations) find(ctx context.Context, id int64, owner, repository string) (*configv1.Installation, error) {
	if id != 0 {
		found, err := i.get(ctx, id)
		if err == nil || !fault.Is(err, fault.NotFound) {
			return found, err
		}
	}
	if found := i.of(owner); found != nil {
		return found, nil
	}
	return i.learn(func() (*github.Installation, *github.Response, error) {
		return i.app.FindRepositoryInstallation(ctx, owner, repository)
	}, fmt.Sprintf("the GitHub App is not installed on %s/%s: an owner of %s can install it, or open the repository to it, on %s", owner, repository, owner, i.pages))
}

func (i *installations) of(owner string) *configv1.Installation {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, one := range i.known {
		if strings.EqualFold(one.GetAccount(), owner) {
			return one
		}
	}
	return nil
}

// get is the installation by its id.
func (i *installations) get(ctx context.Context, id int64) (*configv1.Installation, error) {
	i.mu.Lock()
	found := i.known[id]
	i.mu.Unlock()
	if found != nil {
		return found, nil
	}
	return i.look(ctx, id)
}

// look asks GitHub about one installation, known or not.
func (i *installations) look(ctx context.Context, id int64) (*configv1.Installation, error) {
	found, err := i.learn(func() (*github.Installation, *github.Response, error) {
		return i.app.GetInstallation(ctx, id)
	}, fmt.Sprintf("the GitHub App has no installation %d: it was removed, or never was", id))
	if fault.Is(err, fault.NotFound) {
		i.forget(id)
	}
	return found, err
}

func (i *installations) learn(ask func() (*github.Installation, *github.Response, error), none string) (*configv1.Installation, error) {
	answer, resp, err := ask()
	if err != nil {
		if resp != nil && resp.StatusCode == http.StatusNotFound && !keyRefused(err) {
			return nil, fault.New(fault.NotFound, none)
		}
		return nil, appFailure(err)
	}
	found, err := i.read(answer)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known[found.GetId()] = found
	i.version++
	return found, nil
}

// forget makes the next who needs it ask GitHub.
func (i *installations) forget(id int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.known, id)
	i.version++
}

func (i *installations) read(from *github.Installation) (*configv1.Installation, error) {
	permissions := map[string]string{}
	if err := convert(from.Permissions, &permissions); err != nil {
		return nil, fmt.Errorf("permissions of installation %d: %w", from.GetID(), err)
	}
	read := &configv1.Installation{
		Id:                  from.GetID(),
		Account:             from.GetAccount().GetLogin(),
		AccountId:           from.GetAccount().GetID(),
		RepositorySelection: from.GetRepositorySelection(),
		Permissions:         permissions,
		RefreshTime:         timestamppb.New(i.now()),
		HtmlUrl:             from.GetHTMLURL(),
	}
	if from.SuspendedAt != nil {
		read.SuspendTime = timestamppb.New(from.GetSuspendedAt().Time)
	}
	return read, nil
}

// convert goes from GitHub's permissions, a struct with a field for each, to a
// map, or back. Their JSON is the same.
func convert(from, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

// appFailure is failure for calls that the App's key signs.
func appFailure(err error) error {
	if !keyRefused(err) {
		return failure(err)
	}
	return fault.Newf(fault.Unavailable, "GitHub does not accept the App's key: "+
		"FORGE_GITHUB_APP_ID and FORGE_GITHUB_PRIVATE_KEY must be those of one App, from its settings page, and this machine's clock right: %s",
		kitgithub.Classify(err).Text)
}

// keyRefused is true when GitHub does not know us: it answers 401 to a wrong
// key, and 404 with words of its own to a wrong id.
func keyRefused(err error) bool {
	answer, ok := errors.AsType[*github.ErrorResponse](err)
	return ok && (answer.Response.StatusCode == http.StatusUnauthorized || answer.Message == "Integration not found")
}
