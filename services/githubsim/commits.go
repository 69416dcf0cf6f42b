package githubsim

import (
	"fmt"
	"net/http"
	"strings"
)

// GitHub lists no more than these in one comparison, and files on the first page alone.
const (
	maxComparedCommits = 250
	maxComparedFiles   = 300
)

func (s *codeAPI) getCommit(c *call) *response {
	one := s.read(c.repo, c.PathValue("ref"))
	if one == nil {
		return noCommitFor(c.PathValue("ref"))
	}
	if strings.Contains(c.Header.Get("Accept"), "sha") {
		return &response{status: http.StatusOK, raw: []byte(one.sha), header: http.Header{"Content-Type": {"application/vnd.github.sha; charset=utf-8"}}}
	}
	var before tree
	if len(one.parents) > 0 {
		before = c.repo.commits[one.parents[0]].tree()
	}
	changes := diff(before, one.tree())
	added, removed := lines(changes)
	full := c.links.commit(c.repo, one)
	full["stats"] = object{"total": added + removed, "additions": added, "deletions": removed}
	full["files"] = each(changes, func(ch change) object { return c.links.changedFile(c.repo, one.sha, ch) })
	return ok(full)
}

func (s *codeAPI) compare(c *call) *response {
	baseName, headName, split := strings.Cut(c.PathValue("basehead"), "...")
	base, head := s.read(c.repo, baseName), s.read(c.repo, headName)
	if !split || base == nil || head == nil {
		return notFound()
	}
	common := c.repo.commits.mergeBase(base.sha, head.sha)
	if common == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("No common ancestor between %s and %s.", baseName, headName))
	}
	ahead := c.repo.commits.between(base.sha, head.sha)
	behind := len(c.repo.commits.between(head.sha, base.sha))
	files := []change{}
	if _, number := pageOf(c, maxComparedCommits); number == 1 {
		files = diff(common.tree(), head.tree())
		files = files[:min(len(files), maxComparedFiles)]
	}
	commits, header := page(c, maxComparedCommits, ahead)
	html := fmt.Sprintf("%s/%s/compare/%s...%s", c.links, c.repo.fullName(), baseName, headName)
	return &response{status: http.StatusOK, header: header, body: object{
		"url":      fmt.Sprintf("%s/repos/%s/compare/%s...%s", c.links, c.repo.fullName(), baseName, headName),
		"html_url": html, "permalink_url": html, "diff_url": html + ".diff", "patch_url": html + ".patch",
		"base_commit": c.links.commit(c.repo, base), "merge_base_commit": c.links.commit(c.repo, common),
		"status": relation(len(ahead), behind), "ahead_by": len(ahead), "behind_by": behind, "total_commits": len(ahead),
		"commits": each(commits, func(one *commit) object { return c.links.commit(c.repo, one) }),
		"files":   each(files, func(ch change) object { return c.links.changedFile(c.repo, head.sha, ch) }),
	}}
}

func relation(ahead, behind int) string {
	switch {
	case ahead > 0 && behind > 0:
		return "diverged"
	case ahead > 0:
		return "ahead"
	case behind > 0:
		return "behind"
	}
	return "identical"
}

func (l links) commit(r *repository, one *commit) object {
	api := fmt.Sprintf("%s/repos/%s", l, r.fullName())
	by := object{"name": one.author.login, "email": one.author.email(), "date": timestamp(one.time)}
	var author any // nobody's, where git alone knows them
	if one.author.id != 0 {
		author = l.account(one.author)
	}
	return object{
		"sha": one.sha, "node_id": nodeID("Commit", int64(one.order)), "url": api + "/commits/" + one.sha,
		"html_url":     fmt.Sprintf("%s/%s/commit/%s", l, r.fullName(), one.sha),
		"comments_url": api + "/commits/" + one.sha + "/comments",
		"author":       author, "committer": author,
		"commit": object{
			"author": by, "committer": by, "message": one.message, "comment_count": 0, "url": api + "/git/commits/" + one.sha,
			"tree":         object{"sha": one.treeSHA, "url": api + "/git/trees/" + one.treeSHA},
			"verification": object{"verified": false, "reason": "unsigned", "signature": nil, "payload": nil},
		},
		"parents": each(one.parents, func(sha string) object { return object{"sha": sha, "url": api + "/commits/" + sha} }),
	}
}

// changedFile is one file of a list of changes, as it is at the commit sha.
func (l links) changedFile(r *repository, sha string, ch change) object {
	added, removed := ch.lines()
	blob := ch.new.sha
	if !ch.inNew {
		blob = ch.old.sha
	}
	return object{
		"sha": blob, "filename": ch.path, "status": ch.status(), "additions": added, "deletions": removed, "changes": added + removed,
		"blob_url":     fmt.Sprintf("%s/%s/blob/%s/%s", l, r.fullName(), sha, ch.path),
		"raw_url":      fmt.Sprintf("%s/%s/raw/%s/%s", l, r.fullName(), sha, ch.path),
		"contents_url": fmt.Sprintf("%s/repos/%s/contents/%s?ref=%s", l, r.fullName(), ch.path, sha),
	}
}
