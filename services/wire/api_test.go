package wire_test

import (
	"maps"
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
