package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md
const (
	inToto           = types.MediaType("application/vnd.in-toto+json")
	predicateKey     = "in-toto.io/predicate-type"
	referenceType    = "vnd.docker.reference.type"
	referenceDigest  = "vnd.docker.reference.digest"
	attestationType  = "attestation-manifest"
	statementType    = "https://in-toto.io/Statement/v1"
	provenanceType   = "https://slsa.dev/provenance/v1"
	provenanceOfWhat = "https://github.com/forge-ci/forge/image@v1"
)

// pushParts makes an index of images and of a statement for each that says how it was
// built. The Docker engine's BuildKit makes no such statements, so these are Forge's.
func (j *job) pushParts(ctx context.Context, parts []part) (Result, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range parts {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: p.image, Descriptor: v1.Descriptor{Platform: &p.platform}})
	}
	for _, p := range parts {
		digest, err := p.image.Digest()
		if err != nil {
			return Result{}, err
		}
		statement, err := j.statement(p, digest)
		if err != nil {
			return Result{}, err
		}
		attestation, err := attestationOf(statement)
		if err != nil {
			return Result{}, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{referenceType: attestationType, referenceDigest: digest.String()},
		}})
	}
	return j.push(ctx, index)
}

// statement is in-toto's, with a predicate of SLSA's provenance. Names of secrets are
// told, as BuildKit tells them, and never what they are.
func (j *job) statement(p part, digest v1.Hash) ([]byte, error) {
	r := j.request
	type resource struct {
		Name   string            `json:"name,omitempty"`
		URI    string            `json:"uri,omitempty"`
		Digest map[string]string `json:"digest,omitempty"`
	}
	var materials []resource
	if repository := r.Provenance["repository"]; repository != "" {
		materials = append(materials, resource{URI: "git+" + repository, Digest: map[string]string{"gitCommit": r.Provenance["commit"]}})
	}
	for _, image := range slices.Sorted(maps.Keys(p.bases)) {
		materials = append(materials, resource{URI: "docker-image://" + image, Digest: map[string]string{"sha256": strings.TrimPrefix(p.bases[image], "sha256:")}})
	}
	subjects := []resource{}
	for _, tag := range j.tags {
		subjects = append(subjects, resource{Name: tag.Name(), Digest: map[string]string{digest.Algorithm: digest.Hex}})
	}
	return json.Marshal(map[string]any{
		"_type": statementType, "predicateType": provenanceType, "subject": subjects,
		"predicate": map[string]any{
			"buildDefinition": map[string]any{
				"buildType": provenanceOfWhat,
				"externalParameters": map[string]any{
					"repository": r.Provenance["repository"], "commit": r.Provenance["commit"], "dockerfile": r.Dockerfile, "context": r.Context,
					"target": r.Target, "args": r.Args, "secrets": slices.Sorted(maps.Keys(r.Secrets)), "platform": p.platform.String(),
				},
				"resolvedDependencies": materials,
			},
			"runDetails": map[string]any{
				"builder": map[string]any{"id": r.Provenance["build"]},
				"metadata": map[string]any{
					"invocationId": r.Provenance["build"], "startedOn": j.begun.UTC().Format(time.RFC3339), "finishedOn": j.config.Now().UTC().Format(time.RFC3339),
				},
			},
		},
	})
}

// attestationOf is an image that nobody runs, as registries keep only such.
func attestationOf(statement []byte) (v1.Image, error) {
	layer := statementLayer{static.NewLayer(statement, inToto)}
	diff, err := layer.DiffID()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "unknown", "os": "unknown", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{diff.String()}},
	})
	if err != nil {
		return nil, err
	}
	image := &assembled{config: config, layers: []v1.Layer{layer}, annotations: map[string]string{predicateKey: provenanceType}}
	return image.image()
}

// statementLayer is not compressed.
type statementLayer struct{ v1.Layer }

// Uncompressed is the statement.
func (l statementLayer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }

// DiffID is of the statement.
func (l statementLayer) DiffID() (v1.Hash, error) {
	from, err := l.Compressed()
	if err != nil {
		return v1.Hash{}, err
	}
	text, err := io.ReadAll(from)
	if err != nil {
		return v1.Hash{}, err
	}
	hash, _, err := v1.SHA256(bytes.NewReader(text))
	return hash, err
}
