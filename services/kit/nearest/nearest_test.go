package nearest

import "testing"

func TestNearestName(t *testing.T) {
	known := []string{"image", "steps", "timeout", "step", "on"}
	for _, c := range []struct {
		name string
		most int
		want string
	}{
		{"image", 2, "image"},
		{"imagee", 2, "image"},
		{"imge", 2, "image"},
		{"omage", 2, "image"},
		{"stepp", 2, "steps"}, // as near as step, which stands later
		{"tiemout", 2, "timeout"},
		{"timeoutsecs", 2, ""},
		{"timeoutsecs", 5, "timeout"},
		{"timeoutseconds", 7, ""}, // as many changes as timeout has letters
		{"imgae", 1, ""},
		{"", 2, ""}, // every letter of on would have to be added
		{"xy", 2, ""},
		{"image", 0, "image"},
	} {
		if got := Name(c.name, known, c.most); got != c.want {
			t.Errorf("%q, at most %d changes: %q, want %q", c.name, c.most, got, c.want)
		}
	}
	if got := Name("image", nil, 5); got != "" {
		t.Errorf("of no names: %q", got)
	}
}

func FuzzDistance(f *testing.F) {
	f.Add("kitten", "sitting")
	f.Add("", "abc")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > 100 || len(b) > 100 {
			return
		}
		most := len(a) + len(b) + 1
		there, back := distance(a, b, most), distance(b, a, most)
		longer, shorter := max(len(a), len(b)), min(len(a), len(b))
		if there != back || there > longer || there < longer-shorter || (there == 0) != (a == b) {
			t.Errorf("from %q to %q %d, back %d", a, b, there, back)
		}
		if bounded := distance(a, b, 2); bounded != min(there, 2) {
			t.Errorf("from %q to %q %d, at most 2: %d", a, b, there, bounded)
		}
	})
}
