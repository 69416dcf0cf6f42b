package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// parse reads a payload into go-github's type. A field of another type than
// go-github thinks, or a moment in a form that it does not read, is left out:
// GitHub sends both, and what a kind of event cannot do without is required by
// its own decoder.
func parse[T any](payload []byte) (*T, error) {
	parsed := new(T)
	err := json.Unmarshal(payload, parsed)
	if _, oddTime := errors.AsType[*time.ParseError](err); oddTime {
		parsed = new(T)
		if payload, err = withoutOddTimes(payload); err == nil {
			err = json.Unmarshal(payload, parsed)
		}
	}
	if _, otherType := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !otherType {
		return nil, fmt.Errorf("not readable as JSON: %w", err)
	}
	return parsed, nil
}

// withoutOddTimes takes out every moment that is not in RFC 3339.
func withoutOddTimes(payload []byte) ([]byte, error) {
	var tree any
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber() // ids do not fit into a float
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	dropOddTimes(tree)
	return json.Marshal(tree)
}

func dropOddTimes(tree any) {
	switch node := tree.(type) {
	case []any:
		for _, element := range node {
			dropOddTimes(element)
		}
	case map[string]any:
		for key, value := range node {
			text, isText := value.(string)
			if isText && (strings.HasSuffix(key, "_at") || key == "timestamp" || key == "date") {
				if _, err := time.Parse(time.RFC3339, text); err != nil {
					delete(node, key)
				}
			}
			dropOddTimes(value)
		}
	}
}

// need is a part of a payload that its kind of event cannot do without.
type need struct {
	name  string
	there bool
}

// require names the first need that is not met.
func require(needs ...need) error {
	for _, n := range needs {
		if !n.there {
			return fmt.Errorf("no %s in the payload", n.name)
		}
	}
	return nil
}

// common is what payloads of all kinds share.
type common struct {
	Action       *string              `json:"action"`
	Repo         *github.Repository   `json:"repository"`
	Sender       *github.User         `json:"sender"`
	Installation *github.Installation `json:"installation"`
}

func (c common) event() *eventv1.Event {
	e := &eventv1.Event{InstallationId: c.Installation.GetID(), Sender: account(c.Sender), Repository: repository(c.Repo)}
	if c.Action != nil {
		e.Action = *c.Action
	}
	return e
}

// inRepository is what every event of a repository needs.
func (c common) inRepository() need {
	repo := repository(c.Repo)
	return need{"repository", repo.GetId() != 0 && repo.GetOwner() != "" && repo.GetName() != ""}
}

// decodeOther reads what a list shows. Nobody acts on these kinds.
func decodeOther(payload []byte) (*eventv1.Event, error) {
	p, err := parse[common](payload)
	if err != nil {
		return nil, err
	}
	return p.event(), nil
}

// decodePing reads https://docs.github.com/webhooks/webhook-events-and-payloads#ping
func decodePing(payload []byte) (*eventv1.Event, error) {
	p, err := parse[github.PingEvent](payload)
	if err != nil {
		return nil, err
	}
	if err := require(need{"hook_id", p.GetHookID() != 0}); err != nil {
		return nil, err
	}
	e := common{Repo: p.Repo, Sender: p.Sender, Installation: p.Installation}.event()
	ping := &eventv1.PingEvent{Zen: p.GetZen(), HookId: p.GetHookID()}
	if p.Hook != nil {
		ping.Events = p.Hook.Events
	}
	e.Payload = &eventv1.Event_Ping{Ping: ping}
	return e, nil
}

func account(u *github.User) *eventv1.Account {
	if u == nil {
		return nil
	}
	kinds := map[string]eventv1.Account_Type{
		"User":         eventv1.Account_TYPE_USER,
		"Organization": eventv1.Account_TYPE_ORGANIZATION,
		"Bot":          eventv1.Account_TYPE_BOT,
	}
	return &eventv1.Account{Id: u.GetID(), Login: u.GetLogin(), Type: kinds[u.GetType()]}
}

// repository takes the owner from the full name where GitHub names no owner, as
// in lists of repositories.
func repository(r *github.Repository) *eventv1.Repository {
	if r == nil {
		return nil
	}
	owner := r.GetOwner().GetLogin()
	if owner == "" {
		owner, _, _ = strings.Cut(r.GetFullName(), "/")
	}
	return &eventv1.Repository{
		Id: r.GetID(), Owner: owner, Name: r.GetName(), DefaultBranch: r.GetDefaultBranch(),
		Private: r.GetPrivate(), Fork: r.GetFork(), Archived: r.GetArchived(),
	}
}

func repositories(rs []*github.Repository) []*eventv1.Repository {
	var all []*eventv1.Repository
	for _, r := range rs {
		if r != nil {
			all = append(all, repository(r))
		}
	}
	return all
}

func timestamp(t *github.Timestamp) *timestamppb.Timestamp {
	if t == nil || t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Time)
}

func number(n int) int32 { return int32(min(max(n, 0), math.MaxInt32)) }

func numbers(pulls []*github.PullRequest) []int32 {
	var all []int32
	for _, p := range pulls {
		all = append(all, number(p.GetNumber()))
	}
	return all
}
