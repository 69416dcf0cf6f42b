package githubsim

import (
	"slices"
	"strings"
	"time"
)

// SetLag has the API be later than its webhooks, as GitHub's is for seconds now and then: what happens from now on is
// sent by webhook at once, and only shown by reads after lag. 0 ends that.
//
// Until then a commit is not found, a branch or tag is where it was before, a pull request is not found, or has the head
// it had before, and a person who was never heard of before is no user. Statuses, checks, deployments and comments are
// never late.
func (s *Controls) SetLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag, s.lagSince = lag, s.now()
}

// late reports whether reads do not show yet what happened at that time.
func (s *state) late(at time.Time) bool {
	return s.lag > 0 && !at.Before(s.lagSince) && s.now().Before(at.Add(s.lag))
}

// read is resolve for what reads show.
func (s *state) read(r *repository, ref string) *commit {
	c := r.resolve(ref)
	for c != nil && s.late(c.known()) {
		if strings.HasPrefix(c.sha, ref) && ref != "" || len(c.parents) == 0 {
			return nil
		}
		c = r.commits[c.parents[0]]
	}
	return c
}

// readPull is a pull request as reads show it; nil where they do not.
func (s *state) readPull(p *pull) *pull {
	switch {
	case p == nil, s.late(p.created):
		return nil
	case p.headBefore != "" && s.late(p.headMoved):
		before := *p
		before.head.sha = p.headBefore
		return &before
	}
	return p
}

// readPulls leaves out the pull requests that reads do not show.
func (s *state) readPulls(all []*pull) []*pull {
	var shown []*pull
	for _, p := range all {
		shown = append(shown, s.readPull(p))
	}
	return slices.DeleteFunc(shown, func(p *pull) bool { return p == nil })
}

// SetTokenLag has tokens answer 403 for that long after they were made; see Config.TokenLag.
func (s *Sim) SetTokenLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.TokenLag = lag
}
