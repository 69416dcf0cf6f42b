package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v4"

	"github.com/forge-ci/forge/services/kit/settings"
)

// Receiver is somebody outside of Forge to whom deliveries are forwarded as they came.
type Receiver struct {
	Name string
	// URL is where: https:// and http:// for a POST as GitHub makes it, grpcs:// and
	// grpc:// for forge.event.v1.EventService. It may hold a token, so nothing shows it.
	URL string
	// Events are the kinds that it wants, as X-GitHub-Event has them; none: all.
	Events []string
	// Repositories are patterns of owner/name; none: all, and what concerns no repository.
	Repositories []string
	Secret       string // what payloads are signed with for it
}

// ReadReceivers reads a file of receivers, in YAML. Files of secrets are named from where
// it lies. "" is no file, and no receivers.
func ReadReceivers(path string) ([]Receiver, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("receivers: %w", err)
	}
	var file []struct {
		Name         string   `yaml:"name"`
		URL          string   `yaml:"url"`
		Events       []string `yaml:"events"`
		Repositories []string `yaml:"repositories"`
		SecretFile   string   `yaml:"secret_file"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("receivers in %s: %w", path, err)
	}
	all := make([]Receiver, 0, len(file))
	for n, f := range file {
		if f.SecretFile != "" && !filepath.IsAbs(f.SecretFile) {
			f.SecretFile = filepath.Join(filepath.Dir(path), f.SecretFile)
		}
		secret, err := settings.FromFile("", f.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("receiver %d in %s: secret_file: %w", n+1, path, err)
		}
		r := Receiver{Name: f.Name, URL: f.URL, Events: f.Events, Repositories: f.Repositories, Secret: secret}
		if err := r.check(all); err != nil {
			return nil, fmt.Errorf("receiver %d in %s: %w", n+1, path, err)
		}
		all = append(all, r)
	}
	return all, nil
}

var receiverName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// check says what is wrong with a receiver that stands after others.
func (r Receiver) check(others []Receiver) error {
	switch {
	case !receiverName.MatchString(r.Name):
		return fmt.Errorf("name %q: expected up to 40 lower-case letters, digits and hyphens, a letter first", r.Name)
	case r.Name == self || slices.Contains(receivers(), r.Name):
		return fmt.Errorf("name %s: that is a service of Forge", r.Name)
	case slices.ContainsFunc(others, func(o Receiver) bool { return o.Name == r.Name }):
		return fmt.Errorf("name %s: stands there twice", r.Name)
	case r.Secret == "":
		return fmt.Errorf("%s: secret_file is missing, or empty: payloads are signed with it; forge secret new makes one", r.Name)
	}
	address, err := url.Parse(r.URL)
	if err != nil || address.Host == "" || !slices.Contains([]string{"http", "https", "grpc", "grpcs"}, address.Scheme) {
		return fmt.Errorf("%s: url is none that begins with https://, http://, grpcs:// or grpc:// and names a host", r.Name)
	}
	if strings.HasPrefix(address.Scheme, "grpc") && (address.Port() == "" || strings.Trim(address.Path, "/") != "" || address.User != nil) {
		return fmt.Errorf("%s: url: expected %s://HOST:PORT", r.Name, address.Scheme)
	}
	for _, pattern := range r.Repositories {
		if !doublestar.ValidatePattern(pattern) {
			return fmt.Errorf("%s: repositories: %q is no pattern", r.Name, pattern)
		}
	}
	return nil
}

// wants reports whether a kind of event is for the receiver.
func (r Receiver) wants(event string) bool {
	return len(r.Events) == 0 || slices.Contains(r.Events, event)
}

// covers reports whether what happens in a repository, "" for none, is for the receiver.
func (r Receiver) covers(repository string) bool {
	return len(r.Repositories) == 0 || repository != "" && slices.ContainsFunc(r.Repositories, func(pattern string) bool {
		return doublestar.MatchUnvalidated(strings.ToLower(pattern), strings.ToLower(repository))
	})
}

// swept begins the ids of what Forge has found by itself: no word of GitHub's.
const swept = "swept-"

// receiversOf are all that a delivery is forwarded to: rooms, then those outside. The
// gateway itself decides where nobody else does.
func (s *store) receiversOf(guid, event string) []string {
	var outside []string
	if !strings.HasPrefix(guid, swept) {
		for _, r := range s.outside {
			if r.wants(event) {
				outside = append(outside, r.Name)
			}
		}
	}
	if _, known := routes[event]; !known && len(outside) > 0 {
		return outside
	}
	return append(slices.Clone(routeOf(event).receivers), outside...)
}

// tryBounds says how tries at a receiver go on.
type tryBounds struct {
	mostPause time.Duration
	// tryFor is for how long tries go on at least, and mostTries how many there are at most; 0: no bound.
	tryFor    time.Duration
	mostTries int
}

func boundsOfRooms() tryBounds { return tryBounds{mostPause: mostPause, mostTries: mostTries} }

// fewTries are made however late the first one is, as after Forge itself was away.
const fewTries = 10

// over reports whether a forward that was tried again is not to be.
func (p tryBounds) over(f forward, now time.Time) bool {
	if p.mostTries > 0 && f.attempts >= p.mostTries {
		return true
	}
	return p.tryFor > 0 && f.attempts >= fewTries && now.Sub(f.since) >= p.tryFor
}
