package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// auditLog plays the scheduler's.
type auditLog struct {
	schedulerv1.UnimplementedAuditServiceServer
	mu    sync.Mutex
	away  bool
	known map[string]*schedulerv1.AuditEntry // that were handed over, by their ids
	shown []*schedulerv1.AuditEntry          // what is listed
}

func auditAccess() map[string]rpc.Access {
	return map[string]rpc.Access{
		schedulerv1.AuditService_ListAuditEntries_FullMethodName:   {},
		schedulerv1.AuditService_RecordAuditEntries_FullMethodName: {Rooms: []string{"gateway"}, NoAdmin: true},
	}
}

func (a *auditLog) ListAuditEntries(context.Context, *schedulerv1.ListAuditEntriesRequest) (*schedulerv1.ListAuditEntriesResponse, error) {
	return &schedulerv1.ListAuditEntriesResponse{Entries: a.shown}, nil
}

func (a *auditLog) RecordAuditEntries(_ context.Context, req *schedulerv1.RecordAuditEntriesRequest) (*schedulerv1.RecordAuditEntriesResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away {
		return nil, fault.New(fault.Unavailable, "the scheduler is away")
	}
	if a.known == nil {
		a.known = map[string]*schedulerv1.AuditEntry{}
	}
	for _, e := range req.GetEntries() {
		a.known[e.GetHandoverId()] = e.GetEntry()
	}
	return &schedulerv1.RecordAuditEntriesResponse{}, nil
}

func (a *auditLog) set(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = away
}

// recorded waits until so many entries were handed over, and returns them in lines.
func (w *world) recorded(count int) (all []string) {
	w.t.Helper()
	kittest.Eventually(w.t, patience, func() error {
		w.rooms.audit.mu.Lock()
		defer w.rooms.audit.mu.Unlock()
		all = nil
		for _, e := range w.rooms.audit.known {
			line := fmt.Sprintf("%s %s %s %q %s %s%s", e.GetActor(), e.GetAction(), e.GetOrigin(), e.GetCredential(), e.GetAddress(), e.GetRepository()+e.GetBuildId(), e.GetSubject())
			if e.GetRefused() {
				line += " refused"
			}
			all = append(all, line)
		}
		if len(all) != count {
			return fmt.Errorf("%d entries: %s", len(all), strings.Join(all, "\n"))
		}
		return nil
	})
	slices.Sort(all)
	return all
}

func TestWhatIsDoneAtTheGatewayReachesTheAuditLog(t *testing.T) {
	w := newSignIns(t, func(d *Deps) { d.Webhook.TrustedProxies = []string{"127.0.0.1"} })
	w.rooms.audit.set(true) // nothing is lost meanwhile
	from := func(who func(*http.Request), address string) func(*http.Request) {
		return func(r *http.Request) { who(r); r.Header.Set("X-Forwarded-For", address) }
	}
	boss, csrf := w.signIn("boss")
	w.post(hook{event: "ping", id: "d1", body: []byte(`{"zen":"calm"}`)})
	w.ends("d1")
	if answer, text := w.as(from(withCSRF(boss, csrf), "6.6.6.6, 192.0.2.9"), http.MethodPost, "/deliveries/d1/redeliver", url.Values{"csrf": {csrf}}); answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s %s", answer.Status, text)
	}
	_, text := w.as(boss, http.MethodPost, "/account/tokens", url.Values{"csrf": {csrf}, "name": {"laptop"}, "days": {"7"}})
	token := regexp.MustCompile(`<pre id="secret">(forge_pat_\w+)</pre>`).FindStringSubmatch(text)[1]
	if answer, text := w.as(from(bearer(token), "192.0.2.9"), http.MethodPost, "/v1/deliveries/d1:redeliver", nil); answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", answer.Status, text)
	}
	if answer, text := w.as(bearer(adminToken), http.MethodPost, "/v1/deliveries/d1:redeliver", nil); answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", answer.Status, text)
	}
	w.as(bearer(token), http.MethodPost, "/v1/sign-in:end", nil)
	w.rooms.audit.set(false)
	w.service.audit.Wake()
	want := []string{
		`an administrator ACTION_REDELIVER ORIGIN_API "admin token" 127.0.0.1 d1`,
		`boss ACTION_CREATE_TOKEN ORIGIN_PAGE "session" 127.0.0.1 personal token laptop`,
		`boss ACTION_REDELIVER ORIGIN_API "personal token laptop" 192.0.2.9 d1`,
		`boss ACTION_REDELIVER ORIGIN_PAGE "session" 192.0.2.9 d1`, // what the caller claims stands before it
		`boss ACTION_SIGN_IN ORIGIN_PAGE "" 127.0.0.1 `,
		`boss ACTION_SIGN_OUT ORIGIN_API "personal token laptop" 127.0.0.1 personal token laptop`,
	}
	if got := w.recorded(len(want)); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, e := range w.rooms.audit.known {
		if strings.Contains(e.String(), "forge_pat_") {
			t.Errorf("it holds a token: %v", e)
		}
	}
	// What was handed over is gone here.
	kittest.Eventually(t, patience, func() error {
		var left int
		if err := w.service.deps.DB.Read().QueryRowContext(t.Context(), "SELECT COUNT(*) FROM audit_handover").Scan(&left); err != nil || left > 0 {
			return fmt.Errorf("%d are left, %w", left, err)
		}
		return nil
	})
}

// Without a trusted proxy a header says nothing, and a header of Forge's own rooms that a
// stranger sends says nothing either.
func TestAForgedOriginIsNotBelieved(t *testing.T) {
	w := newSignIns(t, nil)
	wes, csrf := w.signIn("wes")
	lies := func(r *http.Request) {
		withCSRF(wes, csrf)(r)
		for name, value := range map[string]string{
			"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Real-Ip": "6.6.6.6", "User-Agent": "forge\x1b[2J" + strings.Repeat("a", 1000),
			"Forge-Origin-Bin": `{"way":"comment","address":"6.6.6.6"}`, "Grpc-Metadata-Forge-Origin-Bin": `{"way":"comment","address":"6.6.6.6"}`,
		} {
			r.Header[name] = []string{strings.ReplaceAll(value, "\x1b", "")}
		}
	}
	if answer, text := w.as(lies, http.MethodPost, "/v1/builds/b1:cancel", nil); answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", answer.Status, text)
	}
	got := w.rooms.origin
	if got.Way != "api" || got.Address != "127.0.0.1" || got.Credential != "session" || len(got.Agent) > 200 {
		t.Errorf("the scheduler is told %+v", got)
	}
}

func TestWhoIsNotAnAdminSeesNothingOfTheAuditLog(t *testing.T) {
	w := newSignIns(t, nil)
	w.rooms.audit.shown = []*schedulerv1.AuditEntry{{Id: "1", Actor: "somebody-else", Repository: "acme/shop", CreateTime: at(0)}}
	if err := w.sim.SetPermission("acme", "shop", "ada", "admin"); err != nil {
		t.Fatal(err)
	}
	rita, _ := w.signIn("rita")
	wes, _ := w.signIn("wes")
	ada, _ := w.signIn("ada")
	boss, _ := w.signIn("boss")
	for name, c := range map[string]struct {
		who        func(*http.Request)
		all, shops int
	}{
		"a stranger": {nil, http.StatusUnauthorized, http.StatusUnauthorized},
		"rita":       {rita, http.StatusBadRequest, http.StatusForbidden},
		"wes":        {wes, http.StatusBadRequest, http.StatusForbidden},
		"ada":        {ada, http.StatusBadRequest, http.StatusOK},
		"boss":       {boss, http.StatusOK, http.StatusOK},
	} {
		for path, code := range map[string]int{"/v1/audit": c.all, "/audit": c.all, "/v1/audit?repository=acme/shop": c.shops, "/audit?repository=acme/shop": c.shops, "/v1/audit?repository=acme/none": 0} {
			answer, text := w.as(c.who, http.MethodGet, path, nil)
			if code != 0 && answer.StatusCode != code {
				t.Errorf("%s by %s: %s %s", path, name, answer.Status, text)
			}
			if answer.StatusCode != http.StatusOK && strings.Contains(text, "somebody-else") || code == 0 && answer.StatusCode == http.StatusOK && name != "boss" {
				t.Errorf("%s shows %s: %s", path, name, text)
			}
		}
	}
}

func TestRefusalsAreWrittenDownAndNoFlood(t *testing.T) {
	w := newSignIns(t, nil)
	rita, csrf := w.signIn("rita")
	for range 30 {
		w.as(withCSRF(rita, csrf), http.MethodPost, "/v1/builds/b1:cancel", nil)
		w.as(withCSRF(rita, csrf), http.MethodGet, "/v1/deliveries", nil) // changes nothing
	}
	got := w.recorded(11)
	if want := `rita ACTION_CANCEL ORIGIN_API "session" 127.0.0.1 b1 refused`; got[0] != want || got[9] != want {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

func TestTheAuditPageShowsWhatOthersWroteAsText(t *testing.T) {
	w := shopOfLists(t)
	const evil = `<img src=x onerror=alert(1)>`
	w.rooms.audit.shown = []*schedulerv1.AuditEntry{
		{Id: "2", CreateTime: at(60), Action: schedulerv1.AuditEntry_ACTION_FREEZE, Actor: evil, Origin: schedulerv1.AuditEntry_ORIGIN_PAGE, Credential: "personal token " + evil, Address: evil, Agent: evil, Repository: evil, Environment: evil, Subject: evil, Detail: evil, BuildId: "../" + evil},
		{Id: "1", CreateTime: at(10), Action: schedulerv1.AuditEntry_ACTION_APPROVE, Actor: "rita", Origin: schedulerv1.AuditEntry_ORIGIN_BUTTON, Repository: "acme/shop", BuildId: "b1", Refused: true},
	}
	v, csrf := w.signedIn()
	code, body := v.get("/audit?actor=" + url.QueryEscape(evil) + "&action=freeze&since=2026-11-01")
	if code != http.StatusOK || strings.Contains(body, "<img") {
		t.Errorf("%d: what others wrote became markup", code)
	}
	main := regexp.MustCompile(`(?s)<main.*</main>`)
	kittest.Golden(t, "page_audit", []byte(strings.ReplaceAll(main.FindString(body), csrf, "CSRF")+"\n"))
	for _, bad := range []string{"since=yesterday", "until=2026-13-01", "action=fly"} {
		if code, _ := v.get("/audit?" + bad); code != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, code)
		}
	}
}
