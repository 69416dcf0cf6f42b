package gateway

import (
	"net"
	"net/http"
	"strings"

	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// origins has calls say where they come from, for the audit log. A delivery is GitHub's, and
// says nothing of who has pressed or written.
func (s *Service) origins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/listen" {
			next.ServeHTTP(w, r)
			return
		}
		from := rpc.Origin{Way: "page", Credential: signin.From(r.Context()).Credential, Address: s.addressOf(r), Agent: r.UserAgent()}
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			from.Way = "api"
		}
		inner := r.WithContext(rpc.From(r.Context(), from))
		next.ServeHTTP(w, inner)
		r.Pattern = inner.Pattern // which names the span
	})
}

// addressOf is the address that a request comes from. What its headers say counts where a
// trusted proxy has written them; where that makes no sense, the proxy's own is all that is
// known.
func (s *Service) addressOf(r *http.Request) string {
	if client, err := s.allowlist.client(r.RemoteAddr, r.Header.Values); err == nil {
		return client.String()
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}
