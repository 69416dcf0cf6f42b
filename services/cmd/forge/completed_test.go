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
		"builds --output=j":                "--output=json",
		"builds --state failed,t":          "failed,timed_out",
		"builds --state=failed,pa":         "--state=failed,passed",
		"builds --state failed,f":          "", // each is said once
		"run --event pu":                   "pull_request push",
		"run --input a=1,":                 "",
		"deliveries --event pull_":         "pull_request",
		"audit --action roll":              "roll_back",
		"secrets set X --for ":             "pull-requests pushes tags deploys",
		"secrets set X --for=pushes,":      "--for=pushes,pull-requests --for=pushes,tags --for=pushes,deploys",
		"secrets registry set X --for tag": "tags",
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
