package gateway

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/forge-ci/forge/services/gateway/access"
	"github.com/forge-ci/forge/services/gateway/signin"
)

var pathVariable = regexp.MustCompile(`\{(\w+)(=\*/\*)?\}`)

// Whatever is bound to HTTP is asked for by a stranger, by who may see nothing, and with tokens that are none. That is answered by
// the gateway, before any room hears of it.
func TestEveryMethodOfTheAPIIsGuarded(t *testing.T) {
	w := newSignIns(t, nil)
	stan, csrf := w.signIn("stan")
	asked := 0
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for s := range file.Services().Len() {
			for m := range file.Services().Get(s).Methods().Len() {
				method := file.Services().Get(s).Methods().Get(m)
				name := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
				binding, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
				rule, has := access.Rules()[name]
				if binding == nil || !has || rule.Role == access.Anyone || method.Name() == "ListRepositories" {
					continue // the last is for everybody, who sees of it what they may
				}
				asked++
				verb, path := http.MethodGet, binding.GetGet()
				for other, bound := range map[string]string{http.MethodPost: binding.GetPost(), http.MethodPut: binding.GetPut(), http.MethodDelete: binding.GetDelete()} {
					if bound != "" {
						verb, path = other, bound
					}
				}
				path = pathVariable.ReplaceAllStringFunc(path, func(variable string) string {
					switch {
					case strings.Contains(variable, "="):
						return "acme/shop"
					case variable == "{build_id}":
						return "b1"
					}
					return "7"
				})
				if verb == http.MethodGet && !strings.Contains(path, "acme/shop") && !strings.Contains(path, "b1") {
					path += "?repository=acme/shop&address=acme/shop%237"
				}
				for who, c := range map[string]struct {
					shows func(*http.Request)
					code  int
				}{
					"a stranger":    {nil, http.StatusUnauthorized},
					"a wrong token": {bearer("wrong"), http.StatusUnauthorized},
					"a made-up one": {bearer(signin.TokenPrefix + "x"), http.StatusUnauthorized},
					"stan":          {withCSRF(stan, csrf), http.StatusForbidden},
				} {
					if who == "stan" && rule.Role == access.SignedIn {
						continue
					}
					answer, text := w.as(c.shows, verb, path, nil)
					// CreateBuild names its repository in a body that there is none of.
					nameless := answer.StatusCode == http.StatusBadRequest && strings.Contains(text, "name the repository as owner/name")
					if answer.StatusCode != c.code && !nameless || strings.Contains(text, "admin token is wrong") || strings.Contains(text, "needs the admin token") {
						t.Errorf("%s %s by %s: %s %s", verb, path, who, answer.Status, text)
					}
				}
			}
		}
		return true
	})
	if asked < 40 {
		t.Errorf("%d methods were asked for", asked)
	}
}
