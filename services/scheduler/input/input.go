package input

import (
	"context"
	"fmt"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Service keeps inputs.
type Service struct {
	Store   *store.Store
	Secrets *secrets.Service
}

// Seal is how values are stored for a build.
func (s *Service) Seal(buildID string, all []Value) ([]store.Input, error) {
	var sealed []store.Input
	for _, v := range all {
		one := store.Input{Name: v.GetName(), Variable: v.GetVariable(), Value: []byte(v.Value)}
		if v.GetSecret() && v.Value != "" {
			var err error
			if one.KeyID, one.Value, err = s.Secrets.SealInput(buildID, v.GetName(), v.Value); err != nil {
				return nil, err
			}
		}
		sealed = append(sealed, one)
	}
	return sealed, nil
}

// For is what the commands of a build see, as variables: what is no secret, and what is.
// Its error is secrets.UnavailableError where a secret cannot be decrypted.
func (s *Service) For(ctx context.Context, b *store.Build) (plain, secret map[string]string, err error) {
	plain, secret = map[string]string{}, map[string]string{}
	if b.GetAction() != schedulerv1.Build_ACTION_MANUAL {
		return plain, secret, nil
	}
	whole := store.WholeID(b.GetId())
	all, err := s.Store.InputsOf(ctx, whole)
	if err != nil {
		return nil, nil, fmt.Errorf("inputs of build %s: %w", whole, err)
	}
	for _, i := range all {
		if i.KeyID == "" {
			plain[i.Variable] = string(i.Value)
			continue
		}
		if secret[i.Variable], err = s.Secrets.OpenInput(whole, i.Name, i.KeyID, i.Value); err != nil {
			return nil, nil, secrets.UnavailableError(fmt.Sprintf("input %s cannot be decrypted: %v; or ask for the build anew", i.Name, err))
		}
	}
	return plain, secret, nil
}

// Again is what was given for a build that is to be run once more; a text for people
// says why that cannot be.
func (s *Service) Again(ctx context.Context, b *store.Build) (given map[string]string, problem string, err error) {
	for _, shown := range b.GetInputs() {
		if shown.GetSecret() {
			return nil, fmt.Sprintf("input %s of build %s is a secret and was not kept: ask for a new build by hand", shown.GetName(), b.GetId()), nil
		}
	}
	all, err := s.Store.InputsOf(ctx, b.GetId())
	if err != nil {
		return nil, "", fmt.Errorf("inputs of build %s: %w", b.GetId(), err)
	}
	given = map[string]string{}
	for _, i := range all {
		given[i.Name] = string(i.Value)
	}
	return given, "", nil
}
