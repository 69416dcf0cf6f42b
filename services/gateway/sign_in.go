package gateway

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/gateway/access"
	"github.com/forge-ci/forge/services/gateway/audit"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/web"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// newAccess assembles who is who, and who may what.
func (s *Service) newAccess(prefix prefix) (err error) {
	d := s.deps
	s.audit = audit.New(audit.Deps{DB: d.DB, Scheduler: d.Receivers["scheduler"], Log: d.Log, Now: d.Now})
	s.people, err = signin.New(signin.Deps{
		Config: d.People.SignIn, DB: d.DB, AdminToken: d.People.AdminToken, ExternalURL: d.ExternalURL, Base: prefix.link(),
		GitHubURL: d.GitHub.URL, GitHubAPIURL: d.GitHub.APIURL, Log: d.Log, Tracer: d.Tracer, Now: d.Now, Audit: s.audit,
	})
	if err == nil {
		s.access, err = access.New(access.Deps{
			People: s.people, Config: d.Receivers["config"], Scheduler: d.Receivers["scheduler"],
			Admins: d.People.Admins, OpenLinks: d.People.OpenLinks, Log: d.Log, Now: d.Now, Refused: s.audit.Refused,
			Address: func(address string) (repository, build string, err error) {
				about, err := parseSubject(d.GitHub.URL, address)
				return about.repository, about.build, err
			},
		})
	}
	return err
}

// may reports whether who makes the request of ctx, and is known, may make a call.
func (s *Service) may(ctx context.Context, method string, request proto.Message) bool {
	v := signin.From(ctx)
	return v.Known() && s.access.Check(ctx, v, method, request) == nil
}

// refuse answers a request of which it cannot be known who makes it, or that no page of
// this Forge has made.
func refuse(pages *web.Pages) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		if !strings.HasPrefix(r.URL.Path, "/v1/") {
			pages.Refuse(w, r, err)
			return
		}
		refused := status.Convert(rpc.Remote(err, "gateway"))
		if fault.Is(err, fault.Unavailable) {
			w.Header().Set("Retry-After", retryAfter)
		}
		writeError(w, runtime.HTTPStatusFromCode(refused.Code()), refused.Code(), refused.Message())
	}
}

// signInServer is what the JSON API has for who signs in without a browser. It is called
// in this process, with the viewer in its context.
type signInServer struct {
	gatewayv1.UnimplementedSignInServiceServer

	people *signin.Service
	access *access.Control
}

// StartSignIn implements gatewayv1.SignInServiceServer.
func (s *signInServer) StartSignIn(ctx context.Context, _ *gatewayv1.StartSignInRequest) (*gatewayv1.StartSignInResponse, error) {
	begun, err := s.people.StartDevice(ctx)
	if err != nil {
		return nil, rpc.Remote(err, "gateway")
	}
	return &gatewayv1.StartSignInResponse{
		DeviceCode: begun.Code, UserCode: begun.UserCode, Address: begun.Address,
		ExpireTime: timestamppb.New(begun.Ends), Pause: durationpb.New(begun.Pause),
	}, nil
}

// FinishSignIn implements gatewayv1.SignInServiceServer.
func (s *signInServer) FinishSignIn(ctx context.Context, req *gatewayv1.FinishSignInRequest) (*gatewayv1.FinishSignInResponse, error) {
	done, err := s.people.Poll(ctx, req.GetDeviceCode(), req.GetName())
	if err != nil {
		return nil, rpc.Remote(err, "gateway")
	}
	answer := &gatewayv1.FinishSignInResponse{Login: done.Login, Slower: done.Slower}
	if done.Login != "" {
		answer.Token, answer.ExpireTime = done.Secret, timestamppb.New(done.Token.Ends)
	}
	return answer, nil
}

// person is who makes the call, if that is one who has signed in.
func (s *signInServer) person(ctx context.Context) (signin.Viewer, error) {
	v := signin.From(ctx)
	if v.ID == 0 {
		return v, rpc.Remote(fault.New(fault.Unauthenticated, "nobody is signed in: show a token that forge login, or the page of your account, has made"), "gateway")
	}
	return v, nil
}

// SignOut implements gatewayv1.SignInServiceServer.
func (s *signInServer) SignOut(ctx context.Context, req *gatewayv1.SignOutRequest) (*gatewayv1.SignOutResponse, error) {
	v, err := s.person(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetEverywhere() {
		err = s.people.SignOutEverywhere(ctx, v.ID)
	} else {
		err = s.people.End(ctx, v)
	}
	return &gatewayv1.SignOutResponse{}, rpc.Remote(err, "gateway")
}

// GetViewer implements gatewayv1.SignInServiceServer.
func (s *signInServer) GetViewer(ctx context.Context, _ *gatewayv1.GetViewerRequest) (*gatewayv1.GetViewerResponse, error) {
	v := signin.From(ctx)
	operator, err := s.access.Operator(ctx, v)
	return &gatewayv1.GetViewerResponse{Login: v.Login, Operator: operator, SignInDisabled: !s.people.Enabled()}, rpc.Remote(err, "gateway")
}

// ListPersonalTokens implements gatewayv1.SignInServiceServer.
func (s *signInServer) ListPersonalTokens(ctx context.Context, _ *gatewayv1.ListPersonalTokensRequest) (*gatewayv1.ListPersonalTokensResponse, error) {
	v, err := s.person(ctx)
	if err != nil {
		return nil, err
	}
	all, err := s.people.Tokens(ctx, v)
	if err != nil {
		return nil, rpc.Remote(err, "gateway")
	}
	answer := &gatewayv1.ListPersonalTokensResponse{}
	for _, t := range all {
		answer.Tokens = append(answer.Tokens, &gatewayv1.PersonalToken{
			Id: t.ID, Name: t.Name, CreateTime: timestamppb.New(t.Made), UseTime: momentOf(t.Seen), ExpireTime: timestamppb.New(t.Ends),
		})
	}
	return answer, nil
}

// momentOf is unset for the zero time.
func momentOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// DeletePersonalToken implements gatewayv1.SignInServiceServer.
func (s *signInServer) DeletePersonalToken(ctx context.Context, req *gatewayv1.DeletePersonalTokenRequest) (*gatewayv1.DeletePersonalTokenResponse, error) {
	v, err := s.person(ctx)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.DeletePersonalTokenResponse{}, rpc.Remote(s.people.DeleteToken(ctx, v, req.GetTokenId()), "gateway")
}
