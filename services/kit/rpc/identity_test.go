package rpc_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

const needsAdmin = "this call needs the admin token: add the header 'authorization: Bearer <FORGE_ADMIN_TOKEN>'"

func bearer(ctx context.Context, value string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", value)
}

// network is a way from a caller to the server.
type network struct {
	listen func(*testing.T) net.Listener
	dial   func(*testing.T, net.Listener, rpc.Peer) *grpc.ClientConn
}

var (
	pipe = network{
		func(*testing.T) net.Listener { return rpc.NewPipe() },
		func(t *testing.T, lis net.Listener, p rpc.Peer) *grpc.ClientConn {
			return throughPipe(t, lis.(*rpc.Pipe), p.Room, nil)
		},
	}
	tcp = network{onTCP, func(t *testing.T, lis net.Listener, p rpc.Peer) *grpc.ClientConn {
		return dial(t, lis.Addr().String(), p)
	}}
	unix = network{onUnix, func(t *testing.T, lis net.Listener, p rpc.Peer) *grpc.ClientConn {
		return dial(t, "unix://"+lis.Addr().String(), p)
	}}
)

func TestAccess(t *testing.T) {
	var (
		tokens  = rpc.Config{Name: "config", AdminToken: "adm", RoomTokens: map[string]string{"scheduler": "s1", "gateway": "g1"}}
		trusted = rpc.Config{Name: "config", AdminToken: "adm", TrustLoopback: true}
		closed  = rpc.Config{Name: "config"}
		both    = tokens
		bound   = tokens
		people  = tokens

		rooms   = rpc.Access{Rooms: []string{"scheduler", "reporter"}}
		noAdmin = rpc.Access{Rooms: []string{"scheduler", "reporter"}, NoAdmin: true}

		unproven = "the room scheduler has not proven itself to config: its FORGE_ROOM_TOKEN must be"
	)
	both.TrustLoopback = true
	shop := rpc.Bound{RepositoryID: 7, Repository: "acme/shop", Name: "bot"}
	bound.Bound = func(_ context.Context, token string) (rpc.Bound, error) {
		if token != "forge_repo_good" {
			return rpc.Bound{}, fault.New(fault.Unauthenticated, "there is no such token")
		}
		return shop, nil
	}
	const refusesBound = "this token is bound to a repository: it makes builds by hand there and lists them, and opens no other call"
	people.Behalf = []string{"gateway"}
	for name, c := range map[string]struct {
		cfg    rpc.Config
		access rpc.Access
		over   network
		peer   rpc.Peer
		bearer string
		person string
		kind   fault.Kind
		refuse string // how the refusal begins; "": admitted
		want   rpc.Identity
	}{
		"stranger, public":                   {cfg: tokens, access: rpc.Access{Public: true}, over: tcp},
		"stranger, admin's":                  {cfg: tokens, over: tcp, kind: fault.Unauthenticated, refuse: needsAdmin},
		"stranger, rooms'":                   {cfg: tokens, access: rooms, over: tcp, kind: fault.Unauthenticated, refuse: needsAdmin},
		"stranger, rooms' alone":             {cfg: tokens, access: noAdmin, over: tcp, kind: fault.Denied, refuse: "only these rooms may make this call: scheduler, reporter"},
		"stranger on a pipe":                 {cfg: tokens, access: rooms, over: pipe, kind: fault.Unauthenticated, refuse: needsAdmin},
		"admin":                              {cfg: tokens, over: tcp, bearer: "Bearer adm", want: rpc.Identity{Admin: true}},
		"admin, scheme in lower case":        {cfg: tokens, over: unix, bearer: "bearer adm", want: rpc.Identity{Admin: true}},
		"admin on a pipe":                    {cfg: tokens, over: pipe, peer: rpc.Peer{Room: "gateway"}, bearer: "Bearer adm", want: rpc.Identity{Room: "gateway", Admin: true}},
		"admin, rooms'":                      {cfg: tokens, access: rooms, over: tcp, bearer: "Bearer adm", want: rpc.Identity{Admin: true}},
		"admin, rooms' alone":                {cfg: tokens, access: noAdmin, over: tcp, bearer: "Bearer adm", kind: fault.Denied, refuse: "only these rooms"},
		"wrong admin token":                  {cfg: tokens, over: tcp, bearer: "Bearer adx", kind: fault.Unauthenticated, refuse: "the admin token is wrong"},
		"admin token without scheme":         {cfg: tokens, over: tcp, bearer: "adm", kind: fault.Unauthenticated, refuse: "the admin token is wrong"},
		"empty token where there is none":    {cfg: closed, over: tcp, bearer: "Bearer ", kind: fault.Unauthenticated, refuse: "the admin token is wrong"},
		"foreign bearer, public":             {cfg: tokens, access: rpc.Access{Public: true}, over: tcp, bearer: "Bearer build-token"},
		"room by token":                      {cfg: tokens, access: rooms, over: tcp, peer: rpc.Peer{Room: "scheduler", Token: "s1"}, want: rpc.Identity{Room: "scheduler"}},
		"room by token on a socket":          {cfg: tokens, access: noAdmin, over: unix, peer: rpc.Peer{Room: "scheduler", Token: "s1"}, want: rpc.Identity{Room: "scheduler"}},
		"room by another room's token":       {cfg: tokens, access: rooms, over: tcp, peer: rpc.Peer{Room: "scheduler", Token: "g1"}, kind: fault.Unauthenticated, refuse: unproven},
		"room without token":                 {cfg: tokens, access: rooms, over: tcp, peer: rpc.Peer{Room: "scheduler"}, kind: fault.Unauthenticated, refuse: unproven},
		"room without token on a socket":     {cfg: tokens, access: rooms, over: unix, peer: rpc.Peer{Room: "scheduler"}, kind: fault.Unauthenticated, refuse: unproven},
		"room that has no token here":        {cfg: tokens, access: rooms, over: tcp, peer: rpc.Peer{Room: "reporter", Token: ""}, kind: fault.Unauthenticated, refuse: "the room reporter has not"},
		"room not on the list":               {cfg: tokens, access: rooms, over: tcp, peer: rpc.Peer{Room: "gateway", Token: "g1"}, kind: fault.Denied, refuse: "the room gateway may not make this call; these may: scheduler, reporter"},
		"room, admin's":                      {cfg: tokens, over: tcp, peer: rpc.Peer{Room: "gateway", Token: "g1"}, kind: fault.Unauthenticated, refuse: needsAdmin},
		"room on a pipe":                     {cfg: tokens, access: rooms, over: pipe, peer: rpc.Peer{Room: "scheduler"}, want: rpc.Identity{Room: "scheduler"}},
		"room on trusted loopback":           {cfg: trusted, access: rooms, over: tcp, peer: rpc.Peer{Room: "scheduler"}, want: rpc.Identity{Room: "scheduler"}},
		"room on a trusted socket":           {cfg: trusted, access: rooms, over: unix, peer: rpc.Peer{Room: "scheduler"}, want: rpc.Identity{Room: "scheduler"}},
		"tokens end the trust in loopback":   {cfg: both, access: rooms, over: tcp, peer: rpc.Peer{Room: "scheduler"}, kind: fault.Unauthenticated, refuse: unproven},
		"trusted loopback, admin's":          {cfg: trusted, over: tcp, peer: rpc.Peer{Room: "scheduler"}, kind: fault.Unauthenticated, refuse: needsAdmin},
		"no trust unless asked for":          {cfg: closed, access: rooms, over: tcp, peer: rpc.Peer{Room: "scheduler"}, kind: fault.Unauthenticated, refuse: unproven},
		"room for a person":                  {cfg: people, over: tcp, peer: rpc.Peer{Room: "gateway", Token: "g1"}, person: "rita", want: rpc.Identity{Room: "gateway", Person: "rita"}},
		"room for a person, rooms' alone":    {cfg: people, access: noAdmin, over: tcp, peer: rpc.Peer{Room: "gateway", Token: "g1"}, person: "rita", kind: fault.Denied, refuse: "only these rooms"},
		"room for a person, with a token":    {cfg: people, over: tcp, peer: rpc.Peer{Room: "gateway", Token: "g1"}, person: "rita", bearer: "Bearer adm", want: rpc.Identity{Room: "gateway", Person: "rita"}},
		"another room for a person":          {cfg: people, over: tcp, peer: rpc.Peer{Room: "scheduler", Token: "s1"}, person: "rita", kind: fault.Unauthenticated, refuse: needsAdmin},
		"room for a person, not expected":    {cfg: tokens, over: tcp, peer: rpc.Peer{Room: "gateway", Token: "g1"}, person: "rita", kind: fault.Unauthenticated, refuse: needsAdmin},
		"unproven room for a person":         {cfg: people, over: tcp, peer: rpc.Peer{Room: "gateway"}, person: "rita", kind: fault.Unauthenticated, refuse: needsAdmin},
		"nobody for a person":                {cfg: people, over: tcp, person: "rita", kind: fault.Unauthenticated, refuse: needsAdmin},
		"unproven room is a stranger":        {cfg: tokens, access: rpc.Access{Public: true}, over: tcp, peer: rpc.Peer{Room: "scheduler"}},
		"bound":                              {cfg: bound, access: rpc.Access{Bound: true}, over: tcp, bearer: "Bearer forge_repo_good", want: rpc.Identity{Bound: shop}},
		"bound, scheme in lower case":        {cfg: bound, access: rpc.Access{Bound: true}, over: unix, bearer: "bearer forge_repo_good", want: rpc.Identity{Bound: shop}},
		"bound, none that is known":          {cfg: bound, access: rpc.Access{Bound: true}, over: tcp, bearer: "Bearer forge_repo_goo", kind: fault.Unauthenticated, refuse: "there is no such token"},
		"bound, admin's":                     {cfg: bound, over: tcp, bearer: "Bearer forge_repo_good", kind: fault.Denied, refuse: refusesBound},
		"bound, rooms'":                      {cfg: bound, access: rooms, over: tcp, bearer: "Bearer forge_repo_good", kind: fault.Denied, refuse: refusesBound},
		"bound, rooms' alone":                {cfg: bound, access: noAdmin, over: tcp, bearer: "Bearer forge_repo_good", kind: fault.Denied, refuse: refusesBound},
		"bound, where none are kept":         {cfg: tokens, access: rpc.Access{Bound: true}, over: tcp, bearer: "Bearer forge_repo_good", kind: fault.Denied, refuse: refusesBound},
		"bound, public":                      {cfg: bound, access: rpc.Access{Public: true, Bound: true}, over: tcp, bearer: "Bearer forge_repo_good"},
		"bound, with a room's name":          {cfg: bound, access: rpc.Access{Bound: true, Rooms: []string{"reporter"}}, over: tcp, peer: rpc.Peer{Room: "scheduler", Token: "s1"}, bearer: "Bearer forge_repo_good", want: rpc.Identity{Room: "scheduler", Bound: shop}},
		"stranger, bound":                    {cfg: bound, access: rpc.Access{Bound: true}, over: tcp, kind: fault.Unauthenticated, refuse: needsAdmin},
		"admin, bound":                       {cfg: bound, access: rpc.Access{Bound: true}, over: tcp, bearer: "Bearer adm", want: rpc.Identity{Admin: true}},
		"another token, bound":               {cfg: bound, access: rpc.Access{Bound: true}, over: tcp, bearer: "Bearer good", kind: fault.Unauthenticated, refuse: "the admin token is wrong"},
		"admin with an unproven room's name": {cfg: tokens, access: rooms, over: tcp, peer: rpc.Peer{Room: "scheduler"}, bearer: "Bearer adm", want: rpc.Identity{Admin: true}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := c.cfg
			cfg.Access = map[string]rpc.Access{unaryMethod: c.access, streamMethod: c.access}
			lis := c.over.listen(t)
			admitted := make(chan rpc.Identity, len(calls))
			serve(t, cfg, func(ctx context.Context) error {
				admitted <- rpc.Caller(ctx)
				return nil
			}, lis)
			conn := c.over.dial(t, lis, c.peer)
			ctx := t.Context()
			if c.bearer != "" {
				ctx = bearer(ctx, c.bearer)
			}
			if c.person != "" {
				ctx = rpc.For(ctx, c.person)
			}
			for shape, call := range calls {
				err := call(ctx, conn)
				if c.refuse != "" {
					if !fault.Is(err, c.kind) || !strings.HasPrefix(err.Error(), c.refuse) {
						t.Errorf("%s: %v (%s)", shape, err, fault.KindOf(err))
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", shape, err)
				}
				if got := <-admitted; got != c.want {
					t.Errorf("%s: %+v, want %+v", shape, got, c.want)
				}
			}
		})
	}
}

func TestUnlistedMethodIsTheAdmins(t *testing.T) {
	conn := onPipe(t, rpc.Config{AdminToken: "adm"}, succeed)
	for shape, call := range calls {
		if err := call(t.Context(), conn); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", shape, err)
		}
		if err := call(bearer(t.Context(), "Bearer adm"), conn); err != nil {
			t.Errorf("%s as admin: %v", shape, err)
		}
	}
}

// An HTTP edge copies headers of strangers into the metadata of its own calls.
func TestRoomInForwardedMetadataIsDropped(t *testing.T) {
	lis := rpc.NewPipe()
	rooms := map[string]rpc.Access{unaryMethod: {Rooms: []string{"scheduler"}}, streamMethod: {Rooms: []string{"scheduler"}}}
	serve(t, rpc.Config{Access: rooms, Behalf: []string{"gateway"}}, succeed, lis)
	forged := metadata.AppendToOutgoingContext(t.Context(), "forge-room", "scheduler", "forge-person", "rita")
	for shape, call := range calls {
		if err := call(forged, throughPipe(t, lis, "", nil)); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s as nobody: %v", shape, err)
		}
		if err := call(forged, throughPipe(t, lis, "gateway", nil)); !fault.Is(err, fault.Denied) {
			t.Errorf("%s as gateway: %v", shape, err)
		}
	}
}

func TestTwoRoomsInOneCallAreRefused(t *testing.T) {
	lis := onTCP(t)
	serve(t, rpc.Config{TrustLoopback: true, Access: map[string]rpc.Access{unaryMethod: {Rooms: []string{"scheduler"}}}}, succeed, lis)
	raw, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn := closing(t, raw, err)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "forge-room", "gateway", "forge-room", "scheduler")
	if err := calls["unary"](ctx, conn); err == nil || !strings.Contains(err.Error(), "more than one room: gateway, scheduler") {
		t.Errorf("got %v", err)
	}
}

func TestHealthAndReflectionAreOpenToAnyone(t *testing.T) {
	conn := onPipe(t, rpc.Config{AdminToken: "adm"}, succeed)
	for _, name := range []string{"", "grpc.testing.TestService"} {
		health, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: name})
		if err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", name, health, err)
		}
	}

	v1, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v1.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if list, err := v1.Recv(); err != nil || !strings.Contains(list.String(), "grpc.testing.TestService") {
		t.Errorf("v1: %v, %v", list, err)
	}

	alpha, err := reflectionv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	//nolint:staticcheck // deprecated, and what older grpcurls speak
	if err := alpha.Send(&reflectionv1alpha.ServerReflectionRequest{MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if list, err := alpha.Recv(); err != nil || !strings.Contains(list.String(), "grpc.testing.TestService") {
		t.Errorf("v1alpha: %v, %v", list, err)
	}
}
