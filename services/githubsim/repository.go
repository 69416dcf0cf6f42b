package githubsim

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Repository is what AddRepository makes: one commit on one branch.
type Repository struct {
	Owner, Name string
	Branch      string            // the default one; "main" if empty
	Public      bool              // anybody may read it
	Folder      fs.FS             // its files; nil for none
	Files       map[string]string // by path, laid over Folder; what begins with #! is executable

	// GitDir is a repository that git made, in place of a first commit: its branches and tags are this one's. Files stay
	// on disk, where git serves them from, and it is never written to; so it may be large. See SyncGitDir.
	GitDir string
}

type repository struct {
	id            int64
	owner         *account
	name          string
	public        bool
	gone          bool        // deleted
	parent        *repository // that it is a fork of, or nil
	defaultBranch string
	created       time.Time
	updated       time.Time
	pushed        time.Time
	commits       history           // of all its network
	refs          map[string]string // refs/heads/…, refs/tags/…, refs/pull/… to the sha of a commit
	annotated     map[string]*tag   // tags that are objects of their own, by ref
	gitDir        string            // see Repository
	inGitDir      map[string]gitRef // its refs as they were last read
	pulls         []*pull
	statuses      map[string][]*Status // by sha, oldest first
	comments      []*comment
	suites        []*checkSuite
	deployments   []*deployment
	collaborators map[*account]string // roles that were given; see role
	required      []string            // contexts without which the queue merges nothing by itself
	queue         []*group
	lfs           map[string][]byte // objects of Git LFS by their sha-256; of a network's root alone
	reads         window            // clones and fetches that git began
}

func key(owner, name string) string { return strings.ToLower(owner + "/" + name) }

func (r *repository) fullName() string { return r.owner.login + "/" + r.name }

// AddRepository makes a repository, which sends a webhook where the App is installed for its owner.
func (s *Sim) AddRepository(want Repository) error {
	files := tree{}
	if want.Folder != nil {
		var err error
		if files, err = readTree(want.Folder); err != nil {
			return fmt.Errorf("read the files of %s/%s: %w", want.Owner, want.Name, err)
		}
	}
	for name, content := range want.Files {
		files[name] = newFile(modeFile, []byte(content))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.repositories[key(want.Owner, want.Name)] != nil {
		return fmt.Errorf("repository %s/%s exists already", want.Owner, want.Name)
	}
	if want.Branch == "" {
		want.Branch = "main"
	}
	now := s.now()
	r := &repository{
		id: s.id(), owner: s.account(want.Owner, "Organization"), name: want.Name, public: want.Public,
		defaultBranch: want.Branch, created: now, updated: now, pushed: now,
		commits: history{}, refs: map[string]string{}, annotated: map[string]*tag{}, gitDir: want.GitDir, statuses: map[string][]*Status{},
	}
	if want.GitDir != "" {
		if err := s.adopt(r); err != nil {
			return fmt.Errorf("repository %s of %s: %w", r.fullName(), want.GitDir, err)
		}
	} else {
		first := r.commits.add(commit{message: "Initial commit", author: s.user(""), time: now, files: files})
		r.refs["refs/heads/"+want.Branch] = first.sha
	}
	s.register(r)
	if i := s.installationOn(r); i != nil {
		s.emitSelection(i, "added", r)
	}
	return nil
}

// A Commit is a change that a person pushes to a branch.
type Commit struct {
	Message string // "Update" and the paths if empty
	Author  string // a login; "octocat" if empty
	Files   map[string]string
	Links   map[string]string // symbolic links, by path
	Modules map[string]string // submodules: the sha of another repository's commit, by path
	Delete  []string
	Tree    string // the sha of a tree from AddObject, in place of all that
}

// Commit puts a commit on a branch, which sends a push, and a synchronize for each open pull request from that branch.
// A file keeps the mode it had; a new one that begins with #! is executable.
func (s *Sim) Commit(owner, repo, branch string, change Commit) (sha string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return "", err
	}
	parent := r.branch(branch)
	if parent == nil {
		return "", fmt.Errorf("commit to %s of %s: no such branch", branch, r.fullName())
	}
	made := commit{parents: []string{parent.sha}, time: s.now()}
	if change.Tree != "" {
		made.treeSHA = change.Tree
		objects, err := s.disk.store(r)
		if err != nil {
			return "", err
		}
		made.from = objects.reader
	} else {
		made.files = change.onto(parent.tree())
	}
	if change.Message == "" {
		change.Message = change.describe()
	}
	made.message, made.author = change.Message, s.user(change.Author)
	r.letWrite(made.author)
	c := r.commits.add(made)
	s.move(r, "refs/heads/"+branch, c.sha, made.author)
	return c.sha, nil
}

// onto returns files with the change made.
func (change Commit) onto(files tree) tree {
	files = maps.Clone(files)
	for name, content := range change.Files {
		mode := modeFile
		if files[name].mode == modeExecutable {
			mode = modeExecutable
		}
		files[name] = newFile(mode, []byte(content))
	}
	for name, target := range change.Links {
		files[name] = newFile(modeLink, []byte(target))
	}
	for name, sha := range change.Modules {
		files[name] = file{mode: modeSubmodule, sha: sha}
	}
	for _, name := range change.Delete {
		delete(files, name)
	}
	return files
}

// describe is the message of a change that has none.
func (change Commit) describe() string {
	paths := slices.Concat(slices.Collect(maps.Keys(change.Files)), slices.Collect(maps.Keys(change.Links)), slices.Collect(maps.Keys(change.Modules)), change.Delete)
	slices.Sort(paths)
	return strings.TrimSpace("Update " + strings.Join(paths, ", "))
}

// Head returns the sha of the commit that a branch, tag or short sha names.
func (s *Sim) Head(owner, repo, ref string) (sha string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return "", err
	}
	c := r.resolve(ref)
	if c == nil {
		return "", fmt.Errorf("%s has no commit at %s", r.fullName(), ref)
	}
	return c.sha, nil
}

func (s *state) find(owner, name string) (*repository, error) {
	if r := s.repositories[key(owner, name)]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("repository %s/%s does not exist", owner, name)
}

func (s *state) repositoryByID(id int64) *repository {
	for _, r := range s.repositories {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (s *codeAPI) getRepository(c *call) *response {
	full := c.links.repository(c.repo)
	if c.repo.owner.kind == "Organization" {
		full["organization"] = c.links.account(c.repo.owner)
	}
	if c.repo.parent != nil {
		full["parent"], full["source"] = c.links.repository(c.repo.parent), c.links.repository(c.repo.root())
	}
	if c.caller.user != nil {
		full["permissions"] = permissionsOf(c.repo, c.caller.user.who)
	}
	return ok(full)
}

// repositoryName is the short form in webhooks about installations.
func (l links) repositoryName(r *repository) object {
	return object{"id": r.id, "node_id": nodeID("Repository", r.id), "name": r.name, "full_name": r.fullName(), "private": !r.public}
}

func (l links) repository(r *repository) object {
	visibility := "private"
	if r.public {
		visibility = "public"
	}
	open := 0
	for _, p := range r.pulls {
		if p.state == "open" {
			open++
		}
	}
	api, html := fmt.Sprintf("%s/repos/%s", l, r.fullName()), fmt.Sprintf("%s/%s", l, r.fullName())
	host := strings.TrimPrefix(strings.TrimPrefix(string(l), "http://"), "https://")
	return object{
		"id": r.id, "node_id": nodeID("Repository", r.id), "name": r.name, "full_name": r.fullName(), "private": !r.public,
		"owner": l.account(r.owner), "html_url": html, "description": nil, "fork": r.parent != nil, "url": api,
		"created_at": timestamp(r.created), "updated_at": timestamp(r.updated), "pushed_at": timestamp(r.pushed),
		"git_url": "git://" + host + "/" + r.fullName() + ".git", "ssh_url": "git@" + host + ":" + r.fullName() + ".git",
		"clone_url": html + ".git", "svn_url": html, "mirror_url": nil, "homepage": nil, "size": 0, "stargazers_count": 0,
		"watchers_count": 0, "watchers": 0, "language": nil, "has_issues": true, "has_projects": true, "has_downloads": true,
		"has_wiki": true, "has_pages": false, "has_discussions": false, "forks_count": 0, "forks": 0, "archived": false,
		"disabled": false, "open_issues_count": open, "open_issues": open, "license": nil, "allow_forking": true,
		"allow_merge_commit": true, "allow_squash_merge": true, "allow_rebase_merge": true, "delete_branch_on_merge": false,
		"is_template": false, "web_commit_signoff_required": false, "topics": []string{}, "visibility": visibility,
		"default_branch": r.defaultBranch, "custom_properties": object{},
	}.urls(api, map[string]string{
		"archive_url":       "/{archive_format}{/ref}",
		"assignees_url":     "/assignees{/user}",
		"blobs_url":         "/git/blobs{/sha}",
		"branches_url":      "/branches{/branch}",
		"collaborators_url": "/collaborators{/collaborator}",
		"comments_url":      "/comments{/number}",
		"commits_url":       "/commits{/sha}",
		"compare_url":       "/compare/{base}...{head}",
		"contents_url":      "/contents/{+path}",
		"contributors_url":  "/contributors",
		"deployments_url":   "/deployments",
		"downloads_url":     "/downloads",
		"events_url":        "/events",
		"forks_url":         "/forks",
		"git_commits_url":   "/git/commits{/sha}",
		"git_refs_url":      "/git/refs{/sha}",
		"git_tags_url":      "/git/tags{/sha}",
		"hooks_url":         "/hooks",
		"issue_comment_url": "/issues/comments{/number}",
		"issue_events_url":  "/issues/events{/number}",
		"issues_url":        "/issues{/number}",
		"keys_url":          "/keys{/key_id}",
		"labels_url":        "/labels{/name}",
		"languages_url":     "/languages",
		"merges_url":        "/merges",
		"milestones_url":    "/milestones{/number}",
		"notifications_url": "/notifications{?since,all,participating}",
		"pulls_url":         "/pulls{/number}",
		"releases_url":      "/releases{/id}",
		"stargazers_url":    "/stargazers",
		"statuses_url":      "/statuses/{sha}",
		"subscribers_url":   "/subscribers",
		"subscription_url":  "/subscription",
		"tags_url":          "/tags",
		"teams_url":         "/teams",
		"trees_url":         "/git/trees{/sha}",
	})
}
