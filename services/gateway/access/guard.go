package access

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// stranger is for whom a call is made that anyone may make. No login has brackets.
const stranger = "(anyone)"

// errService is named where an error of this package is kept from who asks.
const errService = "gateway"

// Guard returns a connection whose calls are made for the viewer of their context, as
// far as they may. Where nobody can sign in it is the connection itself.
func (c *Control) Guard(conn grpc.ClientConnInterface) grpc.ClientConnInterface {
	if !c.deps.People.Enabled() {
		return conn
	}
	return &guard{c, conn}
}

type guard struct {
	control *Control
	conn    grpc.ClientConnInterface
}

// Invoke implements grpc.ClientConnInterface.
func (g *guard) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	v := signin.From(ctx)
	request, _ := args.(proto.Message)
	if err := g.control.Check(ctx, v, method, request); err != nil {
		g.refused(ctx, v, method, request, err)
		return rpc.Remote(err, errService)
	}
	rule := g.control.rules[method]
	call := func(request proto.Message, reply any) error {
		return g.conn.Invoke(rule.onBehalf(ctx, v), method, request, reply, opts...)
	}
	if rule.of != ofEach || v.Admin || v.Bound && rule.bound {
		return call(request, reply)
	}
	operator, err := g.control.Operator(ctx, v)
	if operator {
		return call(request, reply)
	}
	answer, ok := reply.(proto.Message)
	if !ok {
		err = errors.Join(err, fault.New(fault.Internal, "the answer of "+method+" is no message"))
	}
	if ok {
		err = g.control.list(ctx, v, request, answer, call)
	}
	return rpc.Remote(err, errService)
}

// refused tells of a call that somebody who is known may not make.
func (g *guard) refused(ctx context.Context, v signin.Viewer, method string, request proto.Message, err error) {
	if tell := g.control.deps.Refused; tell != nil && v.ID != 0 && fault.Is(err, fault.Denied) {
		tell(ctx, v.ID, v.Login, method, request)
	}
}

// onBehalf is a context of calls that a viewer may make.
func (r Rule) onBehalf(ctx context.Context, v signin.Viewer) context.Context {
	switch {
	case v.Admin, v.Bound && r.bound:
		return ctx // the token goes along
	case v.ID != 0:
		return rpc.For(ctx, v.Login)
	}
	return rpc.For(ctx, stranger)
}

// NewStream implements grpc.ClientConnInterface. The call is made once its request is
// known, which is checked first.
func (g *guard) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if desc.ClientStreams {
		return nil, rpc.Remote(denied(Operator), errService) // no page and no binding has one
	}
	ctx, cancel := context.WithCancel(ctx)
	return &guardedStream{guard: g, ctx: ctx, cancel: cancel, open: func() (grpc.ClientStream, error) {
		return g.conn.NewStream(g.control.rules[method].onBehalf(ctx, signin.From(ctx)), desc, method, opts...)
	}, method: method}, nil
}

// recheckEvery is how often it is asked whether who follows a stream may still.
const recheckEvery = answerLife

// guardedStream is a stream that one person follows, for as long as they may.
type guardedStream struct {
	grpc.ClientStream // nil until the request was sent

	guard   *guard
	ctx     context.Context //nolint:containedctx // of the call, which opens later
	cancel  context.CancelFunc
	open    func() (grpc.ClientStream, error)
	method  string
	request proto.Message
	checked time.Time
}

func (s *guardedStream) check() error {
	err := s.guard.control.Check(s.ctx, signin.From(s.ctx), s.method, s.request)
	s.checked = s.guard.control.deps.Now()
	if err != nil {
		s.cancel()
	}
	return rpc.Remote(err, errService)
}

func (s *guardedStream) SendMsg(m any) (err error) {
	s.request, _ = m.(proto.Message)
	if err := s.check(); err != nil {
		s.guard.refused(s.ctx, signin.From(s.ctx), s.method, s.request, err)
		return err
	}
	if s.ClientStream, err = s.open(); err != nil {
		s.cancel()
		return err
	}
	return s.ClientStream.SendMsg(m)
}

func (s *guardedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil && s.guard.control.deps.Now().Sub(s.checked) >= recheckEvery {
		err = s.check()
		if err != nil {
			if message, ok := m.(proto.Message); ok {
				proto.Reset(message)
			}
		}
	}
	if err != nil {
		s.cancel()
	}
	return err
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) Header() (metadata.MD, error) { return s.ClientStream.Header() }

// mostLooks bounds how many pages are read to fill one with what somebody may see.
const mostLooks = 10

// list fills the answer with items that the viewer may see. It may have fewer than were
// asked for, and a next page though.
func (c *Control) list(ctx context.Context, v signin.Viewer, request, answer proto.Message, call func(request proto.Message, reply any) error) error {
	page, items := proto.Clone(request), itemsOf(answer.ProtoReflect().Descriptor())
	if items == nil {
		return fault.New(fault.Internal, "the answer "+string(proto.MessageName(answer))+" has no items that a rule could be held to")
	}
	size, token := intField(page, "page_size"), textField(page, "page_token")
	next := textField(answer, "next_page_token")
	want := 0 // as many as the first page has, where the request does not say
	if size != nil {
		want = int(page.ProtoReflect().Get(size).Int())
	}
	var seen []protoreflect.Value
	for range mostLooks {
		some := answer.ProtoReflect().New().Interface()
		if err := call(page, some); err != nil {
			return err
		}
		got := some.ProtoReflect().Get(items).List()
		if want == 0 {
			want = got.Len()
		}
		for n := range got.Len() {
			may, err := c.maySee(ctx, v, got.Get(n).Message())
			if err != nil {
				return err
			}
			if may {
				seen = append(seen, got.Get(n))
			}
		}
		// Nothing else of the answer is told: a number may be of what is left out.
		proto.Reset(answer)
		if next == nil || token == nil {
			break
		}
		answer.ProtoReflect().Set(next, some.ProtoReflect().Get(next))
		if some.ProtoReflect().Get(next).String() == "" || len(seen) >= want {
			break
		}
		page.ProtoReflect().Set(token, some.ProtoReflect().Get(next))
		if size != nil {
			page.ProtoReflect().Set(size, protoreflect.ValueOfInt32(int32(want-len(seen)))) //nolint:gosec // less than what was an int32
		}
	}
	kept := answer.ProtoReflect().Mutable(items).List()
	kept.Truncate(0)
	for _, item := range seen {
		kept.Append(item)
	}
	return nil
}

// maySee reports whether a viewer may read the repository that an item names.
func (c *Control) maySee(ctx context.Context, v signin.Viewer, item protoreflect.Message) (bool, error) {
	of := &eventv1.Repository{}
	f := item.Descriptor().Fields().ByName("repository")
	if f.Kind() == protoreflect.MessageKind {
		named, ok := item.Get(f).Message().Interface().(*eventv1.Repository)
		if !ok {
			return false, nil
		}
		of = named
	} else {
		of.Owner, of.Name = splitName(item.Get(f).String())
	}
	role, err := c.roleOf(ctx, v, of)
	return role >= Reader, err
}
