package image

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/fault"
)

func TestWhatBuildKitSaysIsToldInPlainWords(t *testing.T) {
	for says, want := range map[string]string{
		"failed to solve: rpc error: code = Unknown desc = rpc error: code = InvalidArgument desc = files of the workspace: there is no folder nope": "files of the workspace: there is no folder nope",

		"failed to solve: failed to read dockerfile: open /var/lib/docker/tmp/buildkit-mount3141592/Missing.docker: no such file or directory": "there is no Dockerfile at ci/Missing.docker",
		"failed to read dockerfile: open Missing.docker: no such file or directory":                                                            "there is no Dockerfile at ci/Missing.docker",

		"failed to solve: lstat /var/lib/buildkit/tmp/buildkit-mount27/app: not a directory":      "lstat /app: not a directory",
		`failed to solve: process "/bin/sh -c false" did not complete successfully: exit code: 1`: `process "/bin/sh -c false" did not complete successfully: exit code: 1`,
	} {
		if err := told(status.Error(codes.Unknown, says), "ci/Missing.docker"); err.Error() != "the image is not built: "+want || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is told as %q", says, err)
		}
	}
	if err := told(status.Error(codes.Unavailable, "closing"), "Dockerfile"); err.Error() != "BuildKit does not go on: closing" || !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}
