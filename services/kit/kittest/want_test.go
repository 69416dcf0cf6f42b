package kittest_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/forge-ci/forge/services/kit/kittest"
)

type wanted struct {
	Name   string
	hidden int
	Proto  *wrapperspb.StringValue
}

func TestWantIsContentWithWhatIsEqual(t *testing.T) {
	for name, test := range map[string]func(t testing.TB){
		"numbers":  func(t testing.TB) { kittest.Want(t, 1+1, 2) },
		"strings":  func(t testing.TB) { kittest.Want(t, "a", "a", "the name of %d", 5) },
		"nothing":  func(t testing.TB) { kittest.Want[error](t, nil, nil) },
		"errors":   func(t testing.TB) { kittest.Want[error](t, fmt.Errorf("read: %w", io.EOF), io.EOF) },
		"messages": func(t testing.TB) { kittest.Want(t, durationpb.New(time.Second), durationpb.New(time.Second)) },
		"moments": func(t testing.TB) {
			kittest.Want(t, time.Unix(3, 0).In(time.FixedZone("", 3600)), time.Unix(3, 0).UTC())
		},
		"fields": func(t testing.TB) {
			kittest.Want(t, []wanted{{"a", 1, wrapperspb.String("b")}}, []wanted{{"a", 1, wrapperspb.String("b")}})
		},
	} {
		if said := run(test); said != "" {
			t.Errorf("%s: %s", name, said)
		}
	}
}

func TestWantShowsTheDifference(t *testing.T) {
	for name, c := range map[string]struct {
		test func(t testing.TB)
		want []string // each is in what the test said
	}{
		"numbers": {func(t testing.TB) { kittest.Want(t, 1, 2) }, []string{"error: got 1, want 2"}},
		"strings": {func(t testing.TB) { kittest.Want(t, "", "a", "the name of %d", 5) }, []string{`error: the name of 5: got "", want "a"`}},
		"errors":  {func(t testing.TB) { kittest.Want(t, nil, io.EOF) }, []string{"error: got <nil>, want EOF"}},
		"errors of one text": {
			func(t testing.TB) { kittest.Want(t, errors.New("EOF"), io.EOF) },
			[]string{"error: got EOF, want EOF"},
		},
		"long texts": {
			func(t testing.TB) { kittest.Want(t, "one\ntwo\nthree", "one\n2\nthree") },
			[]string{"error: differs (-want +got)\n", "2", "two"},
		},
		"messages": {
			func(t testing.TB) { kittest.Want(t, wrapperspb.String("a"), wrapperspb.String("b"), "the message") },
			[]string{"error: the message: differs (-want +got)\n", `"a"`, `"b"`},
		},
		"hidden fields": {
			func(t testing.TB) { kittest.Want(t, wanted{hidden: 1}, wanted{hidden: 2}) },
			[]string{"hidden:", "1", "2"},
		},
		"a percent sign": {func(t testing.TB) { kittest.Want(t, "100%d", "%s") }, []string{`got "100%d", want "%s"`}},
		"nothing and an empty list": {
			func(t testing.TB) { kittest.Want(t, nil, []string{}) },
			[]string{"differs"},
		},
	} {
		said := run(c.test)
		for _, part := range c.want {
			if !strings.Contains(said, part) {
				t.Errorf("%s: no %q in %s", name, part, said)
			}
		}
	}
}
