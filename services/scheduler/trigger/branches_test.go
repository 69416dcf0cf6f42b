package trigger

import (
	"strings"
	"testing"
)

func TestBranchesAreMeantByNamePatternOrAsDefault(t *testing.T) {
	for _, c := range []struct {
		branches      string
		branch        string
		defaultBranch string
		want          bool
	}{
		{branches: "main", branch: "main", want: true},
		{branches: "main", branch: "main2", want: false},
		{branches: "main", branch: "Main", want: false},
		{branches: "", branch: "main", want: false},
		{branches: "default", branch: "develop", defaultBranch: "develop", want: true},
		{branches: "default", branch: "main", defaultBranch: "develop", want: false},
		{branches: "default", branch: "default", defaultBranch: "main", want: false},
		{branches: "default", branch: "", defaultBranch: "", want: false},
		{branches: "default master main", branch: "master", defaultBranch: "trunk", want: true},
		{branches: "default master main", branch: "main", want: true},
		{branches: "release/*", branch: "release/1.2", want: true},
		{branches: "release/*", branch: "release/1.2/fix", want: false},
		{branches: "release/*", branch: "release", want: false},
		{branches: "release/**", branch: "release/1.2/fix", want: true},
		{branches: "v[0-9]", branch: "v3", want: true},
		{branches: "v[0-9]", branch: "v[0-9]", want: true}, // its own name
		{branches: "*", branch: "feature/x", want: false},
		{branches: "**", branch: "feature/x", want: true},
	} {
		if got := Branches(strings.Fields(c.branches)).Match(c.branch, c.defaultBranch); got != c.want {
			t.Errorf("%q mean %q where %q is the default: %v, want %v", c.branches, c.branch, c.defaultBranch, got, c.want)
		}
	}
}

func TestFirstBranchIsNoPattern(t *testing.T) {
	for _, c := range []struct{ branches, defaultBranch, want string }{
		{"production live", "main", "production"},
		{"release/* production", "main", "production"},
		{"release/*", "main", ""},
		{"", "main", ""},
		{"default", "main", "main"},
		{"default production", "", "production"},
	} {
		if got := Branches(strings.Fields(c.branches)).First(c.defaultBranch); got != c.want {
			t.Errorf("first of %q is %q, want %q", c.branches, got, c.want)
		}
	}
}

func TestBrokenPatternOfBranchesIsRefused(t *testing.T) {
	if err := (Branches{"main", "release/[1"}).Check(); err == nil || !strings.Contains(err.Error(), `"release/[1"`) {
		t.Errorf("error %v, want one that names the pattern", err)
	}
	if err := (Branches{"default", "main", "release/**", "v[0-9]"}).Check(); err != nil {
		t.Error(err)
	}
}
