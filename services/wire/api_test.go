package wire_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/config"
	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/scheduler"
)

// Each method stands once in docs/api.md, with its JSON binding and who may
// call it, as the code has it.
func TestEveryMethodIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if name, ok := strings.CutPrefix(line, "| `"); ok {
			name, row, _ := strings.Cut(name, "`")
			if rows[name] != "" {
				t.Errorf("%s is documented twice", name)
			}
			rows[name] = strings.TrimSpace(row)
		}
	}
	for _, method := range methods() {
		name := string(method.Parent().FullName()) + "/" + string(method.Name())
		want := strings.Join([]string{"", binding(method), who("/" + name)}, " | ")
		want = strings.ReplaceAll(strings.TrimSpace(want)+" |", "|  |", "| |")
		if got := strings.Replace(rows[name], ", with a valid signature", "", 1); got != want {
			t.Errorf("docs/api.md: row of %s:\n got %s\nwant %s", name, got, want)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("docs/api.md documents %s, which is no method", name)
	}
}

// Strangers reach what is bound to HTTP through a connection that shows the
// gateway's room, so none of it may be open to that room.
func TestNothingOnHTTPIsOpenToTheGatewaysRoom(t *testing.T) {
	for _, method := range methods() {
		name := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
		if binding(method) != "" && slices.Contains(accesses()[name].Rooms, "gateway") {
			t.Errorf("%s is open to the gateway's room and bound to %s", name, binding(method))
		}
	}
}

// What has no binding is not there over HTTP, by whatever path somebody guesses, also for
// the admin: it is neither answered as another method nor panics.
func TestWhatIsNotBoundToHTTPIsNotThere(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	w.awaitServing(t)
	asked := 0
	for _, method := range methods() {
		if binding(method) != "" {
			continue
		}
		asked++
		service, name := string(method.Parent().FullName()), string(method.Name())
		for _, path := range []string{
			"/" + service + "/" + name, "/v1/" + service + "/" + name, "/v1/" + string(method.Parent().Name()) + "/" + name, "/v1/" + service + ":" + name, "/v1/builds/7:" + strings.ToLower(name[:1]) + name[1:],
		} {
			for _, kind := range []string{"application/json", "application/grpc", "application/grpc-web+proto"} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.http+path, strings.NewReader("{}"))
				must(t, err)
				r.Header.Set("Content-Type", kind)
				r.Header.Set("Authorization", "Bearer "+adminToken)
				answer, err := http.DefaultClient.Do(r)
				must(t, err)
				text, err := io.ReadAll(answer.Body)
				must(t, errors.Join(err, answer.Body.Close()))
				nothing := answer.StatusCode == http.StatusNotFound && strings.Contains(string(text), `"message":"there is nothing at `+path+`"`)
				// A build can be asked for by any id, "7:promote" too, and is only read so.
				readOnly := answer.StatusCode == http.StatusMethodNotAllowed && strings.Contains(string(text), `"message":"POST is not possible at `+path+`"`)
				if !nothing && !readOnly {
					t.Errorf("POST %s as %s: %s %s", path, kind, answer.Status, text)
				}
			}
		}
	}
	if asked < 20 {
		t.Errorf("%d methods without a binding were asked for", asked)
	}
	if code, text := holds(t, w, adminToken, http.MethodGet, "/v1/status", ""); code != http.StatusOK {
		t.Errorf("afterwards: %d %s", code, text)
	}
}

// methods are all that Forge serves, of its own: what receivers of events serve has its place in docs/events.md.
func methods() (all []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(file.Package()), "forge.") || file.Package() == "forge.event.v1" {
			return true
		}
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				all = append(all, methods.Get(j))
			}
		}
		return true
	})
	return all
}

func binding(method protoreflect.MethodDescriptor) string {
	rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	switch {
	case rule.GetGet() != "":
		return "`GET " + rule.GetGet() + "`"
	case rule.GetPost() != "":
		return "`POST " + rule.GetPost() + "`"
	case rule.GetPut() != "":
		return "`PUT " + rule.GetPut() + "`"
	case rule.GetDelete() != "":
		return "`DELETE " + rule.GetDelete() + "`"
	default:
		return ""
	}
}

func accesses() map[string]rpc.Access {
	all := map[string]rpc.Access{}
	for _, room := range []map[string]rpc.Access{gateway.Access(), config.Access(), scheduler.Access(), reporter.Access()} {
		maps.Copy(all, room)
	}
	return all
}

func who(method string) string {
	switch may := accesses()[method]; {
	case strings.HasPrefix(method, "/"+schedulerv1.RunnerService_ServiceDesc.ServiceName+"/"):
		return "forgexec"
	case may.Public:
		return "anyone"
	case len(may.Rooms) > 0:
		return "rooms"
	case may.Bound:
		return "admin, bound"
	default:
		return "admin"
	}
}
