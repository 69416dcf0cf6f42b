package kittest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"
)

// Want fails the test, which goes on, where got differs from want, and shows where.
// Protocol buffers are compared as such wherever they stand, errors as by errors.Is,
// unexported fields like any other. about says what was asked, in front of the
// difference: a format and what goes into it.
func Want[T any](t testing.TB, got, want T, about ...any) {
	t.Helper()
	if difference := difference(got, want); difference != "" {
		t.Errorf("%s%s", prefix(about), difference)
	}
}

func difference[T any](got, want T) string {
	diff := cmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateErrors(), cmp.Exporter(func(reflect.Type) bool { return true }))
	if diff == "" {
		return ""
	}
	if short := fmt.Sprintf("got %s, want %s", plain(got), plain(want)); isPlain(got) && isPlain(want) && len(short) <= 160 {
		return short
	}
	return "differs (-want +got)\n" + diff
}

// isPlain reports whether the value reads best in one line.
func isPlain(value any) bool {
	if value == nil {
		return true
	}
	if _, isError := value.(error); isError {
		return true
	}
	switch kind := reflect.TypeOf(value).Kind(); kind {
	case reflect.String:
		return !strings.Contains(reflect.ValueOf(value).String(), "\n")
	default:
		return kind >= reflect.Bool && kind <= reflect.Complex128
	}
}

func plain(value any) string {
	if value != nil && reflect.TypeOf(value).Kind() == reflect.String {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprint(value)
}

func prefix(about []any) string {
	if len(about) == 0 {
		return ""
	}
	return fmt.Sprintf(fmt.Sprint(about[0]), about[1:]...) + ": "
}
