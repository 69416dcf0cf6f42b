package image

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

// fromEngine is an image as a registry has it. The Docker engine keeps layers as they
// lie on disk; those that a registry has already are taken as they lie there.
func (j *job) fromEngine(ctx context.Context, name string, p part) (v1.Image, error) {
	known := j.known(ctx, p)
	if known.image != nil { // it was pushed before
		return known.image, nil
	}
	saved, err := j.config.Docker.ImageSave(ctx, []string{name})
	if err != nil {
		return nil, fmt.Errorf("image that was built: %w", err)
	}
	defer saved.Close() //nolint:errcheck // it was not written to
	dir, err := os.MkdirTemp(j.dir, "saved-")
	if err != nil {
		return nil, err
	}
	files, err := unpack(saved, dir)
	if err != nil {
		return nil, fmt.Errorf("image that was built: %w", err)
	}
	config, layers, err := files.contents()
	if err != nil {
		return nil, fmt.Errorf("image that was built: %w", err)
	}
	image := &assembled{config: config}
	image.layers = make([]v1.Layer, len(layers))
	var all errgroup.Group
	all.SetLimit(2)
	for i, file := range layers {
		all.Go(func() (err error) {
			if image.layers[i] = known.layers[image.diffID(i)]; image.layers[i] == nil {
				image.layers[i], err = compressed(ctx, file)
			}
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, fmt.Errorf("image that was built: %w", err)
	}
	return image.image()
}

// savedFiles are where the members of a tar lie, by their names. The names are not used
// as paths.
type savedFiles struct {
	files map[string]string
	links map[string]string
}

func unpack(from io.Reader, dir string) (savedFiles, error) {
	out := savedFiles{files: map[string]string{}, links: map[string]string{}}
	r := tar.NewReader(from)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		name := path.Clean(header.Name)
		switch header.Typeflag {
		case tar.TypeReg:
			file := filepath.Join(dir, strconv.Itoa(len(out.files)))
			if err := spool(file, r); err != nil {
				return out, err
			}
			out.files[name] = file
		case tar.TypeSymlink:
			out.links[name] = path.Join(path.Dir(name), header.Linkname) //nolint:gosec // a key of files, no path
		case tar.TypeLink:
			out.links[name] = path.Clean(header.Linkname)
		}
	}
}

func spool(name string, from io.Reader) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	return errors.Join(err, file.Close())
}

func (s savedFiles) at(name string) (string, error) {
	if to, ok := s.links[name]; ok {
		name = to // layers that are the same are one
	}
	file, ok := s.files[name]
	if !ok {
		return "", fmt.Errorf("the Docker engine's archive lacks %s", name)
	}
	return file, nil
}

// contents are the configuration and the files of the layers, the lowest first.
func (s savedFiles) contents() (config []byte, layers []string, err error) {
	file, err := s.at("manifest.json")
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	var images []struct {
		Config string   `json:"Config"`
		Layers []string `json:"Layers"`
	}
	if err := json.Unmarshal(text, &images); err != nil || len(images) != 1 {
		return nil, nil, fmt.Errorf("the Docker engine's archive has %d images: %w", len(images), err)
	}
	if file, err = s.at(images[0].Config); err != nil {
		return nil, nil, err
	}
	if config, err = os.ReadFile(file); err != nil {
		return nil, nil, err
	}
	for _, name := range images[0].Layers {
		if file, err = s.at(name); err != nil {
			return nil, nil, err
		}
		layers = append(layers, file)
	}
	return config, layers, nil
}

// fileLayer is one that lies compressed in a file.
type fileLayer struct {
	file           string
	digest, diffID v1.Hash
	size           int64
}

// compressed makes one of a file, beside which it lies.
func compressed(ctx context.Context, file string) (*fileLayer, error) {
	from, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer from.Close() //nolint:errcheck // it was not written to
	buffered := bufio.NewReaderSize(from, 1<<20)
	layer := &fileLayer{file: file + ".gz"}
	to, err := os.Create(layer.file)
	if err != nil {
		return nil, err
	}
	defer to.Close() //nolint:errcheck // closed below, where it matters
	plain, packed := sha256.New(), sha256.New()
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" { // as newer engines may keep it
		unpacked, err := gzip.NewReader(io.TeeReader(buffered, io.MultiWriter(to, packed)))
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(plain, unpacked); err != nil {
			return nil, err
		}
	} else {
		pack, err := gzip.NewWriterLevel(io.MultiWriter(to, packed), gzip.DefaultCompression)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(io.MultiWriter(pack, plain), contextReader{ctx, buffered})
		if err := errors.Join(err, pack.Close()); err != nil {
			return nil, err
		}
	}
	info, err := to.Stat()
	if err != nil {
		return nil, err
	}
	layer.size = info.Size()
	layer.digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(packed.Sum(nil))}
	layer.diffID = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(plain.Sum(nil))}
	return layer, to.Close()
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // of one copy
	io.Reader
}

// Read asks the context first.
func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// Digest is of the compressed layer.
func (l *fileLayer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID is of the plain one.
func (l *fileLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Compressed opens the layer as a registry has it.
func (l *fileLayer) Compressed() (io.ReadCloser, error) { return os.Open(l.file) }

// Uncompressed opens the plain layer.
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) {
	file, err := os.Open(l.file)
	if err != nil {
		return nil, err
	}
	plain, err := gzip.NewReader(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{plain, file}, nil
}

// Size is of the compressed layer.
func (l *fileLayer) Size() (int64, error) { return l.size, nil }

// MediaType is the OCI's.
func (l *fileLayer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }
