package trigger

import "testing"

func TestSkipWords(t *testing.T) {
	for message, want := range map[string]string{
		"Mend a typo [skip ci]":                                  "[skip ci]",
		"[ci skip] Mend a typo":                                  "[ci skip]",
		"Mend a typo [CI SKIP]":                                  "[CI SKIP]",
		"Mend a typo\n\nNothing to test here: [no ci]":           "[no ci]",
		"Mend a typo [skip actions]":                             "[skip actions]",
		"Mend a typo [actions skip]":                             "[actions skip]",
		"Mend a typo [skip forge]":                               "[skip forge]",
		"Mend a typo\n\nskip-checks: true":                       "skip-checks: true",
		"Mend a typo\n\n\nskip-checks:true\n":                    "skip-checks:true",
		"Mend a typo\r\n\r\nReviewed-by: A\r\nskip-checks: true": "skip-checks: true",

		"Mend a typo":       "",
		"":                  "",
		"skip-checks: true": "", // a subject is no trailer
		"Mend it\n\nskip-checks: true\n\nand then more": "",
		"Mend it\n\nskip-checks: false":                 "",
		"Skip CI for once":                              "",
		"Explain (skip ci)":                             "",
		"[skip cider]":                                  "",
		"[skip  ci]":                                    "",
	} {
		if got := SkipWord(message); got != want {
			t.Errorf("%q asks by %q, want %q", message, got, want)
		}
	}
}
