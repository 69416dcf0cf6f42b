package githubsim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A MergeGroup is a pull request in the merge queue, with the commit that its base would be at once this and all before it
// are merged.
type MergeGroup struct {
	PullRequest int
	HeadRef     string // below refs/heads/gh-readonly-queue/
	HeadSHA     string
	BaseRef     string
	BaseSHA     string
}

// A group is a pull request in the queue.
type group struct {
	pull       *pull
	ref        string
	base, head string
}

// RequireStatus sets the contexts, of statuses or check runs, that the merge queue waits for. Without any it waits for
// MergeQueued.
func (s *Sim) RequireStatus(owner, repo string, contexts ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	r.required = contexts
	s.advance(r)
	return nil
}

// Enqueue puts a pull request into the merge queue, which requests checks of its merge group. The pull request is merged
// once the required statuses succeed and all before it are merged. If one of them fails it leaves the queue, and the
// groups behind it are made anew.
func (s *Sim) Enqueue(owner, repo string, number int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return err
	}
	switch {
	case p.state != "open":
		err = fmt.Errorf("it is %s", p.describe())
	case p.base.repo.groupOf(p) != nil:
		err = errors.New("it is queued already")
	}
	if err != nil {
		return fmt.Errorf("queue %s#%d: %w", p.base.repo.fullName(), number, err)
	}
	by := s.user("")
	g := s.newGroup(p, p.base.repo.queueEnd(p.base.branch))
	if g == nil {
		return fmt.Errorf("queue %s#%d: it conflicts with %s or with what is queued before it", p.base.repo.fullName(), number, p.base.branch)
	}
	s.emitPull(p, "enqueued", by, nil)
	s.request(g, by)
	return nil
}

// Dequeue takes a pull request out of the queue.
func (s *Sim) Dequeue(owner, repo string, number int) error {
	return s.changeQueue(owner, repo, number, func(g *group) error {
		s.leaveQueue(g.pull, s.user(""))
		return nil
	})
}

// MergeQueued merges the first pull request of its queue, whatever its statuses say.
func (s *Sim) MergeQueued(owner, repo string, number int) error {
	return s.changeQueue(owner, repo, number, func(g *group) error {
		if !g.first() {
			return fmt.Errorf("merge %s#%d: others are queued before it", g.pull.base.repo.fullName(), number)
		}
		s.landGroup(g)
		return nil
	})
}

// MergeQueue lists a repository's groups in the order of their merging.
func (s *Sim) MergeQueue(owner, repo string) ([]MergeGroup, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return nil, err
	}
	var list []MergeGroup
	for _, g := range r.queue {
		list = append(list, MergeGroup{
			PullRequest: g.pull.number, HeadRef: g.ref, HeadSHA: g.head, BaseRef: "refs/heads/" + g.pull.base.branch, BaseSHA: g.base,
		})
	}
	return list, nil
}

func (s *changes) changeQueue(owner, repo string, number int, change func(*group) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return err
	}
	g := p.base.repo.groupOf(p)
	if g == nil {
		return fmt.Errorf("pull request %s#%d is not queued", p.base.repo.fullName(), number)
	}
	return change(g)
}

// first reports whether a group is next to be merged.
func (g *group) first() bool {
	queue := g.pull.base.repo.queueOf(g.pull.base.branch)
	return len(queue) > 0 && queue[0] == g
}

func (r *repository) groupOf(p *pull) *group {
	i := slices.IndexFunc(r.queue, func(g *group) bool { return g.pull == p })
	if i < 0 {
		return nil
	}
	return r.queue[i]
}

func (r *repository) queueOf(branch string) []*group {
	var found []*group
	for _, g := range r.queue {
		if g.pull.base.branch == branch {
			found = append(found, g)
		}
	}
	return found
}

// queueEnd returns the commit that the next group of a branch is based on.
func (r *repository) queueEnd(branch string) string {
	if queue := r.queueOf(branch); len(queue) > 0 {
		return queue[len(queue)-1].head
	}
	return r.branch(branch).sha
}

// newGroup merges a pull request into base; nil if that conflicts.
func (s *changes) newGroup(p *pull, base string) *group {
	r := p.base.repo
	files, conflicts := r.commits.merge(base, p.head.sha)
	if len(conflicts) > 0 {
		return nil
	}
	c := s.mergeCommit(p, &commit{parents: []string{base, p.head.sha}, files: files}, p.author)
	g := &group{pull: p, base: base, head: c.sha, ref: fmt.Sprintf("refs/heads/gh-readonly-queue/%s/pr-%d-%s", p.base.branch, p.number, base)}
	r.queue = append(r.queue, g)
	return g
}

// request makes a group's branch and sends the event that requests checks.
func (s *changes) request(g *group, by *account) {
	s.move(g.pull.base.repo, g.ref, g.head, by)
	s.emitGroup(g, "checks_requested", "", by)
}

// leaveQueue removes a pull request from the queue, if it is there.
func (s *changes) leaveQueue(p *pull, by *account) {
	g := p.base.repo.groupOf(p)
	if g == nil {
		return
	}
	s.destroy(g, "dequeued", by)
	s.emitPull(p, "dequeued", by, nil)
	s.requeue(p.base.repo, p.base.branch, by)
}

// destroy removes a group and sends the event, with one of GitHub's reasons: merged, dequeued, or invalidated.
func (s *changes) destroy(g *group, reason string, by *account) {
	r := g.pull.base.repo
	r.queue = slices.DeleteFunc(r.queue, func(other *group) bool { return other == g })
	s.emitGroup(g, "destroyed", reason, by)
	s.move(r, g.ref, "", by)
}

// requeue makes anew the groups of a branch that are no longer based on it, each based on the one before it.
func (s *changes) requeue(r *repository, branch string, by *account) {
	tip := r.branch(branch)
	if tip == nil {
		return
	}
	base := tip.sha
	for _, g := range r.queueOf(branch) {
		if g.base == base {
			base = g.head
			continue
		}
		s.destroy(g, "invalidated", by)
		anew := s.newGroup(g.pull, base)
		if anew == nil {
			s.emitPull(g.pull, "dequeued", by, nil)
			continue
		}
		s.request(anew, by)
		base = anew.head
	}
}

// advance merges the groups whose required contexts have succeeded, and drops those of which one has failed.
func (s *changes) advance(r *repository) {
	if len(r.required) == 0 {
		return
	}
	for _, g := range slices.Clone(r.queue) {
		if r.groupOf(g.pull) == g && r.verdict(g.head) == failed {
			s.leaveQueue(g.pull, s.bot())
		}
	}
	for _, g := range slices.Clone(r.queue) {
		if g.first() && r.verdict(g.head) == succeeded {
			s.landGroup(g)
		}
	}
}

func (s *changes) landGroup(g *group) {
	by := s.user("")
	s.destroy(g, "merged", by)
	s.land(g.pull, g.head, by)
}

// A verdict is what the required contexts of a commit amount to.
type verdict int

const (
	undecided verdict = iota
	succeeded
	failed
)

func (r *repository) verdict(sha string) verdict {
	states := map[string]verdict{}
	for _, st := range r.latestStatuses(sha) {
		states[strings.ToLower(st.Context)] = map[string]verdict{"success": succeeded, "failure": failed, "error": failed}[st.State]
	}
	for _, run := range r.latestRuns(sha) {
		states[strings.ToLower(run.Name)] = run.verdict()
	}
	all := succeeded
	for _, context := range r.required {
		switch states[strings.ToLower(context)] {
		case failed:
			return failed
		case undecided:
			all = undecided
		case succeeded:
		}
	}
	return all
}

func (s *state) emitGroup(g *group, action, reason string, by *account) {
	r := g.pull.base.repo
	s.emit(event{name: "merge_group", action: action, repo: r, sender: by, payload: func(links) object {
		body := object{"merge_group": object{
			"head_sha": g.head, "head_ref": g.ref, "base_sha": g.base, "base_ref": "refs/heads/" + g.pull.base.branch,
			"head_commit": headCommit(r.commits[g.head]),
		}}
		if reason != "" {
			body["reason"] = reason
		}
		return body
	}})
}

// headCommit is the short form of a commit in merge groups and check suites.
func headCommit(c *commit) object {
	by := object{"name": c.author.login, "email": c.author.email()}
	return object{
		"id": c.sha, "tree_id": c.treeSHA, "message": c.message, "timestamp": timestamp(c.time), "author": by, "committer": by,
	}
}
