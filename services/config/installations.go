package config

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// installations caches where the App is installed. GitHub is asked for what is not
// in the cache before a caller is told that there is none.
type installations struct {
	app   *github.AppsService
	pages string // root of GitHub's pages
	now   func() time.Time

	mu    sync.Mutex
	known map[int64]*configv1.Installation // none of these is modified
	// version counts the changes of known. A list that refresh read while it changed
	// may be older than the change.
	version int
}

// refreshTries is how often the list is read at most where known changes meanwhile.
const refreshTries = 3

// refresh reads all installations from GitHub and returns how many there are.
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
			return nil, appFault(err)
		}
		for _, one := range page {
			installation, err := i.fromGitHub(one)
			if err != nil {
				return nil, err
			}
			all[installation.GetId()] = installation
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return all, nil
		}
	}
}

// all returns what is cached, in no order.
func (i *installations) all() []*configv1.Installation {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := make([]*configv1.Installation, 0, len(i.known))
	for _, one := range i.known {
		all = append(all, one)
	}
	return all
}

// find returns the installation on a repository: by its id where the caller knows
// that and it still exists, else by the owner.
func (i *installations) find(ctx context.Context, id int64, owner, repository string) (*configv1.Installation, error) {
	if id != 0 {
		found, err := i.get(ctx, id)
		if err == nil || !fault.Is(err, fault.NotFound) {
			return found, err
		}
	}
	if found := i.ofAccount(owner); found != nil {
		return found, nil
	}
	return i.fetch(func() (*github.Installation, *github.Response, error) {
		return i.app.FindRepositoryInstallation(ctx, owner, repository)
	}, fmt.Sprintf("the GitHub App is not installed on %s/%s: an owner of %s can install it, or open the repository to it, on %s", owner, repository, owner, i.pages))
}

func (i *installations) ofAccount(owner string) *configv1.Installation {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, one := range i.known {
		if strings.EqualFold(one.GetAccount(), owner) {
			return one
		}
	}
	return nil
}

// get returns an installation from the cache, or from GitHub.
func (i *installations) get(ctx context.Context, id int64) (*configv1.Installation, error) {
	i.mu.Lock()
	found := i.known[id]
	i.mu.Unlock()
	if found != nil {
		return found, nil
	}
	return i.reload(ctx, id)
}

// reload reads one installation from GitHub, cached or not.
func (i *installations) reload(ctx context.Context, id int64) (*configv1.Installation, error) {
	found, err := i.fetch(func() (*github.Installation, *github.Response, error) {
		return i.app.GetInstallation(ctx, id)
	}, fmt.Sprintf("the GitHub App has no installation %d: it was removed, or never was", id))
	if fault.Is(err, fault.NotFound) {
		i.forget(id)
	}
	return found, err
}

// fetch caches the installation that call reads from GitHub. Where there is none
// it returns NotFound with the text notFound.
func (i *installations) fetch(call func() (*github.Installation, *github.Response, error), notFound string) (*configv1.Installation, error) {
	read, resp, err := call()
	if err != nil {
		if resp != nil && resp.StatusCode == http.StatusNotFound && !keyRefused(err) {
			return nil, fault.New(fault.NotFound, notFound)
		}
		return nil, appFault(err)
	}
	found, err := i.fromGitHub(read)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known[found.GetId()] = found
	i.version++
	return found, nil
}

// forget drops an installation from the cache, so that whoever needs it next asks
// GitHub.
func (i *installations) forget(id int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.known, id)
	i.version++
}

func (i *installations) fromGitHub(from *github.Installation) (*configv1.Installation, error) {
	permissions := map[string]string{}
	if err := viaJSON(from.Permissions, &permissions); err != nil {
		return nil, fmt.Errorf("permissions of installation %d: %w", from.GetID(), err)
	}
	installation := &configv1.Installation{
		Id:                  from.GetID(),
		Account:             from.GetAccount().GetLogin(),
		AccountId:           from.GetAccount().GetID(),
		RepositorySelection: from.GetRepositorySelection(),
		Permissions:         permissions,
		RefreshTime:         timestamppb.New(i.now()),
		HtmlUrl:             from.GetHTMLURL(),
	}
	if from.SuspendedAt != nil {
		installation.SuspendTime = timestamppb.New(from.GetSuspendedAt().Time)
	}
	return installation, nil
}

// viaJSON copies GitHub's permissions, a struct with a field for each, to a map, or
// back. Their JSON is the same.
func viaJSON(from, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}
