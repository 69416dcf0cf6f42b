package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

const (
	// GitHub's cap: https://docs.github.com/webhooks/webhook-events-and-payloads#payload-cap
	maxPayload = 25 << 20
	// GitHub gives up after 10 s.
	storeWithin = 9 * time.Second
	// What a 503 says about when to come again, in seconds.
	retryAfter = "5"
	// Buffers that a rare large payload has grown are left to the collector.
	maxPooled = 1 << 20
)

// Listen takes one delivery, see the contract. HTTP calls it in process, where
// the sender was checked before the body was read and no interceptor turns
// faults into statuses: its errors are statuses.
func (s *Service) Listen(ctx context.Context, req *httpbody.HttpBody) (*gatewayv1.ListenResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if sender, overGRPC := peer.FromContext(ctx); overGRPC {
		if err := s.allowlist.check(ctx, sender.Addr.String(), md.Get); err != nil {
			return nil, err
		}
	}
	if len(req.GetData()) > maxPayload {
		return nil, status.Error(codes.InvalidArgument, tooLarge)
	}
	event := firstValue(md, "x-github-event")
	if event == "" {
		s.deps.Log.InfoContext(ctx, "delivery ignored: it has no X-GitHub-Event", "bytes", len(req.GetData()))
		return &gatewayv1.ListenResponse{}, nil
	}
	if !signed(req.GetData(), s.deps.Webhook.Secrets, md.Get("x-hub-signature-256"), md.Get("x-hub-signature")) {
		s.deps.Log.WarnContext(ctx, "delivery refused: its signature fits no secret", "event", event)
		return nil, status.Error(codes.Unauthenticated,
			"the signature in X-Hub-Signature-256 fits none of the webhook secrets: set the same secret in the GitHub App and in FORGE_WEBHOOK_SECRETS")
	}
	payload := payloadOf(req)
	a := &arrival{
		delivery: delivery{
			guid:        guid(firstValue(md, "x-github-delivery"), event, req.GetData()),
			event:       event,
			headers:     headers(md, req.GetContentType()),
			size:        int64(len(payload)),
			traceparent: telemetry.Traceparent(ctx),
			received:    s.deps.Now(),
		},
		payload: s2.EncodeSnappy(nil, payload),
	}
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	if err := s.inbox.put(ctx, a); err != nil {
		return nil, err
	}
	return &gatewayv1.ListenResponse{}, nil
}

const tooLarge = "the payload is larger than 25 MiB, which is all that GitHub sends"

func firstValue(md metadata.MD, name string) string {
	if values := md.Get(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// payloadOf is the JSON in the body, which an App set to
// application/x-www-form-urlencoded puts into the field payload.
func payloadOf(req *httpbody.HttpBody) []byte {
	if kind, _, _ := mime.ParseMediaType(req.GetContentType()); kind != "application/x-www-form-urlencoded" {
		return req.GetData()
	}
	form, err := url.ParseQuery(string(req.GetData()))
	if err != nil || !form.Has("payload") {
		return req.GetData() // kept as it is, to be found malformed
	}
	return []byte(form.Get("payload"))
}

var addressable = regexp.MustCompile(`^[0-9A-Za-z_-]{1,100}$`)

// guid is by what a delivery is known.
func guid(given, event string, body []byte) string {
	if addressable.MatchString(given) {
		return given
	}
	hash := sha256.New()
	_, _ = io.WriteString(hash, event+"\n")
	hash.Write(body)
	return "content-" + hex.EncodeToString(hash.Sum(nil)[:16])
}

// headers are those worth keeping: GitHub's own, without the signatures.
func headers(md metadata.MD, contentType string) map[string]string {
	kept := map[string]string{}
	for name, values := range md {
		if strings.HasPrefix(name, "x-github-") || name == "user-agent" {
			kept[name] = strings.Join(values, ", ")
		}
	}
	if contentType != "" {
		kept["content-type"] = contentType
	}
	return kept
}

// rawBody is a request's body that has been read. The marshaler hands it to
// Listen as it is; Listen keeps nothing of it.
type rawBody struct {
	io.Reader
	data        []byte
	contentType string
}

func (*rawBody) Close() error { return nil }

// writeBusy turns a delivery away before its body is read.
func writeBusy(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Retry-After", retryAfter)
	writeError(w, http.StatusServiceUnavailable, codes.Unavailable, "too many deliveries at once: send it again")
}

// listen says what only HTTP can say, around the method.
func (s *Service) listen(next http.Handler) http.Handler {
	pool := sync.Pool{New: func() any { return new([]byte) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		if err := s.allowlist.check(r.Context(), r.RemoteAddr, r.Header.Values); err != nil {
			writeError(w, http.StatusForbidden, codes.PermissionDenied, status.Convert(err).Message())
			return
		}
		if r.ContentLength > maxPayload {
			w.Header().Set("Connection", "close") // the body is not worth reading
			writeError(w, http.StatusRequestEntityTooLarge, codes.InvalidArgument, tooLarge)
			return
		}
		if !s.budget.take(0, 1) {
			writeBusy(w)
			return
		}
		buffer, _ := pool.Get().(*[]byte)
		held := 0
		defer func() {
			s.budget.give(held, 1)
			if cap(*buffer) <= maxPooled {
				pool.Put(buffer)
			}
		}()
		var err error
		*buffer, err = s.budget.readAll((*buffer)[:0], http.MaxBytesReader(w, r.Body, maxPayload), r.ContentLength, &held)
		if errors.Is(err, errBusy) {
			writeBusy(w)
			return
		}
		if _, over := errors.AsType[*http.MaxBytesError](err); over {
			writeError(w, http.StatusRequestEntityTooLarge, codes.InvalidArgument, tooLarge)
			return
		}
		if err != nil {
			writeError(w, http.StatusBadRequest, codes.InvalidArgument, "the body broke off or came too slowly")
			return
		}
		r.Body = &rawBody{data: *buffer, contentType: r.Header.Get("Content-Type")}
		next.ServeHTTP(w, r)
	})
}
