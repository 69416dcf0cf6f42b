package image

import (
	"path"
	"regexp"
	"strings"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"

	"github.com/forge-ci/forge/services/kit/fault"
)

var (
	// passedOn is what BuildKit and gRPC put before a text each time it is passed on.
	passedOn = regexp.MustCompile(`rpc error: code = \w+ desc = |failed to solve: `)
	// mounted is where BuildKit has the files of a build, on its machine.
	mounted = regexp.MustCompile(`/\S*buildkit-mount\d+(/|\b)`)
)

// told sorts out whose an error of BuildKit is, and says it for people.
func told(err error, dockerfile string) error {
	text := mounted.ReplaceAllString(passedOn.ReplaceAllString(err.Error(), ""), "$1")
	if missing := path.Base(dockerfile) + ": no such file or directory"; strings.HasSuffix(text, "open "+missing) || strings.HasSuffix(text, "open /"+missing) {
		text = "there is no Dockerfile at " + dockerfile
	}
	switch code := grpcerrors.Code(err); code {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return fault.New(fault.Unavailable, "BuildKit does not go on: "+text)
	default:
		return fault.New(fault.Invalid, "the image is not built: "+text)
	}
}
