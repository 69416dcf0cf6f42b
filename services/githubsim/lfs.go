package githubsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strings"
)

// Git LFS, as https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md says it. Objects are downloaded, never
// uploaded.

const lfsType = "application/vnd.git-lfs+json"

// PutLFS keeps an object of Git LFS, and returns the pointer that a commit has in place of the file. A repository and its
// forks share their objects.
func (s *Controls) PutLFS(owner, repo string, content []byte) (pointer string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	oid := hex.EncodeToString(sum[:])
	r = r.root()
	if r.lfs == nil {
		r.lfs = map[string][]byte{}
	}
	r.lfs[oid] = content
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(content)), nil
}

// DropLFS loses an object, by what PutLFS returned: it is in no store any more, as where nobody pushed it.
func (s *Controls) DropLFS(owner, repo, pointer string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	for oid := range r.root().lfs {
		if strings.Contains(pointer, oid) {
			delete(r.root().lfs, oid)
			return nil
		}
	}
	return fmt.Errorf("repository %s has no such object", r.fullName())
}

type lfsObject struct {
	OID  string `json:"oid"`
	Size int64  `json:"size"`
}

var lfsOID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// lfsBatch says of each object where it can be had, for signedFor.
func (s *gitAPI) lfsBatch(c *call) *response {
	if kind, _, _ := mime.ParseMediaType(c.Header.Get("Accept")); kind != lfsType {
		return refuse(http.StatusNotAcceptable, "The Accept header has to be "+lfsType+".")
	}
	var want struct {
		Operation string      `json:"operation"`
		Transfers []string    `json:"transfers"`
		Objects   []lfsObject `json:"objects"`
		HashAlgo  string      `json:"hash_algo"`
	}
	switch err := json.Unmarshal(c.body, &want); {
	case err != nil:
		return refuse(http.StatusBadRequest, "Problems parsing JSON")
	case want.HashAlgo != "" && want.HashAlgo != "sha256":
		return refuse(http.StatusConflict, "The hash algorithm is not known.")
	case want.Operation == "upload":
		return refuse(http.StatusForbidden, fmt.Sprintf("Permission to %s.git denied to %s[bot].", c.repo.fullName(), s.config.AppSlug))
	case want.Operation != "download":
		return refuse(http.StatusUnprocessableEntity, "The operation is not known.")
	case len(want.Objects) == 0:
		return refuse(http.StatusUnprocessableEntity, "There are no objects.")
	}
	return &response{
		status: http.StatusOK, header: http.Header{"Content-Type": {lfsType}},
		raw: encode(object{
			"transfer": "basic", "hash_algo": "sha256",
			"objects": each(want.Objects, func(one lfsObject) object { return s.lfsObject(c, one) }),
		}),
	}
}

func (s *gitAPI) lfsObject(c *call, one lfsObject) object {
	content, exists := c.repo.root().lfs[one.OID]
	told := object{"oid": one.OID, "size": one.Size, "authenticated": true}
	switch {
	case !lfsOID.MatchString(one.OID) || one.Size < 0:
		told["error"] = object{"code": http.StatusUnprocessableEntity, "message": "Validation error"}
	case !exists:
		told["error"] = object{"code": http.StatusNotFound, "message": "Object does not exist on the server"}
	case one.Size != int64(len(content)):
		told["error"] = object{"code": http.StatusUnprocessableEntity, "message": "Object has another size"}
	default:
		told["actions"] = object{"download": object{
			"href":       s.signedAddress(c.links, fmt.Sprintf("/lfs/%s/objects/%s", c.repo.fullName(), one.OID)),
			"expires_in": int(signedFor.Seconds()), "expires_at": timestamp(s.now().Add(signedFor)),
		}}
	}
	return told
}

// lfsDownload serves an object at its signed address, which is a storage's, not GitHub's: it takes no other credentials
// beside the signature, and answers 403 once that has expired.
func (s *gitAPI) lfsDownload(c *call) *response {
	switch {
	case c.Header.Get("Authorization") != "":
		return storage(http.StatusBadRequest, "Only one auth mechanism allowed")
	case !s.isSigned(c):
		return storage(http.StatusForbidden, "Request has expired")
	}
	r, _ := s.repositoryOf(c)
	if r == nil {
		return storage(http.StatusNotFound, "The specified key does not exist.")
	}
	content, exists := r.root().lfs[c.PathValue("oid")]
	if !exists {
		return storage(http.StatusNotFound, "The specified key does not exist.")
	}
	return &response{status: http.StatusOK, raw: content, header: http.Header{"Content-Type": {"application/octet-stream"}}}
}

// storage is a refusal as a storage writes it.
func storage(status int, message string) *response {
	return &response{
		status: status, header: http.Header{"Content-Type": {"application/xml"}},
		raw: []byte("<Error><Message>" + message + "</Message></Error>\n"),
	}
}

// finishLFS writes a refusal as Git LFS has them.
func (r *response) finishLFS() {
	problem, isError := r.body.(*apiError)
	if !isError {
		return
	}
	r.body, r.raw = nil, encode(object{"message": problem.Message, "documentation_url": "https://docs.github.com/repositories/working-with-files/managing-large-files"})
	r.header.Set("Content-Type", lfsType)
	if r.status == http.StatusUnauthorized {
		r.header.Set("Lfs-Authenticate", `Basic realm="GitHub"`)
	}
}
