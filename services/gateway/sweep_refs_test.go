package gateway

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func (h *hooks) ListPushedRefs(_ *configv1.ListPushedRefsRequest, out grpc.ServerStreamingServer[configv1.ListPushedRefsResponse]) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range h.refs {
		if err := out.Send(one); err != nil {
			return err
		}
	}
	return nil
}

func (*hooks) GetCommit(_ context.Context, req *configv1.GetCommitRequest) (*configv1.GetCommitResponse, error) {
	return &configv1.GetCommitResponse{Sha: req.GetSha(), Message: "Sell more [skip ci]"}, nil
}

// has GitHub show these branches and tags, each with its commit.
func (h *hooks) has(all ...string) {
	one := &configv1.ListPushedRefsResponse{
		Patterns:   []string{"main", h.tags},
		Repository: &eventv1.Repository{Id: 7, Owner: "acme", Name: "shop", DefaultBranch: "main"}, InstallationId: 3,
	}
	for n := 0; n < len(all); n += 2 {
		one.Refs = append(one.Refs, &configv1.PushedRef{Ref: all[n], Sha: all[n+1]})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refs = []*configv1.ListPushedRefsResponse{one}
}

func TestPushesThatNoDeliveryToldOfAreFoundOnce(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		github := &hooks{}
		w := start(t, open(), nil, github)
		look := func() []string {
			t.Helper()
			swept, err := w.service.recovery.sweepRefs(t.Context(), wholeSweep)
			if err != nil {
				t.Fatal(err)
			}
			return swept
		}
		github.has("refs/heads/main", "aaa", "refs/tags/v1", "aaa")
		kittest.Want(t, len(look()), 0, "what is there at the first look")
		github.has("refs/heads/main", "bbb", "refs/tags/v1", "aaa", "refs/tags/v2", "bbb")
		kittest.Want(t, look(), []string{"swept-7-refs/heads/main-bbb", "swept-7-refs/tags/v2-bbb"})
		kittest.Want(t, len(look()), 0, "the same once more")
		w.ends("swept-7-refs/heads/main-bbb")
		w.ends("swept-7-refs/tags/v2-bbb")
		for _, event := range w.rooms.received("scheduler") {
			push := event.GetPush()
			before := map[string]string{"refs/heads/main": "aaa", "refs/tags/v2": "000"}[push.GetRef()]
			if push.GetBefore() != before || push.GetHeadSha() != "bbb" || push.GetHeadMessage() != "Sell more [skip ci]" ||
				event.GetRepository().GetId() != 7 || event.GetInstallationId() != 3 {
				t.Errorf("relayed %v", event)
			}
		}
		github.tags = "v*"
		github.has("refs/heads/main", "bbb", "refs/tags/v0", "000", "refs/tags/v2", "bbb")
		kittest.Want(t, len(look()), 0, "a tag that the file did not name before")
		// A tag that goes and comes back at another commit is a push again; what a
		// delivery has told is none.
		github.has("refs/heads/main", "bbb")
		kittest.Want(t, len(look()), 0, "tags that are gone")
		github.has("refs/heads/main", "bbb", "refs/tags/v2", "ccc")
		kittest.Want(t, look(), []string{"swept-7-refs/tags/v2-ccc"})
		w.post(hook{event: "push", id: "told", body: []byte(`{"ref": "refs/heads/main", "before": "bbb", "after": "ddd", "head_commit": {"id": "ddd"},
			"repository": {"id": 7, "name": "shop", "full_name": "acme/shop", "owner": {"login": "acme"}}, "installation": {"id": 3}}`)})
		w.ends("told")
		github.has("refs/heads/main", "ddd", "refs/tags/v2", "ccc")
		kittest.Want(t, len(look()), 0, "what a delivery told of")
	})
}
