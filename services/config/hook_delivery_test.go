package config

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

// hooked is a world whose webhook goes to a server that answers as told.
func hooked(t *testing.T) (w *world, answer *atomic.Int32) {
	t.Helper()
	answer = &atomic.Int32{}
	answer.Store(http.StatusServiceUnavailable)
	receiver := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		out.WriteHeader(int(answer.Load()))
	}))
	t.Cleanup(receiver.Close)
	w = newWorld(t)
	w.sim.SetWebhook(receiver.URL, "secret")
	return w, answer
}

func (w *world) settle() {
	w.t.Helper()
	if err := w.sim.WaitDeliveries(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) hookDeliveries() configv1.HookDeliveryServiceClient {
	return configv1.NewHookDeliveryServiceClient(w.as("gateway"))
}

func TestHookDeliveriesAreListedPageByPageAndSentAgain(t *testing.T) {
	w, answer := hooked(t)
	for _, name := range []string{"a", "b", "c"} {
		w.commit(githubsim.Commit{Files: map[string]string{name: "x"}})
	}
	w.settle()
	var all []*configv1.HookDelivery
	for token, pages := "", 0; ; pages++ {
		page, err := w.hookDeliveries().ListHookDeliveries(t.Context(), &configv1.ListHookDeliveriesRequest{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.GetDeliveries()...)
		if token = page.GetNextPageToken(); token == "" {
			break
		}
		if pages > 10 {
			t.Fatal("the pages have no end")
		}
	}
	if len(all) != len(w.sim.Deliveries()) || len(all) < 3 {
		t.Fatalf("%d listed, of %d", len(all), len(w.sim.Deliveries()))
	}
	newest := all[0]
	if newest.GetEvent() != "push" || newest.GetStatusCode() != http.StatusServiceUnavailable || newest.GetRedelivery() ||
		newest.GetRepositoryId() != w.repo.GetId() || newest.GetInstallationId() != w.install || !newest.GetDeliverTime().IsValid() {
		t.Errorf("listed %v", newest)
	}
	answer.Store(http.StatusOK)
	if _, err := w.hookDeliveries().RedeliverHookDelivery(t.Context(), &configv1.RedeliverHookDeliveryRequest{Id: newest.GetId()}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	page, err := w.hookDeliveries().ListHookDeliveries(t.Context(), &configv1.ListHookDeliveriesRequest{PageSize: 1})
	if err != nil || len(page.GetDeliveries()) != 1 {
		t.Fatalf("%v, error %v", page, err)
	}
	again := page.GetDeliveries()[0]
	if !again.GetRedelivery() || again.GetDeliveryId() != newest.GetDeliveryId() || again.GetId() == newest.GetId() || again.GetStatusCode() != http.StatusOK {
		t.Errorf("sent again: %v", again)
	}
}

func TestHookDeliveriesRefusals(t *testing.T) {
	w, _ := hooked(t)
	list := func(req *configv1.ListHookDeliveriesRequest) error {
		_, err := w.hookDeliveries().ListHookDeliveries(t.Context(), req)
		return err
	}
	redeliver := func(id int64) error {
		_, err := w.hookDeliveries().RedeliverHookDelivery(t.Context(), &configv1.RedeliverHookDeliveryRequest{Id: id})
		return err
	}
	w.wantFault(list(&configv1.ListHookDeliveriesRequest{PageSize: -1}), fault.Invalid, "page_size is -1")
	w.wantFault(list(&configv1.ListHookDeliveriesRequest{PageToken: "nonsense"}), fault.Invalid, "cursor")
	w.wantFault(redeliver(0), fault.Invalid, "0 is not the id of an attempt")
	w.wantFault(redeliver(12345), fault.NotFound, "hook delivery 12345")
	w.front.answers("/app/hook", 502, "bad gateway")
	w.wantFault(list(&configv1.ListHookDeliveriesRequest{}), fault.Unavailable, "GitHub had trouble")
	w.wantFault(redeliver(1), fault.Unavailable, "GitHub had trouble")
	w.front.answers("/app/hook", 403, "slow down", "Retry-After", "7")
	w.wantFault(list(&configv1.ListHookDeliveriesRequest{}), fault.Unavailable, "slow down for 7s")
	w.front.answers("/app/hook", 401, "Bad credentials")
	w.wantFault(list(&configv1.ListHookDeliveriesRequest{}), fault.Unavailable, "does not accept the App's key")
	if _, err := configv1.NewHookDeliveryServiceClient(w.as("reporter")).ListHookDeliveries(t.Context(), &configv1.ListHookDeliveriesRequest{}); !fault.Is(err, fault.Denied) {
		t.Errorf("asked by the reporter: %v", err)
	}
}
