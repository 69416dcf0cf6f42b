package config

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/metadata"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func (w *world) admin() (context.Context, configv1.InstallationServiceClient) {
	return metadata.AppendToOutgoingContext(w.t.Context(), "authorization", "Bearer admin"),
		configv1.NewInstallationServiceClient(w.as(""))
}

// run runs the room's loop until the test ends.
func (w *world) run() {
	ctx, stop := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.service.Run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func TestAllPagesOfInstallationsAreReadAndListed(t *testing.T) {
	w := newWorld(t)
	want := []string{"acme"}
	for i := range 250 {
		account := fmt.Sprintf("Org-%03d", i)
		w.sim.AddInstallation(account)
		want = append(want, account)
	}
	w.run()
	ctx, client := w.admin()
	kittest.Eventually(t, patience, func() error {
		if n := len(w.service.installations.all()); n != len(want) {
			return fmt.Errorf("%d installations", n)
		}
		return nil
	})
	if n := w.calls("GET /app/installations"); n < 3 {
		t.Errorf("%d pages asked for", n)
	}
	for _, size := range []int32{0, 1, 100, 251, 10_000} {
		var got []string
		token, pages := "", 0
		for {
			answer, err := client.ListInstallations(ctx, &configv1.ListInstallationsRequest{PageSize: size, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range answer.GetInstallations() {
				got = append(got, one.GetAccount())
			}
			pages++
			if token = answer.GetNextPageToken(); token == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("page size %d: got %v", size, got)
		}
		if size == 0 && pages != 6 {
			t.Errorf("%d pages of the usual size", pages)
		}
	}
	for _, token := range []string{"!", "bm8"} {
		_, err := client.ListInstallations(ctx, &configv1.ListInstallationsRequest{PageToken: token})
		w.wantFault(err, fault.Invalid, "page_token is not one of ours")
	}
	_, err := client.ListInstallations(ctx, &configv1.ListInstallationsRequest{PageSize: -1})
	w.wantFault(err, fault.Invalid, "page_size is -1")
}

func TestInstallationIsShownAsGitHubHasIt(t *testing.T) {
	w := newWorld(t)
	ctx, client := w.admin()
	answer, err := client.GetInstallation(ctx, &configv1.GetInstallationRequest{InstallationId: w.install})
	if err != nil {
		t.Fatal(err)
	}
	got := answer.GetInstallation()
	if got.GetAccount() != "acme" || got.GetAccountId() == 0 || got.GetRepositorySelection() != "all" || got.GetPermissions()["statuses"] != "write" ||
		got.GetSuspendTime() != nil || !got.GetRefreshTime().AsTime().Equal(w.clock.Now()) || !strings.Contains(got.GetHtmlUrl(), "/settings/installations/") {
		t.Errorf("got %v", got)
	}
	_, err = client.GetInstallation(ctx, &configv1.GetInstallationRequest{InstallationId: 4711})
	w.wantFault(err, fault.NotFound, "no installation 4711")
	refreshed, err := client.RefreshInstallations(ctx, &configv1.RefreshInstallationsRequest{})
	if err != nil || len(refreshed.GetInstallations()) != 1 {
		t.Errorf("got %v, error %v", refreshed, err)
	}
}

func TestRoomServesWhileGitHubIsDownAndTriesAgain(t *testing.T) {
	w := newWorld(t)
	var down atomic.Bool
	down.Store(true)
	w.front.set(func(out http.ResponseWriter, _ *http.Request) bool {
		if down.Load() {
			http.Error(out, "unicorn", http.StatusInternalServerError)
		}
		return down.Load()
	})
	w.run()
	ctx, client := w.admin()
	_, err := client.GetInstallation(ctx, &configv1.GetInstallationRequest{InstallationId: w.install})
	w.wantFault(err, fault.Unavailable, "GitHub had trouble")
	kittest.Eventually(t, patience, func() error {
		if !strings.Contains(w.log.String(), "read of the installations failed") {
			return errors.New("not logged")
		}
		return nil
	})
	down.Store(false)
	kittest.Eventually(t, patience, func() error {
		if len(w.service.installations.all()) != 1 {
			return errors.New("not read")
		}
		return nil
	})
}

func TestWrongKeyIsSaidPlainly(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	right := w.deps.GitHub.App
	for _, app := range []kitgithub.App{{ID: right.ID, Key: keyPEM(other)}, {ID: right.ID + 1, Key: right.Key}} {
		w.deps.GitHub.App = app
		w.start()
		ctx, client := w.admin()
		const want = "GitHub does not accept the App's key: FORGE_GITHUB_APP_ID and FORGE_GITHUB_PRIVATE_KEY"
		_, err = client.RefreshInstallations(ctx, &configv1.RefreshInstallationsRequest{})
		w.wantFault(err, fault.Unavailable, want)
		_, err = client.GetInstallation(ctx, &configv1.GetInstallationRequest{InstallationId: w.install})
		w.wantFault(err, fault.Unavailable, want)
	}
}

func TestUselessKeyStopsTheStart(t *testing.T) {
	w := newWorld(t)
	for _, key := range []string{"", "hunter2", "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\n"} {
		deps := w.deps
		deps.GitHub.App.Key = []byte(key)
		if _, err := New(deps); err == nil || !strings.Contains(err.Error(), "download it from the App's settings page") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("key %q: %v", key, err)
		}
	}
	deps := w.deps
	deps.GitHub.App.ID = 0
	if _, err := New(deps); err == nil || !strings.Contains(err.Error(), "settings page") {
		t.Errorf("no id: %v", err)
	}
}

func TestZeroDepsWork(t *testing.T) {
	w := newWorld(t)
	service, err := New(Deps{GitHub: GitHub{App: w.deps.GitHub.App, APIURL: w.deps.GitHub.APIURL}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.RefreshInstallations(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// A change that an event brings while a list is being read is not undone by the
// list, which may be older.
func TestListNeverUndoesWhatIsNewer(t *testing.T) {
	w := newWorld(t)
	if _, err := w.service.installations.get(t.Context(), w.install); err != nil {
		t.Fatal(err)
	}
	var lists atomic.Int32
	w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/app/installations" || lists.Add(1) > 1 {
			return false
		}
		w.sim.AddInstallation("late")
		if _, err := w.service.installations.find(r.Context(), 0, "acme", "app"); err != nil {
			t.Error(err)
		}
		w.service.installations.forget(w.install)
		out.Write([]byte("[]"))
		return true
	})
	n, err := w.service.installations.refresh(t.Context())
	if err != nil || n != 2 || lists.Load() != 2 {
		t.Errorf("%d installations after %d lists, error %v", n, lists.Load(), err)
	}
}

func TestRepositoryWithoutInstallationIsAskedForOnce(t *testing.T) {
	w := newWorld(t)
	if err := w.sim.AddRepository(githubsim.Repository{Owner: "stranger", Name: "app"}); err != nil {
		t.Fatal(err)
	}
	before := len(w.sim.Calls())
	_, err := w.service.installations.find(t.Context(), 0, "stranger", "app")
	w.wantFault(err, fault.NotFound, "the GitHub App is not installed on stranger/app")
	if n := len(w.sim.Calls()) - before; n != 1 {
		t.Errorf("%d calls", n)
	}
	// An id of an installation that is gone is no reason to say no.
	w.sim.AddInstallation("stranger")
	found, err := w.service.installations.find(t.Context(), 4711, "stranger", "app")
	if err != nil || found.GetAccount() != "stranger" {
		t.Errorf("got %v, error %v", found, err)
	}
}
