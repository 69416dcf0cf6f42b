package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	bkclient "github.com/moby/buildkit/client"
)

// runDaemon builds with a BuildKit of its own, which knows all platforms at once and
// makes the attestations.
func (j *job) runDaemon(ctx context.Context, bk *bkclient.Client) (Result, error) {
	attrs := map[string]string{}
	dir := filepath.Join(j.dir, "image")
	exported := make(chan error, 1)
	var export bkclient.ExportEntry
	if j.request.Push {
		attrs["attest:provenance"] = "mode=max,builder-id=" + j.request.Provenance["build"]
		if j.config.Scanner != "" {
			attrs["attest:sbom"] = "generator=" + j.config.Scanner
		}
		export = bkclient.ExportEntry{Type: bkclient.ExporterOCI, Output: func(map[string]string) (io.WriteCloser, error) {
			r, w := io.Pipe()
			go func() {
				err := unpackLayout(r, dir)
				exported <- errors.Join(err, r.CloseWithError(err))
			}()
			return w, nil
		}}
	}
	var platforms []string
	if len(j.request.Platforms) > 0 {
		platforms = j.platforms()
	}
	if _, err := j.solve(ctx, bk, platforms, export, attrs); err != nil {
		return Result{}, err
	}
	if !j.request.Push {
		return Result{}, nil
	}
	select {
	case err := <-exported:
		if err != nil {
			return Result{}, fmt.Errorf("image that was built: %w", err)
		}
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	what, err := only(dir)
	if err != nil {
		return Result{}, fmt.Errorf("image that was built: %w", err)
	}
	return j.push(ctx, what)
}

// only is the one image, or index, of an OCI layout.
func only(dir string) (artefact, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("BuildKit's archive has %d images", len(manifest.Manifests))
	}
	if one := manifest.Manifests[0]; one.MediaType.IsIndex() {
		return index.ImageIndex(one.Digest)
	}
	return index.Image(manifest.Manifests[0].Digest)
}

// unpackLayout takes of an OCI layout what belongs to one.
func unpackLayout(from io.Reader, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return err
	}
	member := regexp.MustCompile(`^(?:oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})$`)
	r := tar.NewReader(from)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, from) // what a tar ends with, so that the sender may end
			return err
		}
		if err != nil {
			return err
		}
		if name := path.Clean(header.Name); header.Typeflag == tar.TypeReg && member.MatchString(name) {
			if err := spool(filepath.Join(dir, name), r); err != nil {
				return err
			}
		}
	}
}
