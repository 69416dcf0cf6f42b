package scheduler

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

func TestBuildsAreListedNewestFirstInPagesAndByFilter(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var all []string
		for n := range int32(5) {
			all = append(all, r.built(opened(n+1, "a"+string('0'+n))))
		}
		all = append(all, r.built(mergedInto(1, "main", "m1")))
		slices.Reverse(all)
		ids := func(req *schedulerv1.ListBuildsRequest) (ids []string, next string) {
			answer, err := r.builds.ListBuilds(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range answer.GetBuilds() {
				ids = append(ids, b.GetId())
			}
			return ids, answer.GetNextPageToken()
		}
		var paged []string
		for token, more := "", true; more; more = token != "" {
			var page []string
			if page, token = ids(&schedulerv1.ListBuildsRequest{PageSize: 2, PageToken: token}); len(page) > 2 {
				t.Errorf("a page of %d", len(page))
			}
			paged = append(paged, page...)
		}
		if !slices.Equal(paged, all) {
			t.Errorf("pages %v, want %v", paged, all)
		}
		for name, c := range map[string]struct {
			req  *schedulerv1.ListBuildsRequest
			want []string
		}{
			"repository, whatever its case": {&schedulerv1.ListBuildsRequest{Repository: "acme/Shop"}, all},
			"another repository":            {&schedulerv1.ListBuildsRequest{Repository: "acme/other"}, nil},
			"pull request":                  {&schedulerv1.ListBuildsRequest{Repository: "acme/shop", PullRequest: 1}, []string{all[0], all[5]}},
			"sha":                           {&schedulerv1.ListBuildsRequest{Sha: "a2"}, []string{all[3]}},
			"actions": {&schedulerv1.ListBuildsRequest{Actions: []schedulerv1.Build_Action{
				schedulerv1.Build_ACTION_DEPLOY_STAGING, schedulerv1.Build_ACTION_DEPLOY_PRODUCTION,
			}}, all[:1]},
			"states": {&schedulerv1.ListBuildsRequest{States: []schedulerv1.Build_State{schedulerv1.Build_STATE_PASSED}}, nil},
		} {
			if got, _ := ids(c.req); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		for text, req := range map[string]*schedulerv1.ListBuildsRequest{
			"page_token is not one of ours":                    {PageToken: "nonsense"},
			"page_size is -1: expected 1 to 500, or 0 for 50":  {PageSize: -1},
			"pull_request needs the repository, as owner/name": {PullRequest: 3},
		} {
			if _, err := r.builds.ListBuilds(t.Context(), req); status.Code(err) != codes.InvalidArgument || err.Error() != text {
				t.Errorf("err = %v, want %s", err, text)
			}
		}
	})
}

func TestBuildThatIsNotThereIsNotFound(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		if _, err := r.builds.GetBuild(t.Context(), &schedulerv1.GetBuildRequest{BuildId: "nope"}); status.Code(err) != codes.NotFound || err.Error() != "no build nope: there never was one, or it was pruned since" {
			t.Errorf("get: %v", err)
		}
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: "nope"}); status.Code(err) != codes.NotFound {
			t.Errorf("cancel: %v", err)
		}
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{Message: strings.Repeat("é", 141)}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("cancel with a long message: %v", err)
		}
		for _, message := range []string{"one\ntwo", "\x1b[2Jone", "one\u2028two", "one\x00"} {
			_, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{Message: message})
			if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != "message: one line, without control characters" {
				t.Errorf("cancel with the message %q: %v", message, err)
			}
		}
	})
}

func TestWatchBuildSendsEachStateUntilTheEnd(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		stream, err := r.builds.WatchBuild(t.Context(), &schedulerv1.WatchBuildRequest{BuildId: id})
		if err != nil {
			t.Fatal(err)
		}
		first, err := stream.Recv()
		if err != nil || first.GetBuild().GetId() != id {
			t.Fatalf("first: %v, %v", first, err)
		}
		u := r.attach(r.spec(id, 1).Runner.Token)
		until := func(holds func(*schedulerv1.Build) bool) {
			for {
				message, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if holds(message.GetBuild()) {
					return
				}
			}
		}
		until(func(b *schedulerv1.Build) bool { return b.GetState() == schedulerv1.Build_STATE_RUNNING })
		all := passing(2)
		u.send(all[0])
		until(func(b *schedulerv1.Build) bool { return b.GetSteps()[0].GetState() == schedulerv1.Step_STATE_RUNNING })
		u.send(all[1:]...)
		until(func(b *schedulerv1.Build) bool { return b.GetState() == schedulerv1.Build_STATE_PASSED })
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestLogIsReadWholeFromAnyOffsetAndFollowed(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		follow, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		u := r.attach(r.spec(id, 1).Runner.Token)
		random := rand.New(rand.NewPCG(1, 2))
		noise := make([]byte, 700<<10) // does not compress
		for n := range noise {
			noise[n] = byte(random.Uint32())
		}
		whole := slices.Concat([]byte("hello\n"), noise, bytes.Repeat([]byte("0123456789"), 50<<10))
		u.send(began(1, 1))
		sequence := int64(1)
		for part := range slices.Chunk(whole, 60<<10) {
			sequence++
			u.send(printed(sequence, 1, string(part)))
		}
		u.acked(sequence)
		b := r.build(id)
		if b.GetLogSize() != int64(len(whole)) {
			t.Fatalf("log of %d bytes, want %d", b.GetLogSize(), len(whole))
		}
		for _, offset := range []int64{0, 1, 6, 7, 60 << 10, 300_001, b.GetLogSize() - 1, b.GetLogSize()} {
			stream, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id, Offset: offset})
			if err != nil {
				t.Fatal(err)
			}
			if got := readLog(t, stream, offset); !bytes.Equal(got, whole[offset:]) {
				t.Errorf("from %d: %d bytes, want %d", offset, len(got), len(whole[offset:]))
			}
		}
		for _, c := range []struct {
			req  *schedulerv1.WatchLogRequest
			want codes.Code
		}{
			{&schedulerv1.WatchLogRequest{BuildId: id, Offset: b.GetLogSize() + 1}, codes.OutOfRange},
			{&schedulerv1.WatchLogRequest{BuildId: id, Offset: -1}, codes.InvalidArgument},
			{&schedulerv1.WatchLogRequest{BuildId: id, Attempt: 2}, codes.NotFound},
			{&schedulerv1.WatchLogRequest{BuildId: "nope"}, codes.NotFound},
		} {
			stream, err := r.builds.WatchLog(t.Context(), c.req)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != c.want {
				t.Errorf("%v: %v, want %v", c.req, err, c.want)
			}
		}
		u.send(printed(sequence+1, 1, "the end\n"), exited(sequence+2, 1, 1), over(sequence+3, schedulerv1.Ended_CAUSE_DONE))
		if got := readLog(t, follow, 0); !bytes.Equal(got, append(whole, "the end\n"...)) {
			t.Errorf("followed %d bytes, want %d", len(got), len(whole)+8)
		}
	})
}

// readLog reads to the end and holds the offsets against the data.
func readLog(t *testing.T, stream schedulerv1.BuildService_WatchLogClient, offset int64) []byte {
	t.Helper()
	var all []byte
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if message.GetOffset() != offset+int64(len(all)) || len(message.GetData()) > 256<<10 {
			t.Fatalf("%d bytes at %d after %d from %d", len(message.GetData()), message.GetOffset(), len(all), offset)
		}
		all = append(all, message.GetData()...)
	}
}

func TestFollowerOfABuildThatNeverRanSeesItsEnd(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		fork := opened(1, "aaa")
		pull(fork).Head.Repository.Id = 8
		id := r.send(fork).GetBuildIds()[0]
		stream, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		r.send(synchronize("aaa", "bbb", noon.Add(time.Minute)))
		if got := readLog(t, stream, 0); len(got) != 0 {
			t.Errorf("log %q", got)
		}
		r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
	})
}

func TestOnlyTheGatewaySendsEventsAndOnlyTheAdminSteers(t *testing.T) {
	access := Access()
	for method, want := range map[string]struct{ public, gateway bool }{
		schedulerv1.EventService_ReceiveEvent_FullMethodName: {gateway: true},
		schedulerv1.BuildService_ListBuilds_FullMethodName:   {},
		schedulerv1.BuildService_CancelBuild_FullMethodName:  {},
		schedulerv1.BuildService_GetBuild_FullMethodName:     {public: true},
	} {
		got, listed := access[method]
		if !listed || got.Public != want.public || slices.Contains(got.Rooms, "gateway") != want.gateway {
			t.Errorf("%s: %+v", method, got)
		}
	}
	services := []struct {
		name    string
		methods int
	}{
		{schedulerv1.EventService_ServiceDesc.ServiceName, len(schedulerv1.EventService_ServiceDesc.Methods) + len(schedulerv1.EventService_ServiceDesc.Streams)},
		{schedulerv1.BuildService_ServiceDesc.ServiceName, len(schedulerv1.BuildService_ServiceDesc.Methods) + len(schedulerv1.BuildService_ServiceDesc.Streams)},
		{schedulerv1.EnvironmentService_ServiceDesc.ServiceName, len(schedulerv1.EnvironmentService_ServiceDesc.Methods)},
		{schedulerv1.SecretService_ServiceDesc.ServiceName, len(schedulerv1.SecretService_ServiceDesc.Methods)},
		{schedulerv1.RunnerService_ServiceDesc.ServiceName, len(schedulerv1.RunnerService_ServiceDesc.Methods) + len(schedulerv1.RunnerService_ServiceDesc.Streams)},
	}
	for _, service := range services {
		listed := 0
		for method := range access {
			if strings.HasPrefix(method, "/"+service.name+"/") {
				listed++
			}
		}
		if listed != service.methods {
			t.Errorf("%s: %d of %d methods are in the table", service.name, listed, service.methods)
		}
	}
}

func TestNewRefusesWhatItCannotWorkWith(t *testing.T) {
	for want, deps := range map[string]Deps{
		`fork policy "": use approve, run or never`:        {Capacity: 1},
		"capacity: at least one build must be able to run": {Policy: trigger.Policy{Forks: "run"}},
		"FORGE_SECRETS_KEY: at least one key is needed":    {Policy: trigger.Policy{Forks: "run"}, Capacity: 1},
	} {
		if _, err := New(deps); err == nil || err.Error() != want {
			t.Errorf("err = %v, want %s", err, want)
		}
	}
}
