package rpc

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/fault"
)

var codeOf = [...]codes.Code{
	fault.Internal:        codes.Internal,
	fault.Invalid:         codes.InvalidArgument,
	fault.NotFound:        codes.NotFound,
	fault.Exists:          codes.AlreadyExists,
	fault.Denied:          codes.PermissionDenied,
	fault.Unauthenticated: codes.Unauthenticated,
	fault.Conflict:        codes.FailedPrecondition,
	fault.Unavailable:     codes.Unavailable,
	fault.Exhausted:       codes.ResourceExhausted,
}

// kindOf leaves out the codes a caller can do nothing about: they are Internal.
var kindOf = map[codes.Code]fault.Kind{
	codes.InvalidArgument:    fault.Invalid,
	codes.OutOfRange:         fault.Invalid,
	codes.NotFound:           fault.NotFound,
	codes.AlreadyExists:      fault.Exists,
	codes.PermissionDenied:   fault.Denied,
	codes.Unauthenticated:    fault.Unauthenticated,
	codes.FailedPrecondition: fault.Conflict,
	codes.Aborted:            fault.Conflict,
	codes.Unavailable:        fault.Unavailable,
	codes.DeadlineExceeded:   fault.Unavailable,
	codes.ResourceExhausted:  fault.Exhausted,
}

// remoteError is what a call to another room returned: a kind to package fault,
// a status with all its details to gRPC.
type remoteError struct {
	status *status.Status
	kind   error
}

func (e *remoteError) Error() string              { return e.status.Message() }
func (e *remoteError) Unwrap() error              { return e.kind }
func (e *remoteError) GRPCStatus() *status.Status { return e.status }

// fromStatus turns what gRPC returned to a client into an error with a kind. A
// call that was cancelled or came too late is also the context error it would
// be in one process. What is no status, like a stream's io.EOF, stays as it is.
func fromStatus(err error) error {
	st, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	switch st.Code() {
	case codes.Canceled:
		return &remoteError{st, context.Canceled}
	case codes.DeadlineExceeded:
		return &remoteError{st, context.DeadlineExceeded}
	default:
		return &remoteError{st, fault.New(kindOf[st.Code()], st.Message())}
	}
}

// Remote is an error as a call to another room would return it: for what answers in its
// place in this process.
func Remote(err error, service string) error {
	if err == nil {
		return nil
	}
	st, _ := toStatus(err, service)
	return fromStatus(st.Err())
}

// toStatus turns what a handler returned into the status the client gets, and
// reports whether its text was kept from the client.
func toStatus(err error, service string) (st *status.Status, hidden bool) {
	kind := fault.KindOf(err)
	_, remote := errors.AsType[*remoteError](err)
	st, isStatus := status.FromError(err)
	switch {
	case isStatus && st.Code() != codes.Internal && st.Code() != codes.Unknown && (!remote || kindOf[st.Code()] == kind):
		return st, false
	case errors.Is(err, context.DeadlineExceeded) && kind == fault.Unavailable:
		return status.New(codes.DeadlineExceeded, err.Error()), false
	case kind == fault.Internal && errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, err.Error()), false
	case kind == fault.Internal:
		return withKind(kind, "internal error, see the log of "+service), true
	default:
		return withKind(kind, err.Error()), false
	}
}

// withKind makes a status that names the kind for those who read no Go.
func withKind(kind fault.Kind, text string) *status.Status {
	return withReason(status.New(codeOf[kind], text), strings.ToUpper(kind.String()))
}

func withReason(plain *status.Status, reason string) *status.Status {
	// Only a status of code OK takes no details.
	if detailed, err := plain.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "forge"}); err == nil {
		return detailed
	}
	return plain
}

// reasonOf has the codes that say more than a kind.
var reasonOf = map[codes.Code]string{
	codes.OutOfRange: "OUT_OF_RANGE", codes.DataLoss: "DATA_LOSS", codes.Unimplemented: "UNIMPLEMENTED",
}

// WithReason gives a status that was made without a kind the reason that programs go by;
// one that has details stays as it is.
func WithReason(st *status.Status) *status.Status {
	if len(st.Proto().GetDetails()) > 0 {
		return st
	}
	return withReason(st, cmp.Or(reasonOf[st.Code()], strings.ToUpper(kindOf[st.Code()].String())))
}
