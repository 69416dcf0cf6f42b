package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/kit/fault"
)

// Git LFS, as github.com/git-lfs/git-lfs/blob/main/docs/spec.md and
// docs/api/batch.md there say it.
const (
	lfsFolder = "lfs" // what was fetched, by repository
	lfsType   = "application/vnd.git-lfs+json"
	// maxPointer is the most that a pointer has.
	maxPointer = 1024
	lfsBatch   = 100
	lfsAtOnce  = 4
)

var pointerText = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\Aversion https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n`)
})

// pointer is what a commit has in place of a file.
type pointer struct {
	OID  string `json:"oid"`
	Size int64  `json:"size"`
}

// fetchLFS has the files there that a commit has pointers to, and says where.
func (c *checkout) fetchLFS(ctx context.Context, entries []entry) (map[string]string, error) {
	pointers, err := c.pointers(ctx, entries)
	if err != nil || len(pointers) == 0 {
		return nil, err
	}
	cache := c.repository.mirrors.lfs(c.repository.name)
	defer c.repository.mirrors.grown(c.repository.name)
	mine := filepath.Join(c.scratch, lfsFolder)
	if err := errors.Join(os.MkdirAll(cache, 0o700), os.Mkdir(mine, 0o700)); err != nil {
		return nil, err
	}
	files, missing, seen, total := map[string]string{}, []pointer{}, map[string]bool{}, int64(0)
	for name, p := range pointers {
		if remote := c.module.remote; remote.Here {
			if files[name], err = remote.kept(name, p); err != nil {
				return nil, err
			}
			continue
		}
		files[name] = filepath.Join(mine, p.OID)
		if seen[p.OID] {
			continue
		}
		seen[p.OID] = true
		if total += p.Size; total > maxTree {
			return nil, fault.Newf(fault.Exhausted, "what Git LFS keeps for %s is larger than %d MiB", c.module.remote.Noun, maxTree>>20)
		}
		// A link of its own stays, whatever is removed to make place.
		if os.Link(filepath.Join(cache, p.OID), files[name]) != nil {
			missing = append(missing, p)
		}
	}
	for len(missing) > 0 {
		batch := missing[:min(len(missing), lfsBatch)]
		missing = missing[len(batch):]
		if err := c.fetchBatch(ctx, batch, cache, mine); err != nil {
			return nil, fmt.Errorf("git LFS of %s: %w", c.module.remote.Noun, err)
		}
	}
	return files, nil
}

// kept is where the object is that Git LFS has here for a file.
func (r Remote) kept(name string, p pointer) (string, error) {
	at := filepath.Join(r.LFS, "objects", p.OID[:2], p.OID[2:4], p.OID)
	if _, err := os.Stat(at); err != nil {
		return "", fault.Newf(fault.NotFound, "%s: what Git LFS keeps for it is not here: git lfs pull", name)
	}
	return at, nil
}

// pointers are those among some files. A file that was itself committed is no pointer.
func (c *checkout) pointers(ctx context.Context, entries []entry) (map[string]pointer, error) {
	blobs, err := c.openObjects(ctx, "--buffer")
	if err != nil {
		return nil, err
	}
	blobs.askAll(entries)
	defer blobs.close()
	found := map[string]pointer{}
	for _, e := range entries {
		size, err := blobs.next(e.sha, "blob")
		if err != nil {
			return nil, err
		}
		var text bytes.Buffer
		to := io.Writer(&text)
		if size > maxPointer {
			to = io.Discard
		}
		if err := blobs.copy(to, size); err != nil {
			return nil, err
		}
		if words := pointerText().FindSubmatch(text.Bytes()); words != nil {
			length, err := strconv.ParseInt(string(words[2]), 10, 64)
			if err == nil {
				found[e.path] = pointer{OID: string(words[1]), Size: length}
			}
		}
	}
	return found, nil
}

type lfsAction struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header"`
}

type lfsObject struct {
	pointer
	Actions struct {
		Download *lfsAction `json:"download"`
	} `json:"actions"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// fetchBatch asks where objects are, and fetches them into the cache.
func (c *checkout) fetchBatch(ctx context.Context, batch []pointer, cache, mine string) error {
	body, err := json.Marshal(map[string]any{"operation": "download", "transfers": []string{"basic"}, "objects": batch, "hash_algo": "sha256"})
	if err != nil {
		return err
	}
	remote := c.module.remote
	token, err := remote.Token(ctx)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, remote.URL+"/info/lfs/objects/batch", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", lfsType)
	req.Header.Set("Content-Type", lfsType)
	if token != "" {
		req.SetBasicAuth("x-access-token", token)
	}
	answer, err := c.lfsCall(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it is only read
	var told struct {
		Objects []lfsObject `json:"objects"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 4<<20)).Decode(&told); err != nil {
		return fault.Newf(fault.Unavailable, "the answer cannot be read: %w", err)
	}
	wanted := map[string]int64{}
	for _, p := range batch {
		wanted[p.OID] = p.Size
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lfsAtOnce)
	for _, object := range told.Objects {
		size, isWanted := wanted[object.OID]
		delete(wanted, object.OID)
		switch {
		case !isWanted:
		case object.Error != nil && object.Error.Code == http.StatusNotFound:
			return fault.Newf(fault.NotFound, "GitHub does not have object %s: push it with git lfs push", object.OID)
		case object.Error != nil || object.Actions.Download == nil:
			return fault.Newf(fault.Unavailable, "object %s cannot be had: %s", object.OID, object.trouble())
		default:
			group.Go(func() error { return c.fetchObject(ctx, object, size, cache, mine) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for oid := range wanted {
		return fault.Newf(fault.Unavailable, "GitHub says nothing of object %s", oid)
	}
	return nil
}

func (o *lfsObject) trouble() string {
	if o.Error == nil {
		return "GitHub does not say where it is"
	}
	return o.Error.Message
}

// errSlow ends a call that brings nothing for too long.
var errSlow = errors.New("it sends nothing for too long")

// patient is the body of an answer, for as long as it brings something.
type patient struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // of the call
	cancel context.CancelCauseFunc
	timer  *time.Timer
	most   time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.timer.Reset(p.most)
	if err != nil && errors.Is(context.Cause(p.ctx), errSlow) {
		err = errSlow
	}
	return n, err
}

func (p *patient) Close() error {
	p.timer.Stop()
	p.cancel(nil)
	return p.ReadCloser.Close()
}

// lfsCall is an answer of 200; any other is an error.
func (c *checkout) lfsCall(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	most := c.repository.mirrors.patience
	timer := time.AfterFunc(most, func() { cancel(errSlow) })
	answer, err := c.repository.mirrors.http.Do(req.WithContext(ctx))
	if err == nil {
		answer.Body = &patient{answer.Body, ctx, cancel, timer, most}
	} else {
		timer.Stop()
		cancel(err)
		if errors.Is(context.Cause(ctx), errSlow) {
			err = errSlow
		}
		if trouble, ok := errors.AsType[*url.Error](err); ok {
			err = trouble.Err // without the address, which may be a credential
		}
		return nil, fault.Newf(fault.Unavailable, "GitHub does not answer: %w", err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	_ = answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		_, token, _ := req.BasicAuth()
		c.module.remote.Rejected(token)
		return nil, fault.Newf(fault.Unavailable, "GitHub answers %s", answer.Status)
	case http.StatusForbidden, http.StatusNotFound:
		return nil, fault.Newf(fault.Denied, "GitHub answers %s: the repository's LFS may be used up or switched off", answer.Status)
	}
	return nil, fault.Newf(fault.Unavailable, "GitHub answers %s", answer.Status)
}

// fetchObject fetches one object, and keeps it where its bytes are what its name says.
func (c *checkout) fetchObject(ctx context.Context, object lfsObject, size int64, cache, mine string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, object.Actions.Download.Href, nil)
	if err != nil {
		return fault.Newf(fault.Unavailable, "object %s: its address cannot be read", object.OID)
	}
	for name, value := range object.Actions.Download.Header {
		req.Header.Set(name, value)
	}
	answer, err := c.lfsCall(req)
	if err != nil {
		return fmt.Errorf("object %s: %w", object.OID, err)
	}
	defer answer.Body.Close() //nolint:errcheck // it is only read
	file, err := os.CreateTemp(mine, "fetch-")
	if err != nil {
		return err
	}
	sum := sha256.New()
	got, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(answer.Body, size+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return fault.Newf(fault.Unavailable, "object %s: GitHub broke off: %w", object.OID, err)
	}
	if got != size || hex.EncodeToString(sum.Sum(nil)) != object.OID {
		return fault.Newf(fault.Unavailable, "object %s: GitHub sent other bytes than that", object.OID)
	}
	if err := os.Rename(file.Name(), filepath.Join(mine, object.OID)); err != nil {
		return err
	}
	err = os.Link(filepath.Join(mine, object.OID), filepath.Join(cache, object.OID))
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}
