package config

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

const (
	maxSource = 2 << 30  // bytes of a tarball
	chunk     = 31 << 10 // bytes; fits gRPC's buffers of 32 KiB, the next larger ones have 1 MiB
)

// GetSource implements configv1.SourceServiceServer.
func (s *Service) GetSource(req *configv1.GetSourceRequest, stream grpc.ServerStreamingServer[configv1.GetSourceResponse]) error {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return err
	}
	if err := checkSHA(req.GetSha()); err != nil {
		return err
	}
	source, err := s.source(stream.Context(), g, req)
	if err != nil {
		return notYet(err, s.recent(req.GetEventTime()))
	}
	defer source.Close() //nolint:errcheck // only read from
	// Wrapped, the source has no WriteTo, which would choose the size of the chunks.
	_, err = io.CopyBuffer(sender{stream}, struct{ io.Reader }{source}, make([]byte, chunk))
	return err
}

// PrepareSource implements configv1.SourceServiceServer.
func (s *Service) PrepareSource(ctx context.Context, req *configv1.PrepareSourceRequest) (*configv1.PrepareSourceResponse, error) {
	of := req.GetSource()
	g, err := grantFor(of.GetRepository(), of.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	if err := checkSHA(of.GetSha()); err != nil {
		return nil, err
	}
	if s.sources == nil || g.repository == 0 { // nothing is kept
		return &configv1.PrepareSourceResponse{}, nil
	}
	name, open, err := s.kindOfSource(g, of)
	if err != nil {
		return nil, err
	}
	if err := s.sources.prepare(ctx, name, open); err != nil {
		return nil, notYet(err, s.recent(of.GetEventTime()))
	}
	return &configv1.PrepareSourceResponse{}, nil
}

// Send has a source written to a stream, in parts.
func Send(stream grpc.ServerStreamingServer[configv1.GetSourceResponse], write func(io.Writer) error) error {
	parts := bufio.NewWriterSize(sender{stream}, chunk)
	return errors.Join(write(inParts{parts}), parts.Flush())
}

// inParts writes no more than a part at once, whatever it is given.
type inParts struct{ *bufio.Writer }

func (w inParts) Write(p []byte) (n int, err error) {
	for part := range slices.Chunk(p, chunk) {
		some, err := w.Writer.Write(part)
		if n += some; err != nil {
			return n, err
		}
	}
	return n, nil
}

type sender struct {
	stream grpc.ServerStreamingServer[configv1.GetSourceResponse]
}

// Write sends a copy, since gRPC keeps what it is given.
func (s sender) Write(p []byte) (int, error) {
	return len(p), s.stream.Send(&configv1.GetSourceResponse{Data: bytes.Clone(p)})
}

// source opens what is asked for, from the cache where it is there.
func (s *Service) source(ctx context.Context, g grant, req *configv1.GetSourceRequest) (io.ReadCloser, error) {
	name, open, err := s.kindOfSource(g, req)
	if err != nil {
		return nil, err
	}
	if s.sources == nil || g.repository == 0 {
		return open(ctx)
	}
	return s.sources.open(ctx, name, open)
}

// kindOfSource is the name that a source is kept by, and how it is made.
func (s *Service) kindOfSource(g grant, req *configv1.GetSourceRequest) (name string, open func(context.Context) (io.ReadCloser, error), err error) {
	commit := g.commit(req.GetSha())
	if req.GetCheckout() == nil {
		return archiveName(commit), func(ctx context.Context) (io.ReadCloser, error) { return s.clients.download(ctx, g, req.GetSha()) }, nil
	}
	want, err := s.checkouts.wanted(g, req)
	if err != nil {
		return "", nil, err
	}
	return checkoutName(commit, want, req.GetFork()), func(ctx context.Context) (io.ReadCloser, error) { return s.checkouts.open(ctx, g, want) }, nil
}

// download opens the tarball at GitHub. Reading it fails with Unavailable where the
// connection breaks.
func (c *clients) download(ctx context.Context, g grant, sha string) (io.ReadCloser, error) {
	noun := fmt.Sprintf("source of %s at %s", g.fullName(), sha)
	client, err := c.client(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, err)
	}
	body, err := kitgithub.Tarball(ctx, client, g.owner, g.name, sha)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, githubFault(err))
	}
	return &bounded{body: body, noun: noun, left: maxSource}, nil
}

// bounded is a download of at most left bytes.
type bounded struct {
	body io.ReadCloser
	noun string
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.left -= int64(n)
	switch {
	case b.left < 0:
		return 0, fault.Newf(fault.Exhausted, "%s is larger than %d MiB", b.noun, maxSource>>20)
	case err != nil && !errors.Is(err, io.EOF):
		return n, fault.Newf(fault.Unavailable, "%s: GitHub broke off: %w", b.noun, err)
	}
	return n, err
}

func (b *bounded) Close() error { return b.body.Close() }
