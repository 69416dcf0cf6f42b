package githubsim

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// move sets a ref, or deletes it if to is empty, sends the push, and updates pull requests and the merge queue.
func (s *changes) move(r *repository, ref, to string, by *account) {
	from := r.refs[ref]
	if r.refs[ref] = to; to == "" {
		delete(r.refs, ref)
	}
	r.pushed, r.updated = s.now(), s.now()
	s.emitPush(r, ref, from, to, by)
	if to == "" {
		delete(r.annotated, ref)
	}
	for _, other := range s.network(r) {
		for _, p := range other.pulls {
			s.follow(p, r, ref, to, by)
		}
	}
	if branch, isBranch := strings.CutPrefix(ref, "refs/heads/"); isBranch {
		s.requeue(r, branch, by)
	}
}

// follow updates a pull request whose head or base has moved.
func (s *changes) follow(p *pull, r *repository, ref, to string, by *account) {
	isHead := p.head.repo == r && "refs/heads/"+p.head.branch == ref
	isBase := p.base.repo == r && "refs/heads/"+p.base.branch == ref
	switch {
	case p.state != "open":
	case to == "" && (isHead || isBase):
		s.setState(p, "closed", by)
	case isHead:
		s.synchronize(p, to, by)
	case isBase:
		p.testMerge()
	}
}

func (r *repository) branch(name string) *commit { return r.commits[r.refs["refs/heads/"+name]] }

// resolve finds a commit by branch, tag, ref (with or without refs/), or sha of at least seven digits.
func (r *repository) resolve(ref string) *commit {
	if ref == "" {
		ref = r.defaultBranch
	}
	for _, prefix := range []string{"refs/heads/", "refs/tags/", "refs/", ""} {
		if sha, known := r.refs[prefix+ref]; known {
			return r.commits[sha]
		}
	}
	if c := r.commits[ref]; c != nil {
		return c
	}
	for at, one := range r.annotated {
		if one.sha == ref {
			return r.commits[r.refs[at]]
		}
	}
	if len(ref) < 7 {
		return nil
	}
	for sha, c := range r.commits {
		if strings.HasPrefix(sha, ref) {
			return c
		}
	}
	return nil
}

func noCommitFor(ref string) *response {
	return refuse(http.StatusUnprocessableEntity, "No commit found for SHA: "+ref)
}

func (s *codeAPI) listBranches(c *call) *response {
	return listPage(c, c.repo.refsUnder("refs/heads/"), func(ref string) object {
		sha := c.repo.refs[ref]
		return object{
			"name":      strings.TrimPrefix(ref, "refs/heads/"),
			"commit":    object{"sha": sha, "url": fmt.Sprintf("%s/repos/%s/commits/%s", c.links, c.repo.fullName(), sha)},
			"protected": false,
		}
	})
}

func (s *codeAPI) listTags(c *call) *response {
	return listPage(c, c.repo.refsUnder("refs/tags/"), func(ref string) object {
		sha := c.repo.refs[ref]
		return object{
			"name":   strings.TrimPrefix(ref, "refs/tags/"),
			"commit": object{"sha": sha, "url": fmt.Sprintf("%s/repos/%s/commits/%s", c.links, c.repo.fullName(), sha)},
		}
	})
}

func (s *codeAPI) getBranch(c *call) *response {
	name := c.PathValue("branch")
	tip := c.repo.branch(name)
	if tip != nil {
		tip = s.read(c.repo, "refs/heads/"+name)
	}
	if tip == nil {
		return refuse(http.StatusNotFound, "Branch not found")
	}
	api := fmt.Sprintf("%s/repos/%s/branches/%s", c.links, c.repo.fullName(), name)
	return ok(object{
		"name": name, "commit": c.links.commit(c.repo, tip), "protected": false, "protection_url": api + "/protection",
		"_links": object{"self": api, "html": fmt.Sprintf("%s/%s/tree/%s", c.links, c.repo.fullName(), name)},
	})
}

func (s *codeAPI) getRef(c *call) *response {
	ref := "refs/" + c.PathValue("ref")
	if c.repo.refs[ref] == "" {
		return notFound()
	}
	at := s.read(c.repo, ref)
	if at == nil {
		return notFound()
	}
	return ok(c.links.ref(c.repo, ref, at.sha))
}

func (s *codeAPI) matchRefs(c *call) *response {
	found := c.repo.refsUnder("refs/" + c.PathValue("ref"))
	return ok(each(found, func(ref string) object { return c.links.ref(c.repo, ref, c.repo.refs[ref]) }))
}

func (l links) ref(r *repository, ref, sha string) object {
	api := fmt.Sprintf("%s/repos/%s/git", l, r.fullName())
	at := object{"type": "commit", "sha": sha, "url": api + "/commits/" + sha}
	if annotated := r.annotated[ref]; annotated != nil {
		at = object{"type": "tag", "sha": annotated.sha, "url": api + "/tags/" + annotated.sha}
	}
	return object{"ref": ref, "node_id": nodeID("Ref", r.id), "url": api + "/" + ref, "object": at}
}

func (r *repository) refsUnder(prefix string) []string {
	names := slices.Sorted(maps.Keys(r.refs))
	return slices.DeleteFunc(names, func(ref string) bool { return !strings.HasPrefix(ref, prefix) })
}
