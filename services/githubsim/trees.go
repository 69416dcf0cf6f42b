package githubsim

import (
	"fmt"
	"path"
)

// getTree takes the sha of a tree, or what names a commit.
func (s *codeAPI) getTree(c *call) *response {
	name := c.PathValue("sha")
	files := s.treeOf(c.repo, name)
	if files == nil {
		return notFound()
	}
	api := fmt.Sprintf("%s/repos/%s/git", c.links, c.repo.fullName())
	sha := files.hash()
	return ok(object{
		"sha": sha, "url": api + "/trees/" + sha, "truncated": false,
		"tree": treeObjects(api, "", files, c.URL.Query().Has("recursive")),
	})
}

// treeOf returns the tree that a sha, or the name of a commit, stands for; nil where there is none. An empty tree is not
// nil.
func (s *codeAPI) treeOf(r *repository, name string) tree {
	if at := s.read(r, name); at != nil {
		return at.tree()
	}
	var onDisk *reader
	for _, one := range r.commits {
		if s.late(one.known()) {
			continue
		}
		if one.treeSHA == name {
			return one.tree()
		}
		if one.from != nil {
			onDisk = one.from
		}
		if found := one.files.folder(name); found != nil {
			return found
		}
	}
	if onDisk != nil {
		if found := onDisk.tree(name); len(found) > 0 {
			return found
		}
	}
	return nil
}

// folder finds a folder by its sha, at any depth.
func (t tree) folder(sha string) tree {
	for _, e := range t.entries() {
		if e.folder == nil {
			continue
		}
		if e.folder.hash() == sha {
			return e.folder
		}
		if found := e.folder.folder(sha); found != nil {
			return found
		}
	}
	return nil
}

func treeObjects(api, below string, files tree, recursive bool) []object {
	list := []object{}
	for _, e := range files.entries() {
		name := path.Join(below, e.name)
		if e.folder == nil && e.file.mode == modeSubmodule {
			list = append(list, object{"path": name, "mode": e.file.mode, "type": "commit", "sha": e.file.sha})
			continue
		}
		if e.folder == nil {
			list = append(list, object{
				"path": name, "mode": e.file.mode, "type": "blob", "size": e.file.length(), "sha": e.file.sha,
				"url": api + "/blobs/" + e.file.sha,
			})
			continue
		}
		sha := e.folder.hash()
		list = append(list, object{"path": name, "mode": "040000", "type": "tree", "sha": sha, "url": api + "/trees/" + sha})
		if recursive {
			list = append(list, treeObjects(api, name, e.folder, true)...)
		}
	}
	return list
}
