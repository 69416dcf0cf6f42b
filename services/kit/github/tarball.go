package github

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/google/go-github/v62/github"
)

// Tarball streams the gzipped tar archive of a repository at a commit or ref,
// to be closed by the caller. The link GitHub redirects to is a credential: it
// is followed without the token and appears in no error.
func Tarball(ctx context.Context, client *github.Client, owner, repo, ref string) (io.ReadCloser, error) {
	req, err := client.NewRequest("GET", fmt.Sprintf("repos/%s/%s/tarball/%s", owner, repo, url.PathEscape(ref)), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.BareDo(ctx, req)
	if err == nil {
		return resp.Body, nil
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		e.URL = req.URL.String()
	}
	if e, ok := errors.AsType[*github.ErrorResponse](err); ok {
		e.Response.Request = req
	}
	return nil, err
}
