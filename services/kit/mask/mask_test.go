package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
)

const key = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA1c7+9z5Pad7OejecsQ0bu3aozN3tihPmUODGOjgMxdsF\n  indented line\nQ==\n-----END KEY-----\n"

func TestEveryFormOfASecretIsHidden(t *testing.T) {
	awkward := `pa"ss/wo+rd <'ü'>`
	asJSON, err := json.Marshal(awkward)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, secret, text, want string }{
		{"as it is", "hunter2", "the password is hunter2, again: hunter2\n", "the password is ***, again: ***\n"},
		{"nothing else", "hunter2", "hunter, hunte\n", "hunter, hunte\n"},
		{"one after the other", "abcd", "abcdabcd", "******"},
		{"begun twice", "aab!", "aaaab!", "aa***"},
		{"blanks around", " hunter2\n", "<hunter2>", "<***>"},
		{"too short", "abc", "abc", "abc"},
		{"blanks alone", "      ", "a      b", "a      b"},
		{"all lines", key, "x" + key + "y", "x***\ny"},
		{"a line", key, "MIIEowIBAAKCAQEA1c7+9z5Pad7OejecsQ0bu3aozN3tihPmUODGOjgMxdsF!", "***!"},
		{"a line without its indent", key, "[indented line]", "[***]"},
		{"short lines stand everywhere", key, "Q==", "Q=="},
		{"from a terminal", "one\ntwo", "one\r\ntwo\r\n", "***\r\n"},
		{"JSON", awkward, string(asJSON), `"***"`},
		{"JSON by other tools", awkward, `"pa\"ss/wo+rd <'ü'>"`, `"***"`},
		{"a query", awkward, "?p=" + url.QueryEscape(awkward) + "&", "?p=***&"},
		{"a path", awkward, "/" + url.PathEscape(awkward) + "/", "/***/"},
		{"set -x", awkward, `+ login 'pa"ss/wo+rd <'\''ü'\''>'`, `+ login '***'`},
		{"quotes at the ends", `"quoted"`, `{"key":"\"quoted\""}`, `{"key":"***"}`},
		{"binary", "\xff\xfe\x00\x01", "a\xff\xfe\x00\x01b", "a***b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := New([]string{c.secret}).String(c.text); got != c.want {
				t.Errorf("%q becomes %q, want %q", c.text, got, c.want)
			}
		})
	}
}

// Nothing of the secret's encoding is left but what its neighbours share.
func TestBase64IsHiddenWhateverStandsAround(t *testing.T) {
	long := strings.Repeat("a long secret>>???", 30)
	for _, secret := range []string{"abcd", "hunter2", "?>?>?>~~~~", long} {
		m := New([]string{secret})
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			for before := range 60 {
				for after := range 3 {
					text := encoding.EncodeToString([]byte(strings.Repeat("x", before) + secret + strings.Repeat("y", after)))
					for _, printed := range []string{text, wrap(text, 64, "\n"), wrap(text, 76, "\r\n")} {
						got := m.String(printed)
						kept := strings.NewReplacer("\n", "", "\r", "").Replace(got)
						// 2 characters on each side hold bits of a neighbour.
						if most := (before+after)*8/6 + 4 + len(hidden) + 2; strings.Count(got, hidden) != 1 || len(kept) > most {
							t.Fatalf("%q after %d bytes, before %d, as %q: %q", secret, before, after, printed, got)
						}
					}
				}
			}
		}
	}
}

func wrap(text string, width int, end string) string {
	var lines []string
	for width > 0 && len(text) > width {
		lines = append(lines, text[:width])
		text = text[width:]
	}
	return strings.Join(append(lines, text), end)
}

func TestSecretsThatOverlapAreHiddenAsOne(t *testing.T) {
	m := New([]string{"abcdef", "defghi", "hijk", "abcdefghijklmnop"})
	for text, want := range map[string]string{
		"xabcdefghijkx":          "x***x",
		"xabcdefghijklmnopx":     "x***x",
		"xabcdefghijklmnox":      "x***lmnox",
		"abcdefabcdefghijklmnop": "******",
		"abcdabcdef":             "abcd***",
	} {
		if got := m.String(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestOnlyWhatMayBecomeASecretIsHeldBack(t *testing.T) {
	s := New([]string{"hunter2", "red\nblue"}).Stream()
	for _, step := range []struct{ piece, out string }{
		{"password? ", "password? "},
		{"hunt", ""},
		{"ing\n", "hunting\n"},
		{"hunter", ""},
		{"2", "***"},
		{"a line that ends in l\n", "a line that ends in l\n"},
		{"red\n", ""},
		{"green\n", "red\ngreen\n"},
		{"red\nbl", ""},
	} {
		if got := string(s.Write([]byte(step.piece))); got != step.out {
			t.Errorf("after %q come %q, want %q", step.piece, got, step.out)
		}
	}
	if got := string(s.Flush()); got != "red\nbl" {
		t.Errorf("at the end come %q", got)
	}
}

func TestNoSecretsCostNothing(t *testing.T) {
	piece := []byte("as it is")
	for _, m := range []*Masker{nil, New(nil), New([]string{"", "abc"})} {
		s := m.Stream()
		if got := s.Write(piece); &got[0] != &piece[0] || len(s.Flush()) > 0 {
			t.Errorf("%q was copied or held", got)
		}
	}
}

// Whatever pieces a text comes in, what comes out is the same and holds no secret.
func FuzzPieces(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, seed+1)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		random := rand.New(rand.NewPCG(a, b))
		secrets := make([]string, 1+random.IntN(4))
		for i := range secrets {
			secrets[i] = word(random, "ab\n", Shortest+random.IntN(30))
		}
		var text []byte
		for range random.IntN(20) {
			text = append(text, fragment(random, secrets)...)
		}
		m := New(secrets)
		want := m.String(string(text))
		for _, secret := range secrets {
			trimmed := strings.TrimSpace(secret)
			if len(trimmed) >= Shortest && strings.Contains(want, trimmed) {
				t.Errorf("%q is left of %q in %q", trimmed, text, want)
			}
		}
		s := m.Stream()
		var got []byte
		for rest := text; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 1+random.IntN(40)))
			got = append(got, s.Write(bytes.Clone(rest[:n]))...)
			rest = rest[n:]
		}
		if got = append(got, s.Flush()...); string(got) != want {
			t.Errorf("secrets %q in %q\nin pieces %q\nas a whole %q", secrets, text, got, want)
		}
	})
}

// fragment is a secret, a part of one, either in base64, or something else.
func fragment(random *rand.Rand, secrets []string) string {
	secret := secrets[random.IntN(len(secrets))]
	if random.IntN(3) == 0 {
		secret = secret[random.IntN(len(secret)):]
	}
	switch random.IntN(4) {
	case 0:
		return word(random, "ab\n\rYWJ", random.IntN(40))
	case 1:
		text := base64.StdEncoding.EncodeToString([]byte(word(random, "ab", random.IntN(60)) + secret))
		return wrap(text, random.IntN(50), []string{"\n", "\r\n"}[random.IntN(2)])
	default:
		return secret
	}
}

func word(random *rand.Rand, letters string, length int) string {
	text := make([]byte, length)
	for i := range text {
		text[i] = letters[random.IntN(len(letters))]
	}
	return string(text)
}

// What hiding costs per byte: of a log, and of base64, with no, ten and a hundred
// secrets.
func BenchmarkWrite(b *testing.B) {
	const piece, pieces = 64 << 10, 64
	log := bytes.Repeat([]byte("2026-11-25T00:00:00Z INFO request served path=/api/v1/items status=200 took=12ms\n"), piece*pieces/80)
	noise := make([]byte, len(log))
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(noise)
	encoded := []byte(wrap(base64.StdEncoding.EncodeToString(noise), 76, "\n"))
	for _, count := range []int{0, 10, 100} {
		secrets := make([]string, count)
		for i := range secrets {
			secret := make([]byte, 20)
			_, _ = random.Read(secret)
			secrets[i] = base64.RawURLEncoding.EncodeToString(secret)
		}
		for name, text := range map[string][]byte{"log": log, "base64": encoded} {
			b.Run(fmt.Sprintf("%s/%d", name, count), func(b *testing.B) {
				m := New(secrets)
				b.SetBytes(piece * pieces)
				for b.Loop() {
					s := m.Stream()
					for i := range pieces {
						s.Write(text[i*piece : (i+1)*piece])
					}
				}
			})
		}
	}
}
