package secrets

import (
	"context"
	"fmt"
	"slices"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

const (
	// MostSecrets is of each kind per repository and environment, and bounds a plan.
	MostSecrets = 100
	// largestSecret is in bytes, and well below what Linux lets a variable hold.
	largestSecret = 48 << 10
	longestName   = 100
)

// asked is what somebody asks to be kept.
type asked struct{ name, username, value string }

// setting is a request that sets something of a repository.
type setting interface {
	GetRepository() string
	reaching
}

// set encrypts and stores something.
func (v *Service) set(ctx context.Context, k *kind, req setting, of asked) (kept, error) {
	if err := k.checkAll(req, of); err != nil {
		return kept{}, err
	}
	reach, err := reachOf(req)
	if err != nil {
		return kept{}, err
	}
	repository, err := v.shownRepository(ctx, req.GetRepository())
	if err != nil {
		return kept{}, err
	}
	s := kept{
		slot: slot{k, repository.GetId(), req.GetEnvironment(), k.spelled(of.name)}, reach: reach,
		repository: wording.FullName(repository), username: of.username, updated: v.now(),
	}
	if s.keyID, s.sealed, err = v.keyring.Seal(s.slot, of.value); err != nil {
		return kept{}, err
	}
	if err := v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if err := s.save(ctx, t); err != nil {
			return err
		}
		return s.audited(ctx, t, k.set, s.repository)
	}); err != nil {
		return kept{}, fmt.Errorf("set "+k.whose+": %w", s.name, s.repository, err)
	}
	return s, nil
}

func (k *kind) checkAll(req setting, of asked) error {
	if err := k.check(of); err != nil {
		return err
	}
	switch {
	case of.value == "":
		return fault.Newf(fault.Invalid, "%s: it is empty", k.value)
	case len(of.value) > largestSecret:
		return fault.Newf(fault.Invalid, "%s: at most %d KiB", k.value, largestSecret>>10)
	case req.GetEnvironment() != "":
		return trigger.CheckEnvironment(req.GetEnvironment())
	}
	return nil
}

// listing is a request for a page.
type listing interface {
	GetRepository() string
	GetPageSize() int32
	GetPageToken() string
}

// list is a page, and the token of the next.
func (v *Service) list(ctx context.Context, k *kind, req listing) (found []kept, next string, err error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, "", err
	}
	after := slot{kind: k}
	if err := rpc.ParsePageToken(req.GetPageToken(), &after.repositoryID, &after.environment, &after.name); err != nil {
		return nil, "", err
	}
	var of int64
	if req.GetRepository() != "" {
		if of, err = v.owner(ctx, req.GetRepository()); err != nil {
			return nil, "", err
		}
	}
	if found, err = v.behind(ctx, after, of, size+1); err != nil {
		return nil, "", fmt.Errorf("list %s: %w", k.all, err)
	}
	found, next = rpc.CutPage(found, size, func(last kept) []any { return []any{last.repositoryID, last.environment, last.name} })
	return found, next, nil
}

// deletion is a request that deletes something of a repository.
type deletion interface {
	GetRepository() string
	GetEnvironment() string
}

// delete removes what people call by the name; fault.NotFound where there is nothing.
func (v *Service) delete(ctx context.Context, k *kind, req deletion, name string) error {
	of, err := v.owner(ctx, req.GetRepository())
	if err != nil {
		return err
	}
	s := slot{k, of, req.GetEnvironment(), k.spelled(name)}
	return v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		found, err := s.clear(ctx, t)
		if err == nil && !found {
			return fault.Newf(fault.NotFound, k.none, req.GetRepository(), name, onlyFor(s.environment))
		}
		if err != nil {
			return err
		}
		return s.audited(ctx, t, k.deleted, req.GetRepository())
	})
}

func onlyFor(environment string) string {
	if environment == "" {
		return ""
	}
	return " for " + environment
}

// audited writes into the audit log what was done: never a value.
func (s slot) audited(ctx context.Context, t *store.Tx, action schedulerv1.AuditEntry_Action, repository string) error {
	return audit.Add(ctx, t, s.repositoryID, &schedulerv1.AuditEntry{
		Action: action, Repository: repository, Environment: s.environment, Subject: s.name,
	})
}

// owner is the id of a repository: GitHub's word counts. Of what GitHub does not show
// any more, or under another name, what is kept can still be found.
func (v *Service) owner(ctx context.Context, repository string) (int64, error) {
	owner, name, err := store.SplitRepository(repository)
	if err != nil {
		return 0, err
	}
	shown, err := v.repository(ctx, owner, name)
	if !fault.Is(err, fault.NotFound) {
		return shown.GetId(), err
	}
	id, err := v.lastOwner(ctx, repository)
	if err == nil && id == 0 {
		err = fault.Newf(fault.NotFound, "GitHub shows Forge no repository %s, and no secret is kept for one of that name", repository)
	}
	return id, err
}

// pick finds the one of a name that counts for an environment: its own, else the
// repository's. Without one, it names the environments that have one.
func pick(all []kept, name, environment string) (found *kept, bound []string) {
	for i := range all {
		switch s := &all[i]; {
		case s.name != name:
		case s.environment == environment:
			return s, nil
		case s.environment == "":
			found = s
		default:
			bound = append(bound, s.environment)
		}
	}
	slices.Sort(bound)
	return found, bound
}

// elsewhere says that one of the name is there, for these environments alone.
func (k *kind) elsewhere(name string, environments []string) string {
	return fmt.Sprintf(k.bound, name, strings.Join(environments, " and "))
}

// shownUses are the builds that get what is for no environment alone.
func (s kept) shownUses() []schedulerv1.Secret_Use {
	if s.environment != "" {
		return nil
	}
	return s.uses.list()
}

// open decrypts what is kept; its error is an UnavailableError.
func (v *Service) open(s *kept) (string, error) {
	value, err := v.keyring.Open(s.slot, s.keyID, s.sealed)
	if err != nil {
		return "", UnavailableError(fmt.Sprintf(s.kind.unopened, s.name, err))
	}
	return value, nil
}

// Renew encrypts with the first key what is encrypted with another, and
// says which keys are missing.
func (v *Service) Renew(ctx context.Context) error {
	renewed, lost := 0, map[string]int{}
	for _, k := range []*kind{&secret, &credentials} {
		outdated, err := v.outdated(ctx, k, v.keyring.First())
		if err != nil {
			return fmt.Errorf("%s of other keys: %w", k.all, err)
		}
		for _, s := range outdated {
			value, err := v.keyring.Open(s.slot, s.keyID, s.sealed)
			if err != nil {
				lost[s.keyID]++
				continue
			}
			keyID, sealed, err := v.keyring.Seal(s.slot, value)
			if err != nil {
				return err
			}
			if err := v.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return s.reseal(ctx, t, keyID, sealed) }); err != nil {
				return fmt.Errorf(k.whose+" with key %s: %w", s.name, s.repository, keyID, err)
			}
			renewed++
		}
	}
	if renewed > 0 {
		v.log.InfoContext(ctx, "secrets were encrypted anew", "key", v.keyring.First(), "secrets", renewed)
	}
	for keyID, count := range lost {
		v.log.ErrorContext(ctx, "secrets cannot be decrypted, and builds that need them do not run: "+
			"add their key to FORGE_SECRETS_KEY, or set them again", "key", keyID, "secrets", count)
	}
	return nil
}
