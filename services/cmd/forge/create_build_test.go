package main

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestInputsOfTheCommandLine(t *testing.T) {
	read := func(name string) (string, error) {
		if name == "broken" {
			return "", errors.New("no terminal")
		}
		return "what is read\nof " + name, nil
	}
	for _, c := range []struct {
		given []string
		want  string // the values, or the error
	}{
		{nil, "map[]"},
		{[]string{"version=1.2", "notes=a=b\n$(id)", "empty="}, "map[empty: notes:a=b\n$(id) version:1.2]"},
		{[]string{"token", "version=1"}, "map[token:what is read\nof token version:1]"},
		{[]string{"version=1", "version=2"}, "--input version=2: expected NAME=VALUE, each name once"},
		{[]string{"=1"}, "--input =1: expected NAME=VALUE, each name once"},
		{[]string{"token", "other"}, "--input other: standard input is read for token already: give one of them as NAME=VALUE"},
		{[]string{"broken"}, "value of input broken: no terminal"},
	} {
		all, err := createBuild{Input: c.given}.inputs(read)
		got := fmt.Sprint(all)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.given, got, c.want)
		}
	}
}

func TestWhereABuildIsMade(t *testing.T) {
	for _, c := range []struct {
		where
		want string
	}{
		{where{Repository: "a/b"}, "a/b  "},
		{where{Repo: "a/b", Ref: "main"}, "a/b main "},
		{where{Repo: "a/b", Ref: "refs/heads/main"}, "a/b main "},
		{where{Repo: "a/b", Branch: "next"}, "a/b next "},
		{where{Repo: "a/b", Ref: "refs/tags/v1"}, "a/b  v1"},
		{where{}, ""},
		{where{Repo: "a/b", Repository: "a/b"}, ""},
	} {
		got := ""
		if repository, err := c.repository(); err == nil {
			branch, tag := c.ref()
			got = repository + " " + branch + " " + tag
		}
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.where, got, c.want)
		}
	}
}

func TestInputsAreListed(t *testing.T) {
	for want, manual := range map[string]*schedulerv1.GetManualResponse{
		"nothing can be run by hand: .forge.yml there has no manual\n": {},
		"manual in .forge.yml there takes no inputs\n":                 {Offered: true},
		"INPUT    VARIABLE       VALUE                  DEFAULT  WHAT\nchannel  INPUT_CHANNEL  stable|beta            stable   -\ntoken    INPUT_TOKEN    any, secret, required  -        Of the registry\n": {
			Offered: true, Inputs: []*configv1.Input{
				{Name: "channel", Variable: "INPUT_CHANNEL", Default: "stable", Options: []string{"stable", "beta"}},
				{Name: "token", Variable: "INPUT_TOKEN", Secret: true, Required: true, Description: "Of the registry"},
			},
		},
	} {
		var out bytes.Buffer
		if printInputs(&out, manual); out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

func TestValuesStandOnOneLine(t *testing.T) {
	for want, i := range map[string]*schedulerv1.Input{
		"1.2": {Value: "1.2"}, `"a\nb"`: {Value: "a\nb"}, "long…": {Value: "long", Clipped: true}, "(secret)": {Secret: true},
	} {
		if got := inputValue(i); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestHowLongATokenIsGood(t *testing.T) {
	for text, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "never": 0, "0d": -1, "-1h": -1, "soon": -1, "d": -1, "99999d": -1} {
		var l lifetime
		got := time.Duration(-1)
		if err := l.UnmarshalText([]byte(text)); err == nil {
			got = time.Duration(l)
		}
		if got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
