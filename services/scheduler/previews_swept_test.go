package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// previewedAt are the pull requests that have a preview, by pages of this size.
func previewedAt(r *rig, size int32) (all []string) {
	r.t.Helper()
	client := schedulerv1.NewPreviewServiceClient(r.gateway)
	for token := ""; ; {
		page, err := client.ListPreviewedPullRequests(r.t.Context(), &schedulerv1.ListPreviewedPullRequestsRequest{PageSize: size, PageToken: token})
		if err != nil {
			r.t.Fatal(err)
		}
		for _, one := range page.GetPullRequests() {
			of := one.GetRepository()
			all = append(all, fmt.Sprintf("%s/%s#%d", of.GetOwner(), of.GetName(), one.GetNumber()))
			if !proto.Equal(of, repository()) || one.GetInstallationId() != 3 {
				r.t.Errorf("%v", one)
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			return all
		}
	}
}

func TestPullRequestsWithAPreviewAreListed(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(), "aaa", "bbb", "ccc")
		want := func(when string, want ...string) {
			t.Helper()
			for _, size := range []int32{0, 1, 2} {
				if all := previewedAt(r, size); !slices.Equal(all, want) {
					t.Errorf("%s, by %d: %v, want %v", when, size, all, want)
				}
			}
		}
		test := r.built(opened(1, "aaa"))
		want("before its tests have passed")
		r.pass(test)
		deploy := offered(r, "aaa").GetId()
		want("before it is deployed", "Acme/shop#1")
		r.pass(deploy)
		for number, sha := range map[int32]string{2: "bbb", 3: "ccc"} {
			r.pass(r.built(opened(number, sha)))
			r.pass(newestTo(r, fmt.Sprintf("preview-%d", number), sha).GetId())
		}
		want("with others", "Acme/shop#1", "Acme/shop#2", "Acme/shop#3")
		r.send(closed("aaa", noon.Add(time.Minute)))
		want("while it is taken down", "Acme/shop#2", "Acme/shop#3")
		r.pass(inPreview(r, schedulerv1.Build_ACTION_STOP).GetId())
		want("once it is down", "Acme/shop#2", "Acme/shop#3")

		_, err := schedulerv1.NewPreviewServiceClient(r.nobody).ListPreviewedPullRequests(t.Context(), &schedulerv1.ListPreviewedPullRequestsRequest{})
		if !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("for anybody: %v", err)
		}
	})
}

// A pull request whose end was found by a look loses its preview once, whenever its
// webhook comes after all, and gets it again where it is opened again.
func TestAPreviewEndsByWhatALookFinds(t *testing.T) {
	file := tearsDown()
	file.GetConfig().Environments = previewed().GetConfig().GetEnvironments()
	for name, c := range map[string]struct {
		end  *eventv1.Event
		want string
	}{
		"closed": {closed("aaa", noon.Add(time.Hour)), " take down by event preview-1: #1 was closed"},
		"merged": {sentBy("mia", mergedAs("main", "aaa", "m2")), "mia take down by event preview-1: #1 was merged"},
	} {
		for when, order := range map[string][]*eventv1.Event{
			"and then told":           {sweptAs("swept", c.end, noon.Add(time.Hour)), c.end},
			"later, and then told":    {sweptAs("swept", c.end, noon.Add(2*time.Hour)), c.end},
			"twice":                   {sweptAs("swept", c.end, noon.Add(time.Hour)), sweptAs("twice", c.end, noon.Add(time.Hour))},
			"when it was told before": {sweptAs("told", c.end, noon.Add(time.Hour)), sweptAs("swept", c.end, noon.Add(2*time.Hour))},
		} {
			t.Run(name+", "+when, func(t *testing.T) {
				r := sqliteRig(t)
				r.deps.Capacity = 4
				r.start()
				says(r, file, "aaa")
				r.config.set("m2", valid(&configv1.BuildConfig{Image: "a", Execute: script("true")}))
				r.pass(r.built(opened(1, "aaa")))
				r.pass(offered(r, "aaa").GetId())
				r.send(order[0])
				builds := len(r.all())
				stop := inPreview(r, schedulerv1.Build_ACTION_STOP)
				if stop == nil || inPreview(r, schedulerv1.Build_ACTION_CLOSED) == nil {
					t.Fatalf("built %v", r.all())
				}
				if d := r.send(order[1]); d.GetReason() == eventv1.Reason_REASON_BUILT || len(r.all()) != builds {
					t.Errorf("once more: %v, built %v", d, r.all())
				}
				r.pass(stop.GetId())
				unlisted(r)
				if all := ends(r); !slices.Equal(all, []string{c.want + ", " + stop.GetId()}) {
					t.Errorf("the audit log has %q", all)
				}
				if name == "merged" {
					return
				}
				r.send(reopened("aaa", noon.Add(3*time.Hour)))
				if b := offered(r, "aaa"); b.GetState() == schedulerv1.Build_STATE_PASSED {
					t.Errorf("not deployed again: %v", b)
				}
				if all := previewedAt(r, 0); len(all) != 1 {
					t.Errorf("opened again: %v", all)
				}
				late := sweptAs("very late", c.end, noon.Add(time.Hour))
				if d := r.send(late); d.GetReason() != eventv1.Reason_REASON_STALE {
					t.Errorf("once it was opened again: %v", d)
				}
			})
		}
	}
}
