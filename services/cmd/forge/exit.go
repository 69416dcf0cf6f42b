package main

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/fault"
)

// Exit codes, as docs/cli.md tells them.
const (
	exitFine        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitNobody      = 4
	exitInterrupted = 130
)

// usageError is a command line that cannot be meant so.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef is such an error, which says what to write instead.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// codedError is an error that has an exit code of its own.
type codedError struct {
	code int
	error
}

func (e codedError) Unwrap() error { return e.error }

// exitCode is what the process ends with.
func exitCode(err error) int {
	var coded codedError
	var usage usageError
	var parse *kong.ParseError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &usage), errors.As(err, &parse):
		return exitUsage
	}
	switch kindOf(err) {
	case fault.Invalid:
		return exitUsage
	case fault.NotFound, fault.Denied, fault.Unauthenticated:
		return exitRefused
	case fault.Internal, fault.Exists, fault.Conflict, fault.Unavailable, fault.Exhausted:
	}
	return exitFailed
}

// kindOf is the kind of an error of Forge's, however it came here.
func kindOf(err error) fault.Kind {
	if kind := fault.KindOf(err); kind != fault.Internal {
		return kind
	}
	answer, _ := status.FromError(err)
	return map[codes.Code]fault.Kind{
		codes.InvalidArgument: fault.Invalid, codes.OutOfRange: fault.Invalid, codes.NotFound: fault.NotFound,
		codes.PermissionDenied: fault.Denied, codes.Unauthenticated: fault.Unauthenticated,
	}[answer.Code()]
}

var grpcPrefix = regexp.MustCompile(`rpc error: code = \w+ desc = `)

// complaint is an error as people are told it.
func complaint(err error) string { return grpcPrefix.ReplaceAllString(err.Error(), "") }
