package image

import (
	"bytes"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// assembled is an image of a configuration, byte for byte, and its layers.
type assembled struct {
	config []byte
	layers []v1.Layer
	// annotations are of each layer. Default: none.
	annotations map[string]string
	manifest    []byte
}

// diffID is what the configuration says of a layer; the zero one where it is silent.
func (a *assembled) diffID(i int) v1.Hash {
	config, err := v1.ParseConfigFile(bytes.NewReader(a.config))
	if err != nil || i >= len(config.RootFS.DiffIDs) {
		return v1.Hash{}
	}
	return config.RootFS.DiffIDs[i]
}

// image makes the manifest. Layers have to be what the configuration says.
func (a *assembled) image() (v1.Image, error) {
	hash, size, err := v1.SHA256(bytes.NewReader(a.config))
	if err != nil {
		return nil, err
	}
	manifest := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{},
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: size, Digest: hash},
	}
	for i, layer := range a.layers {
		if diff, err := layer.DiffID(); err != nil || diff != a.diffID(i) {
			return nil, fmt.Errorf("layer %d is %s, not %s as the configuration says: %w", i, diff, a.diffID(i), err)
		}
		desc, err := partial.Descriptor(layer)
		if err != nil {
			return nil, err
		}
		desc.MediaType = types.OCILayer // a base may have Docker's name for the same
		if t, err := layer.MediaType(); err == nil && t != types.DockerLayer {
			desc.MediaType = t
		}
		desc.Annotations = a.annotations
		manifest.Layers = append(manifest.Layers, *desc)
	}
	if a.manifest, err = json.Marshal(manifest); err != nil {
		return nil, err
	}
	image, err := partial.CompressedToImage(a)
	return &layered{image, a}, err
}

// layered has the layers as they are, so that one of another repository of the same
// registry is mounted from there.
type layered struct {
	v1.Image

	of *assembled
}

// Layers are the lowest first.
func (l *layered) Layers() ([]v1.Layer, error) { return l.of.layers, nil }

// RawConfigFile is the configuration.
func (a *assembled) RawConfigFile() ([]byte, error) { return a.config, nil }

// MediaType is the OCI's.
func (a *assembled) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest is what image has made.
func (a *assembled) RawManifest() ([]byte, error) { return a.manifest, nil }

// LayerByDigest finds a layer.
func (a *assembled) LayerByDigest(hash v1.Hash) (partial.CompressedLayer, error) {
	for _, layer := range a.layers {
		if digest, err := layer.Digest(); err == nil && digest == hash {
			return layer, nil
		}
	}
	if own, _, err := v1.SHA256(bytes.NewReader(a.config)); err == nil && own == hash {
		return partial.ConfigLayer(a)
	}
	return nil, fmt.Errorf("no layer %s", hash)
}
