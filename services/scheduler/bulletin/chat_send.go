package bulletin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/discord"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/mattermost"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/rocketchat"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/slack"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/telegram"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/push/gotify"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/push/ntfy"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/egress"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// chatWithin is how long what a chat is told is news.
const chatWithin = time.Hour

// Chats says how chats are reached.
type Chats struct {
	Channels map[string]string // addresses by the names that files have; they may lead anywhere
	Private  bool              // what repositories have may lead to private addresses
	// Secret is a secret of a repository by its name, or why there is none.
	Secret func(ctx context.Context, repositoryID int64, name string) (value, why string, err error)
}

// refusal is that no later try would be another one.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// say makes one try to tell a chat.
func (s *Service) say(ctx context.Context, n store.Notice) {
	err := s.trySaying(ctx, n)
	if err != nil && s.Store.Now().Sub(n.Created) > chatWithin {
		err = refusal{fmt.Errorf("given up after %d tries: %w", n.Tries+1, err)}
	}
	_, final := errors.AsType[refusal](err)
	if err != nil {
		level, text := slog.LevelInfo, "a chat was not told of a build; it is tried again"
		if final {
			level, text = slog.LevelWarn, "a chat is not told of a build"
		}
		s.Log.Log(ctx, level, text, "chat", n.Address, "build", n.BuildID, "error", err) //nolint:sloglint // one of the two texts above
	}
	err = s.Store.Write(context.WithoutCancel(ctx), func(ctx context.Context, t *store.Tx) error {
		notices := store.Notices{Tx: t}
		switch {
		case err == nil:
			return notices.Told(ctx, n, "")
		case final:
			return notices.Told(ctx, n, err.Error())
		default:
			return notices.Failed(ctx, n, err.Error(), func(tries int) time.Duration { return due.Backoff(tries, firstPause, mostPause, rand.Float64) })
		}
	})
	if err != nil {
		s.Log.WarnContext(ctx, "what a chat was told is not settled; it is told again", "build", n.BuildID, "error", err)
	}
}

func (s *Service) trySaying(ctx context.Context, n store.Notice) error {
	parts := strings.SplitN(strings.TrimPrefix(n.Address, chats), "/", 3)
	repository, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil || len(parts) != 3 {
		return refusal{errors.New("no such chat")}
	}
	kind, name := parts[1], parts[2]
	address, client := s.Chats.Channels[name], s.client
	if kind == inSecret {
		if client = s.internet; s.Chats.Private {
			client = s.client
		}
		var why string
		if address, why, err = s.Chats.Secret(ctx, repository, name); err != nil {
			return err
		}
		if why != "" {
			return refusal{errors.New(why)}
		}
	}
	if address == "" {
		return refusal{fmt.Errorf("FORGE_NOTIFY_CHANNELS has no channel %s", name)}
	}
	service, err := open(strings.TrimSpace(address), client)
	if err != nil {
		return refusal{err}
	}
	return unnamed(service.Send(string(n.Event), &types.Params{}), address)
}

// open prepares one of the services that call either a host that is theirs for good or,
// where the address names it, with a client of ours.
func open(address string, client *http.Client) (types.Service, error) {
	at, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address is none")
	}
	var service types.Service
	use := func() {}
	switch at.Scheme {
	case discord.Scheme:
		service = &discord.Service{}
	case slack.Scheme:
		service = &slack.Service{}
	case telegram.Scheme:
		service = &telegram.Service{}
	case mattermost.Scheme:
		m := &mattermost.Service{}
		service, use = m, func() { *m.GetHTTPClient() = *client }
	case rocketchat.Scheme:
		service = &rocketchat.Service{Client: client}
	case gotify.Scheme:
		g := &gotify.Service{}
		service, use = g, func() { *g.GetHTTPClient() = *client }
	case ntfy.Scheme:
		n := &ntfy.Service{}
		service, use = n, func() { n.SetHTTPClient(client) }
	default:
		return nil, errors.New("the address is of no service that is known: discord, gotify, mattermost, ntfy, rocketchat, slack and telegram are")
	}
	if err := service.Initialize(at, silent{}); err != nil {
		return nil, unnamed(fmt.Errorf("the address does not fit its service: %w", err), address)
	}
	use()
	return service, nil
}

// silent takes what a service logs, which holds its address.
type silent struct{}

func (silent) Print(...any)          {}
func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// unnamed is an error without the address, or a part of it that may be a token.
func unnamed(err error, address string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, egress.ErrPrivate):
		return refusal{fmt.Errorf("%w: FORGE_NOTIFY_PRIVATE allows that", egress.ErrPrivate)}
	}
	text := egress.OneLine(egress.Bare(err).Error(), shownOfText)
	parts := strings.FieldsFunc(address, func(r rune) bool { return strings.ContainsRune("/:@?&=-.,", r) })
	if slices.ContainsFunc(parts, func(part string) bool { return len(part) > 3 && strings.Contains(text, part) }) {
		text = "the service did not take it"
	}
	return errors.New(text)
}
