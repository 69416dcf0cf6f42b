package githubsim

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// GitHub's bounds on texts, in characters.
const (
	maxDescription = 140 // of a status or a deployment
	maxContext     = 255
	maxTitle       = 256 // of a pull request
)

// A text is one that GitHub keeps: in which field, how long at the most, and whether in a column that takes the basic
// plane alone.
type text struct {
	field, value string
	most         int
	basic        bool
}

// refuseText is what GitHub finds wrong with a text of a resource; nil if nothing. Of the texts of statuses it is known
// that no character beyond U+FFFF is taken; those of deployments are held to the same.
func refuseText(resource string, texts ...text) *response {
	for _, t := range texts {
		beyond := strings.ContainsFunc(t.value, func(r rune) bool { return r > 0xFFFF })
		switch {
		case utf8.RuneCountInString(t.value) > t.most:
			return invalid(resource, t.field, "custom", fmt.Sprintf("%s is too long (maximum is %d characters)", t.field, t.most))
		case t.basic && beyond:
			return invalid(resource, t.field, "custom", t.field+" doesn't accept 4-byte Unicode")
		}
	}
	return nil
}
