package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/forge-ci/forge/services/config"
	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/scheduler"
)

// contract is what a process knows of the services of Forge: of its own and, since it was
// built with them, of those that it calls. A contract only grows, so that a call which
// both know is the same for both.
type contract struct {
	serves map[string]bool // services, by their full names
	knows  []method
}

type method struct {
	service, name string
	http          bool // it is bound to HTTP, so that the gateway calls it for people
}

// roomOf is the room of a service, such as that of forge.config.v1.SourceService; "" for others'.
func roomOf(service string) string {
	parts := strings.Split(service, ".")
	if len(parts) != 4 || parts[0] != "forge" {
		return ""
	}
	return parts[1]
}

// readContract asks a process by reflection, which any version answers.
func readContract(ctx context.Context, conn grpc.ClientConnInterface) (c contract, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return c, err
	}
	ask := func(req *reflectionv1.ServerReflectionRequest) (*reflectionv1.ServerReflectionResponse, error) {
		if err := stream.Send(req); err != nil {
			_, err = stream.Recv() // which says why
			return nil, err
		}
		return stream.Recv()
	}
	listed, err := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	if err != nil {
		return c, err
	}
	c.serves = map[string]bool{}
	all := services()
	for _, s := range listed.GetListServicesResponse().GetService() {
		if roomOf(s.GetName()) != "" {
			c.serves[s.GetName()], all[s.GetName()] = true, true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		answer, err := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name}})
		if err != nil {
			return c, err
		}
		for _, text := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
			var file descriptorpb.FileDescriptorProto
			if err := proto.Unmarshal(text, &file); err != nil {
				return c, fmt.Errorf("contract of %s: %w", name, err)
			}
			c.knows = append(c.knows, methodsOf(&file, name)...)
		}
	}
	if len(c.knows) == 0 {
		return c, errors.New("it is no Forge")
	}
	return c, nil
}

// services are those that this program knows.
func services() map[string]bool {
	all := map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for n := range file.Services().Len() {
			if name := string(file.Services().Get(n).FullName()); roomOf(name) != "" {
				all[name] = true
			}
		}
		return true
	})
	return all
}

func methodsOf(file *descriptorpb.FileDescriptorProto, service string) (all []method) {
	for _, s := range file.GetService() {
		if file.GetPackage()+"."+s.GetName() != service {
			continue
		}
		for _, m := range s.GetMethod() {
			all = append(all, method{service, m.GetName(), proto.HasExtension(m.GetOptions(), annotations.E_Http)})
		}
	}
	return all
}

// rooms are those whose services it serves.
func (c contract) rooms() []string {
	all := map[string]bool{}
	for service := range c.serves {
		all[roomOf(service)] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// lacks are the methods of a room that another calls as this process knows it, and that
// the process of the room does not have.
func (c contract) lacks(caller, callee string, of contract) (missing []string) {
	has := map[method]bool{}
	for _, m := range of.knows {
		if of.serves[m.service] {
			has[method{service: m.service, name: m.name}] = true
		}
	}
	access := map[string]map[string]rpc.Access{"config": config.Access(), "gateway": gateway.Access(), "reporter": reporter.Access(), "scheduler": scheduler.Access()}[callee]
	for _, m := range c.knows {
		if roomOf(m.service) != callee || has[method{service: m.service, name: m.name}] {
			continue
		}
		calls := slices.Contains(access["/"+m.service+"/"+m.name].Rooms, caller) || caller == "gateway" && m.http
		if calls {
			missing = append(missing, m.service[strings.LastIndex(m.service, ".")+1:]+"."+m.name)
		}
	}
	return missing
}
