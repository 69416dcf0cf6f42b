package dockerapi

import (
	"context"
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
)

const (
	// provenFor is how long a registry's word counts that it gives an image to who shows
	// the same.
	provenFor = 10 * time.Minute
	// mostProofs is when those are looked through that count no more.
	mostProofs = 1000
	// InspectWithin bounds how long a registry is asked.
	InspectWithin = 15 * time.Second
)

// Access says which builds may have an image. Its methods may be called at once by many.
type Access struct {
	Registries Registries
	Client     *client.Client

	mu     sync.Mutex
	proofs map[[sha256.Size]byte]time.Time
}

// Check is nil where a build may have an image that is on a machine already; else the
// registry's error, or why nobody knows, with what the build has shown. Of what is not
// private nobody is asked.
func (a *Access) Check(ctx context.Context, spec engine.Spec, ref reference.Named) (Login, error) {
	if spec.Registries == nil {
		return Login{}, nil
	}
	since, err := spec.Registries.Private(ctx, ref.Name())
	if err != nil || since.IsZero() {
		return Login{}, err
	}
	login, err := a.Registries.Login(ctx, spec, reference.Domain(ref))
	if err != nil || a.proven(ref, login) {
		return login, err
	}
	if _, err := a.Ask(ctx, ref, login); err != nil {
		return login, RefusedError{err}
	}
	a.Prove(ref, login)
	if !login.Own { // whom all builds are, it is for
		err = spec.Registries.Unmark(ctx, ref.Name(), since)
	}
	return login, err
}

// RefusedError is that a registry did not give an image to a build.
type RefusedError struct{ error }

// Unwrap returns what the registry said.
func (r RefusedError) Unwrap() error { return r.error }

// Ask is what the registry says of an image to who shows the login.
func (a *Access) Ask(ctx context.Context, ref reference.Named, login Login) (client.DistributionInspectResult, error) {
	within, cancel := context.WithTimeout(ctx, InspectWithin)
	defer cancel()
	found, err := a.Client.DistributionInspect(within, reference.TagNameOnly(ref).String(), client.DistributionInspectOptions{EncodedRegistryAuth: login.Auth})
	return found, login.Hide(err)
}

// Announce is called before an image is pulled with a login that its registry takes:
// where that is a build's own, and others would not get the image, it is private from now
// on.
func (a *Access) Announce(ctx context.Context, spec engine.Spec, ref reference.Named, login Login) error {
	if !login.Own {
		return nil
	}
	host := reference.Domain(ref)
	everybodys, err := a.Registries.Credentials(host)
	if err != nil {
		return err
	}
	if _, err := a.Ask(ctx, ref, Login{Auth: everybodys, host: host}); err == nil {
		return nil
	}
	return spec.Registries.Mark(ctx, ref.Name())
}

func (a *Access) proven(ref reference.Named, login Login) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.proofs[login.proves(ref.Name())]) < provenFor
}

// Prove notes that the registry has just given an image to who showed the login.
func (a *Access) Prove(ref reference.Named, login Login) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.proofs) >= mostProofs {
		maps.DeleteFunc(a.proofs, func(_ [sha256.Size]byte, at time.Time) bool { return time.Since(at) >= provenFor })
	}
	if a.proofs == nil {
		a.proofs = map[[sha256.Size]byte]time.Time{}
	}
	a.proofs[login.proves(ref.Name())] = time.Now()
}
