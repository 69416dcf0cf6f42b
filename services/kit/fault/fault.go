// Package fault names the few kinds of error that a caller branches on. An
// error without a kind is Internal: the one who meets it can only report it.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what a caller can do about an error.
type Kind int

// Across processes kit/rpc carries a kind as a gRPC code.
const (
	Internal        Kind = iota // ours to mend; the text stays in the log of the one who made it
	Invalid                     // the request can never succeed as it is
	NotFound                    // there is no such thing
	Exists                      // there is one already
	Denied                      // the caller is known and may not
	Unauthenticated             // the caller is not known
	Conflict                    // the thing's state does not allow it now
	Unavailable                 // try again later
	Exhausted                   // a limit is reached
)

var names = [...]string{
	Internal:        "internal",
	Invalid:         "invalid",
	NotFound:        "not_found",
	Exists:          "exists",
	Denied:          "denied",
	Unauthenticated: "unauthenticated",
	Conflict:        "conflict",
	Unavailable:     "unavailable",
	Exhausted:       "exhausted",
}

// String returns the kind's name in snake case.
func (k Kind) String() string { return names[k] }

type kindError struct {
	kind  Kind
	cause error
}

func (e *kindError) Error() string { return e.cause.Error() }
func (e *kindError) Unwrap() error { return e.cause }

// New returns an error of this kind that says text.
func New(kind Kind, text string) error {
	return &kindError{kind, errors.New(text)}
}

// Newf is New with fmt.Errorf's format, %w included. The kind given here counts,
// whatever the kind of a wrapped error.
func Newf(kind Kind, format string, args ...any) error {
	return &kindError{kind, fmt.Errorf(format, args...)}
}

// KindOf returns the outermost kind in err's chain. A deadline that has passed
// is Unavailable unless a kind says otherwise.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*kindError](err); ok {
		return e.kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is an error of this kind.
func Is(err error, kind Kind) bool {
	return err != nil && KindOf(err) == kind
}
