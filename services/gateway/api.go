package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/web"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// newHandler assembles the HTTP edge: webhooks, JSON API, pages.
func (s *Service) newHandler() (http.Handler, error) {
	prefix, err := newPrefix(s.deps.ExternalURL)
	if err != nil {
		return nil, fmt.Errorf("FORGE_EXTERNAL_URL: %w", err)
	}
	if err := s.newAccess(prefix); err != nil {
		return nil, err
	}
	api, err := s.newAPI()
	if err != nil {
		return nil, err
	}
	badges := &badges{
		builds: schedulerv1.NewBuildServiceClient(s.deps.Receivers["scheduler"]), public: s.access.Public, key: badgeKey(s.deps.People), log: s.deps.Log.WarnContext,
	}
	pages, err := web.New(web.Deps{
		Scheduler: s.access.Guard(s.deps.Receivers["scheduler"]), Config: s.access.Guard(s.deps.Receivers["config"]),
		Deliveries: s.access.Guard(s.deps.Self),
		Rooms:      s.deps.Receivers, Engine: s.engine.get, Outside: s.outsideHealth, People: s.people, May: s.may, GitHubURL: s.deps.GitHub.URL, ExternalURL: s.deps.ExternalURL, Base: prefix.link(),
		Version: s.deps.Version, Log: s.deps.Log, Now: s.deps.Now, BadgeToken: badges.token,
		Traces: s.deps.Traces, TraceURL: s.deps.TraceURL,
	})
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/listen", s.listen(api))
	mux.Handle("/v1/", maxBody(api))
	mux.Handle("POST /v1/builds:remote", s.maxDifference(api))
	mux.HandleFunc("GET /badges/{owner}/{name}", badges.serve)
	pages.Register(mux)
	web.RegisterContent(pages, mux, func(w http.ResponseWriter, r *http.Request, err error) {
		_, out := runtime.MarshalerForRequest(api, r)
		err = rpc.Remote(err, "gateway")
		if status.Code(err) == codes.OutOfRange { // which is a Range's
			err = &runtime.HTTPStatusError{HTTPStatus: http.StatusRequestedRangeNotSatisfiable, Err: err}
		}
		callError(r.Context(), api, out, w, r, err)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, codes.NotFound, "there is nothing at "+r.URL.Path)
	})
	return telemetry.Handler(s.endStreams(prefix.strip(mux, s.people.Identify(s.origins(pages.Know(mux)), refuse(pages)))), &telemetry.Telemetry{
		Log: s.deps.Log, Tracer: s.deps.Tracer, Meter: s.deps.Meter,
	}), nil
}

// newAPI is the JSON API as the protos bind it. Listen is called in process: a
// dialled hop would cost most of the speed.
func (s *Service) newAPI() (*runtime.ServeMux, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithIncomingHeaderMatcher(func(name string) (string, bool) {
			wanted := strings.HasPrefix(name, "X-Github-") || strings.HasPrefix(name, "X-Hub-") || name == "User-Agent"
			return strings.ToLower(name), wanted
		}),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithRoutingErrorHandler(routingError),
		runtime.WithErrorHandler(callError),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	// The context matters only to what these functions dial, which is nothing.
	ctx := context.Background()
	self, config := s.access.Guard(s.deps.Self), s.access.Guard(s.deps.Receivers["config"])
	scheduler, reporter := s.access.Guard(s.deps.Receivers["scheduler"]), s.access.Guard(s.deps.Receivers["reporter"])
	err := errors.Join(
		gatewayv1.RegisterSignInServiceHandlerServer(ctx, mux, &signInServer{people: s.people, access: s.access}),
		gatewayv1.RegisterWebhookServiceHandlerServer(ctx, mux, s),
		gatewayv1.RegisterStatusServiceHandlerClient(ctx, mux, gatewayv1.NewStatusServiceClient(self)),
		gatewayv1.RegisterDeliveryServiceHandlerClient(ctx, mux, gatewayv1.NewDeliveryServiceClient(self)),
		configv1.RegisterInstallationServiceHandlerClient(ctx, mux, configv1.NewInstallationServiceClient(config)),
		configv1.RegisterBuildConfigServiceHandlerClient(ctx, mux, configv1.NewBuildConfigServiceClient(config)),
		schedulerv1.RegisterBuildServiceHandlerClient(ctx, mux, schedulerv1.NewBuildServiceClient(scheduler)),
		schedulerv1.RegisterManualServiceHandlerClient(ctx, mux, schedulerv1.NewManualServiceClient(scheduler)),
		schedulerv1.RegisterShellServiceHandlerClient(ctx, mux, schedulerv1.NewShellServiceClient(scheduler)),
		schedulerv1.RegisterLogServiceHandlerClient(ctx, mux, schedulerv1.NewLogServiceClient(scheduler)),
		schedulerv1.RegisterRepositoryTokenServiceHandlerClient(ctx, mux, schedulerv1.NewRepositoryTokenServiceClient(scheduler)),
		schedulerv1.RegisterAuditServiceHandlerClient(ctx, mux, schedulerv1.NewAuditServiceClient(scheduler)),
		schedulerv1.RegisterScheduleServiceHandlerClient(ctx, mux, schedulerv1.NewScheduleServiceClient(scheduler)),
		schedulerv1.RegisterOutgoingWebhookServiceHandlerClient(ctx, mux, schedulerv1.NewOutgoingWebhookServiceClient(scheduler)),
		schedulerv1.RegisterEnvironmentServiceHandlerClient(ctx, mux, schedulerv1.NewEnvironmentServiceClient(scheduler)),
		schedulerv1.RegisterCacheServiceHandlerClient(ctx, mux, schedulerv1.NewCacheServiceClient(scheduler)),
		schedulerv1.RegisterArtifactServiceHandlerClient(ctx, mux, schedulerv1.NewArtifactServiceClient(scheduler)),
		schedulerv1.RegisterSecretServiceHandlerClient(ctx, mux, schedulerv1.NewSecretServiceClient(scheduler)),
		schedulerv1.RegisterTestServiceHandlerClient(ctx, mux, schedulerv1.NewTestServiceClient(scheduler)),
		reporterv1.RegisterReporterServiceHandlerClient(ctx, mux, reporterv1.NewReporterServiceClient(reporter)),
	)
	if err != nil {
		return nil, fmt.Errorf("gateway: JSON API: %w", err)
	}
	return mux, nil
}

// marshaler speaks JSON without the blanks that protojson puts in at random, and
// hands a body that was read already to Listen untouched: the default marshaler
// leaves an HttpBody empty.
type marshaler struct{ *runtime.JSONPb }

func newMarshaler() marshaler {
	return marshaler{&runtime.JSONPb{
		// Zeros and empty lists are said, so that nobody has to know the defaults.
		MarshalOptions:   protojson.MarshalOptions{EmitDefaultValues: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
	}}
}

func (m marshaler) Marshal(v any) ([]byte, error) {
	text, err := m.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

func (m marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, isBody := v.(*httpbody.HttpBody)
		raw, isRaw := r.(*rawBody)
		if isBody && isRaw {
			body.Data, body.ContentType = raw.data, raw.contentType
			return nil
		}
		return m.JSONPb.NewDecoder(r).Decode(v)
	})
}

// callError gives every error a reason for programs, and says when to come again, where
// that would help.
func callError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if status.Code(err) == codes.Unavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	if own, has := errors.AsType[*runtime.HTTPStatusError](err); has {
		err = &runtime.HTTPStatusError{HTTPStatus: own.HTTPStatus, Err: rpc.WithReason(status.Convert(own.Err)).Err()}
	} else {
		err = rpc.WithReason(status.Convert(err)).Err()
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
}

// routingError says what is wrong with a path or a method.
func routingError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	err := status.Error(codes.NotFound, "there is nothing at "+r.URL.Path)
	if code == http.StatusMethodNotAllowed {
		err = status.Errorf(codes.Unimplemented, "%s is not possible at %s", r.Method, r.URL.Path)
	}
	runtime.HTTPError(ctx, mux, m, w, r, &runtime.HTTPStatusError{HTTPStatus: code, Err: err})
}

// writeError answers as the JSON API does.
func writeError(w http.ResponseWriter, code int, grpcCode codes.Code, message string) {
	text, err := newMarshaler().Marshal(rpc.WithReason(status.New(grpcCode, message)).Proto())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err == nil {
		_ = json.NewEncoder(w).Encode(json.RawMessage(text)) //nolint:errchkjson // who does not read the answer knows from the code
	}
}

// maxBody bounds what the JSON API reads; its requests are small.
func maxBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		next.ServeHTTP(w, r)
	})
}

// largestDifference is what config takes of a difference, 16 MiB, as base64 with what is
// around it.
const largestDifference = 24 << 20

// maxDifference bounds the differences that are being read, one by one and together, and
// reads none of those whom nobody knows. Where people do not sign in the scheduler alone
// knows its token.
func (s *Service) maxDifference(next http.Handler) http.Handler {
	held := &budget{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !signin.From(r.Context()).Known() && (s.people.Enabled() || r.Header.Get("Authorization") == "") {
			writeError(w, http.StatusUnauthorized, codes.Unauthenticated, "sign in by forge login, or show a token")
			return
		}
		if r.ContentLength < 0 || r.ContentLength > largestDifference {
			writeError(w, http.StatusRequestEntityTooLarge, codes.InvalidArgument, "the difference is larger than 16 MiB: push a commit that is nearer")
			return
		}
		if !held.take(int(r.ContentLength), 1) {
			w.Header().Set("Retry-After", retryAfter)
			writeError(w, http.StatusServiceUnavailable, codes.Unavailable, "too many differences are being read: ask again")
			return
		}
		defer held.give(int(r.ContentLength), 1)
		r.Body = http.MaxBytesReader(w, r.Body, r.ContentLength)
		next.ServeHTTP(w, r)
	})
}

// endStreams ends followed logs, watched builds and shells when the server stops, which
// would wait for them else.
func (s *Service) endStreams(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		goesOn := func(ending string) bool { return strings.HasSuffix(r.URL.Path, ending) }
		if !slices.ContainsFunc([]string{":watch", "/log", "/log:lines", "/log/events", "/shells"}, goesOn) {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.serving, cancel)() //nolint:contextcheck // the server's, beside the request's
		inner := r.WithContext(ctx)
		next.ServeHTTP(w, inner)
		r.Pattern = inner.Pattern // which names the span
	})
}
