package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler"
)

// versions is what forge version --rooms prints.
type versions struct {
	Version   string `json:"version"`
	Processes []struct {
		Rooms   []string       `json:"rooms"`
		Address string         `json:"address"`
		Version string         `json:"version"`
		Error   string         `json:"error"`
		Schemas []sqldb.Schema `json:"schemas"`
	} `json:"processes"`
	Misfits []struct {
		Text string `json:"text"`
		Fix  string `json:"fix"`
	} `json:"misfits"`
	exit         int
	text, stderr string
}

// versionsOf runs it, once for programs and once for people.
func versionsOf(t *testing.T, w *world) (v versions) {
	t.Helper()
	var env []string
	for _, p := range w.processes {
		env = p.env
	}
	env = append(slices.Clone(env), "FORGE_GRPC_ADDRESS="+w.grpc)
	if p := w.process("gateway"); p != nil {
		for _, arg := range p.args {
			if name, value, _ := strings.Cut(arg, "="); strings.HasPrefix(name, "--tls-") {
				env = append(env, "FORGE_"+strings.ToUpper(strings.ReplaceAll(name[2:], "-", "_"))+"="+value)
			}
		}
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "forge"), append([]string{"version", "--rooms"}, args...)...)
		cmd.Dir, cmd.Env = w.dir, env
		out, err := cmd.Output()
		v.exit, v.stderr = 0, ""
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			v.exit, v.stderr = exit.ExitCode(), string(exit.Stderr)
		} else if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	v.text = run()
	if err := json.Unmarshal([]byte(run("--json")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// rooms are those that answer, with how often.
func (v versions) rooms() map[string]int {
	all := map[string]int{}
	for _, p := range v.Processes {
		for _, room := range p.Rooms {
			if p.Error == "" && p.Version == "dev" {
				all[room]++
			}
		}
	}
	return all
}

func each(n int) map[string]int {
	return map[string]int{"config": n, "gateway": n, "reporter": n, "scheduler": n}
}

func TestVersionTellsOfAllServices(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true}, {apart: true, certificates: true}} {
		t.Run(d.String(), func(t *testing.T) {
			w := newWorld(t, hello())
			w.deploy(t, d)
			kittest.Eventually(t, patience, func() error {
				if v := versionsOf(t, w); v.exit != 0 || !maps.Equal(v.rooms(), each(1)) || len(v.Misfits) > 0 {
					return fmt.Errorf("exit code %d: %s%s", v.exit, v.text, v.stderr)
				}
				return nil
			})
			v := versionsOf(t, w)
			known := int64(0)
			for _, p := range v.Processes {
				for _, s := range p.Schemas {
					if s.Known == 0 || s.Known != s.Current || s.Oldest > s.Known {
						t.Errorf("the schema is told as %+v", s)
					}
					known++
				}
			}
			if known != 3 || !strings.HasPrefix(v.text, "dev\nSERVICES") || strings.Contains(v.text, adminToken) {
				t.Errorf("it tells of %d schemas, and says\n%s", known, v.text)
			}
			if !d.apart {
				if len(v.Processes) != 1 {
					t.Errorf("one process is told as %+v", v.Processes)
				}
				w.process("forge").kill()
				if v := versionsOf(t, w); v.exit != 4 || len(v.rooms()) != 0 {
					t.Errorf("it is away: exit code %d, %s", v.exit, v.text)
				}
				return
			}
			w.process("reporter").kill()
			v = versionsOf(t, w)
			want := each(1)
			delete(want, "reporter")
			if v.exit != 4 || !maps.Equal(v.rooms(), want) || !strings.Contains(v.stderr, "reporter at "+w.apart["reporter"]+" does not answer") {
				t.Errorf("one is away: exit code %d\n%s%s", v.exit, v.text, v.stderr)
			}
		})
	}
}

// Each replica of each service is asked, by the name that they share.
func TestVersionAsksEachReplica(t *testing.T) {
	kittest.Require(t, "postgres")
	w := newWorld(t, hello())
	w.deploy(t, deployment{apart: true, postgres: true, replicas: 2})
	kittest.Eventually(t, patience, func() error {
		if v := versionsOf(t, w); v.exit != 0 || !maps.Equal(v.rooms(), each(2)) {
			return fmt.Errorf("exit code %d: %s%s", v.exit, v.text, v.stderr)
		}
		return nil
	})
}

// olderConfig serves as a config would that does not know a method, and says nothing of
// itself.
func olderConfig(t *testing.T, address string) {
	t.Helper()
	lis, err := net.Listen("tcp", address)
	must(t, err)
	source, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(configv1.SourceService_ServiceDesc.ServiceName))
	must(t, err)
	file := protodesc.ToFileDescriptorProto(source.ParentFile())
	for _, s := range file.GetService() {
		s.Method = slices.DeleteFunc(s.GetMethod(), func(m *descriptorpb.MethodDescriptorProto) bool { return m.GetName() == "Merge" })
	}
	older, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	must(t, err)
	files := olderFiles{older}
	server := grpc.NewServer()
	configv1.RegisterSourceServiceServer(server, configv1.UnimplementedSourceServiceServer{})
	configv1.RegisterBuildConfigServiceServer(server, configv1.UnimplementedBuildConfigServiceServer{})
	healthv1.RegisterHealthServer(server, health.NewServer())
	reflectionv1.RegisterServerReflectionServer(server, reflection.NewServerV1(reflection.ServerOptions{Services: server, DescriptorResolver: files}))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(lis) }()
	t.Cleanup(func() { server.Stop(); <-done })
}

// olderFiles are all files, of which one is older.
type olderFiles struct{ older protoreflect.FileDescriptor }

func (o olderFiles) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if path == o.older.Path() {
		return o.older, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (o olderFiles) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if s := o.older.Services().ByName(name.Name()); s != nil && s.FullName() == name {
		return s, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

func TestVersionTellsOfAServiceThatIsTooOld(t *testing.T) {
	w := newWorld(t, hello())
	w.deploy(t, deployment{apart: true})
	w.process("config").kill()
	olderConfig(t, w.apart["config"])
	v := versionsOf(t, w)
	if v.exit != 1 || !strings.Contains(v.stderr, "do not fit together") {
		t.Errorf("exit code %d: %s", v.exit, v.stderr)
	}
	var merge, whole bool
	for _, m := range v.Misfits {
		if !strings.Contains(m.Text, "config of a version that does not say so at "+w.apart["config"]) || m.Fix == "" {
			t.Errorf("%+v", m)
		}
		of := strings.HasPrefix(m.Text, "scheduler dev at "+w.apart["scheduler"]+" calls what ")
		merge = merge || of && strings.Contains(m.Text, "SourceService.Merge")
		whole = whole || of && strings.Contains(m.Text, "CommitService.FindCommit")
		if strings.Contains(m.Text, "SourceService.GetSource") {
			t.Errorf("what it has counts as missing: %s", m.Text)
		}
	}
	if !merge || !whole {
		t.Errorf("the scheduler calls more of config: %+v", v.Misfits)
	}
	if !strings.Contains(v.text, "does not fit: scheduler dev") {
		t.Errorf("people are told\n%s", v.text)
	}
	p := &patient{world: w, base: append(w.process("gateway").env, "FORGE_GRPC_ADDRESS="+w.grpc)}
	d := p.examine(t, nil, "--apart")
	if !slices.ContainsFunc(d.complaints(), func(c string) bool { return strings.HasPrefix(c, "broken versions: scheduler dev") }) {
		t.Errorf("the doctor finds %q", d.complaints())
	}
}

// A newer version has migrated the database in a way that no older one may run on, and one
// still runs.
func TestVersionTellsOfASchemaThatIsTooNew(t *testing.T) {
	kittest.Require(t, "postgres")
	w := newWorld(t, hello())
	w.deploy(t, deployment{apart: true, postgres: true})
	kittest.Eventually(t, patience, func() error {
		if v := versionsOf(t, w); v.exit != 0 {
			return fmt.Errorf("exit code %d: %s%s", v.exit, v.text, v.stderr)
		}
		return nil
	})
	next := fstest.MapFS{"99999_next.sql": {Data: []byte("-- +goose Up\nCREATE TABLE of_the_next_version (id BIGINT PRIMARY KEY);\n")}}
	names, err := fs.Glob(scheduler.Migrations(), "*.sql")
	must(t, err)
	for _, name := range names {
		text, err := fs.ReadFile(scheduler.Migrations(), name)
		must(t, err)
		next[name] = &fstest.MapFile{Data: text}
	}
	url := ""
	for _, variable := range w.env {
		if value, found := strings.CutPrefix(variable, "FORGE_DATABASE_URL="); found {
			url = value
		}
	}
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, Room: "scheduler", Migrations: next})
	must(t, err)
	must(t, db.Close())
	v := versionsOf(t, w)
	want := "and the database is at 99999, which is for those that know 99999"
	if v.exit != 1 || len(v.Misfits) != 1 || !strings.HasPrefix(v.Misfits[0].Text, "scheduler dev at "+w.apart["scheduler"]) || !strings.HasSuffix(v.Misfits[0].Text, want) {
		t.Errorf("exit code %d, %+v", v.exit, v.Misfits)
	}
}
