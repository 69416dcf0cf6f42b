package githubsim_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"
)

// news is what the App was told since it last asked, in a word or two each.
func (w *world) news() []string {
	w.t.Helper()
	w.settle()
	var list []string
	for _, event := range w.hooks.take(w.t) {
		list = append(list, headline(event))
	}
	return list
}

func headline(event any) string {
	switch e := event.(type) {
	case *github.InstallationEvent:
		return fmt.Sprintf("installation %s %s", e.GetAction(), e.GetInstallation().GetAccount().GetLogin())
	case *github.InstallationRepositoriesEvent:
		return fmt.Sprintf("installation_repositories %s %s, %s", e.GetAction(), names(slices.Concat(e.RepositoriesAdded, e.RepositoriesRemoved)), e.GetRepositorySelection())
	case *github.RepositoryEvent:
		return fmt.Sprintf("repository %s %s", e.GetAction(), e.GetRepo().GetFullName())
	case *github.PushEvent:
		return fmt.Sprintf("push %s created=%t deleted=%t", e.GetRef(), e.GetCreated(), e.GetDeleted())
	case *github.PullRequestEvent:
		return fmt.Sprintf("pull_request %s #%d", e.GetAction(), e.GetNumber())
	case *github.IssueCommentEvent:
		return fmt.Sprintf("issue_comment %s #%d %s", e.GetAction(), e.GetIssue().GetNumber(), e.GetComment().GetBody())
	case *github.MergeGroupEvent:
		return fmt.Sprintf("merge_group %s %s", e.GetAction(), e.GetMergeGroup().GetHeadRef())
	case *github.CheckRunEvent:
		return fmt.Sprintf("check_run %s %s", e.GetAction(), e.GetCheckRun().GetName())
	case *github.CheckSuiteEvent:
		return fmt.Sprintf("check_suite %s %s", e.GetAction(), e.GetCheckSuite().GetConclusion())
	}
	return fmt.Sprintf("%T", event)
}

func names(repositories []*github.Repository) string {
	var list []string
	for _, r := range repositories {
		list = append(list, r.GetFullName())
	}
	return strings.Join(list, " ")
}

func wantNews(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("was told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSuspendedInstallationIsRefusedUntilItIsBack(t *testing.T) {
	w := newWorld(t)
	shop, app, ctx := w.shop(), w.app(), t.Context()
	w.news()
	w.must(w.sim.SuspendInstallation("acme"))
	w.commit("main", map[string]string{"x": "x"}) // is not told
	_, _, err := shop.Repositories.Get(ctx, "acme", "shop")
	wantError(t, err, http.StatusForbidden, "This installation has been suspended")
	_, _, err = app.Apps.CreateInstallationToken(ctx, w.installation, nil)
	wantError(t, err, http.StatusForbidden, "This installation has been suspended")
	i, _, err := app.Apps.GetInstallation(ctx, w.installation)
	if err != nil || i.GetSuspendedAt().IsZero() || i.GetSuspendedBy().GetLogin() != "octocat" {
		t.Errorf("got %v, error %v", i, err)
	}
	w.must(w.sim.UnsuspendInstallation("acme"))
	wantNews(t, w.news(), "installation suspend acme", "installation unsuspend acme")
	if _, _, err := shop.Repositories.Get(ctx, "acme", "shop"); err != nil {
		t.Errorf("back again: %v", err)
	}
}

func TestUninstalledAppIsForgotten(t *testing.T) {
	w := newWorld(t)
	shop, ctx := w.shop(), t.Context()
	w.news()
	w.must(w.sim.Uninstall("acme"))
	w.commit("main", map[string]string{"x": "x"})
	wantNews(t, w.news(), "installation deleted acme")
	_, _, err := shop.Repositories.Get(ctx, "acme", "shop")
	wantError(t, err, http.StatusUnauthorized, "Bad credentials")
	_, _, err = w.app().Apps.CreateInstallationToken(ctx, w.installation, nil)
	wantError(t, err, http.StatusNotFound, "Not Found")
	if again := w.sim.AddInstallation("acme"); again == w.installation {
		t.Error("a new installation has an id of its own")
	}
}

func TestRepositoriesAreSelected(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.AddRepository(newRepository("acme", "second")))
	shop, ctx := w.shop(), t.Context()
	w.news()
	w.must(w.sim.RemoveFromInstallation("acme", "second"))
	w.must(w.sim.AddRepository(newRepository("acme", "third"))) // is nobody's business now
	wantNews(t, w.news(), "installation_repositories removed acme/second, selected")
	_, _, err := shop.Repositories.Get(ctx, "acme", "second")
	wantError(t, err, http.StatusNotFound, "Not Found")
	_, _, err = w.app().Apps.FindRepositoryInstallation(ctx, "acme", "second")
	wantError(t, err, http.StatusNotFound, "Not Found")
	list, _, err := shop.Apps.ListRepos(ctx, nil)
	if err != nil || names(list.Repositories) != "acme/shop" {
		t.Errorf("got %v, error %v", list, err)
	}
	w.must(w.sim.AddToInstallation("acme", "second"))
	wantNews(t, w.news(), "installation_repositories added acme/second, selected")
	if _, _, err := shop.Repositories.Get(ctx, "acme", "second"); err != nil {
		t.Errorf("added again: %v", err)
	}
}

func TestRenamedRepositoryIsFoundByItsOldName(t *testing.T) {
	w := newWorld(t)
	number := w.pull("feature/x")
	w.news()
	w.must(w.sim.RenameRepository("acme", "shop", "store"))
	w.settle()
	renamed := w.hooks.take(t)[0].(*github.RepositoryEvent)
	if renamed.GetRepo().GetFullName() != "acme/store" || renamed.GetChanges().GetRepo().GetName().GetFrom() != "shop" {
		t.Errorf("got %v", renamed)
	}
	shop, ctx := w.shop(), t.Context()
	repo, answer, err := shop.Repositories.Get(ctx, "acme", "shop")
	if err != nil || repo.GetFullName() != "acme/store" || !strings.Contains(answer.Request.URL.Path, "/repositories/") {
		t.Errorf("got %v, error %v", repo, err)
	}
	p, _, err := shop.PullRequests.Get(ctx, "acme", "shop", number)
	if err != nil || p.GetBase().GetRepo().GetName() != "store" {
		t.Errorf("got %.200v, error %v", p, err)
	}
	// What writes is sent on by 307, so that it stays a POST; refs with slashes and queries survive.
	status, _, err := shop.Repositories.CreateStatus(ctx, "acme", "shop", p.GetHead().GetSHA(), &github.RepoStatus{State: new("success")})
	if err != nil || status.GetState() != "success" {
		t.Errorf("got %v, error %v", status, err)
	}
	all, _, err := shop.Repositories.ListStatuses(ctx, "acme", "shop", "feature/x", &github.ListOptions{PerPage: 1})
	if err != nil || len(all) != 1 {
		t.Errorf("got %v, error %v", all, err)
	}
	if i, _, err := w.app().Apps.FindRepositoryInstallation(ctx, "acme", "shop"); err != nil || i.GetID() != w.installation {
		t.Errorf("got %v, error %v", i, err)
	}
	codes := map[int]int{}
	for _, call := range w.sim.Calls() {
		codes[call.Status]++
	}
	if codes[http.StatusMovedPermanently] != 4 || codes[http.StatusTemporaryRedirect] != 1 {
		t.Errorf("got %v, want four 301 and one 307", codes)
	}
	_, _, err = w.client("").Repositories.Get(ctx, "acme", "shop")
	wantError(t, err, http.StatusNotFound, "Not Found") // who may not see it learns nothing

	w.must(w.sim.AddRepository(newRepository("acme", "shop")))
	if repo, _, err := shop.Repositories.Get(ctx, "acme", "shop"); err != nil || repo.GetFullName() != "acme/shop" {
		t.Errorf("a new repository takes the name: got %v, error %v", repo, err)
	}
	_, _, err = shop.Repositories.GetByID(ctx, 999_999)
	wantError(t, err, http.StatusNotFound, "Not Found")
}

func TestTransferredRepositoryChangesItsInstallation(t *testing.T) {
	w := newWorld(t)
	acme, ctx := w.shop(), t.Context()
	second := w.sim.AddInstallation("zeta")
	w.news()
	w.must(w.sim.TransferRepository("acme", "shop", "zeta"))
	w.settle()
	events := w.hooks.take(t)
	var told []string
	for _, event := range events {
		told = append(told, headline(event))
	}
	wantNews(t, told, "installation_repositories removed zeta/shop, all", "installation_repositories added zeta/shop, all", "repository transferred zeta/shop")
	moved := events[2].(*github.RepositoryEvent)
	if moved.GetChanges().GetOwner().GetOwnerInfo().GetOrg().GetLogin() != "acme" || moved.GetInstallation().GetID() != second {
		t.Errorf("got %v", moved)
	}
	_, _, err := acme.Repositories.Get(ctx, "acme", "shop")
	wantError(t, err, http.StatusNotFound, "Not Found")
	w.installation = second
	repo, _, err := w.shop().Repositories.Get(ctx, "acme", "shop")
	if err != nil || repo.GetFullName() != "zeta/shop" {
		t.Errorf("got %v, error %v", repo, err)
	}
	w.must(w.sim.TransferRepository("zeta", "shop", "nobody"))
	wantNews(t, w.news(), "installation_repositories removed nobody/shop, all")
}

func TestDeletedRepositoryIsGone(t *testing.T) {
	w := newWorld(t)
	w.news()
	w.must(w.sim.DeleteRepository("acme", "shop"))
	wantNews(t, w.news(), "repository deleted acme/shop")
	_, _, err := w.shop().Repositories.Get(t.Context(), "acme", "shop")
	wantError(t, err, http.StatusNotFound, "Not Found")
	w.must(w.sim.AddRepository(newRepository("acme", "shop")))
}

func TestInstallationsRefuseWhatCannotBe(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.SuspendInstallation("acme"))
	for want, err := range map[string]error{
		"the App is not installed for zeta":             w.sim.SuspendInstallation("zeta"),
		"the App is not installed for nobody":           w.sim.Uninstall("nobody"),
		"the installation of acme is suspended already": w.sim.SuspendInstallation("acme"),
		"the installation of acme is on shop already":   w.sim.AddToInstallation("acme", "shop"),
		"repository acme/nowhere does not exist":        w.sim.RemoveFromInstallation("acme", "nowhere"),
		"repository acme/shop exists already":           w.sim.RenameRepository("acme", "shop", "shop"),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
	w.must(w.sim.UnsuspendInstallation("acme"))
	w.must(w.sim.RemoveFromInstallation("acme", "shop"))
	for want, err := range map[string]error{
		"the installation of acme is not suspended": w.sim.UnsuspendInstallation("acme"),
		"the installation of acme is not on shop":   w.sim.RemoveFromInstallation("acme", "shop"),
		"repository acme/gone does not exist":       w.sim.DeleteRepository("acme", "gone"),
		"repository acme/lost does not exist":       w.sim.TransferRepository("acme", "lost", "zeta"),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

func TestDroppedDeliveriesCanBeRedeliveredAndLostOnesCannot(t *testing.T) {
	w := newWorld(t)
	w.news()
	w.sim.DropDeliveries(2)
	w.sim.Ping()
	w.sim.Ping()
	w.sim.LoseDeliveries(1)
	w.commit("main", map[string]string{"x": "x"})
	w.sim.Ping()
	if got := w.news(); len(got) != 1 {
		t.Errorf("was told %q, want the last ping alone", got)
	}
	list := w.sim.Deliveries()
	if len(list) != 4 { // installation and three pings; the push left no trace
		t.Fatalf("got %d deliveries", len(list))
	}
	if d := list[1]; d.StatusCode != 0 || d.Status != "failed to connect to host" {
		t.Errorf("got %+v", d)
	}
	app, ctx := w.app(), t.Context()
	count := func(query string) int {
		request, err := app.NewRequest(http.MethodGet, "app/hook/deliveries"+query, nil)
		w.must(err)
		var some []github.HookDelivery
		if _, err := app.Do(ctx, request, &some); err != nil {
			t.Fatal(err)
		}
		return len(some)
	}
	if all, failed, good := count(""), count("?status=failure"), count("?status=success"); all != 4 || failed != 2 || good != 2 {
		t.Errorf("got %d, %d of them failed and %d good", all, failed, good)
	}
	if _, answer, err := app.Apps.RedeliverHookDelivery(ctx, list[1].ID); answer.StatusCode != http.StatusAccepted {
		t.Fatal(err) // go-github takes the 202 for an error too
	}
	if got := w.news(); len(got) != 1 || count("?status=success") != 3 {
		t.Errorf("redelivered: was told %q", got)
	}
	w.clock.advance(73 * 3600e9)
	app = w.app()
	if old := count(""); old != 0 {
		t.Errorf("GitHub forgets after three days, yet lists %d", old)
	}
	_, _, err := app.Apps.GetHookDelivery(ctx, list[1].ID)
	wantError(t, err, http.StatusNotFound, "Not Found")
	request, err := app.NewRequest(http.MethodGet, "app/hook/deliveries?status=odd", nil)
	w.must(err)
	_, err = app.Do(ctx, request, nil)
	wantError(t, err, http.StatusUnprocessableEntity, "Invalid status")
}
