package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/client"
)

// ProbeImage makes an image with nothing in it, which runs where any image does and is
// pulled from nowhere. The caller removes it.
func (e *Engine) ProbeImage(ctx context.Context) (name string, remove func(context.Context) error, err error) {
	var root bytes.Buffer
	empty := tar.NewWriter(&root)
	err = errors.Join(empty.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}), empty.Close())
	if err != nil {
		return "", nil, err
	}
	name = "forge-probe/" + strings.ToLower(rand.Text()) + ":1"
	made, err := e.client.ImageImport(ctx, client.ImageImportSource{Source: &root, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: []string{`CMD ["/none"]`}})
	if err != nil {
		return "", nil, fmt.Errorf("make an image: %w", err)
	}
	_, err = io.Copy(io.Discard, made)
	if err := errors.Join(err, made.Close()); err != nil {
		return "", nil, fmt.Errorf("make an image: %w", err)
	}
	return name, func(ctx context.Context) error {
		_, err := e.client.ImageRemove(ctx, name, client.ImageRemoveOptions{})
		return err
	}, nil
}
