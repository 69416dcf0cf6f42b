package gateway

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// patience is how long a test waits for what happens at once, on a machine that is busy.
const patience = time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret     = "hush"
	adminToken = "adm"
)

// world is a running gateway with its neighbours.
type world struct {
	t       *testing.T
	service *Service
	rooms   *rooms
	http    *httptest.Server
	grpc    *grpc.ClientConn
	stop    func()
}

// start runs a gateway on db. change may alter what it is made with; github is
// what config shows of GitHub, nothing ever sent where it is left out.
func start(t *testing.T, db *sqldb.DB, change func(*Deps), github ...*hooks) *world {
	t.Helper()
	shown := append(github, &hooks{})[0]
	w := &world{t: t, rooms: &rooms{got: map[string][]*eventv1.Event{}, answer: map[string]func(*eventv1.Event) (*eventv1.Decision, error){}}}
	pipe := rpc.NewPipe()
	deps := Deps{
		DB: db, Webhook: Webhook{Secrets: []string{"old secret", secret}, AllowedIPs: []string{"any"}},
		Version: "v1.2.3", ExternalURL: "http://forge.example", Log: kittest.Log(t),
	}
	if change != nil {
		change(&deps)
	}
	conn, err := pipe.Dial("gateway", deps.Tracer)
	if err != nil {
		t.Fatal(err)
	}
	deps.Self = conn
	deps.Receivers = map[string]grpc.ClientConnInterface{"config": conn, "scheduler": conn, "reporter": conn}
	if w.service, err = New(deps); err != nil {
		t.Fatal(err)
	}
	access := Access()
	maps.Copy(access, map[string]rpc.Access{
		configv1.EventService_ReceiveEvent_FullMethodName:                  {Rooms: []string{"gateway"}},
		schedulerv1.EventService_ReceiveEvent_FullMethodName:               {Rooms: []string{"gateway"}},
		reporterv1.EventService_ReceiveEvent_FullMethodName:                {Rooms: []string{"gateway"}},
		configv1.HookDeliveryService_ListHookDeliveries_FullMethodName:     {Rooms: []string{"gateway"}},
		configv1.HookDeliveryService_RedeliverHookDelivery_FullMethodName:  {Rooms: []string{"gateway"}},
		configv1.PullRequestService_ListChangedPullRequests_FullMethodName: {Rooms: []string{"gateway"}},
		configv1.RefService_ListPushedRefs_FullMethodName:                  {Rooms: []string{"gateway"}},
		configv1.CommitService_GetCommit_FullMethodName:                    {Rooms: []string{"gateway"}},
		reporterv1.ReporterService_ListTargets_FullMethodName:              {},
		configv1.RepositoryService_GetRepository_FullMethodName:            {Rooms: []string{"gateway"}},
		schedulerv1.EngineService_GetEngine_FullMethodName:                 {Rooms: []string{"gateway"}},
		schedulerv1.BuildService_GetBuild_FullMethodName:                   {Public: true},
		schedulerv1.BuildService_WatchLog_FullMethodName:                   {Public: true},
		schedulerv1.BuildService_WatchBuild_FullMethodName:                 {Public: true},
		schedulerv1.LogService_GetLog_FullMethodName:                       {Public: true},
		schedulerv1.LogService_ReadLog_FullMethodName:                      {Public: true},
		schedulerv1.LogService_SearchLog_FullMethodName:                    {Public: true},
		schedulerv1.ArtifactService_ListArtifacts_FullMethodName:           {Public: true},
		schedulerv1.ArtifactService_ListArtifactFiles_FullMethodName:       {Public: true},
		schedulerv1.ArtifactService_DownloadArtifact_FullMethodName:        {Public: true},
		schedulerv1.BuildService_ListBuilds_FullMethodName:                 {},
		configv1.InstallationService_ListInstallations_FullMethodName:      {},
		schedulerv1.TestService_ListTests_FullMethodName:                   {Public: true},
		schedulerv1.TestService_ListFindings_FullMethodName:                {Public: true},
		schedulerv1.BuildService_CancelBuild_FullMethodName:                {},
		schedulerv1.BuildService_RetryBuild_FullMethodName:                 {},
		schedulerv1.BuildService_ExpediteBuild_FullMethodName:              {},
		schedulerv1.BuildService_ApproveBuild_FullMethodName:               {},
	})
	maps.Copy(access, placesAccess())
	maps.Copy(access, previewsAccess())
	maps.Copy(access, auditAccess())
	maps.Copy(access, shellAccess())
	server := rpc.NewServer(rpc.Config{Name: "forge", Access: access, AdminToken: adminToken, Behalf: []string{"gateway"}, Log: deps.Log, Tracer: deps.Tracer})
	w.service.Register(server)
	configv1.RegisterHookDeliveryServiceServer(server, shown)
	configv1.RegisterPullRequestServiceServer(server, shown)
	configv1.RegisterRefServiceServer(server, shown)
	configv1.RegisterInstallationServiceServer(server, &w.rooms.installed)
	configv1.RegisterCommitServiceServer(server, shown)
	configv1.RegisterRepositoryServiceServer(server, fakeRepositories{rooms: w.rooms})
	configv1.RegisterEventServiceServer(server, configEvents{rooms: w.rooms})
	schedulerv1.RegisterEventServiceServer(server, schedulerEvents{rooms: w.rooms})
	reporterv1.RegisterEventServiceServer(server, reporterEvents{rooms: w.rooms})
	schedulerv1.RegisterBuildServiceServer(server, &w.rooms.builds)
	w.rooms.lines.builds = &w.rooms.builds
	schedulerv1.RegisterLogServiceServer(server, &w.rooms.lines)
	schedulerv1.RegisterArtifactServiceServer(server, &w.rooms.left)
	schedulerv1.RegisterEnvironmentServiceServer(server, &w.rooms.places)
	schedulerv1.RegisterPreviewServiceServer(server, &w.rooms.previews)
	schedulerv1.RegisterEngineServiceServer(server, &w.rooms.engine)
	schedulerv1.RegisterTestServiceServer(server, &w.rooms.tests)
	schedulerv1.RegisterAuditServiceServer(server, &w.rooms.audit)
	schedulerv1.RegisterShellServiceServer(server, &w.rooms.shells)
	reporterv1.RegisterReporterServiceServer(server, &w.rooms.told)

	w.grpc, w.http = conn, httptest.NewServer(w.service.Handler())
	ctx, cancel := context.WithCancel(t.Context())
	relayCtx, stopRelay := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var relaying sync.WaitGroup
	running.Go(func() { server.Serve(ctx, pipe) })
	relaying.Go(func() {
		if err := w.service.Run(relayCtx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	w.stop = sync.OnceFunc(func() {
		w.http.Close()
		stopRelay()
		relaying.Wait()
		conn.Close()
		cancel()
		running.Wait()
	})
	t.Cleanup(w.stop)
	return w
}

// onSQLite runs a gateway on a database of its own.
func onSQLite(t *testing.T, change func(*Deps)) *world {
	t.Helper()
	return start(t, open(t), change)
}

func open(t testing.TB) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: kittest.SQLiteDir(t, "gateway", Migrations()), Room: "gateway", Migrations: Migrations()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func sign(body []byte) string { return signBy(secret, body) }

func signBy(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// hook is a webhook request; a header set to "" is left out.
type hook struct {
	event, id string
	body      []byte
	header    map[string]string
	chunked   bool
}

func (h hook) request(t testing.TB, url string) *http.Request {
	t.Helper()
	var body io.Reader = bytes.NewReader(h.body)
	if h.chunked {
		body = io.MultiReader(body) // whose length nobody knows
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/listen", body)
	if err != nil {
		t.Fatal(err)
	}
	headers := map[string]string{
		"Content-Type": "application/json", "X-GitHub-Event": h.event, "X-GitHub-Delivery": h.id,
		"X-Hub-Signature-256": sign(h.body), "User-Agent": "GitHub-Hookshot/044aadd",
	}
	maps.Copy(headers, h.header)
	for name, value := range headers {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	return req
}

func (w *world) post(h hook) (int, string) {
	w.t.Helper()
	return w.do(h.request(w.t, w.http.URL))
}

func (w *world) do(req *http.Request) (int, string) {
	w.t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func (w *world) get(path string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.http.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(req)
}

func admin(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+adminToken)
}

func (w *world) deliveries() gatewayv1.DeliveryServiceClient {
	return gatewayv1.NewDeliveryServiceClient(w.grpc)
}

// ends waits for a delivery to be decided or kept.
func (w *world) ends(id string) *gatewayv1.Delivery {
	w.t.Helper()
	var found *gatewayv1.Delivery
	kittest.Eventually(w.t, patience, func() error {
		resp, err := w.deliveries().GetDelivery(admin(w.t.Context()), &gatewayv1.GetDeliveryRequest{DeliveryId: id})
		if err != nil {
			return err
		}
		if found = resp.GetDelivery(); found.GetState() == gatewayv1.Delivery_STATE_PENDING {
			return fmt.Errorf("pending: %v", found.GetForwards())
		}
		return nil
	})
	return found
}

// count is how many deliveries are stored.
func (w *world) count() int {
	w.t.Helper()
	resp, err := w.deliveries().ListDeliveries(admin(w.t.Context()), &gatewayv1.ListDeliveriesRequest{PageSize: rpc.LargestPage})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(resp.GetDeliveries())
}
