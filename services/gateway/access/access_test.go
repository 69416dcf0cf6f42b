package access_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

// As the package has them.
const (
	answerLife = 2 * time.Minute
	doubtEvery = 5 * time.Second
)

// viewer is as, for who asks by name; "-" is a stranger.
func (w *world) viewer(name string) signin.Viewer {
	w.t.Helper()
	if name == "-" {
		name = ""
	}
	return signin.From(w.as(name))
}

// sees reports why a viewer may not see a build; nil: they may.
func (w *world) sees(v signin.Viewer, build string) error {
	return w.control.Check(w.t.Context(), v, schedulerv1.BuildService_GetBuild_FullMethodName, &schedulerv1.GetBuildRequest{BuildId: build})
}

// cancels reports why a viewer may not cancel a build of acme/shop; nil: they may.
func (w *world) cancels(v signin.Viewer) error {
	return w.control.Check(w.t.Context(), v, schedulerv1.BuildService_CancelBuild_FullMethodName, &schedulerv1.CancelBuildRequest{BuildId: "7:acme/shop"})
}

func TestWhoLosesAccessLosesItWithinMinutes(t *testing.T) {
	w := newWorld(t, nil)
	rita, wes, olga := w.viewer("rita"), w.viewer("wes"), w.viewer("olga")
	w.must(w.sees(rita, "7:acme/shop"))
	w.must(w.cancels(wes))
	w.must(w.cancels(olga))
	w.must(w.sees(signin.Viewer{}, "7:acme/site"))
	w.must(w.sim.SetPermission("acme", "shop", "rita", "none"))
	w.must(w.sim.SetPermission("acme", "shop", "wes", "read"))
	w.sim.SetTeamMember("acme", "ops", "olga", false)
	w.must(w.sim.SetPublic("acme", "site", false))
	w.clock.Advance(2 * time.Minute)
	if err := w.sees(rita, "7:acme/shop"); !fault.Is(err, fault.Denied) {
		t.Errorf("rita sees it still: %v", err)
	}
	if err := w.cancels(wes); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "write access") {
		t.Errorf("wes cancels still: %v", err)
	}
	w.must(w.sees(wes, "7:acme/shop"))
	if err := w.sees(olga, "7:acme/shop"); !fault.Is(err, fault.Denied) {
		t.Errorf("olga runs this Forge still: %v", err)
	}
	if err := w.sees(signin.Viewer{}, "7:acme/site"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("strangers see what is public no more: %v", err)
	}
}

// What was remembered before access was given, by a list or by a refusal, keeps nobody out.
func TestWhoIsGivenAccessHasItAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	stan, olaf := w.viewer("stan"), w.viewer("olaf")
	w.rooms.listed = []string{"acme/shop"}
	_, err := schedulerv1.NewBuildServiceClient(w.conn).ListBuilds(w.as("stan"), &schedulerv1.ListBuildsRequest{PageSize: 1})
	w.must(err)
	w.clock.Advance(time.Second)
	w.must(w.sim.SetPermission("acme", "shop", "stan", "read"))
	w.must(w.sees(stan, "7:acme/shop"))
	w.clock.Advance(doubtEvery)
	if err := w.cancels(stan); !fault.Is(err, fault.Denied) {
		t.Errorf("stan cancels as a reader: %v", err)
	}
	w.must(w.sim.SetPermission("acme", "shop", "stan", "write"))
	w.clock.Advance(doubtEvery)
	w.must(w.cancels(stan))
	list := func() error {
		return w.control.Check(t.Context(), olaf, "/forge.gateway.v1.DeliveryService/ListDeliveries", nil)
	}
	if err := list(); !fault.Is(err, fault.Denied) {
		t.Errorf("olaf runs this Forge: %v", err)
	}
	w.sim.SetTeamMember("acme", "ops", "olaf", true)
	w.clock.Advance(time.Second)
	w.must(list())
	// What is taken away is lost as it was, within two minutes.
	w.must(w.sim.SetPermission("acme", "shop", "stan", "none"))
	w.clock.Advance(answerLife)
	if err := w.sees(stan, "7:acme/shop"); !fault.Is(err, fault.Denied) {
		t.Errorf("stan sees it still: %v", err)
	}
}

// Who is refused again and again, by many requests at once too, costs few calls of GitHub's.
func TestRefusalsDoNotSpendWhatGitHubAllows(t *testing.T) {
	w := newWorld(t, nil)
	rita, stan := w.viewer("rita"), w.viewer("stan")
	w.must(w.sees(rita, "7:acme/shop"))
	before := len(w.sim.Calls())
	for range 120 { // two minutes of a program that asks all the time
		w.clock.Advance(time.Second)
		var asking sync.WaitGroup
		for range 20 {
			asking.Go(func() {
				if err := w.cancels(rita); !fault.Is(err, fault.Denied) {
					t.Errorf("rita cancels: %v", err)
				}
			})
		}
		asking.Wait()
	}
	if asked := len(w.sim.Calls()) - before; asked < 20 || asked > 30 {
		t.Errorf("GitHub was asked %d times in two minutes", asked)
	}
	// The first refusal is fresh, and is not asked for twice.
	before = len(w.sim.Calls())
	if err := w.sees(stan, "7:acme/shop"); !fault.Is(err, fault.Denied) {
		t.Errorf("stan: %v", err)
	}
	if asked := len(w.sim.Calls()) - before; asked > 2 { // for the team, and for the repository
		t.Errorf("GitHub was asked %d times for one refusal", asked)
	}
	// GitHub does not answer: what it said last counts, and it is not asked more often.
	w.must(w.sees(rita, "7:acme/shop"))
	w.sim.Misbehave(githubsim.Misbehaviour{Route: "GET /", Status: http.StatusBadGateway})
	w.clock.Advance(doubtEvery)
	if err := w.cancels(rita); !fault.Is(err, fault.Denied) {
		t.Errorf("rita cancels while GitHub is away: %v", err)
	}
	before = len(w.sim.Calls())
	for range 10 {
		if err := w.cancels(rita); !fault.Is(err, fault.Denied) {
			t.Errorf("rita cancels while GitHub is away: %v", err)
		}
	}
	if asked := len(w.sim.Calls()) - before; asked != 0 {
		t.Errorf("GitHub, which is away, was asked %d times more", asked)
	}
	w.must(w.sees(rita, "7:acme/shop"))
}

// A repository is known by its id: neither a new name nor a new owner changes who sees its builds, and who has the old name sees nothing.
func TestRenamedAndTransferredRepositories(t *testing.T) {
	w := newWorld(t, nil)
	old := "7:acme/shop"
	w.must(w.sim.RenameRepository("acme", "shop", "store"))
	w.must(w.sees(w.viewer("rita"), old))
	if err := w.sees(w.viewer("stan"), old); !fault.Is(err, fault.Denied) {
		t.Errorf("stan: %v", err)
	}
	id := w.ids["acme/shop"]
	w.addRepository("acme", "shop", true) // another, which anybody may read, by the old name
	w.ids["acme/shop"] = id               // as the rows of old builds have it
	w.clock.Advance(time.Hour)
	if err := w.sees(signin.Viewer{}, old); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a stranger, by the old name: %v", err)
	}
	if err := w.sees(w.viewer("stan"), old); !fault.Is(err, fault.Denied) {
		t.Errorf("stan, by the old name: %v", err)
	}
	w.must(w.sees(w.viewer("rita"), old))
	w.sim.AddInstallation("zeta")
	w.must(w.sim.TransferRepository("acme", "store", "zeta"))
	w.clock.Advance(time.Hour)
	w.must(w.sees(w.viewer("rita"), old))
	w.must(w.sim.DeleteRepository("zeta", "store"))
	w.clock.Advance(time.Hour)
	if err := w.sees(w.viewer("rita"), old); !fault.Is(err, fault.Denied) {
		t.Errorf("once it is deleted: %v", err)
	}
}

func TestNothingIsShownWhileGitHubDoesNotSay(t *testing.T) {
	w := newWorld(t, nil)
	rita, olga := w.viewer("rita"), w.viewer("olga")
	undo := w.sim.Misbehave(githubsim.Misbehaviour{Route: "GET /", Status: http.StatusBadGateway})
	w.rooms.away = true
	for name, err := range map[string]error{
		"rita": w.sees(rita, "7:acme/shop"), "olga": w.sees(olga, "7:acme/shop"), "a stranger": w.sees(signin.Viewer{}, "7:acme/site"),
		"what olga runs": w.control.Check(t.Context(), olga, "/forge.gateway.v1.DeliveryService/ListDeliveries", nil),
	} {
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "try again in a moment") {
			t.Errorf("%s: %v", name, err)
		}
	}
	undo()
	w.rooms.away = false
	w.clock.Advance(3 * time.Second)
	w.must(w.sees(rita, "7:acme/shop"))
	w.must(w.sees(signin.Viewer{}, "7:acme/site"))
	w.must(w.control.Check(t.Context(), olga, "/forge.gateway.v1.DeliveryService/ListDeliveries", nil))
	// What was answered counts while it does not.
	w.sim.Misbehave(githubsim.Misbehaviour{Route: "GET /", Status: http.StatusBadGateway})
	w.must(w.sees(rita, "7:acme/shop"))
}

func TestGitHubIsAskedOnceForAllWhoWantTheSame(t *testing.T) {
	w := newWorld(t, nil)
	rita := w.viewer("rita")
	before := len(w.sim.Calls())
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() {
			if err := w.sees(rita, "7:acme/shop"); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if asked := len(w.sim.Calls()) - before; asked > 2 { // for the team, and for the repository
		t.Errorf("GitHub was asked %d times", asked)
	}
}

func TestABuildThatIsNotThereIsNotFound(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.sees(w.viewer("rita"), "none"); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}
