package signin

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/oauth2"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// Device is a sign-in by a device's code that has begun.
type Device struct {
	Code     string // for Poll alone
	UserCode string // for the person, who enters it at Address
	Address  string
	Ends     time.Time
	Pause    time.Duration // that Poll wants between two calls
}

// mostStarts is how many sign-ins of devices begin a minute: GitHub counts them, too,
// for all who sign in here.
const mostStarts = 30

// starts counts those of the last minute.
type starts struct {
	now   func() time.Time
	mu    sync.Mutex
	times []time.Time
}

func (s *starts) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for len(s.times) > 0 && now.Sub(s.times[0]) >= time.Minute {
		s.times = s.times[1:]
	}
	if len(s.times) >= mostStarts {
		return false
	}
	s.times = append(s.times, now)
	return true
}

// StartDevice begins a sign-in where no browser is.
func (s *Service) StartDevice(ctx context.Context) (Device, error) {
	if !s.Enabled() {
		return Device{}, notEnabled()
	}
	if !s.starts.take() {
		return Device{}, fault.New(fault.Exhausted, "too many sign-ins begin at once; try again in a minute")
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	begun := s.deps.Now()
	answer, err := s.oauth.DeviceAuth(s.toGitHub(ctx))
	if err != nil {
		return Device{}, s.deviceFault(ctx, err)
	}
	if answer.DeviceCode == "" {
		return Device{}, s.deviceFault(ctx, errors.New("GitHub sends no code; \"Enable Device Flow\" on the App's settings page may be off"))
	}
	return Device{
		Code: answer.DeviceCode, UserCode: answer.UserCode, Address: answer.VerificationURI,
		Ends: begun.Add(flowLife), Pause: max(time.Duration(answer.Interval)*time.Second, time.Second),
	}, nil
}

func notEnabled() error {
	return fault.New(fault.Conflict, "nobody can sign in at this Forge: FORGE_OAUTH_CLIENT_ID and FORGE_OAUTH_CLIENT_SECRET are not set")
}

func (s *Service) deviceFault(ctx context.Context, err error) error {
	err = hideSecrets(err)
	s.deps.Log.WarnContext(ctx, "a sign-in of a device failed", "error", err)
	return fault.Newf(fault.Unavailable, "GitHub does not sign in devices right now: %w", err)
}

// Polled is what has become of a sign-in by a device's code.
type Polled struct {
	Login  string // empty: the person has not entered the code yet
	Secret string
	Token  Token
	Slower bool // GitHub wants five seconds more between two calls
}

// Poll asks whether the person has entered the code, and makes a token of this name for
// them if so.
func (s *Service) Poll(ctx context.Context, code, name string) (Polled, error) {
	if !s.Enabled() {
		return Polled{}, notEnabled()
	}
	t, secret, err := s.fresh(name, 0)
	if err != nil {
		return Polled{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	given, err := s.oauth.Exchange(s.toGitHub(ctx), "",
		oauth2.SetAuthURLParam("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), oauth2.SetAuthURLParam("device_code", code))
	if err != nil {
		slower, err := s.pending(ctx, err)
		return Polled{Slower: slower}, err
	}
	g, err := s.grantOf(ctx, given)
	if err == nil {
		err = s.store.signedIn(ctx, g, "", time.Time{}, s.audited(schedulerv1.AuditEntry_ACTION_CREATE_TOKEN, g.login, subjectOf(t.Name), addToken(t, hashOf(secret), g.person)))
		s.handOver()
	}
	if err != nil {
		return Polled{}, err
	}
	s.deps.Log.InfoContext(ctx, "signed in by a device", "login", g.login, "token", t.ID)
	return Polled{Login: g.login, Secret: secret, Token: t}, nil
}

// pending is nil where the person has only to go on.
func (s *Service) pending(ctx context.Context, err error) (slower bool, _ error) {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return false, s.deviceFault(ctx, err)
	}
	switch answer.ErrorCode {
	case "authorization_pending":
		return false, nil
	case "slow_down":
		return true, nil
	case "expired_token", "incorrect_device_code":
		return false, fault.New(fault.Conflict, "the code was not entered in time, or was used before: begin again")
	case "access_denied":
		return false, fault.New(fault.Denied, "GitHub did not sign you in: you, or it, said no")
	}
	return false, s.deviceFault(ctx, err)
}
