package githubsim

import "fmt"

// A Release is one as people make it, of a tag that is there.
type Release struct {
	Tag, Name  string
	Prerelease bool
}

// PublishRelease publishes a release of a tag. GitHub sends several events of it.
// https://docs.github.com/webhooks/webhook-events-and-payloads#release
func (s *Controls) PublishRelease(owner, repo string, want Release) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	if r.refs["refs/tags/"+want.Tag] == "" {
		return fmt.Errorf("publish a release of %s: there is no tag %s", r.fullName(), want.Tag)
	}
	id := s.id()
	for _, action := range []string{"created", "published", map[bool]string{false: "released", true: "prereleased"}[want.Prerelease]} {
		s.emit(event{name: "release", action: action, repo: r, payload: func(l links) object {
			return object{"release": l.release(r, id, want)}
		}})
	}
	return nil
}

func (l links) release(r *repository, id int64, want Release) object {
	page := fmt.Sprintf("%s/%s/releases", l, r.fullName())
	api := fmt.Sprintf("%s/repos/%s/releases/%d", l, r.fullName(), id)
	return object{
		"id": id, "node_id": nodeID("Release", id), "url": api, "assets_url": api + "/assets", "html_url": page + "/tag/" + want.Tag,
		"tag_name": want.Tag, "target_commitish": r.defaultBranch, "name": want.Name, "body": "", "draft": false, "prerelease": want.Prerelease,
		"created_at": timestamp(r.updated), "published_at": timestamp(r.updated), "assets": []object{}, "author": l.account(r.owner),
	}
}
