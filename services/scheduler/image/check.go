package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	"github.com/forge-ci/forge/services/kit/fault"
)

// saltName is a variable that each RUN sees: it makes the key of its cache another one
// in each tier of trust.
const saltName = "FORGE_TRUST"

// saltOf tells nothing of the tier.
func saltOf(tier string) string {
	sum := sha256.Sum256([]byte(tier))
	return hex.EncodeToString(sum[:16])
}

// refusedError is what is not allowed; where in the Dockerfile comes later.
func refusedError(format string, args ...any) error {
	return fault.Newf(fault.Invalid, format, args...)
}

// check returns the definition as BuildKit may have it. An operation names its inputs by
// their digests, so each that follows a changed one changes, too.
func (s *shared) check(ctx context.Context, def *pb.Definition) (*pb.Definition, error) {
	out := &pb.Definition{Metadata: map[string]*pb.OpMetadata{}}
	became := map[string]string{}
	for _, bytes := range def.GetDef() {
		was := digest.FromBytes(bytes).String()
		var op pb.Op
		if err := proto.Unmarshal(bytes, &op); err != nil {
			return nil, fmt.Errorf("definition of the frontend: %w", err)
		}
		changed := false
		for _, input := range op.GetInputs() {
			now, ok := became[input.GetDigest()]
			if !ok {
				return nil, fmt.Errorf("definition of the frontend: operation %s comes before its input %s", was, input.GetDigest())
			}
			changed = changed || now != input.GetDigest()
			input.Digest = now
		}
		rewritten, err := s.checkOp(ctx, &op)
		if err != nil {
			return nil, located(def, was, err)
		}
		if changed || rewritten {
			if bytes, err = (proto.MarshalOptions{Deterministic: true}).Marshal(&op); err != nil {
				return nil, fmt.Errorf("definition of the frontend: %w", err)
			}
		}
		became[was] = digest.FromBytes(bytes).String()
		out.Def = append(out.Def, bytes)
		if meta, ok := def.GetMetadata()[was]; ok {
			out.Metadata[became[was]] = meta
		}
	}
	if def.GetSource() != nil {
		out.Source = &pb.Source{Infos: def.GetSource().GetInfos(), Locations: map[string]*pb.Locations{}}
		for was, at := range def.GetSource().GetLocations() {
			if now, ok := became[was]; ok {
				out.Source.Locations[now] = at
			}
		}
	}
	return out, nil
}

// located says where in the Dockerfile an operation comes from.
func located(def *pb.Definition, op string, err error) error {
	for _, at := range def.GetSource().GetLocations()[op].GetLocations() {
		infos := def.GetSource().GetInfos()
		if i := int(at.GetSourceIndex()); i >= 0 && i < len(infos) && len(at.GetRanges()) > 0 {
			return fault.Newf(fault.KindOf(err), "%s:%d: %w", infos[i].GetFilename(), at.GetRanges()[0].GetStart().GetLine(), err)
		}
	}
	return err
}

// checkOp reports whether it has rewritten an operation.
func (s *shared) checkOp(ctx context.Context, op *pb.Op) (bool, error) {
	if op.GetConstraints() != nil && len(op.GetConstraints().GetFilter()) > 0 {
		return false, refusedError("a build does not choose the worker of BuildKit")
	}
	switch kind := op.GetOp().(type) {
	case nil: // the last, which names the result
		return false, nil
	case *pb.Op_Exec:
		if err := s.checkExec(kind.Exec); err != nil || kind.Exec.GetNetwork() == pb.NetMode_NONE {
			return true, err
		}
		return true, s.turn.enter(ctx)
	case *pb.Op_Source:
		return s.checkSource(ctx, op, kind.Source)
	case *pb.Op_File, *pb.Op_Merge, *pb.Op_Diff:
		return false, nil
	default:
		return false, refusedError("an operation of kind %T is not served here", kind)
	}
}

// checkExec refuses what reaches the machine, and keeps the cache of each tier apart.
func (s *shared) checkExec(exec *pb.ExecOp) error {
	switch {
	case exec.GetSecurity() != pb.SecurityMode_SANDBOX:
		return refusedError("RUN --security=insecure is not allowed: it is root on the machine that builds")
	case exec.GetNetwork() == pb.NetMode_HOST:
		return refusedError("RUN --network=host is not allowed: it reaches what listens on the machine that builds")
	case exec.GetNetwork() != pb.NetMode_UNSET && exec.GetNetwork() != pb.NetMode_NONE:
		return refusedError("RUN --network=%d is not known here", exec.GetNetwork())
	case len(exec.GetCdiDevices()) > 0:
		return refusedError("RUN --device is not allowed: devices are of the machine that builds")
	case exec.GetMeta() == nil:
		return refusedError("a command without its circumstances is not served here")
	case exec.GetMeta().GetCgroupParent() != "":
		return refusedError("a build does not choose its control group")
	}
	for _, mount := range exec.GetMounts() {
		if err := s.checkMount(mount); err != nil {
			return err
		}
	}
	exec.Meta.Env = append(exec.Meta.Env, saltName+"="+s.salt)
	return nil
}

func (s *shared) checkMount(mount *pb.Mount) error {
	switch mount.GetMountType() {
	case pb.MountType_BIND:
		if socket := path.Clean("/" + mount.GetSelector()); strings.HasSuffix(socket, ".sock") {
			return refusedError("RUN --mount of %s is not allowed: no socket of the machine that builds is given to a build, and there is none in the context", socket)
		}
	case pb.MountType_CACHE:
		if mount.GetCacheOpt() == nil {
			return refusedError("RUN --mount=type=cache without an id is not served here")
		}
		mount.CacheOpt.ID = s.salt + "/" + mount.GetCacheOpt().GetID()
	case pb.MountType_SECRET, pb.MountType_TMPFS:
	case pb.MountType_SSH:
		return refusedError("RUN --mount=type=ssh is not allowed: no SSH agent is given to a build; use a secret")
	default:
		return refusedError("RUN --mount of type %s is not served here", mount.GetMountType())
	}
	return nil
}

// checkSource pins images, and takes over what BuildKit would fetch by itself.
func (s *shared) checkSource(ctx context.Context, op *pb.Op, source *pb.SourceOp) (bool, error) {
	scheme, rest, _ := strings.Cut(source.GetIdentifier(), "://")
	switch scheme {
	case "local":
		if rest != dirContext && rest != dirDockerfile {
			return false, refusedError("the folder %q is not given to a build: it has its context and its Dockerfile", rest)
		}
		return false, nil
	case "docker-image":
		pinned, err := s.pin(ctx, rest, op.GetPlatform())
		if err != nil {
			return false, err
		}
		source.Identifier = "docker-image://" + pinned
		return pinned != rest, nil
	case "http", "https":
		return true, s.downloads.replace(ctx, source)
	}
	return false, unserved(source.GetIdentifier())
}

// unserved are sources that BuildKit would fetch from where Forge cannot look.
func unserved(identifier string) error {
	scheme, rest, _ := strings.Cut(identifier, "://")
	if scheme == "git" {
		return refusedError("ADD of the Git repository %s is not served: BuildKit would follow its redirects and submodules to any address; check it out into the workspace (source: {submodules: true})", rest)
	}
	return refusedError("a source of kind %q is not served here", scheme)
}

// pin returns an image with its digest, once the registry has shown it to this build.
func (s *shared) pin(ctx context.Context, image string, platform *pb.Platform) (string, error) {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", refusedError("%q is not a name of an image", image)
	}
	named := reference.TagNameOnly(ref)
	if pinned, ok := ref.(reference.Canonical); ok && s.opened(ref.Name(), pinned.Digest().String()) {
		return image, nil
	}
	var spec *ocispec.Platform
	if platform != nil {
		spec = &ocispec.Platform{OS: platform.GetOS(), Architecture: platform.GetArchitecture(), Variant: platform.GetVariant()}
	}
	found, err := s.image(ctx, named.String(), spec)
	if err != nil {
		return "", err
	}
	pinned, err := reference.WithDigest(reference.TrimNamed(ref), digest.Digest(found.ref.DigestStr()))
	if err != nil {
		return "", err
	}
	return pinned.String(), nil
}

// opened reports whether the registry has shown this repository's digest to this build.
func (s *shared) opened(repository, found string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for image, sum := range s.images {
		if ref, err := reference.ParseNormalizedNamed(image); err == nil && ref.Name() == repository && sum == found {
			return true
		}
	}
	return false
}
