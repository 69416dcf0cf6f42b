package image

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	apicapspb "github.com/moby/buildkit/util/apicaps/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/forge-ci/forge/services/kit/fault"
)

// frontend is the only image that a "# syntax=" line may name. Forge's own serves it,
// of whatever tag: what a foreign one asks of BuildKit would pass by the check below.
const frontend = "docker.io/docker/dockerfile"

// guard stands between Forge's Dockerfile frontend and BuildKit: each definition is
// checked and rewritten before BuildKit hears of it.
type guard struct {
	gateway.Client
	opts map[string]string // of the frontend
	*shared
}

// shared is of one build, whatever frontends it goes through.
type shared struct {
	resolver  *resolver
	downloads *downloads
	salt      string
	turn      *turn

	mu      sync.Mutex
	images  map[string]string // digests that this build may use, by how the file names the image
	shown   map[repository]bool
	refused error
}

// frontendOf is what client.Build calls.
func frontendOf(s *shared) gateway.BuildFunc {
	return func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		return dockerfile.Build(ctx, &guard{Client: c, opts: c.BuildOpts().Opts, shared: s})
	}
}

// refuse keeps why the build ends, since BuildKit passes on the text alone.
func (s *shared) refuse(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = err
	}
	return err
}

// BuildOpts are what the frontend was asked for. Whether BuildKit knows devices or not,
// the frontend names them: it would leave them out, and the build would not be told.
func (g *guard) BuildOpts() gateway.BuildOpts {
	opts := g.Client.BuildOpts()
	opts.Opts = maps.Clone(g.opts)
	var caps []*apicapspb.APICap
	for _, capability := range pb.Caps.All() {
		if opts.LLBCaps.Supports(apicaps.CapID(capability.GetID())) == nil || capability.GetID() == string(pb.CapExecMetaCDI) {
			capability.Enabled = true
			caps = append(caps, capability)
		}
	}
	opts.LLBCaps = pb.Caps.CapSet(caps)
	return opts
}

// Solve lets BuildKit have what has passed the check.
func (g *guard) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	if req.Frontend != "" {
		return g.forward(ctx, req)
	}
	if len(req.CacheImports) > 0 {
		return nil, g.refuse(fault.New(fault.Invalid, "a cache of another place is not imported here"))
	}
	if req.Definition != nil {
		checked, err := g.check(ctx, req.Definition)
		if err != nil {
			return nil, g.refuse(err)
		}
		req.Definition = checked
	}
	return g.Client.Solve(ctx, req)
}

// forward is asked for another frontend.
func (g *guard) forward(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	source := req.FrontendOpt["source"]
	ref, err := reference.ParseNormalizedNamed(source)
	if req.Frontend != "gateway.v0" || err != nil || ref.Name() != frontend {
		return nil, g.refuse(fault.Newf(fault.Invalid, "frontend %q is not allowed here: leave out the line # syntax=, or name docker/dockerfile, which Forge has built in", source))
	}
	inner := *g
	inner.opts = maps.Clone(g.opts)
	inner.opts["cmdline"] = source // so that it asks for no further one
	return dockerfile.Build(ctx, &inner)
}

// ResolveImageConfig asks the registry with the credentials of this build.
func (g *guard) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	var platform *ocispec.Platform
	if opt.ImageOpt != nil {
		platform = opt.ImageOpt.Platform
	}
	found, err := g.image(ctx, ref, platform)
	if err != nil {
		return "", "", nil, g.refuse(err)
	}
	return ref, digest.Digest(found.ref.DigestStr()), found.config, nil
}

// image resolves one and remembers that this build may use it.
func (s *shared) image(ctx context.Context, ref string, platform *ocispec.Platform) (resolved, error) {
	found, err := s.resolver.resolve(ctx, ref, platform)
	if err != nil {
		return resolved{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[ref] = found.ref.DigestStr()
	s.shown[repository{hostOf(found.ref.Context().RegistryStr()), found.ref.Context().RepositoryStr()}] = true
	return found, nil
}

// ResolveSourceMetadata knows images alone.
func (g *guard) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	image, ok := strings.CutPrefix(op.GetIdentifier(), "docker-image://")
	if !ok {
		return nil, g.refuse(unserved(op.GetIdentifier()))
	}
	_, found, config, err := g.ResolveImageConfig(ctx, image, opt)
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: found, Config: config}}, nil
}

// NewContainer is for frontends that run commands by themselves, which none of ours does.
func (g *guard) NewContainer(context.Context, gateway.NewContainerRequest) (gateway.Container, error) {
	return nil, g.refuse(errors.New("a frontend runs no container of its own here"))
}
