package githubsim

import (
	"fmt"
	"slices"
	"time"
)

// An installation is the App on one account, on all of its repositories or on those selected.
type installation struct {
	id          int64
	account     *account
	created     time.Time
	updated     time.Time
	selects     bool
	selected    []*repository
	suspended   time.Time // zero: it is not
	suspendedBy *account
}

func (i *installation) covers(r *repository) bool {
	return i.account == r.owner && (!i.selects || slices.Contains(i.selected, r))
}

func (i *installation) selection() string {
	if i.selects {
		return "selected"
	}
	return "all"
}

// AddInstallation installs the App for an organization, on all its repositories, which sends a webhook. Where the App is
// installed already it returns the same id.
func (s *Controls) AddInstallation(owner string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	who := s.account(owner, "Organization")
	if known := s.installationOf(who); known != nil {
		return known.id
	}
	i := &installation{id: s.id(), account: who, created: s.now(), updated: s.now()}
	s.installations = append(s.installations, i)
	s.emitInstallation(i, "created", s.repositoriesOf(i))
	return i.id
}

// SuspendInstallation has an owner suspend the App: its tokens are refused and no events are sent to it until
// UnsuspendInstallation.
func (s *Controls) SuspendInstallation(owner string) error {
	return s.changeInstallation(owner, func(i *installation) error {
		if !i.suspended.IsZero() {
			return fmt.Errorf("the installation of %s is suspended already", owner)
		}
		i.suspended, i.suspendedBy = s.now(), s.user("")
		s.emitInstallation(i, "suspend", nil)
		return nil
	})
}

// UnsuspendInstallation ends a suspension. Tokens that were made before the suspension are valid again.
func (s *Controls) UnsuspendInstallation(owner string) error {
	return s.changeInstallation(owner, func(i *installation) error {
		if i.suspended.IsZero() {
			return fmt.Errorf("the installation of %s is not suspended", owner)
		}
		i.suspended, i.suspendedBy = time.Time{}, nil
		s.emitInstallation(i, "unsuspend", nil)
		return nil
	})
}

// Uninstall removes the App from an account. The tokens of the installation become invalid.
func (s *Controls) Uninstall(owner string) error {
	return s.changeInstallation(owner, func(i *installation) error {
		s.emitInstallation(i, "deleted", s.repositoriesOf(i))
		s.installations = slices.DeleteFunc(s.installations, func(other *installation) bool { return other == i })
		for token, g := range s.tokens {
			if g.installation == i {
				delete(s.tokens, token)
			}
		}
		return nil
	})
}

// AddToInstallation selects one more repository for an installation that is not on all of them.
func (s *Controls) AddToInstallation(owner, repo string) error {
	return s.selectRepository(owner, repo, func(i *installation, r *repository) error {
		if i.covers(r) {
			return fmt.Errorf("the installation of %s is on %s already", owner, repo)
		}
		i.selected = append(i.selected, r)
		s.emitSelection(i, "added", r)
		return nil
	})
}

// RemoveFromInstallation removes one repository from an installation. If that was on all repositories, it selects all the
// others from then on.
func (s *Controls) RemoveFromInstallation(owner, repo string) error {
	return s.selectRepository(owner, repo, func(i *installation, r *repository) error {
		if !i.covers(r) {
			return fmt.Errorf("the installation of %s is not on %s", owner, repo)
		}
		if !i.selects {
			i.selects, i.selected = true, s.repositoriesOf(i)
		}
		i.drop(r)
		s.emitSelection(i, "removed", r)
		return nil
	})
}

func (s *changes) selectRepository(owner, repo string, change func(*installation, *repository) error) error {
	return s.changeInstallation(owner, func(i *installation) error {
		r, err := s.find(owner, repo)
		if err != nil {
			return err
		}
		return change(i, r)
	})
}

func (s *changes) changeInstallation(owner string, change func(*installation) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.installationOf(s.findAccount(owner))
	if i == nil {
		return fmt.Errorf("the App is not installed for %s", owner)
	}
	i.updated = s.now()
	return change(i)
}

func (i *installation) drop(r *repository) {
	i.selected = slices.DeleteFunc(i.selected, func(other *repository) bool { return other == r })
}

func (s *state) installationOf(owner *account) *installation {
	for _, i := range s.installations {
		if i.account == owner {
			return i
		}
	}
	return nil
}

// installationOn finds the installation that covers a repository.
func (s *state) installationOn(r *repository) *installation {
	if i := s.installationOf(r.owner); i != nil && i.covers(r) {
		return i
	}
	return nil
}

func (s *state) repositoriesOf(i *installation) []*repository {
	var found []*repository
	for _, r := range s.repositories {
		if i.covers(r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *repository) int { return int(a.id - b.id) })
	return found
}

// emitInstallation sends an event about an installation, with its repositories where they come and go with it.
func (s *state) emitInstallation(i *installation, action string, repositories []*repository) {
	s.emit(event{name: "installation", action: action, installation: i, payload: func(l links) object {
		body := object{"installation": l.installation(s, i)}
		if action == "created" || action == "deleted" {
			body["repositories"] = each(repositories, l.repositoryName)
		}
		if action == "created" {
			full := l.installation(s, i)
			full["created_at"], full["updated_at"] = i.created.Unix(), i.updated.Unix()
			body["installation"], body["requester"] = full, nil
		}
		return body
	}})
}

// emitSelection sends the event of repositories that were added to an installation or removed from it.
func (s *state) emitSelection(i *installation, action string, repositories ...*repository) {
	s.emit(event{name: "installation_repositories", action: action, installation: i, payload: func(l links) object {
		body := object{
			"installation": l.installation(s, i), "repository_selection": i.selection(), "requester": nil,
			"repositories_added": []object{}, "repositories_removed": []object{},
		}
		body["repositories_"+action] = each(repositories, l.repositoryName)
		return body
	}})
}
