package scheduler

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// holder calls with a token that is bound to a repository.
type holder struct {
	grpc.ClientConnInterface
	secret string
}

func (r publisher) with(secret string) holder {
	return holder{withHeader{r.nobody, "authorization", "Bearer " + secret}, secret}
}

func (h holder) create(ctx context.Context, req *schedulerv1.CreateBuildRequest) (*schedulerv1.Build, error) {
	answer, err := schedulerv1.NewBuildServiceClient(h).CreateBuild(ctx, req)
	return answer.GetBuild(), err
}

func (r publisher) tokenService() schedulerv1.RepositoryTokenServiceClient {
	return schedulerv1.NewRepositoryTokenServiceClient(withHeader{r.nobody, "authorization", "Bearer admin-token"})
}

func (r publisher) makesToken(name string, expires time.Time) holder {
	r.t.Helper()
	req := &schedulerv1.CreateRepositoryTokenRequest{Repository: "Acme/shop", Name: name}
	if !expires.IsZero() {
		req.ExpireTime = timestamppb.New(expires)
	}
	answer, err := r.tokenService().CreateRepositoryToken(r.t.Context(), req)
	if err != nil || !strings.HasPrefix(answer.GetSecret(), "forge_repo_") || len(answer.GetSecret()) != len("forge_repo_")+52 {
		r.t.Fatalf("%v, %v", answer, err)
	}
	return r.with(answer.GetSecret())
}

func (r publisher) listsTokens() []*schedulerv1.RepositoryToken {
	r.t.Helper()
	answer, err := r.tokenService().ListRepositoryTokens(r.t.Context(), &schedulerv1.ListRepositoryTokensRequest{Repository: "acme/SHOP"})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetTokens()
}

func TestATokenOfARepositoryMakesBuildsByHandThere(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r publisher) {
		r.branches()
		r.offers(tip)
		test := r.built(opened(1, "aaa"))
		bot := r.makesToken("chat-bot", time.Time{})
		if all := r.listsTokens(); len(all) != 1 || all[0].GetUseTime() != nil || all[0].GetExpireTime() != nil || all[0].GetRepository() != "Acme/shop" {
			t.Errorf("listed are %v", all)
		}
		made, err := bot.create(t.Context(), &schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Inputs: map[string]string{"version": "1"}})
		if err != nil || made.GetAction() != schedulerv1.Build_ACTION_MANUAL || made.GetActor() != "token chat-bot" {
			t.Fatalf("%v, %v", made, err)
		}
		list, err := schedulerv1.NewBuildServiceClient(bot).ListBuilds(t.Context(), &schedulerv1.ListBuildsRequest{})
		if err != nil || len(list.GetBuilds()) != 1 || list.GetBuilds()[0].GetId() != made.GetId() {
			t.Errorf("beside %s it lists %v, %v", test, list, err)
		}
		asked, err := schedulerv1.NewManualServiceClient(bot).GetManual(t.Context(), &schedulerv1.GetManualRequest{Repository: "Acme/shop"})
		if err != nil || len(asked.GetInputs()) != 3 {
			t.Errorf("it is told %v, %v", asked, err)
		}
		if all := r.listsTokens(); all[0].GetUseTime().AsTime() != r.clock.Now() {
			t.Errorf("after its use: %v", all)
		}
		for table := range map[string]bool{"builds": true, "repository_tokens": true} {
			var stored strings.Builder
			if err := r.dump(&stored, table); err != nil || strings.Contains(stored.String(), bot.secret) {
				t.Errorf("%s holds the token, or cannot be read: %v", table, err)
			}
		}
	})
}

// Every call that the scheduler serves, by a holder of a token: which it opens, and what
// of it.
func TestATokenOfARepositoryOpensNothingElse(t *testing.T) {
	r := publisher{sqliteRig(t)}
	var logged bytes.Buffer
	r.deps.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.branches()
	r.offers(tip)
	r.start()
	bot := r.makesToken("bot", time.Time{})
	given := map[string]string{"version": "1"}
	for name, c := range map[string]struct {
		req  *schedulerv1.CreateBuildRequest
		text string
	}{
		"another repository":  {&schedulerv1.CreateBuildRequest{Repository: "acme/other", Inputs: given}, "the token bot is of Acme/shop, and opens no other repository"},
		"a test":              {&schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Action: schedulerv1.Build_ACTION_TEST}, "action: this token is bound to a repository, and runs what manual in .forge.yml has alone"},
		"a deploy":            {&schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Action: schedulerv1.Build_ACTION_DEPLOY_PRODUCTION}, "action: this token is bound to a repository, and runs what manual in .forge.yml has alone"},
		"of no known action ": {&schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Action: 99}, "action: this token is bound to a repository, and runs what manual in .forge.yml has alone"},
	} {
		if _, err := bot.create(t.Context(), c.req); status.Code(err) != codes.PermissionDenied || err.Error() != c.text {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := schedulerv1.NewBuildServiceClient(bot).ListBuilds(t.Context(), &schedulerv1.ListBuildsRequest{Repository: "acme/other"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("builds of another repository: %v", err)
	}
	if _, err := schedulerv1.NewManualServiceClient(bot).GetManual(t.Context(), &schedulerv1.GetManualRequest{Repository: "acme/other"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("what another repository asks for: %v", err)
	}
	r.github.set(func(g *fakeGitHub) { g.successor = 8 }) // has the name now
	if _, err := bot.create(t.Context(), byHand(given)); status.Code(err) != codes.PermissionDenied || err.Error() != "the token bot is of Acme/shop, and opens no other repository" {
		t.Errorf("a repository that took the name: %v", err)
	}
	for method, access := range Access() {
		if access.Public || access.Bound {
			continue
		}
		if err := bot.Invoke(t.Context(), method, &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) != codes.PermissionDenied ||
			err.Error() != "this token is bound to a repository: it makes builds by hand there and lists them, and opens no other call" {
			t.Errorf("%s: %v", method, err)
		}
	}
	for method := range Access() {
		if bound := Access()[method].Bound; bound != (strings.HasSuffix(method, "/CreateBuild") || strings.HasSuffix(method, "/ListBuilds") || strings.HasSuffix(method, "/GetManual")) {
			t.Errorf("%s: bound is %v", method, bound)
		}
	}
	if len(r.all()) != 0 {
		t.Errorf("built %v", r.all())
	}
	r.stop()
	if !strings.Contains(logged.String(), "token=bot") || strings.Contains(logged.String(), bot.secret) {
		t.Error("the log holds the token, or does not name it")
	}
}

func TestATokenOfARepositoryEnds(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r publisher) {
		r.branches()
		r.offers(tip)
		req := byHand(map[string]string{"version": "1"})
		bot, brief := r.makesToken("bot", time.Time{}), r.makesToken("brief", r.clock.Now().Add(time.Hour))
		for name, secret := range map[string]string{
			"made up": "forge_repo_" + strings.Repeat("a", 52), "cut": bot.secret[:len(bot.secret)-1], "longer": bot.secret + "a", "in capitals": "forge_repo_" + strings.ToUpper(bot.secret[11:]),
			"nothing but its beginning": "forge_repo_",
		} {
			if _, err := r.with(secret).create(t.Context(), req); status.Code(err) != codes.Unauthenticated || err.Error() != "there is no such token: it was deleted, or never made" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := brief.create(t.Context(), req); err != nil {
			t.Errorf("in time: %v", err)
		}
		r.clock.Advance(time.Hour)
		if _, err := brief.create(t.Context(), req); status.Code(err) != codes.Unauthenticated || err.Error() != "the token brief of Acme/shop has expired: make another by forge tokens create" {
			t.Errorf("at its end: %v", err)
		}
		if _, err := bot.create(t.Context(), req); err != nil {
			t.Errorf("without an end: %v", err)
		}
		for _, want := range []codes.Code{codes.OK, codes.NotFound} {
			if _, err := r.tokenService().DeleteRepositoryToken(t.Context(), &schedulerv1.DeleteRepositoryTokenRequest{Repository: "acme/shop", Name: "bot"}); status.Code(err) != want {
				t.Errorf("deleted: %v", err)
			}
		}
		if _, err := bot.create(t.Context(), req); status.Code(err) != codes.Unauthenticated || err.Error() != "there is no such token: it was deleted, or never made" {
			t.Errorf("deleted: %v", err)
		}
		if again := r.makesToken("bot", time.Time{}); again.secret == bot.secret {
			t.Error("made anew, it is the same")
		}
	})
}

func TestTokensOfARepositoryHaveNamesAndBounds(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r publisher) {
		create := func(repository, name string, expires *timestamppb.Timestamp) error {
			_, err := r.tokenService().CreateRepositoryToken(t.Context(), &schedulerv1.CreateRepositoryTokenRequest{Repository: repository, Name: name, ExpireTime: expires})
			return err
		}
		for want, err := range map[codes.Code][]error{
			codes.InvalidArgument: {
				create("Acme/shop", "", nil), create("Acme/shop", "a b", nil), create("Acme/shop", "-x", nil), create("Acme/shop", strings.Repeat("x", 61), nil), create("shop", "x", nil),
				create("Acme/shop", "x", timestamppb.New(r.clock.Now())), create("Acme/shop", "x", &timestamppb.Timestamp{Seconds: 1 << 60}),
			},
			codes.NotFound: {create("acme/other", "x", nil)},
			codes.OK:       {create("Acme/shop", "x", nil)},
		} {
			for n, err := range err {
				if status.Code(err) != want {
					t.Errorf("%v %d: %v", want, n, err)
				}
			}
		}
		if err := create("acme/shop", "x", nil); status.Code(err) != codes.AlreadyExists {
			t.Errorf("the same name: %v", err)
		}
		for n := 1; n < 50; n++ {
			if err := create("Acme/shop", strings.Repeat("x", n+1), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := create("Acme/shop", "one-too-many", nil); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("51: %v", err)
		}
		page, err := r.tokenService().ListRepositoryTokens(t.Context(), &schedulerv1.ListRepositoryTokensRequest{PageSize: 49})
		if err != nil || len(page.GetTokens()) != 49 {
			t.Fatalf("%d, %v", len(page.GetTokens()), err)
		}
		last, err := r.tokenService().ListRepositoryTokens(t.Context(), &schedulerv1.ListRepositoryTokensRequest{PageSize: 49, PageToken: page.GetNextPageToken()})
		if err != nil || len(last.GetTokens()) != 1 || last.GetNextPageToken() != "" {
			t.Errorf("%v, %v", last, err)
		}
	})
}
