package engine

import (
	"context"
	"time"
)

// Registries is what one build may show to registries of images, and what is known of
// images that others have pulled with theirs. An image that is on a machine already
// says nothing of who may have it: one that is private a build gets if the registry gives
// it to that build.
type Registries interface {
	// Login is what the build may show to a registry, by its host in the names of images.
	Login(ctx context.Context, host string) (Login, error)
	// Private is when an image of this name, as host/path, was marked last; zero where
	// it is not.
	Private(ctx context.Context, name string) (time.Time, error)
	// Mark notes that images of this name are about to be on machines that not every build
	// may pull. Unmark ends that, unless one was marked anew since then.
	Mark(ctx context.Context, name string) error
	Unmark(ctx context.Context, name string, since time.Time) error
}

// IdentityUser is the name of who shows an identity token in place of a password, as
// helpers of Docker have it.
const IdentityUser = "<token>"

// Login is what is shown to a registry; the zero one is nothing. Never to be logged.
type Login struct {
	Username, Password string
	// Withheld is why the build has nothing to show though there is something, for
	// people; else "".
	Withheld string
}
