package githubsim

import (
	"fmt"
	"strings"
	"time"
)

// A tag is an annotated one: an object of its own, with a message, that leads to a commit.
type tag struct {
	sha, target   string
	name, message string
	by            *account
	time          time.Time
	text          string // the object itself; empty where git made it
}

// CreateAnnotatedTag makes a tag that has a message, which sends a push. A push says of such a tag that it is at the tag's
// own sha; its head commit is the one that the tag leads to.
func (s *Sim) CreateAnnotatedTag(owner, repo, name, at, message string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	c, ref := r.resolve(at), refPrefixes["tag"]+name
	switch {
	case c == nil:
		return fmt.Errorf("tag %s of %s: no commit at %s", name, r.fullName(), at)
	case r.refs[ref] != "":
		return fmt.Errorf("tag %s of %s exists already", name, r.fullName())
	}
	one := &tag{target: c.sha, name: name, message: message, by: s.user(""), time: s.now()}
	one.text = fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger %s <%s> %d +0000\n\n%s\n", c.sha, name, one.by.login, one.by.email(), one.time.Unix(), message)
	one.sha = hashObject("tag", []byte(one.text))
	r.annotated[ref] = one
	s.move(r, ref, c.sha, one.by)
	return nil
}

// objectAt is what a ref is at, where it leads to a commit: the tag's own object, or that commit.
func (r *repository) objectAt(ref, sha string) string {
	if one := r.annotated[ref]; one != nil && one.target == sha {
		return one.sha
	}
	return sha
}

func (s *codeAPI) getTag(c *call) *response {
	for _, one := range c.repo.annotated {
		if one.sha == c.PathValue("sha") && !s.late(one.time) {
			return ok(c.links.tag(c.repo, one))
		}
	}
	return notFound()
}

func (l links) tag(r *repository, one *tag) object {
	api := fmt.Sprintf("%s/repos/%s/git", l, r.fullName())
	return object{
		"node_id": nodeID("Tag", r.id), "sha": one.sha, "url": api + "/tags/" + one.sha, "tag": one.name, "message": one.message,
		"tagger":       object{"name": one.by.login, "email": one.by.email(), "date": timestamp(one.time)},
		"object":       object{"type": "commit", "sha": one.target, "url": api + "/commits/" + one.target},
		"verification": object{"verified": false, "reason": "unsigned", "signature": nil, "payload": nil},
	}
}

// submoduleURL is the address that .gitmodules has for a path; empty where it has none.
func submoduleURL(at *commit, path string) string {
	var here bool
	for line := range strings.Lines(string(at.tree()[".gitmodules"].bytes())) {
		name, value, _ := strings.Cut(line, "=")
		switch name, value = strings.TrimSpace(name), strings.TrimSpace(value); {
		case strings.HasPrefix(name, "["):
			here = false
		case name == "path":
			here = value == path
		case name == "url" && here:
			return value
		}
	}
	return ""
}
