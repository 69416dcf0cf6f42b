package kittest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// Docker is a client of the Docker engine that DOCKER_HOST names, or of the one at
// host. It needs Require(t, "docker") before, where host is "".
func Docker(t testing.TB, host string) *client.Client {
	t.Helper()
	options := []client.Opt{client.FromEnv}
	if host != "" {
		options = append(options, client.WithHost(host))
	}
	api, err := client.New(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	return api
}

// Image makes an image of busybox under a name of its own, with changes as in a
// Dockerfile. RemoveImage removes it, when its containers are gone.
func Image(t testing.TB, api *client.Client, changes ...string) (name string) {
	t.Helper()
	return ImageOf(t, api, Busybox(t, ""), append([]string{"ENV PATH=/bin", `CMD ["/bin/sh"]`}, changes...)...)
}

// ImageOf makes an image of its root, a tar, as Image does.
func ImageOf(t testing.TB, api *client.Client, root []byte, changes ...string) (name string) {
	t.Helper()
	name = "forge-test/" + strings.ToLower(rand.Text()) + ":1"
	result, err := api.ImageImport(t.Context(), client.ImageImportSource{Source: bytes.NewReader(root), SourceName: "-"}, name,
		client.ImageImportOptions{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, result)
	if err := errors.Join(err, result.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

// RemoveImage removes an image, unless it is not there.
func RemoveImage(ctx context.Context, t testing.TB, api *client.Client, name string) {
	t.Helper()
	if _, err := api.ImageRemove(ctx, name, client.ImageRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// Busybox returns the root of an image: the static busybox of this host, all its
// commands, and a user. Roots with other marks are other layers to an engine.
func Busybox(t testing.TB, mark string) []byte {
	t.Helper()
	binary, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("these tests make their image of busybox: install busybox-static")
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	commands, err := exec.CommandContext(t.Context(), binary, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	add := func(header tar.Header, content []byte) {
		header.Size = int64(len(content))
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	for command := range strings.FieldsSeq(string(commands)) {
		if command != "busybox" {
			add(tar.Header{Name: "bin/" + command, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
		}
	}
	// busybox's shell knows what bash is asked for here.
	add(tar.Header{Name: "bin/bash", Mode: 0o755}, []byte("#!/bin/sh\nexec /bin/sh \"$@\"\n"))
	add(tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/:/bin/sh\nbuilder:x:1000:1000::/:/bin/sh\n"))
	add(tar.Header{Name: "etc/mark", Mode: 0o644}, []byte(mark))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return root.Bytes()
}
