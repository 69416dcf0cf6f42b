package githubsim

import (
	cryptorand "crypto/rand"
	"crypto/rsa"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Config is the App as it is registered with GitHub, and how GitHub behaves.
type Config struct {
	AppID         int64
	AppKey        *rsa.PublicKey    // verifies the App's tokens
	AppSlug       string            // "forge" if empty; the App writes as slug[bot]
	AppOwner      string            // who registered the App; "octocat" if empty
	Permissions   map[string]string // what installations grant; nil: what Forge asks for
	Events        []string          // that the App is told of, beside those about installations; nil: those that Forge asks for
	WebhookURL    string            // where deliveries go; empty: none are sent. See SetWebhook
	WebhookSecret string
	URL           string         // what addresses in webhooks begin with; REST answers use the address they were asked at. See SetURL
	TokenLife     time.Duration  // of an installation's token; 0: an hour, as GitHub's
	TokenLag      time.Duration  // in which a token that was just made answers 403, as where GitHub has not copied its permissions yet; 0: none
	OAuth         OAuth          // how people sign in through the App; see SetOAuth
	Limits        Limits         // zero: calls are counted and never refused
	Misbehaviours []Misbehaviour // from the start on; see Misbehave
	Lag           time.Duration  // of the API behind its webhooks; see SetLag
	Seed          uint64         // of the chance in misbehaviours
	Now           func() time.Time
	Log           *slog.Logger
}

// Sim is one GitHub. Its methods do what people do there, and are safe for concurrent use.
type Sim struct {
	*changes
	*Controls

	front *front
}

// Controls is what is arranged from outside: what the owners of the App and of its installations do, and how GitHub behaves.
type Controls struct{ *changes }

// state is what this GitHub knows. Its methods look things up, make what is missing, and send events; the caller holds the lock.
type state struct {
	config  Config
	hooks   *sender
	disk    *disk
	secret  []byte // signs the short-lived addresses of archives and raw files
	created time.Time

	mu            sync.Mutex // guards all below
	lastID        int64
	accounts      map[string]*account // by lower-case login
	installations []*installation
	repositories  map[string]*repository // by lower-case owner/name
	moved         map[string]*repository // by such a name they had before
	tokens        map[string]*grant
	people        *people
	usages        map[string]*usage // by the caller's name
	misbehaviours []*activeMisbehaviour
	chance        *rand.Rand
	lag           time.Duration
	lagSince      time.Time
	calls         []Call
}

// changes are what happens, with all that follows from it: a push moves pull requests, a merge its queue.
type changes struct{ *state }

// New makes an empty GitHub. It has to be closed.
func New(config Config) *Sim {
	if config.AppSlug == "" {
		config.AppSlug = "forge"
	}
	if config.Permissions == nil {
		config.Permissions = map[string]string{
			"actions": "read", "checks": "write", "contents": "read", "deployments": "write", "issues": "write",
			"merge_queues": "read", "pull_requests": "write", "statuses": "write",
		}
	}
	config.Permissions = maps.Clone(config.Permissions)
	config.Permissions["metadata"] = "read" // no App goes without
	if config.Events == nil {
		config.Events = []string{"check_run", "check_suite", "issue_comment", "merge_group", "pull_request", "push", "release", "repository"}
	}
	if config.URL == "" {
		config.URL = "http://localhost"
	}
	if config.TokenLife == 0 {
		config.TokenLife = time.Hour
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	known := &state{
		config:       config,
		disk:         newDisk(config.Log),
		secret:       []byte(cryptorand.Text()),
		accounts:     map[string]*account{},
		repositories: map[string]*repository{},
		moved:        map[string]*repository{},
		tokens:       map[string]*grant{},
		people:       newPeople(),
		usages:       map[string]*usage{},
		chance:       newChance(config.Seed),
		lag:          config.Lag,
	}
	known.created = known.now()
	known.hooks = newSender(config)
	all := &changes{known}
	s := &Sim{changes: all, Controls: &Controls{all}, front: &front{changes: all, mux: http.NewServeMux()}}
	for _, m := range config.Misbehaviours {
		s.Misbehave(m)
	}
	for _, r := range s.front.routes() {
		s.front.mux.HandleFunc(r.pattern, s.front.serve(r))
	}
	(&pages{s, newPage()}).register(s.front.mux)
	return s
}

// Close waits for the webhook that is being sent, and drops those that wait behind it. It ends clones and fetches.
func (s *Sim) Close() {
	s.hooks.close()
	s.disk.close()
}

// SetURL sets Config.URL, once it is known.
func (s *Controls) SetURL(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.URL = url
}

// id returns the next id. GitHub's ids are unique for each kind of thing alone; here they are unique for all, so that a
// mix-up shows.
func (s *state) id() int64 {
	s.lastID++
	return s.lastID
}

func (s *state) now() time.Time { return s.config.Now().UTC() }
