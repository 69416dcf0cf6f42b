package image

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/forge-ci/forge/services/kit/egress"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	maxDownload   = 1 << 30 // bytes of all files that a build adds by address
	maxDownloads  = 4 << 30 // of all builds at once
	mostSilence   = time.Minute
	maxRedirects  = 10
	downloadsName = "forge-download-"
)

// downloads fetches what a Dockerfile adds by address. BuildKit would do it from the
// machine's own network, and follow a redirect to what listens there alone; here what
// is dialled is looked at. BuildKit gets the file as a folder of the session.
type downloads struct {
	client *http.Client
	dir    string // removed with the build
	nonce  string
	room   *room

	mu   sync.Mutex
	left int64
	got  map[string]string // names of folders, by what was asked for
}

// room is what the downloads of all builds take on the server's disk.
type room struct {
	mu   sync.Mutex
	used int64
}

// take reports whether there is room for so many bytes more, which may be negative.
func (r *room) take(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used+n > maxDownloads {
		return false
	}
	r.used += n
	return true
}

func newDownloads(transport http.RoundTripper, dir string, shared *room) *downloads {
	return &downloads{dir: dir, nonce: rand.Text(), room: shared, left: maxDownload, got: map[string]string{}, client: &http.Client{
		Transport: transport,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) >= maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return nil
		},
	}}
}

// close gives back the room of what has been removed.
func (d *downloads) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room.take(d.left - maxDownload)
	d.left = maxDownload
}

// replace makes a folder of the session of an address.
func (d *downloads) replace(ctx context.Context, source *pb.SourceOp) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	attrs, err := json.Marshal(source.GetAttrs()) // of a map it is in order
	if err != nil {
		return err
	}
	key := source.GetIdentifier() + " " + string(attrs)
	folder, ok := d.got[key]
	if !ok {
		folder = downloadsName + strconv.Itoa(len(d.got))
		if err := d.fetch(ctx, folder, source); err != nil {
			return err
		}
		d.got[key] = folder
	}
	source.Identifier = "local://" + folder
	source.Attrs = map[string]string{pb.AttrLocalUniqueID: d.nonce, pb.AttrSharedKeyHint: d.nonce}
	return nil
}

func (d *downloads) fetch(ctx context.Context, folder string, source *pb.SourceOp) (err error) {
	address, attrs := source.GetIdentifier(), maps.Clone(source.GetAttrs())
	asked, err := url.Parse(address)
	if err != nil || asked.Host == "" {
		return refusedError("ADD of %q: that is not an address", address)
	}
	shown := asked.Redacted()
	for name := range attrs {
		if name != pb.AttrHTTPChecksum && name != pb.AttrHTTPFilename && name != pb.AttrHTTPPerm && name != pb.AttrHTTPUID && name != pb.AttrHTTPGID {
			return refusedError("ADD of %s: %s is not served here", shown, name)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return refusedError("ADD of %s: that is not an address", shown)
	}
	req.Header.Set("Accept-Encoding", "identity") // the bytes are the file
	resp, err := d.client.Do(req)
	if errors.Is(err, egress.ErrPrivate) {
		return refusedError("ADD of %s: it leads to an address that is not on the internet, and the server names no network of its own for it", shown)
	}
	if err != nil {
		return fault.Newf(fault.Unavailable, "ADD of %s: %w", shown, egress.Bare(err))
	}
	defer resp.Body.Close() //nolint:errcheck // it was not written to
	if resp.StatusCode != http.StatusOK {
		kind := fault.Invalid
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
			kind = fault.Unavailable
		}
		return fault.Newf(kind, "ADD of %s: it answers %s", shown, resp.Status)
	}
	mode := uint64(0o600)
	if perm := attrs[pb.AttrHTTPPerm]; perm != "" {
		if mode, err = strconv.ParseUint(perm, 0, 12); err != nil {
			return refusedError("ADD of %s: mode %q", shown, perm)
		}
	}
	name := fileName(attrs[pb.AttrHTTPFilename], resp)
	dir := filepath.Join(d.dir, folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	silence := time.AfterFunc(mostSilence, func() {
		cancel(fault.Newf(fault.Unavailable, "nothing more came for %v", mostSilence))
	})
	defer silence.Stop()
	sum, err := d.write(filepath.Join(dir, name), heard{resp.Body, silence})
	if err != nil {
		return fmt.Errorf("ADD of %s: %w", shown, cmp.Or(context.Cause(ctx), err))
	}
	if want := attrs[pb.AttrHTTPChecksum]; want != "" && want != sum.String() {
		return refusedError("ADD of %s: it has the checksum %s, not %s", shown, sum, want)
	}
	modified := time.Unix(0, 0)
	if at, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		modified = at
	}
	file := filepath.Join(dir, name)
	return errors.Join(os.Chmod(file, os.FileMode(mode)), os.Chtimes(file, modified, modified))
}

// heard puts off the end of what is silent.
type heard struct {
	io.Reader
	silence *time.Timer
}

func (h heard) Read(into []byte) (int, error) {
	n, err := h.Reader.Read(into)
	h.silence.Reset(mostSilence)
	return n, err
}

// write keeps as much as a build may have, and the server has room for.
func (d *downloads) write(name string, from io.Reader) (digest.Digest, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	sum := digest.Canonical.Digester()
	_, err = io.Copy(io.MultiWriter(limited{d}, file, sum.Hash()), from)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	return sum.Digest(), nil
}

// limited takes what a build and all builds together may keep.
type limited struct{ *downloads }

func (l limited) Write(piece []byte) (int, error) {
	n := int64(len(piece))
	switch {
	case n > l.left:
		return 0, fault.Newf(fault.Exhausted, "a build adds at most %d bytes by address", maxDownload)
	case !l.room.take(n):
		return 0, fault.Newf(fault.Exhausted, "the builds that are running have %d bytes by address, as many as the server keeps at once: build it again later", maxDownloads)
	}
	l.left -= n
	return len(piece), nil
}

// fileName is how BuildKit would name the file.
func fileName(asked string, resp *http.Response) string {
	name := asked
	if name == "" {
		name = path.Base(resp.Request.URL.Path)
	}
	name = strings.TrimSpace(path.Base(path.Clean("/" + name)))
	if name == "" || name == "/" || name == "." || name == ".." {
		return "download"
	}
	return name
}
