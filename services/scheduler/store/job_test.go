package store

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// What a file says for all jobs holds for a build without jobs.
func TestBuildWithoutJobsIsAsTheFileSays(t *testing.T) {
	config := &configv1.BuildConfig{Execute: &configv1.Pipeline{Commands: []*configv1.Command{{Run: "make"}}}}
	file := config.ProtoReflect()
	fields := (&configv1.Job{}).ProtoReflect().Descriptor().Fields()
	var shared []protoreflect.Name
	for i := range fields.Len() {
		name := fields.Get(i).Name()
		if field := file.Descriptor().Fields().ByName(name); field != nil {
			shared = append(shared, name)
			give(file, field)
		}
	}
	if len(shared) < 15 {
		t.Fatalf("a file and a job share %v", shared)
	}
	job := (&Build{Build: &schedulerv1.Build{Action: schedulerv1.Build_ACTION_TEST}, Config: config}).ConfigJob()
	for _, name := range shared {
		got, want := job.ProtoReflect().Get(fields.ByName(name)), file.Get(file.Descriptor().Fields().ByName(name))
		if !got.Equal(want) {
			t.Errorf("the build has %s %v, the file %v", name, got, want)
		}
	}
	if len(job.GetCommands()) != 1 {
		t.Errorf("commands %v", job.GetCommands())
	}
}

// give sets a field to something.
func give(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	switch {
	case field.IsMap() && field.MapValue().Message() != nil:
		m.Mutable(field).Map().Mutable(protoreflect.ValueOfString("a").MapKey())
	case field.IsMap():
		m.Mutable(field).Map().Set(protoreflect.ValueOfString("a").MapKey(), protoreflect.ValueOfString("b"))
	case field.IsList() && field.Message() != nil:
		m.Mutable(field).List().AppendMutable()
	case field.IsList():
		m.Mutable(field).List().Append(protoreflect.ValueOfString("a"))
	case field.Message() != nil:
		m.Mutable(field)
	case field.Kind() == protoreflect.StringKind:
		m.Set(field, protoreflect.ValueOfString("a"))
	case field.Kind() == protoreflect.BoolKind:
		m.Set(field, protoreflect.ValueOfBool(true))
	case field.Kind() == protoreflect.EnumKind:
		m.Set(field, protoreflect.ValueOfEnum(1))
	}
}
