package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/mask"
)

// job is one call of Build.
type job struct {
	*Builder
	request  Request
	files    Files
	masker   *mask.Masker
	log      *maskedLog
	tags     []name.Tag
	resolver *resolver
	dir      string
	begun    time.Time
	over     over

	downloads *downloads
}

func (b *Builder) job(r Request, files Files, log io.Writer) (*job, error) {
	tags, err := check(&r, b.own())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.config.Dir, "forge-image-")
	if err != nil {
		return nil, err
	}
	var secrets []string
	for _, value := range r.Secrets {
		secrets = append(secrets, string(value))
	}
	masker := mask.New(secrets)
	return &job{
		downloads: newDownloads(b.transport, dir, &b.room),
		Builder:   b, request: r, files: files, tags: tags, dir: dir, begun: b.config.Now(), over: over{builds: map[string]bool{}}, masker: masker, log: &maskedLog{w: log, stream: masker.Stream()},
		resolver: &resolver{seed: b.seed, transport: b.transport, configs: b.configs, credentials: r.Credentials, retryAfter: b.config.RetryAfter},
	}, nil
}

func (j *job) close() {
	defer j.downloads.close()
	if err := errors.Join(j.log.flush(), os.RemoveAll(j.dir)); err != nil {
		j.config.Log.Warn("an image's leftovers stay", "dir", j.dir, "error", err)
	}
}

// masked hides secrets in an error's text, which a command's words may stand in.
func (j *job) masked(err error) error {
	if err == nil || j.masker == nil {
		return err
	}
	if text := j.masker.String(err.Error()); text != err.Error() {
		return fault.New(fault.KindOf(err), text)
	}
	return err
}

// check says before anything runs what can never be built.
func check(r *Request, own bool) ([]name.Tag, error) {
	for _, p := range []string{r.Dockerfile, r.Context} {
		if p == "" || p != path.Clean(p) || path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") {
			return nil, fault.Newf(fault.Invalid, "%q is not a path within the workspace", p)
		}
	}
	if r.Tier == "" {
		return nil, errors.New("an image without a tier of trust") // its cache would be everybody's
	}
	if r.Gate == nil {
		return nil, errors.New("an image without a gate") // its commands would run beside everybody's
	}
	for _, p := range r.Platforms {
		if _, err := platforms.Parse(p); err != nil {
			return nil, fault.Newf(fault.Invalid, "%q is not a platform, such as linux/arm64", p)
		}
	}
	switch {
	case r.Load != "" && !own:
		return nil, fault.New(fault.Invalid, "load: true needs the Docker engine's own BuildKit; the server builds images with another one, so push the image and use it by name")
	case r.Load != "" && len(r.Platforms) > 1:
		return nil, fault.New(fault.Invalid, "load: true takes an image of one platform")
	case r.Push && len(r.Tags) == 0:
		return nil, fault.New(fault.Invalid, "push: true needs tags")
	}
	var tags []name.Tag
	for _, t := range r.Tags {
		tag, err := name.NewTag(t)
		if err != nil || strings.Contains(t, "@") {
			return nil, fault.Newf(fault.Invalid, "%q is not a name of an image with a tag", t)
		}
		tags = append(tags, tag)
	}
	return tags, checkSecrets(r.Secrets)
}

// run builds for each platform what BuildKit cannot build for all at once.
func (j *job) run(ctx context.Context) (Result, error) {
	bk, err := j.connect(ctx, &j.over)
	if err != nil {
		return Result{}, fault.Newf(fault.Unavailable, "%w", err)
	}
	defer bk.Close() //nolint:errcheck // nothing is left to be sent
	if j.own() {
		return j.runDocker(ctx, bk)
	}
	return j.runDaemon(ctx, bk)
}

// solved is what BuildKit has answered.
type solved struct {
	response *bkclient.SolveResponse
	images   map[string]string // that were used, as shared has them
}

// solve has BuildKit build for some platforms; none: its own.
func (j *job) solve(ctx context.Context, bk *bkclient.Client, platform []string, export bkclient.ExportEntry, attrs map[string]string) (*solved, error) {
	building, end := context.WithCancelCause(ctx)
	defer end(nil)
	s := &shared{
		resolver: j.resolver, downloads: j.downloads, salt: saltOf(j.request.Tier), turn: &turn{job: j, bk: bk, build: identity.NewID(), end: end},
		images: map[string]string{}, shown: map[repository]bool{},
	}
	opts := bkclient.SolveOpt{
		Ref: s.turn.build, FrontendAttrs: j.attrs(platform), Session: attachables(&j.request, s, j.files),
		// BuildKit keeps files of a folder that is sent again and believes size and time
		// of each: files of one build are not those of another.
		SharedKey: rand.Text(),
	}
	if export.Type != "" {
		opts.Exports = []bkclient.ExportEntry{export}
	}
	maps.Copy(opts.FrontendAttrs, attrs)
	status := make(chan *bkclient.SolveStatus)
	shown := make(chan error, 1)
	go func() { shown <- j.log.show(context.WithoutCancel(ctx), status, j.masker) }()
	response, err := bk.Build(building, opts, "forge", frontendOf(s), status)
	s.turn.leave(ctx, err == nil)
	if failed := <-shown; err == nil && failed != nil {
		err = fmt.Errorf("log of the image: %w", failed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case building.Err() != nil:
		return nil, context.Cause(building)
	case s.refused != nil:
		return nil, s.refused
	case err != nil:
		return nil, told(err, j.request.Dockerfile)
	}
	return &solved{response, s.images}, nil
}

// attrs are what the frontend is told.
func (j *job) attrs(platform []string) map[string]string {
	r := j.request
	attrs := map[string]string{"filename": path.Base(r.Dockerfile)}
	if r.Target != "" {
		attrs["target"] = r.Target
	}
	if len(platform) > 0 {
		attrs["platform"] = strings.Join(platform, ",")
	}
	for name, value := range r.Args {
		attrs["build-arg:"+name] = value
	}
	for name, value := range j.labels() {
		attrs["label:"+name] = value
	}
	return attrs
}

// labels are those of the OCI, where the request has none of its own. None tells the
// time: an image that is built again stays the same.
func (j *job) labels() map[string]string {
	labels := map[string]string{}
	for label, fact := range map[string]string{
		"org.opencontainers.image.source": "repository", "org.opencontainers.image.url": "repository", "org.opencontainers.image.revision": "commit",
	} {
		if value := j.request.Provenance[fact]; value != "" {
			labels[label] = value
		}
	}
	if len(j.tags) > 0 {
		labels["org.opencontainers.image.title"] = path.Base(j.tags[0].RepositoryStr())
		if tag := j.tags[0].TagStr(); tag != "latest" {
			labels["org.opencontainers.image.version"] = tag
		}
	}
	maps.Copy(labels, j.request.Labels)
	return labels
}

// platforms are those that are asked for, each once; "" is the builder's own.
func (j *job) platforms() []string {
	if len(j.request.Platforms) == 0 {
		return []string{""}
	}
	var all []string
	for _, p := range j.request.Platforms {
		if p = platforms.FormatAll(platforms.Normalize(platforms.MustParse(p))); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}
