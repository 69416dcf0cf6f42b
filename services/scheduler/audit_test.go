package scheduler

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/wording"
)

func auditLog(r *rig) schedulerv1.AuditServiceClient {
	return schedulerv1.NewAuditServiceClient(withHeader{r.nobody, "authorization", "Bearer admin-token"})
}

func audited(r *rig, req *schedulerv1.ListAuditEntriesRequest) *schedulerv1.ListAuditEntriesResponse {
	r.t.Helper()
	answer, err := auditLog(r).ListAuditEntries(r.t.Context(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer
}

// did is an entry in a line, without its time and build.
func did(e *schedulerv1.AuditEntry) string {
	parts := []string{e.GetActor(), wording.Value(e.GetAction()), "by", wording.Value(e.GetOrigin())}
	for _, more := range []string{e.GetCredential(), e.GetAddress(), e.GetAgent(), e.GetEnvironment(), e.GetSubject()} {
		if more != "" {
			parts = append(parts, more)
		}
	}
	return strings.Join(parts, " ")
}

func TestWhatPeopleDoIsWrittenDown(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(r.github.shows(opened(1, "aaa")))
		r.send(commentBy("root", "/forge cancel"))
		again := r.built(pressedAt("aaa", first, ""))
		asWes := rpc.From(rpc.For(t.Context(), "wes"), rpc.Origin{Way: "page", Credential: "session", Address: "192.0.2.7", Agent: "Firefox\x1b[31m"})
		if _, err := r.people.CancelBuild(asWes, &schedulerv1.CancelBuildRequest{BuildId: again}); err != nil {
			t.Fatal(err)
		}
		fork := r.send(fromFork("eve", opened(2, "fff"))).GetBuildIds()[0]
		r.send(pressedAt("fff", fork, "approve"))
		deployed := r.built(mergedInto(3, "main", "m3"))
		r.freeze("the sale has begun")
		r.unfreeze()
		r.setSecret("production", "TOKEN", "hunter2hunter2")
		if _, err := r.secrets.DeleteSecret(t.Context(), &schedulerv1.DeleteSecretRequest{Repository: "Acme/shop", Environment: "production", Name: "TOKEN"}); err != nil {
			t.Fatal(err)
		}
		bot := publisher{r}.makesToken("bot", time.Time{})
		deletion := &schedulerv1.DeleteRepositoryTokenRequest{Repository: "acme/shop", Name: "bot"}
		if _, err := (publisher{r}).tokenService().DeleteRepositoryToken(t.Context(), deletion); err != nil {
			t.Fatal(err)
		}

		all := audited(r, &schedulerv1.ListAuditEntriesRequest{}).GetEntries()
		slices.Reverse(all)
		var got []string
		for _, e := range all {
			got = append(got, strings.ReplaceAll(did(e), e.GetAgent(), "AGENT"))
			if e.GetRepository() != "Acme/shop" && e.GetRepository() != "acme/shop" || !e.GetCreateTime().AsTime().Equal(r.clock.Now()) || e.GetRefused() {
				t.Errorf("%v", e)
			}
		}
		want := []string{
			"root cancel by comment",
			"ada retry by button",
			"wes cancel by page session 192.0.2.7 AGENT",
			"ada approve by button",
			"ada deploy by event staging",
			"an administrator freeze by grpc admin token AGENT staging",
			"an administrator unfreeze by grpc admin token AGENT staging",
			"an administrator set secret by grpc admin token AGENT production TOKEN",
			"an administrator delete secret by grpc admin token AGENT production TOKEN",
			"an administrator create token by grpc admin token AGENT repository token bot",
			"an administrator delete token by grpc admin token AGENT repository token bot",
		}
		for n, e := range all {
			if e.GetAgent() == "" {
				got[n] = did(e)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if len(all) > 4 && (all[0].GetBuildId() != first || all[2].GetBuildId() != again || all[3].GetBuildId() != fork || all[4].GetBuildId() != deployed || all[2].GetAgent() != "Firefox[31m") {
			t.Errorf("%v", all[:5])
		}
		if len(all) > 4 && all[4].GetDetail() != "merge of #3 as m3 by ada" {
			t.Errorf("the cause of a deploy: %q", all[4].GetDetail())
		}
		var stored strings.Builder
		if err := (publisher{r}).dump(&stored, "audit_entries"); err != nil || strings.Contains(stored.String(), "hunter2") || strings.Contains(stored.String(), bot.secret) {
			t.Errorf("the log holds a secret, or cannot be read: %v", err)
		}
	})
}

// What was refused, or did nothing, is not told as done.
func TestWhatWasNotDoneIsNotWrittenDown(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(r.github.shows(opened(1, "aaa")))
		r.send(commentBy("eve", "/forge cancel"))
		r.send(commentBy("ada", "/forge retest")) // it runs already
		r.pass(id)
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err == nil {
			t.Error("what has ended was cancelled")
		}
		if _, err := r.secrets.DeleteSecret(t.Context(), &schedulerv1.DeleteSecretRequest{Repository: "Acme/shop", Name: "NONE"}); err == nil {
			t.Error("a secret was deleted that is not there")
		}
		if all := audited(r, &schedulerv1.ListAuditEntriesRequest{}).GetEntries(); len(all) > 0 {
			t.Errorf("%v", all)
		}
	})
}

func TestTheAuditLogIsNeverChanged(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Retention.Audit = 24 * time.Hour
		r.start()
		r.built(opened(1, "aaa"))
		r.freeze("first")
		r.clock.Advance(25 * time.Hour)
		r.freeze("second")
		statements := []string{"UPDATE audit_entries SET actor = 'nobody'", "DELETE FROM audit_entries"}
		if r.deps.DB.Dialect == "postgres" {
			statements = append(statements, "TRUNCATE audit_entries")
		}
		for _, statement := range statements {
			err := r.deps.DB.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, statement)
				return err
			})
			if err == nil || !strings.Contains(err.Error(), "the audit log is never changed") {
				t.Errorf("%s: %v", statement, err)
			}
		}
		r.pruned()
		all := audited(r, &schedulerv1.ListAuditEntriesRequest{}).GetEntries()
		if len(all) != 1 || all[0].GetDetail() != "second" || all[0].GetActor() != "an administrator" {
			t.Errorf("left are %v", all)
		}
	})
}

func TestTheAuditLogIsFoundByWhoWhatWhereAndWhen(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.built(opened(1, "aaa"))
		for n := range 5 {
			r.freeze(strconv.Itoa(n))
			r.clock.Advance(time.Minute)
		}
		r.unfreeze()
		start := r.clock.Now().Add(-5 * time.Minute)
		for name, c := range map[string]struct {
			req  *schedulerv1.ListAuditEntriesRequest
			want int
		}{
			"all":               {&schedulerv1.ListAuditEntriesRequest{}, 6},
			"of the repository": {&schedulerv1.ListAuditEntriesRequest{Repository: "acme/SHOP"}, 6},
			"of another":        {&schedulerv1.ListAuditEntriesRequest{Repository: "acme/web"}, 0},
			"by an admin":       {&schedulerv1.ListAuditEntriesRequest{Actor: "An Administrator"}, 6},
			"by nobody":         {&schedulerv1.ListAuditEntriesRequest{Actor: "' OR 1=1 --"}, 0},
			"of an action":      {&schedulerv1.ListAuditEntriesRequest{Actions: []schedulerv1.AuditEntry_Action{schedulerv1.AuditEntry_ACTION_UNFREEZE}}, 1},
			"since":             {&schedulerv1.ListAuditEntriesRequest{Since: timestamppb.New(start.Add(time.Minute))}, 5},
			"until":             {&schedulerv1.ListAuditEntriesRequest{Until: timestamppb.New(start.Add(time.Minute))}, 1},
		} {
			found := 0
			for {
				c.req.PageSize = 2
				answer := audited(r, c.req)
				found += len(answer.GetEntries())
				if c.req.PageToken = answer.GetNextPageToken(); c.req.GetPageToken() == "" || found > 10 {
					break
				}
			}
			if found != c.want {
				t.Errorf("%s: %d, want %d", name, found, c.want)
			}
		}
		// Another repository has taken the name: what was done in the old one is not its admins' to see.
		r.github.set(func(g *fakeGitHub) { g.successor = 99 })
		answer, err := schedulerv1.NewAuditServiceClient(r.gateway).ListAuditEntries(rpc.For(t.Context(), "new-owner"), &schedulerv1.ListAuditEntriesRequest{Repository: "Acme/shop"})
		if err != nil || len(answer.GetEntries()) > 0 {
			t.Errorf("who has the name now: %v, %v", answer, err)
		}
	})
}

// What the gateway hands over twice is there once, and nobody else hands anything over.
func TestTheGatewayHandsOverItsOwn(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		entry := &schedulerv1.AuditEntry{
			Action: schedulerv1.AuditEntry_ACTION_REDELIVER, Actor: "boss", Origin: schedulerv1.AuditEntry_ORIGIN_PAGE, CreateTime: timestamppb.New(r.clock.Now().Add(-time.Minute)), Subject: "d1",
		}
		req := &schedulerv1.RecordAuditEntriesRequest{Entries: []*schedulerv1.RecordAuditEntriesRequest_Entry{{HandoverId: "h1", Entry: entry}}}
		gateway := schedulerv1.NewAuditServiceClient(r.gateway)
		for range 2 {
			if _, err := gateway.RecordAuditEntries(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		if all := audited(r, &schedulerv1.ListAuditEntriesRequest{}).GetEntries(); len(all) != 1 || did(all[0]) != "boss redeliver by page d1" || !all[0].GetCreateTime().AsTime().Equal(entry.GetCreateTime().AsTime()) {
			t.Errorf("%v", all)
		}
		if _, err := auditLog(r).RecordAuditEntries(t.Context(), req); status.Code(err) != codes.PermissionDenied {
			t.Errorf("with the admin token: %v", err)
		}
		entry.Action = schedulerv1.AuditEntry_ACTION_APPROVE
		if _, err := gateway.RecordAuditEntries(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("what is the scheduler's own: %v", err)
		}
		entry.Refused = true
		if _, err := gateway.RecordAuditEntries(t.Context(), req); err != nil {
			t.Errorf("what was refused at the gateway: %v", err)
		}
	})
}
