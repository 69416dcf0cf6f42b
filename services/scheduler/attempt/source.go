package attempt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

const (
	sourceRetryFirst = 200 * time.Millisecond
	sourceRetryMost  = 5 * time.Second
	sourceTries      = 20 // about a minute and a half
	maxPreparing     = 64 // sources at once
)

// sourcing is how a runner gets the source of its build.
type sourcing struct{ *Service }

// fetchSource reads the source from config into chunks, without what the runner has
// of it already. What cannot be had is told by the last chunk. An error ends the
// stream: the runner attaches again and goes on where it is.
func (s sourcing) fetchSource(ctx context.Context, b *store.Build, hello *schedulerv1.Hello, chunks chan<- *schedulerv1.SourceChunk) error {
	ctx, span := s.tracer.Start(ctx, "source", trace.WithAttributes(attributesOf(b)...))
	defer span.End()
	send := func(chunk *schedulerv1.SourceChunk) error {
		select {
		case chunks <- chunk:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	request, begun := sourceRequest(b, hello), hello.GetSourceBegun()
	var sent int
	err := differ(ctx, s.store, b, request)
	if err != nil && temporary(err) {
		return fault.Newf(fault.Unavailable, "the difference could not be read: attach again: %w", err)
	}
	if err != nil {
		return send(&schedulerv1.SourceChunk{Error: err.Error()})
	}
	err = retry(ctx, sourceTries, sourceRetryFirst, sourceRetryMost, func() (again bool, err error) {
		if sent, err = s.streamSource(ctx, request, begun, send); errors.Is(err, errOtherSource) {
			begun = nil
			sent, err = s.streamSource(ctx, request, begun, send)
		}
		return sent == 0 && temporary(err), err
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil || sent > 0:
		span.SetStatus(codes.Error, err.Error())
		return fault.Newf(fault.Unavailable, "the source broke off: attach again: %w", err)
	default:
		span.SetStatus(codes.Error, err.Error())
		s.log.WarnContext(ctx, "no source", "build", b.GetId(), "error", err)
		return send(&schedulerv1.SourceChunk{Error: fmt.Sprintf("no source of %s: %v", wording.Short(b.GetSha()), err)})
	}
}

// differ has a request for the source of a remote run ask for what that is of.
func differ(ctx context.Context, s *store.Store, b *store.Build, request *configv1.GetSourceRequest) error {
	if !b.IsRemote() {
		return nil
	}
	if request.GetCheckout() == nil {
		return fault.New(fault.Invalid, "forgexec is of another version, which does not take a checkout: a remote run needs one")
	}
	asked, err := store.ReadDifference(ctx, s.DB.Read(), b.GetId())
	if err != nil {
		return err
	}
	request.Sha, request.Difference = b.GetRemoteBase(), asked.GetDifference()
	return nil
}

// preparation is a source that a runner will ask for.
type preparation struct {
	build, traceparent string
	source             *configv1.GetSourceRequest
}

// preparationOf takes the runner for one of this version.
func preparationOf(b *store.Build) preparation {
	return preparation{b.GetId(), b.Traceparent, sourceRequest(b, &schedulerv1.Hello{TakesCheckout: true, TakesPacked: true})}
}

// preparations are sources that runners will ask for.
type preparations struct {
	sources configv1.SourceServiceClient
	log     *slog.Logger
	tracer  trace.Tracer
	soon    chan preparation
}

// run has sources made for runners that are to come, until ctx ends: a
// container takes about as long to start as git to make a checkout.
func (s *preparations) run(ctx context.Context) error {
	var working errgroup.Group
	working.SetLimit(maxPreparing)
	for {
		select {
		case <-ctx.Done():
			return working.Wait()
		case one := <-s.soon:
			working.TryGo(func() error {
				s.prepare(ctx, one)
				return nil
			})
		}
	}
}

// prepare has one made. Where it cannot be had, the runner is told so once it asks.
func (s *preparations) prepare(ctx context.Context, p preparation) {
	ctx, span := s.tracer.Start(telemetry.WithTraceparent(ctx, p.traceparent), "prepare source")
	defer span.End()
	if _, err := s.sources.PrepareSource(ctx, &configv1.PrepareSourceRequest{Source: p.source}); err != nil {
		s.log.DebugContext(ctx, "source not prepared", "build", p.build, "error", err)
	}
}

// sourceRequest asks for a checkout where the runner takes one, else for GitHub's
// archive.
func sourceRequest(b *store.Build, hello *schedulerv1.Hello) *configv1.GetSourceRequest {
	request := &configv1.GetSourceRequest{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(), Sha: b.GetSha(), EventTime: b.GetCreateTime(),
	}
	if !hello.GetTakesCheckout() {
		return request
	}
	request.Checkout, request.PullRequest = b.ConfigJob().GetSource(), b.GetPullRequest()
	request.Fork, request.Packed = b.GetFork(), hello.GetTakesPacked()
	if tag, isTag := strings.CutPrefix(b.GetRef(), "refs/tags/"); isTag {
		request.Tag = tag
	}
	if request.GetCheckout() == nil {
		request.Checkout = &configv1.Source{}
	}
	request.IntoSha = b.GetIntoSha()
	request.Base = strings.TrimPrefix(b.GetBaseRef(), "refs/heads/")
	if branch, pushed := strings.CutPrefix(b.GetRef(), "refs/heads/"); request.GetBase() == "" && pushed {
		request.Base = branch
	}
	return request
}

// conflictError is why the commits of a build cannot be merged.
type conflictError string

func (c conflictError) Error() string { return string(c) }

// unmergedError is why nobody knows yet whether they can be.
type unmergedError struct{ error }

func (u unmergedError) Unwrap() error { return u.error }

// merge is the commit that a build tests where its own is merged first; "" where it
// is not.
func merge(ctx context.Context, sources configv1.SourceServiceClient, b *store.Build) (sha string, err error) {
	if b.GetIntoSha() == "" {
		return "", nil
	}
	noun := fmt.Sprintf("merge of %s into %s at %s", wording.Short(b.GetSha()), b.GetBaseRef(), wording.Short(b.GetIntoSha()))
	merged, err := sources.Merge(ctx, &configv1.MergeRequest{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(), Sha: b.GetSha(), IntoSha: b.GetIntoSha(),
		PullRequest: b.GetPullRequest(), EventTime: b.GetCreateTime(),
	})
	switch {
	case temporary(err) || ctx.Err() != nil:
		return "", unmergedError{fmt.Errorf("%s: %w", noun, err)}
	case err != nil:
		return "", fault.Newf(fault.Invalid, "%s: %w", noun, err)
	case merged.GetConflicts() != "":
		return "", conflictError(noun + ": " + merged.GetConflicts())
	}
	return merged.GetSha(), nil
}

// errOtherSource: what the runner has is no beginning of this source.
var errOtherSource = errors.New("the source was made anew meanwhile")

// streamSource sends what comes after begun, and counts the chunks.
func (s sourcing) streamSource(ctx context.Context, request *configv1.GetSourceRequest, begun *schedulerv1.SourceBegun, send func(*schedulerv1.SourceChunk) error) (sent int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	source, err := s.sources.GetSource(ctx, request)
	if err != nil {
		return 0, err
	}
	skipped := &skipped{begun: begun, sum: sha256.New()}
	offset := begun.GetBytes()
	for {
		part, err := source.Recv()
		if errors.Is(err, io.EOF) && skipped.bytes == begun.GetBytes() {
			return sent, send(&schedulerv1.SourceChunk{Last: true, Offset: offset})
		}
		if errors.Is(err, io.EOF) {
			return sent, errOtherSource
		}
		if err != nil {
			return sent, err
		}
		data, err := skipped.rest(part.GetData())
		if err == nil && len(data) > 0 {
			err = send(&schedulerv1.SourceChunk{Data: data, Offset: offset})
			sent, offset = sent+1, offset+int64(len(data))
		}
		if err != nil {
			return sent, err
		}
	}
}

// skipped is the beginning of a source that the runner has already.
type skipped struct {
	begun *schedulerv1.SourceBegun
	bytes int64
	sum   hash.Hash // of these
}

// rest is what the runner lacks of the next bytes.
func (s *skipped) rest(data []byte) ([]byte, error) {
	has := min(s.begun.GetBytes()-s.bytes, int64(len(data)))
	if has <= 0 {
		return data, nil
	}
	_, _ = s.sum.Write(data[:has])
	if s.bytes += has; s.bytes == s.begun.GetBytes() && !bytes.Equal(s.sum.Sum(nil), s.begun.GetSha256()) {
		return nil, errOtherSource
	}
	return data[has:], nil
}

// retry calls do until it wants no more, at most tries times, and returns its
// last error.
func retry(ctx context.Context, tries int, first, most time.Duration, do func() (again bool, err error)) error {
	for try := 1; ; try++ {
		again, err := do()
		if !again || try == tries || ctx.Err() != nil {
			return err
		}
		pause := time.NewTimer(due.Backoff(try, first, most, rand.Float64))
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

// temporary reports whether a call may succeed another time.
func temporary(err error) bool {
	return fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Internal) || fault.Is(err, fault.Exhausted)
}
