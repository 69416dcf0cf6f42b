package signin

import "context"

// Viewer is who makes a request, as far as that was proven. The zero value is a
// stranger.
type Viewer struct {
	ID    int64 // GitHub's, of a person; 0: it is none
	Login string
	Admin bool // who shows the admin token
	// Bound is that a token is shown that is bound to a repository, which the scheduler
	// knows: nothing is proven by it here.
	Bound bool

	// Ended is that a session or a token was shown that is good no longer.
	Ended bool
	// CSRF goes along with what the viewer's pages change; "" where no cookie is shown.
	CSRF string

	// Credential is what a person has shown, in words: a session, or a token by its name.
	Credential string

	secret string // the hash of what was shown
}

// Known reports whether it is anybody at all.
func (v Viewer) Known() bool { return v.Admin || v.ID != 0 }

type viewerKey struct{}

// From is who made the request that ctx belongs to.
func From(ctx context.Context) Viewer {
	v, _ := ctx.Value(viewerKey{}).(Viewer)
	return v
}

// With returns a context of a request that this viewer made.
func With(ctx context.Context, v Viewer) context.Context {
	return context.WithValue(ctx, viewerKey{}, v)
}
