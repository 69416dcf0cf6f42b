package githubsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// A file of more than maxInline bytes has no content in JSON, one of more than maxServed is refused.
const (
	maxInline = 1 << 20
	maxServed = 100 << 20
)

func (s *codeAPI) getContents(c *call) *response {
	ref := c.URL.Query().Get("ref")
	at := s.read(c.repo, ref)
	if at == nil {
		return refuse(http.StatusNotFound, "No commit found for the ref "+ref)
	}
	name := strings.Trim(c.PathValue("path"), "/")
	if f, isFile := at.tree()[name]; isFile {
		return s.fileContents(c, at, name, f)
	}
	folder := at.tree().under(name)
	if len(folder) == 0 && name != "" {
		return notFound()
	}
	return ok(each(folder.entries(), func(e treeEntry) object { return s.entry(c, at, path.Join(name, e.name), e) }))
}

func (s *codeAPI) fileContents(c *call, at *commit, name string, f file) *response {
	full := s.entry(c, at, name, treeEntry{name: path.Base(name), file: f})
	switch {
	case f.length() > maxServed:
		return refuse(http.StatusForbidden, "This API returns blobs up to 100 MB in size. The requested blob is too large to fetch via the API.",
			object{"resource": "Blob", "field": "data", "code": "too_large"})
	case f.mode == modeSubmodule:
		full["type"], full["submodule_git_url"] = "submodule", orNull(submoduleURL(at, name))
	case strings.Contains(c.Header.Get("Accept"), "raw"):
		return &response{status: http.StatusOK, raw: f.bytes(), header: http.Header{"Content-Type": {"application/vnd.github.raw; charset=utf-8"}}}
	case full["type"] == "symlink":
		full["target"] = string(f.bytes())
	case f.length() > maxInline:
		full["content"], full["encoding"] = "", "none"
	default:
		full["content"], full["encoding"] = base64Lines(f.bytes()), "base64"
	}
	return ok(full)
}

// base64Lines is base64 in lines of sixty characters, as GitHub sends it.
func base64Lines(content []byte) string {
	var lines strings.Builder
	for text := base64.StdEncoding.EncodeToString(content); text != ""; {
		n := min(60, len(text))
		lines.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	return lines.String()
}

func (s *codeAPI) entry(c *call, at *commit, name string, e treeEntry) object {
	ref := c.URL.Query().Get("ref")
	if ref == "" {
		ref = c.repo.defaultBranch
	}
	kind, sha, size, gitKind, htmlKind := "file", e.file.sha, e.file.length(), "blobs", "blob"
	var raw any = s.signedAddress(c.links, fmt.Sprintf("/raw/%s/%s/%s", c.repo.fullName(), at.sha, name))
	switch {
	case e.folder != nil:
		kind, sha, size, gitKind, htmlKind, raw = "dir", e.folder.hash(), 0, "trees", "tree", nil
	case e.file.mode == modeLink:
		kind = "symlink"
	case e.file.mode == modeSubmodule: // a file in lists, as GitHub's documentation says
		gitKind, htmlKind, raw = "trees", "tree", nil
	}
	self := fmt.Sprintf("%s/repos/%s/contents/%s?ref=%s", c.links, c.repo.fullName(), name, url.QueryEscape(ref))
	git := fmt.Sprintf("%s/repos/%s/git/%s/%s", c.links, c.repo.fullName(), gitKind, sha)
	html := fmt.Sprintf("%s/%s/%s/%s/%s", c.links, c.repo.fullName(), htmlKind, ref, name)
	return object{
		"type": kind, "size": size, "name": e.name, "path": name, "sha": sha,
		"url": self, "git_url": git, "html_url": html, "download_url": raw,
		"_links": object{"self": self, "git": git, "html": html},
	}
}

// signedFor is how long a signed address serves.
const signedFor = 5 * time.Minute

// signedAddress returns an address that serves without a token for signedFor. It carries that time and a signature.
func (s *state) signedAddress(l links, path string) string {
	end := strconv.FormatInt(s.now().Add(signedFor).Unix(), 10)
	address := url.URL{Path: path, RawQuery: "token=" + end + "." + s.sign(path, end)}
	return string(l) + address.String()
}

func (s *state) sign(path, end string) string {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(path + " " + end))
	return hex.EncodeToString(mac.Sum(nil))
}

// isSigned reports whether an address is one that signedAddress returned, not too long ago.
func (s *changes) isSigned(c *call) bool {
	end, signature, _ := strings.Cut(c.URL.Query().Get("token"), ".")
	until, err := strconv.ParseInt(end, 10, 64)
	valid := hmac.Equal([]byte(signature), []byte(s.sign(c.URL.Path, end)))
	return err == nil && valid && !s.now().After(time.Unix(until, 0))
}

// download serves a signed address, which is of a commit of a repository.
func (s *codeAPI) download(serve func(*call, *commit) *response) func(*call) *response {
	return func(c *call) *response {
		if !s.isSigned(c) {
			return notFound()
		}
		c.repo, _ = s.repositoryOf(c)
		if c.repo == nil || c.repo.commits[c.PathValue("sha")] == nil {
			return notFound()
		}
		return serve(c, c.repo.commits[c.PathValue("sha")])
	}
}

func (s *codeAPI) rawFile(c *call, at *commit) *response {
	f, exists := at.tree()[c.PathValue("path")]
	if !exists || f.mode == modeSubmodule {
		return notFound()
	}
	return &response{status: http.StatusOK, raw: f.bytes(), header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}}
}
