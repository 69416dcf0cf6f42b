package config

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// mayHold is which room may hold which permissions. Of these a token gets what
// the installation grants.
func mayHold(room string) map[string]string {
	return map[string]map[string]string{
		roomConfig: {"metadata": "read", "contents": "read", "pull_requests": "read"},
		"reporter": {
			"metadata": "read", "contents": "read",
			"statuses": "write", "checks": "write", "deployments": "write", "pull_requests": "write",
		},
	}[room]
}

const roomConfig = "config"

// spare is how long a token that is handed out lasts at least: longer than what
// is done with it.
const spare = 5 * time.Minute

// grant is what a token is wanted for.
type grant struct {
	installation int64 // 0 where the caller does not know
	repository   int64 // likewise
	owner, name  string
	room         string
}

func grantFor(repository *eventv1.Repository, installation int64, room string) (grant, error) {
	g := grant{
		installation: installation, repository: repository.GetId(),
		owner: repository.GetOwner(), name: repository.GetName(), room: room,
	}
	if g.owner == "" || g.name == "" {
		return g, fault.New(fault.Invalid, "the repository lacks its owner or name")
	}
	return g, nil
}

func (g grant) fullName() string { return g.owner + "/" + g.name }

// key tells repositories apart: by id, which survives a rename, where known.
func (g grant) key() string {
	if g.repository != 0 {
		return strconv.FormatInt(g.repository, 10)
	}
	return strings.ToLower(g.fullName())
}

// bucket is all who share a token.
type bucket struct {
	installation int64
	repository   string // grant.key
	room         string
}

type token struct {
	text    string
	expires time.Time
}

// tokens makes installation tokens and shares each while it lasts.
type tokens struct {
	app           *github.AppsService
	installations *installations
	now           func() time.Time
	minting       flights[bucket, token]

	mu     sync.Mutex
	cached map[bucket]token
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

// token is the shared token of the grant's bucket, made if need be.
func (t *tokens) token(ctx context.Context, g grant) (bucket, token, error) {
	at, b, err := t.place(ctx, g)
	if err != nil {
		return b, token{}, err
	}
	if shared, ok := t.get(b); ok {
		return b, shared, nil
	}
	made, err := t.minting.do(ctx, b, func(ctx context.Context) (token, error) {
		if shared, ok := t.get(b); ok { // made between our look and our turn
			return shared, nil
		}
		return t.mint(ctx, g, b, at)
	})
	return b, made, err
}

// place finds the installation for a grant, and the bucket.
func (t *tokens) place(ctx context.Context, g grant) (*configv1.Installation, bucket, error) {
	if mayHold(g.room) == nil {
		return nil, bucket{}, fault.Newf(fault.Denied, "the room %q may hold no token", g.room)
	}
	at, err := t.installations.find(ctx, g.installation, g.owner, g.name)
	if err != nil {
		return nil, bucket{}, err
	}
	if at.GetSuspendTime() != nil {
		return nil, bucket{}, fault.Newf(fault.Conflict, "installation of %s is suspended: an owner can resume it at %s", at.GetAccount(), at.GetHtmlUrl())
	}
	return at, bucket{at.GetId(), g.key(), g.room}, nil
}

// mint asks GitHub for a token. When it refuses, what is known of the
// installation may be old: that is learnt anew, once.
func (t *tokens) mint(ctx context.Context, g grant, b bucket, at *configv1.Installation) (token, error) {
	made, err := t.ask(ctx, g, at)
	if err != nil && slices.Contains([]fault.Kind{fault.Denied, fault.NotFound, fault.Invalid}, fault.KindOf(err)) {
		asked := at.GetId()
		t.installations.forget(asked)
		var now bucket
		if at, now, err = t.place(ctx, g); err != nil {
			if fault.Is(err, fault.NotFound) {
				_, _ = t.installations.look(ctx, asked) // it may be there, without that repository; else who needs it asks again
			}
			return token{}, err
		}
		b = now
		made, err = t.ask(ctx, g, at)
	}
	if err != nil {
		return token{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for old, one := range t.cached {
		if t.stale(one) {
			delete(t.cached, old)
		}
	}
	t.cached[b] = made
	return made, nil
}

func (t *tokens) ask(ctx context.Context, g grant, at *configv1.Installation) (token, error) {
	var permissions github.InstallationPermissions
	granted := narrow(mayHold(g.room), at.GetPermissions())
	if len(granted) == 0 { // to GitHub, none would mean all
		return token{}, fault.Newf(fault.Denied, "installation of %s grants nothing that %s needs: an owner can accept the App's permissions at %s",
			at.GetAccount(), g.room, at.GetHtmlUrl())
	}
	if err := convert(granted, &permissions); err != nil {
		return token{}, fmt.Errorf("permissions of room %s: %w", g.room, err)
	}
	options := &github.InstallationTokenOptions{Permissions: &permissions}
	if g.repository != 0 {
		options.RepositoryIDs = []int64{g.repository}
	} else {
		options.Repositories = []string{g.name}
	}
	made, _, err := t.app.CreateInstallationToken(ctx, at.GetId(), options)
	if err != nil {
		return token{}, fmt.Errorf("token for %s of %s: %w", g.room, g.fullName(), appFailure(err))
	}
	return token{made.GetToken(), made.GetExpiresAt().Time}, nil
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

func (t *tokens) get(b bucket) (token, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	shared, ok := t.cached[b]
	return shared, ok && !t.stale(shared)
}

func (t *tokens) stale(one token) bool { return one.expires.Sub(t.now()) < spare }

// reject takes back a token that GitHub answered 401 to.
func (t *tokens) reject(text string) {
	if text != "" {
		t.dropWhere(func(_ bucket, one token) bool { return one.text == text })
	}
}

func (t *tokens) dropWhere(matches func(bucket, token) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for b, one := range t.cached {
		if matches(b, one) {
			delete(t.cached, b)
		}
	}
}

// source is the token source of one of config's own clients.
type source struct {
	tokens *tokens
	grant  grant
}

func (s source) Token(ctx context.Context) (string, error) {
	_, shared, err := s.tokens.token(ctx, s.grant)
	return shared.text, err
}

func (s source) Expire(token string) { s.tokens.reject(token) }
