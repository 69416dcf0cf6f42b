package services_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/gateway/access"
)

// decidesItself are methods that the gateway answers without that table: GitHub's
// signature is the key to the one, and the others are how people sign in.
func decidesItself(method string) bool {
	return method == "/forge.gateway.v1.WebhookService/Listen" || strings.HasPrefix(method, "/forge.gateway.v1.SignInService/")
}

// Whoever adds a method to the JSON API says who may call it. Without a rule it would be
// the operators' alone.
func TestEveryMethodOfTheAPIHasARule(t *testing.T) {
	rules, bound := access.Rules(), map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for n := range file.Services().Len() {
			service := file.Services().Get(n)
			for m := range service.Methods().Len() {
				method := service.Methods().Get(m)
				name := fmt.Sprintf("/%s/%s", service.FullName(), method.Name())
				if !strings.HasPrefix(name, "/forge.") || !proto.HasExtension(method.Options(), annotations.E_Http) {
					continue
				}
				bound[name] = true
				if _, has := rules[name]; !has && !decidesItself(name) {
					t.Errorf("%s has an HTTP binding and no row in services/gateway/access/rules.go: say who may call it", name)
				}
			}
		}
		return true
	})
	if len(bound) < 30 {
		t.Fatalf("found %d methods only", len(bound))
	}
	// What a page calls for who looks, and has no binding.
	bound["/forge.scheduler.v1.ArtifactService/DownloadArtifact"] = true
	for name := range rules {
		if !bound[name] {
			t.Errorf("services/gateway/access/rules.go has a row for %s, which the API does not have", name)
		}
	}
}
