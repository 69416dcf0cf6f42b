package githubsim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A PullRequest is one as people see it. OpenPullRequest reads Title, Body, Head, Base, Author and Draft alone.
type PullRequest struct {
	Title  string
	Body   string
	Head   string // a branch; "account:branch" of a fork
	Base   string // a branch; the default one if empty
	Author string // a login; "octocat", or the owner of the fork, if empty
	Draft  bool

	Number      int
	State       string // open or closed
	Merged      bool
	HeadSHA     string
	BaseSHA     string
	MergeCommit string // once merged
}

type pull struct {
	id         int64
	number     int
	title      string
	body       string
	author     *account
	draft      bool
	labels     []string
	state      string
	head, base end
	created    time.Time
	updated    time.Time
	closed     time.Time
	merged     time.Time
	mergedBy   *account
	mergedAs   string // the merge commit, once merged
	tested     string // what a merge would be, at refs/pull/N/merge; empty on a conflict
	conflicts  []string
	headBefore string // the head until headMoved; empty: it never moved
	headMoved  time.Time
}

// An end of a pull request is its head or base: a branch, and the commit that the pull request has of it.
type end struct {
	repo   *repository
	branch string
	sha    string
}

func (e end) label() string { return e.repo.owner.login + ":" + e.branch }

// tip returns the commit that the branch is at; nil if there is no such branch.
func (e end) tip() *commit {
	if e.repo == nil || e.repo.gone {
		return nil
	}
	return e.repo.branch(e.branch)
}

// OpenPullRequest opens a pull request and returns its number. It fails where GitHub would refuse.
func (s *Sim) OpenPullRequest(owner, repo string, want PullRequest) (number int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return 0, err
	}
	if want.Base == "" {
		want.Base = r.defaultBranch
	}
	if login, _, fromFork := strings.Cut(want.Head, ":"); want.Author == "" && fromFork {
		want.Author = login
	}
	p, refusal := s.open(r, want, s.user(want.Author))
	if refusal != nil {
		return 0, fmt.Errorf("open a pull request from %s into %s of %s: %s", want.Head, want.Base, r.fullName(), refusal.text())
	}
	return p.number, nil
}

// PullRequests lists all pull requests of a repository, by number.
func (s *Sim) PullRequests(owner, repo string) ([]PullRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return nil, err
	}
	var list []PullRequest
	for _, p := range r.pulls {
		list = append(list, p.public())
	}
	return list, nil
}

// PullRequest returns one pull request.
func (s *Sim) PullRequest(owner, repo string, number int) (PullRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return PullRequest{}, err
	}
	return p.public(), nil
}

// Merge merges a pull request with a merge commit, whose sha it returns.
func (s *Sim) Merge(owner, repo string, number int) (sha string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return "", err
	}
	if p.state != "open" {
		return "", fmt.Errorf("merge %s#%d: it is closed", p.base.repo.fullName(), number)
	}
	p.testMerge()
	if p.tested == "" {
		return "", fmt.Errorf("merge %s#%d: conflicts in %s", p.base.repo.fullName(), number, strings.Join(p.conflicts, ", "))
	}
	by := s.user("")
	s.leaveQueue(p, by)
	c := s.mergeCommit(p, p.base.repo.commits[p.tested], by)
	s.land(p, c.sha, by)
	return c.sha, nil
}

// mergeCommit adds the merge commit that a test merge becomes.
func (s *changes) mergeCommit(p *pull, tested *commit, by *account) *commit {
	return p.base.repo.commits.add(commit{
		parents: tested.parents, files: tested.files, from: tested.from, treeSHA: tested.treeSHA, author: by, time: s.now(),
		message: fmt.Sprintf("Merge pull request #%d from %s/%s\n\n%s", p.number, p.head.repo.owner.login, p.head.branch, p.title),
	})
}

// land moves the base to the merge commit and closes the pull request as merged.
func (s *changes) land(p *pull, sha string, by *account) {
	p.state, p.merged, p.mergedBy, p.mergedAs = "closed", s.now(), by, sha
	p.closed, p.updated = p.merged, p.merged
	delete(p.base.repo.refs, p.ref("merge"))
	s.move(p.base.repo, "refs/heads/"+p.base.branch, sha, by)
	s.emitPull(p, "closed", by, nil)
}

// ClosePullRequest closes one without merging it.
func (s *Sim) ClosePullRequest(owner, repo string, number int) error {
	return s.switchPull(owner, repo, number, "open", "closed")
}

// ReopenPullRequest opens a closed one again.
func (s *Sim) ReopenPullRequest(owner, repo string, number int) error {
	return s.switchPull(owner, repo, number, "closed", "open")
}

func (s *changes) switchPull(owner, repo string, number int, from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return err
	}
	if p.state != from || to == "open" && !p.reopens() {
		return fmt.Errorf("pull request %s#%d is %s", p.base.repo.fullName(), number, p.describe())
	}
	s.setState(p, to, s.user(""))
	return nil
}

func (s *state) findPull(owner, repo string, number int) (*pull, error) {
	r, err := s.find(owner, repo)
	if err != nil {
		return nil, err
	}
	if p := r.pull(number); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("pull request %s#%d does not exist", r.fullName(), number)
}

func (r *repository) pull(number int) *pull {
	i := slices.IndexFunc(r.pulls, func(p *pull) bool { return p.number == number })
	if i < 0 {
		return nil
	}
	return r.pulls[i]
}

// open opens a pull request, or refuses as GitHub would.
func (s *changes) open(r *repository, want PullRequest, by *account) (*pull, *response) {
	head, base := s.headOf(r, want.Head), end{repo: r, branch: want.Base}
	headTip, baseTip := head.tip(), base.tip()
	taken := slices.ContainsFunc(r.pulls, func(p *pull) bool {
		return p.state == "open" && p.head.repo == head.repo && p.head.branch == head.branch && p.base.branch == base.branch
	})
	switch {
	case want.Title == "":
		return nil, invalid("PullRequest", "title", "missing_field", "")
	case headTip == nil:
		return nil, invalid("PullRequest", "head", "invalid", "")
	case baseTip == nil:
		return nil, invalid("PullRequest", "base", "invalid", "")
	case taken:
		return nil, invalid("PullRequest", "", "custom", "A pull request already exists for "+head.label()+".")
	case len(r.commits.between(baseTip.sha, headTip.sha)) == 0:
		return nil, invalid("PullRequest", "", "custom", fmt.Sprintf("No commits between %s and %s", base.branch, head.branch))
	}
	head.sha, base.sha = headTip.sha, baseTip.sha
	p := &pull{
		id: s.id(), number: len(r.pulls) + 1, title: want.Title, body: want.Body, author: by, draft: want.Draft,
		state: "open", head: head, base: base, created: s.now(), updated: s.now(),
	}
	r.pulls = append(r.pulls, p)
	s.emitPull(p, "opened", by, nil)
	p.refresh()
	return p, nil
}

// synchronize moves the head and sends the event.
func (s *changes) synchronize(p *pull, to string, by *account) {
	s.leaveQueue(p, by)
	before := p.head.sha
	p.head.sha, p.updated = to, s.now()
	p.headBefore, p.headMoved = before, p.updated
	p.base.sha = p.base.repo.branch(p.base.branch).sha
	p.tested, p.conflicts = "", nil
	s.emitPull(p, "synchronize", by, object{"before": before, "after": to})
	p.refresh()
}

// setState closes or reopens a pull request. A reopened one has the head that its branch has by then.
func (s *changes) setState(p *pull, state string, by *account) {
	s.leaveQueue(p, by)
	p.state, p.updated = state, s.now()
	action := "closed"
	if p.closed = p.updated; state == "open" {
		action, p.closed = "reopened", time.Time{}
		p.head.sha = p.head.tip().sha
		p.refresh()
	}
	s.emitPull(p, action, by, nil)
}

// reopens reports whether a closed pull request can be opened again: it is not merged, and has both its branches.
func (p *pull) reopens() bool { return p.mergedAs == "" && p.head.tip() != nil && p.base.tip() != nil }

func (p *pull) ref(which string) string { return fmt.Sprintf("refs/pull/%d/%s", p.number, which) }

// refresh sets the refs of a pull request in its base repository.
func (p *pull) refresh() {
	p.base.repo.refs[p.ref("head")] = p.head.sha
	p.testMerge()
}

// testMerge makes the test merge of refs/pull/N/merge, as GitHub does after each change.
func (p *pull) testMerge() {
	r, base := p.base.repo, p.base.repo.branch(p.base.branch)
	var files tree
	p.tested = ""
	if files, p.conflicts = r.commits.merge(base.sha, p.head.sha); len(p.conflicts) > 0 {
		delete(r.refs, p.ref("merge"))
		return
	}
	c := r.commits.add(commit{
		parents: []string{base.sha, p.head.sha}, files: files, author: p.author, time: p.updated,
		message: fmt.Sprintf("Merge %s into %s", p.head.sha, base.sha),
	})
	p.tested = c.sha
	r.refs[p.ref("merge")] = c.sha
}

func (p *pull) commits() []*commit { return p.base.repo.commits.between(p.base.sha, p.head.sha) }

func (p *pull) changes() []change {
	h := p.base.repo.commits
	var from tree
	if common := h.mergeBase(p.base.sha, p.head.sha); common != nil {
		from = common.tree()
	}
	return diff(from, h[p.head.sha].tree())
}

func (p *pull) public() PullRequest {
	return PullRequest{
		Title: p.title, Body: p.body, Head: p.head.branch, Base: p.base.branch, Author: p.author.login, Draft: p.draft,
		Number: p.number, State: p.state, Merged: p.mergedAs != "", HeadSHA: p.head.sha, BaseSHA: p.base.sha, MergeCommit: p.mergedAs,
	}
}

func (p *pull) describe() string {
	if p.mergedAs != "" {
		return "merged"
	}
	return p.state
}
