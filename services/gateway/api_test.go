package gateway

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

func TestStatusIsExact(t *testing.T) {
	w := onSQLite(t, nil)
	if code, body := w.get("/v1/status"); code != 200 || body != `{"status":"up","version":"v1.2.3","engine":""}` {
		t.Errorf("%d %s", code, body)
	}
}

func TestStatusSaysHowTheEngineDoes(t *testing.T) {
	clock := kittest.NewClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	w := onSQLite(t, func(d *Deps) { d.Now = clock.Now })
	says := func(want string) {
		t.Helper()
		if code, body := w.get("/v1/status"); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%d %s, want %s", code, body, want)
		}
	}
	engine := &w.rooms.engine
	answer := func(a *schedulerv1.GetEngineResponse) {
		engine.mu.Lock()
		defer engine.mu.Unlock()
		engine.answer = a
	}
	says(`"engine":""}`)
	answer(&schedulerv1.GetEngineResponse{Name: "docker", AwayTime: timestamppb.New(clock.Now())})
	says(`"engine":""}`) // asked just now
	if engine.asked != 1 {
		t.Errorf("asked %d times", engine.asked)
	}
	clock.Advance(engineAsked)
	says(`"status":"up","version":"v1.2.3","engine":"docker","engineAwayTime":"2026-11-23T12:00:00Z"`)
	answer(&schedulerv1.GetEngineResponse{Name: "docker"})
	clock.Advance(engineAsked)
	says(`"engine":"docker"}`)
}

func TestJSONAPI(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build = failedBuild()
	w.post(hook{event: "star", id: "a1", body: star})
	w.ends("a1")
	for _, c := range []struct {
		method, path, token string
		code                int
		says                string
	}{
		{"GET", "/v1/deliveries", "", 401, "this call needs the admin token"},
		{"GET", "/v1/deliveries", "wrong", 401, "the admin token is wrong"},
		{"GET", "/v1/deliveries", adminToken, 200, `"id":"a1","event":"star","action":"created","repository":"acme/web","installationId":"7"`},
		{"GET", "/v1/deliveries?event=push", adminToken, 200, `{"deliveries":[],"nextPageToken":""}`},
		{"GET", "/v1/deliveries?state=STATE_DECIDED&page_size=1", adminToken, 200, `"reason":"REASON_EVENT_IGNORED","text":"ignored: no receiver for event star","buildIds":[]`},
		{"GET", "/v1/deliveries?page_token=x", adminToken, 400, `"code":3,"message":"page_token is not one of ours"`},
		{"GET", "/v1/deliveries/a1", adminToken, 200, `"payload":"eyJhY3Rpb24`},
		{"GET", "/v1/deliveries/none", adminToken, 404, `"code":5,"message":"no delivery none`},
		{"GET", "/v1/builds/b1", "", 200, `"build":{"id":"b1"`},
		{"GET", "/v1/builds/b1/log", "", 200, `{"result":{"data":"`},
		{"GET", "/v1/nothing", "", 404, `"code":5,"message":"there is nothing at /v1/nothing"`},
		{"GET", "/nothing", "", 404, `"code":5,"message":"there is nothing at /nothing"`},
		{"GET", "/v1/listen", "", 405, `"code":12,"message":"GET is not possible at /v1/listen"`},
		{"DELETE", "/v1/listen", "", 405, `"code":12,"message":"DELETE is not possible at /v1/listen"`},
		{"POST", "/v1/listen/", "", 404, `"code":5,"message":"there is nothing at /v1/listen/"`},
		{"POST", "/listen", "", 404, `"code":5,"message":"there is nothing at /listen"`},
		{"PUT", "/v1/status", "", 405, `"code":12,"message":"PUT is not possible at /v1/status"`},
		{"POST", "/v1/builds/b1:cancel", "", 401, "this call needs the admin token"},
		{"POST", "/v1/builds", adminToken, 501, `"code":12`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, w.http.URL+c.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		if code, body := w.do(req); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, code, body, c.code, c.says)
		}
	}
}

// Whoever answers, an error has the reason that programs go by.
func TestEveryErrorOfTheAPIHasAReason(t *testing.T) {
	w := onSQLite(t, nil)
	for _, c := range []struct {
		method, path, body string
		code               int
		reason             string
	}{
		{"GET", "/v1/deliveries", "", 401, "UNAUTHENTICATED"},
		{"GET", "/v1/deliveries/none", "", 404, "NOT_FOUND"},
		{"GET", "/v1/deliveries?page_token=x", "", 400, "INVALID"},
		{"GET", "/v1/deliveries?page_size=x", "", 400, "INVALID"},
		{"GET", "/v1/nothing", "", 404, "NOT_FOUND"},
		{"GET", "/nothing", "", 404, "NOT_FOUND"},
		{"PUT", "/v1/status", "", 405, "UNIMPLEMENTED"},
		{"POST", "/v1/builds", "{", 400, "INVALID"},
		{"POST", "/v1/builds:remote", "{}", 401, "UNAUTHENTICATED"},
		{"GET", "/v1/listen", "", 405, "UNIMPLEMENTED"},
		{"GET", "/v1/builds/b1/artifacts/dist/content", "", 404, "NOT_FOUND"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, w.http.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.code != 401 {
			req.Header.Set("Authorization", "Bearer "+adminToken)
		}
		want := `"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"` + c.reason + `","domain":"forge","metadata":{}}]}`
		if code, body := w.do(req); code != c.code || !strings.HasPrefix(body, `{"code":`) || !strings.HasSuffix(strings.TrimSpace(body), want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, code, body, c.code, c.reason)
		}
	}
}

// The page has each reason, by which programs decide.
func TestReasonsOfErrorsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for code := codes.Unknown; code <= codes.Unauthenticated; code++ {
		info, ok := rpc.WithReason(status.New(code, "")).Details()[0].(*errdetails.ErrorInfo)
		if !ok || !strings.Contains(string(page), "\n| "+info.GetReason()+" | `") {
			t.Errorf("docs/api.md has no row for the reason of %v, %v", code, info)
		}
	}
}

// A stranger's headers must not make a call of the gateway's own room.
func TestHTTPCallersCannotNameARoom(t *testing.T) {
	w := onSQLite(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.http.URL+"/v1/deliveries", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Forge-Room", "scheduler")
	req.Header.Set("Grpc-Metadata-Authorization", "Bearer "+adminToken)
	if code, body := w.do(req); code != 401 {
		t.Errorf("%d %s", code, body)
	}
}

func TestAccessNamesEveryMethod(t *testing.T) {
	access := Access()
	services := 0
	for _, desc := range []struct {
		name    string
		methods int
	}{
		{gatewayv1.WebhookService_ServiceDesc.ServiceName, len(gatewayv1.WebhookService_ServiceDesc.Methods)},
		{gatewayv1.StatusService_ServiceDesc.ServiceName, len(gatewayv1.StatusService_ServiceDesc.Methods)},
		{gatewayv1.SignInService_ServiceDesc.ServiceName, len(gatewayv1.SignInService_ServiceDesc.Methods)},
		{gatewayv1.DeliveryService_ServiceDesc.ServiceName, len(gatewayv1.DeliveryService_ServiceDesc.Methods)},
		{collectorv1.TraceService_ServiceDesc.ServiceName, len(collectorv1.TraceService_ServiceDesc.Methods)},
	} {
		services += desc.methods
		found := 0
		for method := range access {
			if strings.HasPrefix(method, "/"+desc.name+"/") {
				found++
			}
		}
		if found != desc.methods {
			t.Errorf("%s: %d of %d methods", desc.name, found, desc.methods)
		}
	}
	if len(access) != services {
		t.Errorf("%d methods, %d in the contract", len(access), services)
	}
}

func TestGatewayWithoutASecretDoesNotStart(t *testing.T) {
	if _, err := New(Deps{}); err == nil || !strings.Contains(err.Error(), "FORGE_WEBHOOK_SECRETS") {
		t.Errorf("%v", err)
	}
}
