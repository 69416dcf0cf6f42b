package buildfile

import (
	"fmt"
	"strings"

	"github.com/forge-ci/forge/services/kit/nearest"
)

// What finding the name that was meant may cost: more is never shown.
const (
	maxGuesses = 20
	maxGuessed = 60  // characters of a name
	maxKnown   = 100 // names
)

// guess is the known name that was probably meant; "" where there is none.
func (r *reader) guess(name string, known []string) string {
	if r.guesses++; r.guesses > maxGuesses || len(name) > maxGuessed {
		return ""
	}
	return nearest.Name(name, known[:min(len(known), maxKnown)], max(2, len(name)/3))
}

// didYouMean ends a sentence about a name that is not known.
func (r *reader) didYouMean(name string, known []string) string {
	if meant := r.guess(name, known); meant != "" {
		return fmt.Sprintf(", did you mean %q?", clip(meant))
	}
	return ": it has " + listed(known)
}

// listed are names in a sentence, few of them where they are many.
func listed(names []string) string {
	const most = 10
	short := make([]string, 0, most+1)
	for i, name := range names {
		if i == most {
			short = append(short, "…")
			break
		}
		short = append(short, clip(name))
	}
	return strings.Join(short, ", ")
}
