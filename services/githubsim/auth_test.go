package githubsim_test

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"testing"
	"time"

	"github.com/bradleyfalzon/ghinstallation/v2"
	"github.com/golang-jwt/jwt/v4"
	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

func TestAppTokensAreVerified(t *testing.T) {
	w := newWorld(t)
	now := w.clock.Now()
	for name, test := range map[string]struct {
		change func(jwt.MapClaims)
		status int
		says   string
	}{
		"good":               {func(jwt.MapClaims) {}, http.StatusOK, ""},
		"issuer as a number": {func(c jwt.MapClaims) { c["iss"] = appID }, http.StatusOK, ""},
		"ten minutes":        {func(c jwt.MapClaims) { c["exp"] = now.Add(10 * time.Minute).Unix() }, http.StatusOK, ""},
		"too long":           {func(c jwt.MapClaims) { c["exp"] = now.Add(11 * time.Minute).Unix() }, 401, "'Expiration time' claim ('exp') is too far in the future"},
		"expired":            {func(c jwt.MapClaims) { c["exp"] = now.Unix() }, 401, "'Expiration time' claim ('exp') must be a numeric value"},
		"no end":             {func(c jwt.MapClaims) { delete(c, "exp") }, 401, "'Expiration time' claim ('exp') must be a numeric value"},
		"from the future":    {func(c jwt.MapClaims) { c["iat"] = now.Add(time.Minute).Unix() }, 401, "'Issued at' claim ('iat')"},
		"no issuer":          {func(c jwt.MapClaims) { delete(c, "iss") }, 401, "'Issuer' claim ('iss') must be an Integer"},
		"another app":        {func(c jwt.MapClaims) { c["iss"] = "1" }, 404, "Integration not found"},
	} {
		t.Run(name, func(t *testing.T) {
			claims := w.goodClaims()
			test.change(claims)
			app, _, err := w.client(w.appToken(claims)).Apps.Get(t.Context(), "")
			if test.status != http.StatusOK {
				wantError(t, err, test.status, test.says)
			} else if err != nil || app.GetID() != appID || app.GetSlug() != "forge" {
				t.Errorf("got app %v, error %v", app, err)
			}
		})
	}
}

func TestForgedAppTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	w.must(err)
	forged, err := jwt.NewWithClaims(jwt.SigningMethodRS256, w.goodClaims()).SignedString(other)
	w.must(err)
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, w.goodClaims()).SignedString(jwt.UnsafeAllowNoneSignatureType)
	w.must(err)
	for name, token := range map[string]string{
		"another key": forged, "no signature": unsigned, "nonsense": "x.y.z", "no token": "", "an installation's": w.token(nil),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := w.client(token).Apps.Get(t.Context(), "")
			wantError(t, err, http.StatusUnauthorized, "A JSON web token could not be decoded")
		})
	}
}

func TestInstallationsAreListedAndFound(t *testing.T) {
	w := newWorld(t)
	second := w.sim.AddInstallation("zeta")
	if again := w.sim.AddInstallation("zeta"); again != second {
		t.Errorf("a second installation for one owner: %d and %d", second, again)
	}
	app, ctx := w.app(), t.Context()
	var found []int64
	for page := 1; page != 0; {
		some, answer, err := app.Apps.ListInstallations(ctx, &github.ListOptions{PerPage: 1, Page: page})
		w.must(err)
		for _, i := range some {
			found = append(found, i.GetID())
		}
		page = answer.NextPage
	}
	if len(found) != 2 || found[0] != w.installation || found[1] != second {
		t.Errorf("got installations %v, want %v", found, []int64{w.installation, second})
	}
	for name, find := range map[string]func() (*github.Installation, *github.Response, error){
		"by id": func() (*github.Installation, *github.Response, error) { return app.Apps.GetInstallation(ctx, second) },
		"by organization": func() (*github.Installation, *github.Response, error) {
			return app.Apps.FindOrganizationInstallation(ctx, "zeta")
		},
		"by user": func() (*github.Installation, *github.Response, error) {
			return app.Apps.FindUserInstallation(ctx, "Zeta")
		},
		"by repository": func() (*github.Installation, *github.Response, error) {
			return app.Apps.FindRepositoryInstallation(ctx, "zeta", "other")
		},
	} {
		i, _, err := find()
		if err != nil || i.GetID() != second || i.GetAccount().GetLogin() != "zeta" || i.GetPermissions().GetStatuses() != "write" {
			t.Errorf("%s: got %v, error %v", name, i, err)
		}
	}
	_, _, err := app.Apps.GetInstallation(ctx, 999_999)
	wantError(t, err, http.StatusNotFound, "Not Found")
	_, _, err = app.Apps.FindRepositoryInstallation(ctx, "acme", "nowhere")
	wantError(t, err, http.StatusNotFound, "Not Found")
	_, _, err = app.Apps.FindOrganizationInstallation(ctx, "nobody")
	wantError(t, err, http.StatusNotFound, "Not Found")
}

func TestTokensExpire(t *testing.T) {
	w := newWorld(t)
	shop := w.shop()
	w.clock.advance(time.Hour - time.Second)
	if _, _, err := shop.Repositories.Get(t.Context(), "acme", "shop"); err != nil {
		t.Fatalf("before the hour is over: %v", err)
	}
	w.clock.advance(time.Second)
	_, _, err := shop.Repositories.Get(t.Context(), "acme", "shop")
	wantError(t, err, http.StatusUnauthorized, "Bad credentials")
	_, _, err = w.client("ghs_unknown").Repositories.Get(t.Context(), "acme", "shop")
	wantError(t, err, http.StatusUnauthorized, "Bad credentials")
}

func TestTokenThatWasJustMadeIsNotKnownEverywhere(t *testing.T) {
	w := newWorld(t, func(c *githubsim.Config) { c.TokenLag = 2 * time.Second })
	shop := w.shop()
	_, _, err := shop.Repositories.Get(t.Context(), "acme", "shop")
	wantError(t, err, http.StatusForbidden, "Resource not accessible by integration")
	w.clock.advance(2 * time.Second)
	_, _, err = shop.Repositories.Get(t.Context(), "acme", "shop")
	w.must(err)
}

func TestTokensAreNarrowed(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.AddRepository(newRepository("acme", "second")))
	ctx := t.Context()
	narrow, _, err := w.app().Apps.CreateInstallationToken(ctx, w.installation, &github.InstallationTokenOptions{
		Repositories: []string{"shop"}, Permissions: &github.InstallationPermissions{Contents: new("read")},
	})
	w.must(err)
	if len(narrow.Repositories) != 1 || narrow.GetPermissions().GetContents() != "read" || narrow.GetPermissions().GetStatuses() != "" {
		t.Errorf("got token for %v with %v", narrow.Repositories, narrow.GetPermissions())
	}
	if want := w.clock.Now().Add(time.Hour); !narrow.GetExpiresAt().Time.Equal(want) {
		t.Errorf("expires at %s, want %s", narrow.GetExpiresAt(), want)
	}
	client := w.client(narrow.GetToken())
	repos, _, err := client.Apps.ListRepos(ctx, nil)
	w.must(err)
	if repos.GetTotalCount() != 1 || repos.Repositories[0].GetName() != "shop" {
		t.Errorf("got repositories %v, want shop alone", repos.Repositories)
	}
	_, _, err = client.Repositories.Get(ctx, "acme", "second")
	wantError(t, err, http.StatusNotFound, "Not Found")
	head, err := w.sim.Head("acme", "shop", "main")
	w.must(err)
	_, answer, err := client.Repositories.CreateStatus(ctx, "acme", "shop", head, &github.RepoStatus{State: new("success")})
	wantError(t, err, http.StatusForbidden, "Resource not accessible by integration")
	if got := answer.Header.Get("X-Accepted-Github-Permissions"); got != "statuses=write" {
		t.Errorf("got accepted permissions %q", got)
	}

	for name, want := range map[string]struct {
		options github.InstallationTokenOptions
		says    string
	}{
		"more than the App has": {github.InstallationTokenOptions{Permissions: &github.InstallationPermissions{Contents: new("write")}}, "The permissions requested are not granted to this installation."},
		"unknown repository":    {github.InstallationTokenOptions{Repositories: []string{"nowhere"}}, "at least one repository that does not exist"},
		"another's repository":  {github.InstallationTokenOptions{RepositoryIDs: []int64{999_999}}, "at least one repository that does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := w.app().Apps.CreateInstallationToken(ctx, w.installation, &want.options)
			wantError(t, err, http.StatusUnprocessableEntity, want.says)
		})
	}
	_, _, err = w.app().Apps.CreateInstallationToken(ctx, 999_999, nil)
	wantError(t, err, http.StatusNotFound, "Not Found")
}

func TestWhatACallerMayNotSeeIsNotFound(t *testing.T) {
	w := newWorld(t)
	open := newRepository("zeta", "open")
	open.Public = true
	w.must(w.sim.AddRepository(open))
	for name, test := range map[string]struct {
		client *github.Client
		repo   string
		status int
	}{
		"another installation's": {w.shop(), "other", http.StatusNotFound},
		"nobody, private":        {w.client(""), "other", http.StatusNotFound},
		"nobody, public":         {w.client(""), "open", http.StatusOK},
		"another's, public":      {w.shop(), "open", http.StatusOK},
		"the App itself":         {w.app(), "open", http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			repo, _, err := test.client.Repositories.Get(t.Context(), "zeta", test.repo)
			switch {
			case test.status != http.StatusOK:
				wantError(t, err, test.status, "")
			case err != nil || repo.GetFullName() != "zeta/"+test.repo:
				t.Errorf("got %v, error %v", repo, err)
			}
		})
	}
	head, err := w.sim.Head("zeta", "open", "main")
	w.must(err)
	_, _, err = w.shop().Repositories.CreateStatus(t.Context(), "zeta", "open", head, &github.RepoStatus{State: new("success")})
	wantError(t, err, http.StatusForbidden, "Resource not accessible by integration")
}

// ghinstallation is what many Apps use; it must get along with this GitHub on a real clock.
func TestGhinstallationGetsAlong(t *testing.T) {
	w := newWorld(t)
	w.clock.advance(time.Since(w.clock.Now()))
	apps := ghinstallation.NewAppsTransportFromPrivateKey(http.DefaultTransport, appID, w.key)
	apps.BaseURL = w.url
	transport := ghinstallation.NewFromAppsTransport(apps, w.installation)
	transport.BaseURL = w.url
	client, err := github.NewClient(&http.Client{Transport: transport}).WithEnterpriseURLs(w.url, w.url)
	w.must(err)
	repo, _, err := client.Repositories.Get(t.Context(), "acme", "shop")
	if err != nil || repo.GetDefaultBranch() != "main" {
		t.Errorf("got %v, error %v", repo, err)
	}
}
