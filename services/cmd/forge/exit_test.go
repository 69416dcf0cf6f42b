package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/fault"
)

// The page says which codes there are, and which error has which.
func TestExitCodesAreAsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[int]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| (.+) \|$`).FindAllStringSubmatch(string(page), -1) {
		code, _ := strconv.Atoi(row[1])
		documented[code] = row[2]
	}
	for code, errs := range map[int][]error{
		exitFine: {nil},
		exitFailed: {
			errors.New("disk full"), fault.New(fault.Conflict, "the build has ended already"), fault.New(fault.Unavailable, "GitHub is down"),
			status.Error(codes.FailedPrecondition, "the build has ended already"),
			codedError{exitFailed, errors.New("build b1 failed")},
		},
		exitUsage:       {usagef("name one"), fmt.Errorf("why: %w", fault.New(fault.Invalid, "no address")), status.Error(codes.InvalidArgument, "no address"), &kong.ParseError{}},
		exitRefused:     {fault.New(fault.NotFound, "no build"), status.Error(codes.NotFound, "no build"), status.Error(codes.PermissionDenied, "you may not"), fault.New(fault.Unauthenticated, "who?")},
		exitNobody:      {from("x:1", status.Error(codes.Unavailable, "connection refused"))},
		exitInterrupted: {codedError{exitInterrupted, errInterrupted}},
	} {
		if documented[code] == "" {
			t.Errorf("docs/cli.md has no row for exit code %d", code)
		}
		delete(documented, code)
		for _, err := range errs {
			if got := exitCode(err); got != code {
				t.Errorf("%v: exit code %d, want %d", err, got, code)
			}
		}
	}
	for code := range documented {
		t.Errorf("docs/cli.md tells of exit code %d, which there is not", code)
	}
	if got := complaint(from("x:1", status.Error(codes.NotFound, "no build b1"))); got != "the Forge at x:1 (FORGE_GRPC_ADDRESS): no build b1" {
		t.Errorf("people are told %q", got)
	}
}

// What is wrong with a command line is found before anybody is asked.
func TestAWrongCommandLineIsTold(t *testing.T) {
	wrongURL := createApp{URL: "foo"}
	for name, err := range map[string]error{
		"audit --action foo":   auditLog{Action: "foo"}.Run(),
		"app create --url=foo": wrongURL.run(t.Context(), "", nil, strings.NewReader(""), io.Discard),
	} {
		if got := exitCode(err); got != exitUsage {
			t.Errorf("forge %s: %v, exit code %d, want %d", name, err, got, exitUsage)
		}
	}
}

// A repository is named by --repo or --repository, as one remembers it.
func TestARepositoryIsNamedByEitherWord(t *testing.T) {
	model := kong.Must(&commands{}, kong.Vars{"grpc_address": "", "engines": ""}).Model
	for _, leaf := range model.Leaves(true) {
		for _, flag := range flagsOf(leaf) {
			words := append([]string{flag.Name}, flag.Aliases...)
			if flag.PlaceHolder == "OWNER/NAME" && (!slices.Contains(words, "repo") || !slices.Contains(words, "repository")) {
				t.Errorf("%s takes only --%s", leaf.Path(), strings.Join(words, ", --"))
			}
		}
	}
}

// silent are verbs that list and show nothing of Forge's.
const silent = `up demo run shell mcp completion backup restore, app create, logout login health, secret new, cert self-signed, secrets set, secrets delete, secrets registry set, secrets registry delete, tokens create, tokens delete,
	caches delete, artifacts get`

func TestWhatListsOrShowsSomethingDoesAsJSON(t *testing.T) {
	model := kong.Must(&commands{}, kong.Vars{"grpc_address": "", "engines": ""}).Model
	for _, leaf := range model.Leaves(true) {
		verb := strings.TrimPrefix(leaf.Path(), model.Name+" ")
		has := false
		for _, group := range leaf.AllFlags(false) {
			has = has || slices.ContainsFunc(group, func(f *kong.Flag) bool { return f.Name == "json" })
		}
		if quiet := regexp.MustCompile(`(^|[\s,])` + verb + `($|[\s,])`).MatchString(silent); has == quiet {
			t.Errorf("forge %s takes -o json: %v; named in silent: %v. Embed output, or query, in what lists or shows something, and name what does not", verb, has, quiet)
		}
	}
}

func TestTextsOfOthersDoNotSteerTheTerminal(t *testing.T) {
	for text, want := range map[string]string{
		"plain\tand\nsimple äöü":            "plain\tand\nsimple äöü",
		"a\x1b]0;title\x07b\x1b[2Jc\rd":     "a]0;titleb[2Jcd",
		"\x1b[31mred\x1b[0m \x1b[41mback":   "[31mred[0m [41mback",
		"abc\u202edef\u2066ghi\u200d":       "abcdefghi\u200d",
		"bad \xff utf8 \u009b31m and \x00.": "bad \xff utf8 31m and .",
	} {
		if got := harmless(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	var plain strings.Builder
	var terminal coloured
	for _, out := range []io.Writer{&plain, &terminal} {
		fmt.Fprint(out, "\x1b[32mtitle ", paint(out, red, "x\x1b[1my"))
	}
	if got := harmless(plain.String()) + "|" + terminal.shown(); got != "[32mtitle x[1my|[32mtitle \x1b[31mx[1my\x1b[0m" {
		t.Errorf("painted %q", got)
	}
}
