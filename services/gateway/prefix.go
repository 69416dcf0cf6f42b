package gateway

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// prefix is the path of the address by which people reach Forge: "" where it is the root, else "/ci" for instance. Links of
// pages begin with it.
type prefix struct{ path string }

func newPrefix(externalURL string) (prefix, error) {
	address, err := url.Parse(externalURL)
	if err != nil {
		return prefix{}, err
	}
	return prefix{strings.TrimSuffix(path.Clean("/"+address.Path), "/")}, nil
}

// link is the prefix as it stands before a path in a link.
func (p prefix) link() string { return (&url.URL{Path: p.path}).EscapedPath() }

// strip takes the prefix from paths where a proxy in front has left it. One that has taken it already may pass on a path
// that begins alike, as /builds does for the prefix /builds: a path is stripped only where mux has something there.
// next gets the request.
func (p prefix) strip(mux *http.ServeMux, next http.Handler) http.Handler {
	if p.path == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner := r
		if rest, has := strings.CutPrefix(r.URL.Path, p.path); has && (rest == "" || rest[0] == '/') {
			stripped := r.Clone(r.Context())
			stripped.URL.Path = "/" + strings.TrimPrefix(rest, "/")
			stripped.URL.RawPath = stripRaw(r.URL.RawPath, p.link())
			if _, pattern := mux.Handler(stripped); pattern != "/" {
				inner = stripped
			}
		}
		next.ServeHTTP(w, inner)
		r.Pattern = inner.Pattern // which names the span
	})
}

// stripRaw is the escaped form of a path without the prefix; "", which has net/http escape the path itself, where it does
// not begin with that.
func stripRaw(raw, link string) string {
	rest, has := strings.CutPrefix(raw, link+"/")
	if !has {
		return ""
	}
	return "/" + rest
}
