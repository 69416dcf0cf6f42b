package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/image/gate"
)

// Request is one image that a build asks for.
type Request struct {
	// Dockerfile and Context are paths relative to the workspace, clean.
	Dockerfile, Context string
	// Target is the stage that is built. Default: the last one.
	Target       string
	Args, Labels map[string]string
	// Secrets are BuildKit's, by id. They are masked in the log.
	Secrets map[string][]byte
	// Platforms, such as linux/arm64. Default: the builder's own.
	Platforms []string
	// Tags are the names under which the image is pushed.
	Tags []string
	// Push sends the image to the registries of Tags; one that is neither pushed nor loaded
	// is built, and that is all.
	Push bool
	// Load keeps the image in the Docker engine until Forget, under a name that LoadName has
	// given.
	Load string
	// Tier of trust, and the repository that it is one of, such as "17/merged" or
	// "17/fork/7": what one tier has run, another never takes from the cache.
	Tier string
	// Gate is where its commands wait for their turn, on whichever BuildKit.
	Gate *gate.Gate
	// Credentials of a registry, by its host. Both empty: nobody's. It may be asked by
	// several goroutines.
	Credentials func(ctx context.Context, host string) (user, password string, err error)
	// Provenance are facts of the invocation: "repository", an address, "commit", and
	// "build", the address of the build. They become labels and provenance.
	Provenance map[string]string
}

// Want is what BuildKit asks for of the workspace.
type Want struct {
	// Dir is "context", the folder of Request.Context, or "dockerfile", the folder that
	// Request.Dockerfile lies in.
	Dir                           string
	Include, Exclude, FollowPaths []string // as fsutil.FilterOpt has them
}

// Stream is fsutil's: what is sent and received are its packets.
type Stream interface {
	Context() context.Context
	SendMsg(message any) error
	RecvMsg(message any) error
}

// Files are the workspace, as BuildKit's file sync asks for it. DiffCopy is fsutil.Send of
// what is wanted, and is called by several goroutines.
type Files interface {
	DiffCopy(ctx context.Context, want Want, stream Stream) error
}

// Result is what was built.
type Result struct {
	// Name is the first tag without its tag where the image was pushed, what it is called
	// in the Docker engine where it was loaded alone, and else empty.
	Name string
	// Digest is that of what was pushed, a manifest or an index; of an image that was not,
	// it is the one of its configuration, which the Docker engine knows it by.
	Digest string
	// Loaded is the name in the Docker engine, for Forget. Empty: it is not there.
	Loaded string
}

// Reference is what a later step names the image by.
func (r Result) Reference() string {
	if r.Name == "" || r.Name == r.Loaded {
		return r.Name
	}
	return r.Name + "@" + r.Digest
}

// Config of a builder. One of Docker and URL is given; URL wins.
type Config struct {
	// Docker is the engine whose own BuildKit is used.
	Docker *client.Client
	// URL of a BuildKit daemon, tcp://host:port or unix:///path. Over TCP it needs TLS:
	// what a Dockerfile runs is on the daemon's own network, and could drive it, too.
	URL string
	TLS TLS
	// Instance tells loaded images of this Forge from those of another one on the same
	// Docker engine.
	Instance string
	// Private are networks of one's own that registries, and what a Dockerfile adds by
	// address, may be in. Default: the internet alone.
	Private []netip.Prefix
	// Scanner is the image that makes SBOMs, such as docker/buildkit-syft-scanner:stable-1.
	// A daemon at URL runs it. Default: no SBOMs.
	Scanner string
	// Dir is where an image lies on its way to a registry. Default: the system's for
	// temporary files.
	Dir string
	// RetryAfter is the pause before the first further try at a registry that is away or
	// wants fewer requests; it doubles twice. Default: 1 second.
	RetryAfter time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Log may be nil.
	Log *slog.Logger
}

// TLS is files: the authority of a daemon's certificate, and what Forge shows itself.
type TLS struct{ CA, Cert, Key string }

// Builder builds images.
type Builder struct {
	config    Config
	transport *http.Transport
	configs   *lru.Cache[string, []byte]
	seed      []byte
	room      room
}

// New does not ask BuildKit yet. The caller closes the builder.
func New(c Config) (*Builder, error) {
	if c.Docker == nil && c.URL == "" {
		return nil, errors.New("image builder: no Docker engine and no BuildKit")
	}
	if strings.HasPrefix(c.URL, "tcp://") && (c.TLS.CA == "" || c.TLS.Cert == "" || c.TLS.Key == "") {
		return nil, fmt.Errorf("BuildKit at %s: over TCP it has to know Forge by a certificate (FORGE_TLS_CERT, FORGE_TLS_KEY, FORGE_TLS_CA), or what a Dockerfile runs could drive it as well; "+
			"on the same machine, name its socket", c.URL)
	}
	if c.RetryAfter == 0 {
		c.RetryAfter = time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	configs, err := lru.New[string, []byte](configsKept)
	if err != nil {
		return nil, err
	}
	return &Builder{config: c, transport: egressTo(c.Private), configs: configs, seed: []byte(rand.Text())}, nil
}

// Close ends connections to registries that nobody uses.
func (b *Builder) Close() { b.transport.CloseIdleConnections() }

// Build builds an image, and pushes and loads it as r says. Progress and what commands
// print go to log, which is written to by one goroutine at a time. An error of kind
// fault.Invalid is of the request or its Dockerfile, with a text for people; Exhausted and
// Unavailable are of registries. All ends where ctx does, and no tag names half an image.
func (b *Builder) Build(ctx context.Context, r Request, files Files, log io.Writer) (Result, error) {
	j, err := b.job(r, files, log)
	if err != nil {
		return Result{}, err
	}
	defer j.close()
	result, err := j.run(ctx)
	return result, j.masked(err)
}
