package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/forge-ci/forge/services/kit/fault"
)

// BoundPrefix begins every token that is bound to a repository, so that who finds one
// knows what it is.
const BoundPrefix = "forge_repo_"

// Bound is a token that is bound to a repository, without itself. The zero value is none.
type Bound struct {
	RepositoryID int64
	Repository   string // what it was called when the token was made
	Name         string // the token's
}

// boundToken is a token that a caller shows and that is, or seems to be, bound to a
// repository; "" where none is shown.
func boundToken(md metadata.MD) string {
	for _, value := range md.Get(authorization) {
		scheme, token, _ := strings.Cut(value, " ")
		if strings.EqualFold(scheme, "Bearer") && strings.HasPrefix(token, BoundPrefix) {
			return token
		}
	}
	return ""
}

// admitBound returns whose token it is, or why the call is refused: it opens what is
// meant for such tokens alone.
func (s *Server) admitBound(ctx context.Context, id Identity, access Access, token string) (_ Identity, err error) {
	if !access.Bound || s.cfg.Bound == nil {
		return id, fault.New(fault.Denied, "this token is bound to a repository: it makes builds by hand there and lists them, and opens no other call")
	}
	id.Bound, err = s.cfg.Bound(ctx, token)
	return id, err
}
