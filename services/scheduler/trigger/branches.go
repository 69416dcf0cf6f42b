package trigger

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// defaultBranch stands for the default branch of each repository.
const defaultBranch = "default"

// Branches are names of branches, patterns of them, and the word default for the
// default branch of each repository. In a pattern * stops at a slash and ** does
// not.
type Branches []string

// Check is an error where a pattern is none.
func (b Branches) Check() error {
	for _, pattern := range b {
		if !doublestar.ValidatePattern(pattern) {
			return fmt.Errorf("%q is no pattern of branches", pattern)
		}
	}
	return nil
}

// Match reports whether a branch is meant, in a repository with that default
// branch; "" where it is not known.
func (b Branches) Match(branch, repositorysDefault string) bool {
	return slices.ContainsFunc(b, func(pattern string) bool {
		if pattern == defaultBranch {
			return branch != "" && branch == repositorysDefault
		}
		return pattern == branch || doublestar.MatchUnvalidated(pattern, branch)
	})
}

// First is the first branch that is meant by its name, or as the default branch;
// "" where there is none.
func (b Branches) First(repositorysDefault string) string {
	for _, pattern := range b {
		switch {
		case pattern == defaultBranch && repositorysDefault != "":
			return repositorysDefault
		case pattern != defaultBranch && !strings.ContainsAny(pattern, `*?[{\`):
			return pattern
		}
	}
	return ""
}
