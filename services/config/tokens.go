package config

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// minValidity is how long a token that is handed out is valid at least. Nothing
// that is done with one takes longer.
const minValidity = 5 * time.Minute

// tokenKey is the same for all who share a token.
type tokenKey struct {
	installation int64
	repository   string // grant.repositoryKey
	room         string
}

type token struct {
	text    string
	expires time.Time
	made    time.Time
}

// tokens makes installation tokens and shares each while it is valid.
type tokens struct {
	app           *github.AppsService
	installations *installations
	now           func() time.Time
	creating      singleflight[tokenKey, token]

	mu     sync.Mutex
	cached map[tokenKey]token
}

// CreateToken implements configv1.TokenServiceServer.
func (s *Service) CreateToken(ctx context.Context, req *configv1.CreateTokenRequest) (*configv1.CreateTokenResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), rpc.Caller(ctx).Room)
	if err != nil {
		return nil, err
	}
	s.tokens.reject(req.GetRejectedToken())
	_, made, err := s.tokens.token(ctx, g)
	if err != nil {
		return nil, err
	}
	return &configv1.CreateTokenResponse{Token: made.text, ExpireTime: timestamppb.New(made.expires)}, nil
}

// token returns the token that all who ask for this grant share. Where there is
// none it makes one.
func (t *tokens) token(ctx context.Context, g grant) (tokenKey, token, error) {
	installation, key, err := t.resolve(ctx, g)
	if err != nil {
		return key, token{}, err
	}
	if shared, ok := t.get(key); ok {
		return key, shared, nil
	}
	made, err := t.creating.do(ctx, key, func(ctx context.Context) (token, error) {
		if shared, ok := t.get(key); ok { // made since the first get
			return shared, nil
		}
		return t.createAndShare(ctx, g, key, installation)
	})
	return key, made, err
}

// resolve finds the installation that a grant is of, and the key of its token.
func (t *tokens) resolve(ctx context.Context, g grant) (*configv1.Installation, tokenKey, error) {
	if mayHold(g.room) == nil {
		return nil, tokenKey{}, fault.Newf(fault.Denied, "the room %q may hold no token", g.room)
	}
	found, err := t.installations.find(ctx, g.installation, g.owner, g.name)
	if err != nil {
		return nil, tokenKey{}, err
	}
	if found.GetSuspendTime() != nil {
		return nil, tokenKey{}, fault.Newf(fault.Conflict, "installation of %s is suspended: an owner can resume it at %s", found.GetAccount(), found.GetHtmlUrl())
	}
	return found, tokenKey{found.GetId(), g.repositoryKey(), g.room}, nil
}

// createAndShare makes a token for all who have this key. Where GitHub refuses,
// what is known of the installation may be out of date: GitHub is asked for it,
// and for the token once more.
func (t *tokens) createAndShare(ctx context.Context, g grant, key tokenKey, installation *configv1.Installation) (token, error) {
	made, err := t.create(ctx, g, installation)
	if err != nil && slices.Contains([]fault.Kind{fault.Denied, fault.NotFound, fault.Invalid}, fault.KindOf(err)) {
		refused := installation.GetId()
		t.installations.forget(refused)
		if installation, key, err = t.resolve(ctx, g); err != nil {
			if fault.Is(err, fault.NotFound) {
				// The installation may exist without that repository. Where this fails,
				// whoever needs the installation next reads it.
				_, _ = t.installations.reload(ctx, refused)
			}
			return token{}, err
		}
		made, err = t.create(ctx, g, installation)
	}
	if err != nil {
		return token{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for other, cached := range t.cached {
		if t.expiresSoon(cached) {
			delete(t.cached, other)
		}
	}
	t.cached[key] = made
	return made, nil
}

// create asks GitHub for a token.
func (t *tokens) create(ctx context.Context, g grant, installation *configv1.Installation) (token, error) {
	var permissions github.InstallationPermissions
	granted := narrow(mayHold(g.room), installation.GetPermissions())
	if len(granted) == 0 { // GitHub grants a token that names no permissions all of them
		return token{}, fault.Newf(fault.Denied, "installation of %s grants nothing that %s needs: an owner can accept the App's permissions at %s",
			installation.GetAccount(), g.room, installation.GetHtmlUrl())
	}
	if err := viaJSON(granted, &permissions); err != nil {
		return token{}, fmt.Errorf("permissions of room %s: %w", g.room, err)
	}
	options := &github.InstallationTokenOptions{Permissions: &permissions}
	if g.repository != 0 {
		options.RepositoryIDs = []int64{g.repository}
	} else {
		options.Repositories = []string{g.name}
	}
	made, _, err := t.app.CreateInstallationToken(ctx, installation.GetId(), options)
	if err != nil {
		return token{}, fmt.Errorf("token for %s of %s: %w", g.room, g.fullName(), appFault(err))
	}
	return token{text: made.GetToken(), expires: made.GetExpiresAt().Time, made: t.now()}, nil
}

// narrow is the lower level of each permission that is both wanted and granted.
func narrow(wanted, granted map[string]string) map[string]string {
	both := map[string]string{}
	for permission, level := range wanted {
		switch granted[permission] {
		case "":
		case "read":
			both[permission] = "read"
		default:
			both[permission] = level
		}
	}
	return both
}

func (t *tokens) get(key tokenKey) (token, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	shared, ok := t.cached[key]
	return shared, ok && !t.expiresSoon(shared)
}

func (t *tokens) expiresSoon(of token) bool { return of.expires.Sub(t.now()) < minValidity }

// reject drops a token that GitHub answered 401 to, so that the next caller gets
// another.
func (t *tokens) reject(text string) {
	if text != "" {
		t.dropWhere(func(_ tokenKey, cached token) bool { return cached.text == text })
	}
}

// justMade reports whether a token is not older than TokenLag of kit/github.
func (t *tokens) justMade(text string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, cached := range t.cached {
		if cached.text == text {
			return t.now().Sub(cached.made) < kitgithub.TokenLag
		}
	}
	return false
}

func (t *tokens) dropWhere(matches func(tokenKey, token) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, cached := range t.cached {
		if matches(key, cached) {
			delete(t.cached, key)
		}
	}
}
