package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestWordsAreCompleted(t *testing.T) {
	root := kong.Must(&commands{}, kong.Vars{"grpc_address": "", "engines": ""}).Model.Node
	known := func(of kind) []candidate {
		return map[kind][]candidate{repositories: {{value: "acme/shop"}, {value: "acme/site"}}, buildIDs: {{value: "b1", help: "acme/shop test #7, failed"}}}[of]
	}
	for line, want := range map[string]string{
		"":                                 "",
		"bui":                              "builds",
		"builds sh":                        "show",
		"builds --sta":                     "--state",
		"builds list --state fa":           "failed",
		"builds --state=fa":                "--state=failed",
		"builds -o ":                       "text json",
		"builds list --repository acme/sh": "acme/shop",
		"builds list --repo acme/sh":       "acme/shop",
		"environments show acme/s":         "acme/shop acme/site",
		"builds --pull 7 --repository=a":   "--repository=acme/shop --repository=acme/site",
		"builds --json show ":              "b1",
		"logs ":                            "b1",
		"logs b1 ":                         "",
		"completion z":                     "zsh",
		"builds show b1 li":                "",
		"nonsense --wrong x ":              "",
		"compl":                            "completion", // what is hidden is not offered
	} {
		var words []string
		if line != "" {
			words = strings.Split(line, " ")
		}
		var got []string
		for _, one := range completed(root, words, known) {
			got = append(got, one.value)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q becomes %q, want %q", line, got, want)
		}
	}
}
