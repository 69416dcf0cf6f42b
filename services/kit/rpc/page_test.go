package rpc

import (
	"encoding/base64"
	"fmt"
	"math"
	"testing"

	"github.com/forge-ci/forge/services/kit/fault"
)

func TestPageSize(t *testing.T) {
	for asked, want := range map[int32]int{0: 50, 1: 1, 50: 50, 500: 500, 501: 500, math.MaxInt32: 500} {
		if got, err := PageSize(asked); got != want || err != nil {
			t.Errorf("asked for %d: %d, %v; want %d", asked, got, err, want)
		}
	}
	_, err := PageSize(-1)
	if want := "page_size is -1: expected 1 to 500, or 0 for 50"; !fault.Is(err, fault.Invalid) || err.Error() != want {
		t.Errorf("asked for -1: %v, want %s", err, want)
	}
}

func TestPageTokenHoldsItsKey(t *testing.T) {
	for _, want := range []struct {
		id   int64
		name string
	}{{1, "a"}, {math.MaxInt64, ""}, {0, "with / space, \"quotes\" \u202e and тест"}} {
		var id int64
		var name string
		token := PageToken(want.id, want.name)
		if err := ParsePageToken(token, &id, &name); err != nil || id != want.id || name != want.name {
			t.Errorf("%v came back as %d, %q, %v", want, id, name, err)
		}
	}
	id := int64(7)
	if err := ParsePageToken("", &id); err != nil || id != 7 {
		t.Errorf("the first page has the key %d, %v", id, err)
	}
}

func TestAPageEndsWithTheTokenOfTheNext(t *testing.T) {
	key := func(last string) []any { return []any{last} }
	for _, c := range []struct {
		found []string
		want  string
		next  string
	}{
		{nil, "[]", ""},
		{[]string{"a", "b"}, "[a b]", ""},
		{[]string{"a", "b", "c"}, "[a b]", PageToken("b")},
	} {
		if page, next := CutPage(c.found, 2, key); fmt.Sprint(page) != c.want || next != c.next {
			t.Errorf("of %v it is %v, then %q", c.found, page, next)
		}
	}
}

func TestForeignPageTokenIsRefused(t *testing.T) {
	encoded := base64.RawURLEncoding.EncodeToString
	for name, token := range map[string]string{
		"no base64":          "x",
		"no JSON":            "nonsense",
		"of another list":    PageToken("name"),
		"with more":          PageToken(1, 2),
		"with less":          encoded([]byte("[]")),
		"null":               encoded([]byte("null")),
		"null within":        encoded([]byte("[null]")),
		"something after it": encoded([]byte("[1] [2]")),
		"a fraction":         encoded([]byte("[1.5]")),
		"out of range":       encoded([]byte("[9223372036854775808]")),
	} {
		id := int64(0)
		if err := ParsePageToken(token, &id); !fault.Is(err, fault.Invalid) || err.Error() != "page_token is not one of ours" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParsePageToken(f *testing.F) {
	f.Add(PageToken(int64(1), "name"))
	f.Add("nonsense")
	f.Fuzz(func(t *testing.T, token string) {
		var id, id2 int64
		var name, name2 string
		if ParsePageToken(token, &id, &name) != nil {
			return
		}
		if err := ParsePageToken(PageToken(id, name), &id2, &name2); err != nil || id != id2 || name != name2 {
			t.Errorf("%q is %d, %q, then %d, %q, %v", token, id, name, id2, name2, err)
		}
	})
}
