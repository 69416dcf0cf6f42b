package access

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// itemsOf is the list of an answer whose items name their repository; nil where it has
// none.
func itemsOf(answer protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	for n := range answer.Fields().Len() {
		f := answer.Fields().Get(n)
		if f.IsList() && f.Kind() == protoreflect.MessageKind && f.Message().Fields().ByName("repository") != nil {
			return f
		}
	}
	return nil
}

func textField(m proto.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return fieldOf(m, name, protoreflect.StringKind)
}

func intField(m proto.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return fieldOf(m, name, protoreflect.Int32Kind)
}

func fieldOf(m proto.Message, name protoreflect.Name, kind protoreflect.Kind) protoreflect.FieldDescriptor {
	if f := m.ProtoReflect().Descriptor().Fields().ByName(name); f != nil && f.Kind() == kind && !f.IsList() {
		return f
	}
	return nil
}

func splitName(full string) (owner, name string) {
	owner, name, _ = strings.Cut(full, "/")
	return owner, name
}
