package trigger

import (
	"fmt"
	"strings"
	"testing"
)

func TestCommandsAreReadAsGitHubShowsTheComment(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"alone":                         {"/forge retest", "retest"},
		"with an argument":              {"/forge approve 3F2A91C0FFEE", "approve 3f2a91c0ffee"},
		"among text":                    {"Thank you.\n\n/forge retest\n\nSee you", "retest"},
		"in a paragraph":                {"Looks good,\n/forge retest\nplease", "retest"},
		"with spaces behind":            {"/forge retest  \t", "retest"},
		"as a browser sends it":         {"Again:\r\n/forge retest\r\n/forge cancel\r\n", "retest, cancel"},
		"two":                           {"/forge cancel\n/forge retest", "cancel, retest"},
		"two paragraphs":                {"/forge cancel\n\n/forge retest", "cancel, retest"},
		"above a signature":             {"/forge retest\n---\nSent from a telephone", "retest"},
		"three spaces":                  {"   /forge retest", "retest"},
		"no command named":              {"/forge", ""},
		"in a sentence":                 {"I said /forge retest", "none"},
		"with more words":               {"/forge retest this one please", "none"},
		"another word":                  {"/forgery retest", "none"},
		"fenced":                        {"Say\n```\n/forge retest\n```\nfor that", "none"},
		"fenced with tildes":            {"~~~ sh\n/forge approve 3f2a91c0ffee\n~~~", "none"},
		"in a fence that does not end":  {"```\n/forge retest", "none"},
		"indented":                      {"Say\n\n    /forge retest", "none"},
		"after a tab":                   {"Say\n\n\t/forge retest", "none"},
		"quoted":                        {"> /forge retest", "none"},
		"quoted twice":                  {"> > /forge retest", "none"},
		"a quote that goes on":          {"> They said\n/forge retest", "none"},
		"below a quote":                 {"> They said\n\n/forge retest", "retest"},
		"in a comment":                  {"<!--\n/forge retest\n-->", "none"},
		"in a comment within text":      {"Hello <!--\n/forge retest\n--> there", "none"},
		"in a comment that spans more":  {"<!-- see\n\n/forge cancel\n\n-->\n/forge retest", "retest"},
		"in details":                    {"<details>\n/forge retest\n</details>", "none"},
		"in code within text":           {"Say `\n/forge retest\n` there", "none"},
		"in a list":                     {"- /forge retest", "none"},
		"in a heading":                  {"# /forge retest", "none"},
		"in a link's title":             {"[x](y \"\n/forge retest\n\")", "none"},
		"behind a code span of another": {"Run `make`\n/forge retest", "retest"},
		"nothing":                       {"", "none"},
	} {
		found, more := Commands(c.body)
		var names []string
		for _, command := range found {
			names = append(names, strings.TrimSpace(command.Name+" "+command.Argument))
		}
		got := strings.Join(names, ", ")
		if found == nil {
			got = "none"
		}
		if got != c.want || more {
			t.Errorf("%s: %q holds %q (more: %v), want %q", name, c.body, got, more, c.want)
		}
	}
}

func TestOneCommentAsksForFewThings(t *testing.T) {
	found, more := Commands(strings.Repeat("/forge retest\n\n", MostCommands))
	if len(found) != MostCommands || more {
		t.Errorf("%d commands, more: %v", len(found), more)
	}
	found, more = Commands(strings.Repeat("/forge retest\n\n", MostCommands+1))
	if len(found) != MostCommands || !more {
		t.Errorf("%d commands, more: %v", len(found), more)
	}
}

// Whatever somebody writes, each command that is read stands on a line of its own.
func FuzzCommands(f *testing.F) {
	for _, body := range []string{"/forge retest", "> /forge retest", "```\n/forge x\n```", "<!--\n/forge\n-->", "`\n/forge a b\n`", "a\n===\n/forge"} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		found, _ := Commands(body)
		lines := map[string]int{}
		for line := range strings.Lines(strings.ReplaceAll(body, "\r\n", "\n")) {
			lines[strings.Join(strings.Fields(strings.ToLower(line)), " ")]++
		}
		for _, command := range found {
			line := strings.Join(strings.Fields(fmt.Sprintf("/forge %s %s", command.Name, command.Argument)), " ")
			if lines[line]--; lines[line] < 0 {
				t.Errorf("%q holds no line %q", body, line)
			}
		}
	})
}
