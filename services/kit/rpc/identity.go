package rpc

import (
	"context"
	"crypto/subtle"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/forge-ci/forge/services/kit/fault"
)

// Metadata by which a caller says who it is.
const (
	authorization   = "authorization"
	roomHeader      = "forge-room"
	roomTokenHeader = "forge-room-token"
	personHeader    = "forge-person"
	originHeader    = "forge-origin-bin" // an Origin as JSON
)

// Access says who may call a method: the admin and Rooms. The zero value leaves
// the admin alone.
type Access struct {
	Public  bool     // anyone
	Rooms   []string // these rooms too
	NoAdmin bool     // the admin token does not open it
	Bound   bool     // so does a token that is bound to a repository, as far as the method sees to that
}

// Identity is who calls, as proven to the server. The zero value is a stranger.
type Identity struct {
	Room  string
	Admin bool
	Bound Bound // where neither of these opens the call
	// Person is for whom a room of Config.Behalf calls, a login; "" where for nobody.
	Person string
}

type (
	identityKey struct{}
	personKey   struct{}
)

// For returns a context whose calls are made for a person, instead of for whoever has
// an admin token in it. Only a room that has found out who asks, and that they may,
// calls it.
func For(ctx context.Context, login string) context.Context {
	return context.WithValue(ctx, personKey{}, login)
}

// Onward returns a context whose calls are made for whoever made the call that ctx
// belongs to.
func Onward(ctx context.Context) context.Context {
	if person := Caller(ctx).Person; person != "" {
		return For(ctx, person)
	}
	asked, _ := metadata.FromIncomingContext(ctx)
	return metadata.NewOutgoingContext(ctx, metadata.MD{authorization: asked.Get(authorization)})
}

// Caller returns who made the call that ctx belongs to.
func Caller(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}

// untraced reports whether a call leaves no span: one that brings spans would bring
// another with each.
func untraced(method string) bool {
	return builtin(method) || strings.HasPrefix(method, "/opentelemetry.proto.collector.")
}

// builtin reports whether a method belongs to health or reflection, which are
// open to anyone and not worth a span.
func builtin(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.")
}

// admit returns who calls, or why the call is refused.
func (s *Server) admit(ctx context.Context, method string) (Identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	room, roomErr := s.room(ctx, md)
	id := Identity{Room: room, Admin: s.isAdmin(md)}
	access := s.cfg.Access[method]
	if persons := md.Get(personHeader); len(persons) == 1 && slices.Contains(s.cfg.Behalf, room) {
		id.Person = persons[0]
	}
	switch {
	case access.Public, builtin(method):
		return id, nil
	case (id.Admin || id.Person != "") && !access.NoAdmin:
		return id, nil
	case id.Room != "" && slices.Contains(access.Rooms, id.Room):
		return id, nil
	case boundToken(md) != "":
		return s.admitBound(ctx, id, access, boundToken(md))
	case roomErr != nil && len(access.Rooms) > 0:
		return id, roomErr
	case access.NoAdmin:
		return id, fault.Newf(fault.Denied, "only these rooms may make this call: %s", strings.Join(access.Rooms, ", "))
	case len(md.Get(authorization)) > 0:
		return id, fault.New(fault.Unauthenticated,
			"the admin token is wrong: send 'authorization: Bearer <FORGE_ADMIN_TOKEN>' with the token of this Forge")
	case id.Room != "" && len(access.Rooms) > 0:
		return id, fault.Newf(fault.Denied, "the room %s may not make this call; these may: %s", id.Room, strings.Join(access.Rooms, ", "))
	default:
		return id, fault.New(fault.Unauthenticated,
			"this call needs the admin token: add the header 'authorization: Bearer <FORGE_ADMIN_TOKEN>'")
	}
}

func (s *Server) isAdmin(md metadata.MD) bool {
	for _, value := range md.Get(authorization) {
		scheme, token, _ := strings.Cut(value, " ")
		if strings.EqualFold(scheme, "Bearer") && sameSecret(token, s.cfg.AdminToken) {
			return true
		}
	}
	return false
}

// room returns the room that calls, "" when the caller says nothing of a room,
// and an error when it claims one without proof.
func (s *Server) room(ctx context.Context, md metadata.MD) (string, error) {
	claims := md.Get(roomHeader)
	if len(claims) > 1 {
		return "", fault.Newf(fault.Unauthenticated, "the call names more than one room: %s", strings.Join(claims, ", "))
	}
	claim := strings.Join(claims, "")
	from, _ := peer.FromContext(ctx)
	if certified := certifiedRoom(from); certified != "" {
		if claim != "" && claim != certified {
			return "", fault.Newf(fault.Unauthenticated, "the call names the room %s, its certificate %s", claim, certified)
		}
		return certified, nil
	}
	if claim == "" || s.trusts(from) {
		return claim, nil
	}
	for _, token := range md.Get(roomTokenHeader) {
		if sameSecret(token, s.cfg.RoomTokens[claim]) {
			return claim, nil
		}
	}
	return "", fault.Newf(fault.Unauthenticated,
		"the room %s has not proven itself to %s: its FORGE_ROOM_TOKEN must be the one that FORGE_ROOM_TOKENS has for it there, or its certificate signed by FORGE_TLS_CA",
		claim, s.cfg.Name)
}

// trusts reports whether a room's name alone is enough on this connection.
func (s *Server) trusts(from *peer.Peer) bool {
	if from == nil || from.Addr == nil {
		return false
	}
	if from.Addr.Network() == pipeNetwork {
		return true
	}
	return s.trustLoopback && isLoopback(from.Addr)
}

func isLoopback(addr net.Addr) bool {
	switch a := addr.(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	default:
		return false
	}
}

// certifiedRoom returns the room that a verified client certificate names.
func certifiedRoom(from *peer.Peer) string {
	if from == nil {
		return ""
	}
	info, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return ""
	}
	leaf := info.State.VerifiedChains[0][0]
	if leaf.Subject.CommonName == "" && len(leaf.DNSNames) > 0 {
		return leaf.DNSNames[0]
	}
	return leaf.Subject.CommonName
}

// sameSecret compares in constant time; an empty secret is never the same.
func sameSecret(given, secret string) bool {
	return secret != "" && subtle.ConstantTimeCompare([]byte(given), []byte(secret)) == 1
}
