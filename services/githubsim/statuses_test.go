package githubsim_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"
)

func TestStatusesAreToldAndShown(t *testing.T) {
	w := newWorld(t)
	head := w.commit("feature/x", map[string]string{"x": "x"})
	shop, ctx := w.shop(), t.Context()
	for _, told := range []github.RepoStatus{
		{State: new("pending"), Context: new("forge/test"), Description: new(strings.Repeat("é", 140))},
		{State: new("success"), Context: new("forge/test"), TargetURL: new("https://forge.example/builds/1")},
		{State: new("pending")},
	} {
		status, _, err := shop.Repositories.CreateStatus(ctx, "acme", "shop", head, &told)
		w.must(err)
		if status.GetState() != told.GetState() || status.GetDescription() != told.GetDescription() || status.GetCreator().GetLogin() != "forge[bot]" {
			t.Errorf("got %v", status)
		}
	}
	all, _, err := shop.Repositories.ListStatuses(ctx, "acme", "shop", "feature/x", nil)
	if err != nil || len(all) != 3 || all[0].GetContext() != "default" || all[2].GetState() != "pending" {
		t.Errorf("got %v, error %v", all, err)
	}
	both, _, err := shop.Repositories.GetCombinedStatus(ctx, "acme", "shop", head, nil)
	if err != nil || both.GetState() != "pending" || both.GetTotalCount() != 2 || both.Statuses[1].GetTargetURL() != "https://forge.example/builds/1" {
		t.Errorf("got %v, error %v", both, err)
	}
	shown, err := w.sim.Statuses("acme", "shop", head)
	if err != nil || len(shown) != 2 || shown["forge/test"].State != "success" {
		t.Errorf("got %v, error %v", shown, err)
	}
	history, err := w.sim.StatusHistory("acme", "shop", head)
	if err != nil || len(history) != 3 || history[0].State != "pending" {
		t.Errorf("got %v, error %v", history, err)
	}
}

func TestCombinedStateIsTheWorst(t *testing.T) {
	for states, want := range map[string]string{
		"": "pending", "success": "success", "success pending": "pending", "pending failure": "failure", "success error": "failure",
	} {
		t.Run(states, func(t *testing.T) {
			w := newWorld(t)
			shop := w.shop()
			head, err := w.sim.Head("acme", "shop", "main")
			w.must(err)
			for state := range strings.FieldsSeq(states) {
				_, _, err := shop.Repositories.CreateStatus(t.Context(), "acme", "shop", head, &github.RepoStatus{State: &state, Context: &state})
				w.must(err)
			}
			got, _, err := shop.Repositories.GetCombinedStatus(t.Context(), "acme", "shop", head, nil)
			if err != nil || got.GetState() != want {
				t.Errorf("got %v, error %v, want %s", got, err, want)
			}
		})
	}
}

func TestStatusesAreRefused(t *testing.T) {
	w := newWorld(t)
	shop, ctx := w.shop(), t.Context()
	head, err := w.sim.Head("acme", "shop", "main")
	w.must(err)
	for name, test := range map[string]struct {
		sha    string
		status github.RepoStatus
		says   string
	}{
		"unknown state":  {head, github.RepoStatus{State: new("passed")}, "Status state custom state is not included in the list"},
		"no state":       {head, github.RepoStatus{}, "state is not included in the list"},
		"long":           {head, github.RepoStatus{State: new("success"), Description: new(strings.Repeat("x", 141))}, "description is too long (maximum is 140 characters)"},
		"emoji":          {head, github.RepoStatus{State: new("success"), Description: new("🧪 unit tests")}, "Status description custom description doesn't accept 4-byte Unicode"},
		"emoji, context": {head, github.RepoStatus{State: new("success"), Context: new("forge/🧪")}, "context doesn't accept 4-byte Unicode"},
		"long context":   {head, github.RepoStatus{State: new("success"), Context: new(strings.Repeat("x", 256))}, "context is too long (maximum is 255 characters)"},
		"no web address": {head, github.RepoStatus{State: new("success"), TargetURL: new("ftp://forge")}, "target_url must use http(s) scheme"},
		"unknown commit": {strings.Repeat("a", 40), github.RepoStatus{State: new("success")}, "No commit found for SHA: aaaa"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := shop.Repositories.CreateStatus(ctx, "acme", "shop", test.sha, &test.status)
			wantError(t, err, http.StatusUnprocessableEntity, test.says)
		})
	}
	_, _, err = shop.Repositories.ListStatuses(ctx, "acme", "shop", "gone", nil)
	wantError(t, err, http.StatusUnprocessableEntity, "No commit found for SHA: gone")
	for body, want := range map[string]int{"{": http.StatusBadRequest, `{"state": 1}`: http.StatusUnprocessableEntity} {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/repos/acme/shop/statuses/"+head, strings.NewReader(body))
		w.must(err)
		_, err = shop.Do(ctx, request, nil)
		wantError(t, err, want, "")
	}
}

func TestStatusesOfOneContextAreLimited(t *testing.T) {
	w := newWorld(t)
	shop, ctx := w.shop(), t.Context()
	head, err := w.sim.Head("acme", "shop", "main")
	w.must(err)
	status := &github.RepoStatus{State: new("pending"), Context: new("forge/test")}
	for range 1000 {
		_, _, err := shop.Repositories.CreateStatus(ctx, "acme", "shop", head, status)
		w.must(err)
	}
	_, _, err = shop.Repositories.CreateStatus(ctx, "acme", "shop", head, status)
	wantError(t, err, http.StatusUnprocessableEntity, "This SHA and context has reached the maximum number of statuses.")
	status.Context = new("forge/staging")
	_, _, err = shop.Repositories.CreateStatus(ctx, "acme", "shop", head, status)
	w.must(err)
}
