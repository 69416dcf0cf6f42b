package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// timed is a rig with schedules.
type timed struct{ *rig }

// The newest commits of branches, whose shas the fake config names in titles.
const (
	mainTip = "aaa0000000000000000000000000000000000000"
	nextTip = "bbb0000000000000000000000000000000000000"
)

func nightly(change ...func(*configv1.Schedule)) *configv1.Schedule {
	c := &configv1.Schedule{Name: "nightly", Cron: "30 2 * * *", Execute: &configv1.Pipeline{Commands: []*configv1.Command{{Name: "night", Run: "make nightly"}}}}
	for _, do := range change {
		do(c)
	}
	return c
}

func withSchedules(all ...*configv1.Schedule) *configv1.GetBuildConfigResponse {
	config := usual()
	config.Schedules = all
	return valid(config)
}

// hasTips gives the default branch, and another, a commit each.
func (r timed) hasTips() {
	r.config.branches = map[string][]string{"main": {mainTip}, "next": {nextTip}}
}

// lists are the schedules, which must become such as is said.
func (r timed) lists(such func([]*schedulerv1.Schedule) bool) []*schedulerv1.Schedule {
	r.t.Helper()
	var all []*schedulerv1.Schedule
	kittest.Eventually(r.t, patience, func() error {
		r.wake()
		answer, err := r.times.ListSchedules(r.t.Context(), &schedulerv1.ListSchedulesRequest{})
		if all = answer.GetSchedules(); err == nil && !such(all) {
			return fmt.Errorf("listed are %v", all)
		}
		return err
	})
	return all
}

// knows waits for a schedule to be due next at a time.
func (r timed) knows(next string) *schedulerv1.Schedule {
	r.t.Helper()
	return r.lists(func(all []*schedulerv1.Schedule) bool {
		return len(all) == 1 && all[0].GetNextTime().AsTime().Format(time.RFC3339) == next
	})[0]
}

func (r timed) pushesMain() {
	r.t.Helper()
	r.t.Logf("%v", r.send(pushedTo("refs/heads/main", mainTip)))
}

// ofSchedule are the builds of schedules, the oldest first.
func (r timed) ofSchedules() []*schedulerv1.Build {
	all := slices.DeleteFunc(r.all(), func(b *schedulerv1.Build) bool { return b.GetAction() != schedulerv1.Build_ACTION_SCHEDULE })
	slices.Reverse(all)
	return all
}

// A night, and the next; with Forge away for three in between, and replicas that look
// at the same time.
func TestAScheduleRunsEachTimeOnce(t *testing.T) {
	eachStopped(t, func(t *testing.T, bare *rig) {
		r := timed{bare}
		r.hasTips()
		r.config.set(mainTip, withSchedules(nightly(func(c *configv1.Schedule) { c.Zone = "Europe/Berlin" })))
		r.start()
		r.pushesMain()
		r.knows("2026-11-24T01:30:00Z")
		if len(r.ofSchedules()) > 0 {
			t.Errorf("a new one ran at once: %v", r.ofSchedules())
		}
		at := func(text string) {
			t.Helper()
			to, err := time.Parse(time.RFC3339, text)
			if err != nil {
				t.Fatal(err)
			}
			r.clock.Advance(to.Sub(r.clock.Now()))
		}
		at("2026-11-24T01:29:59Z")
		r.wake()
		at("2026-11-24T01:30:01Z")
		r.knows("2026-11-25T01:30:00Z")
		b := r.ofSchedules()[0]
		if b.GetContext() != "forge/schedule/nightly" || b.GetSha() != mainTip || b.GetRef() != "refs/heads/main" || b.GetSchedule() != "nightly" ||
			b.GetScheduleTime().AsTime().Format(time.RFC3339) != "2026-11-24T01:30:00Z" || b.GetScheduleNote() != "" || b.GetFork() || b.GetPullRequest() != 0 {
			t.Errorf("%v", b)
		}
		u := r.attach(r.spec(b.GetId(), 1).Runner.Token)
		if got := u.plan.GetEnvironment(); got["FORGE_SCHEDULE"] != "nightly" || got["FORGE_ACTION"] != "schedule" || u.plan.GetSteps()[0].GetRun() != "make nightly" {
			t.Errorf("%v", u.plan)
		}
		u.send(passing(1)...)
		r.shown(mainTip, "forge/schedule/nightly", schedulerv1.Build_STATE_PASSED)

		r.stop() // three nights
		at("2026-11-27T12:00:00Z")
		r.start()
		c := r.knows("2026-11-28T01:30:00Z")
		if c.GetMessage() != "built, late" || c.GetLastTime().AsTime().Format(time.RFC3339) != "2026-11-25T01:30:00Z" || c.GetZone() != "Europe/Berlin" {
			t.Errorf("%v", c)
		}
		all := r.ofSchedules()
		if len(all) != 2 || all[1].GetScheduleNote() != "late: it was due at 2026-11-25T01:30:00Z" || all[1].GetId() != c.GetLastBuildId() {
			t.Errorf("built %v", all)
		}
		r.spec(all[1].GetId(), 1)
		if log := r.log(all[1].GetId()); !strings.Contains(log, "schedule nightly: late: it was due at 2026-11-25T01:30:00Z") {
			t.Errorf("the log says %q", log)
		}
		r.pass(all[1].GetId())

		// Several look at one time.
		at("2026-11-28T01:30:00Z")
		due := &store.Schedule{}
		kittest.Eventually(t, patience, func() error {
			return r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) (err error) {
				due, err = store.Timetable{Tx: tx}.Schedule(ctx, 7, "nightly")
				return err
			})
		})
		for range 5 {
			r.service.schedules.Occur(t.Context(), due)
		}
		r.knows("2026-11-29T01:30:00Z")
		if all := r.ofSchedules(); len(all) != 3 {
			t.Errorf("built %v", all)
		}
	})
}

// All replicas look at each time, and one of them runs it.
func TestReplicasRunEachTimeOnce(t *testing.T) {
	eachTwice(t, func(t *testing.T, here, there *rig) {
		r := timed{here}
		r.hasTips()
		var all []*configv1.Schedule
		for n := range 8 {
			all = append(all, nightly(func(c *configv1.Schedule) { c.Name = fmt.Sprint("s", n) }))
		}
		r.config.set(mainTip, withSchedules(all...))
		r.pushesMain()
		for night := range 3 {
			next := time.Date(2026, 11, 24+night, 2, 30, 0, 0, time.UTC)
			r.lists(func(all []*schedulerv1.Schedule) bool {
				there.wake()
				return len(all) == 8 && !slices.ContainsFunc(all, func(c *schedulerv1.Schedule) bool { return !c.GetNextTime().AsTime().Equal(next) })
			})
			if built := r.ofSchedules(); len(built) != 8*night {
				t.Fatalf("%d builds after %d nights", len(built), night)
			}
			for _, b := range r.ofSchedules() {
				_, _ = r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: b.GetId()})
				r.becomes(b.GetId(), schedulerv1.Build_STATE_CANCELLED)
			}
			r.clock.Advance(next.Sub(r.clock.Now()))
		}
	})
}

func (r timed) log(id string) (text string) {
	r.t.Helper()
	stream, err := r.builds.WatchLog(r.t.Context(), &schedulerv1.WatchLogRequest{BuildId: id})
	if err != nil {
		r.t.Fatal(err)
	}
	for {
		piece, err := stream.Recv()
		if err != nil {
			return text
		}
		text += string(piece.GetData())
	}
}

// The next time waits until the build of the last has ended, and then runs, late.
func TestNoTwoBuildsOfAScheduleAreUnderWay(t *testing.T) {
	each(t, func(t *testing.T, bare *rig) {
		r := timed{bare}
		r.hasTips()
		r.config.set(mainTip, withSchedules(nightly()))
		r.pushesMain()
		r.knows("2026-11-24T02:30:00Z")
		r.clock.Advance(15 * time.Hour)
		r.knows("2026-11-25T02:30:00Z")
		first := r.ofSchedules()[0].GetId()
		r.clock.Advance(24 * time.Hour)
		r.lists(func(all []*schedulerv1.Schedule) bool {
			return all[0].GetMessage() == "waits until build "+first+" has ended"
		})
		if _, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: first}); err == nil {
			t.Error("it is built once more beside itself")
		}
		if all := r.ofSchedules(); len(all) != 1 {
			t.Errorf("built %v", all)
		}
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: first}); err != nil {
			t.Fatal(err)
		}
		r.becomes(first, schedulerv1.Build_STATE_CANCELLED)
		r.clock.Advance(time.Minute)
		r.knows("2026-11-26T02:30:00Z")
		all := r.ofSchedules()
		if len(all) != 2 || !strings.HasPrefix(all[1].GetScheduleNote(), "late: it was due at 2026-11-25T02:30:00Z") {
			t.Errorf("built %v", all)
		}
		r.pass(all[1].GetId())
		r.config.set("main", withSchedules(&configv1.Schedule{Name: "other", Cron: "@daily", Execute: usual().GetExecute()}, nightly()))
		again, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: all[1].GetId()})
		if b := again.GetBuild(); err != nil || b.GetSchedule() != "nightly" || b.GetContext() != "forge/schedule/nightly" || b.GetStepCount() != 1 {
			t.Errorf("once more, by a person: %v, %v", b, err)
		}
	})
}

// What files do to schedules: each row is a file at the tip, after one with a nightly.
func TestSchedulesFollowTheFileOfTheDefaultBranch(t *testing.T) {
	broken := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{
		Problems: []*configv1.ConfigInvalid_Problem{{File: ".forge.yml", Line: 3, Column: 1, Message: `unknown key "exceute"`}},
	}}}
	absent := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{}}
	for name, c := range map[string]struct {
		file *configv1.GetBuildConfigResponse
		want string // name, cron and next time of each, with the problem
	}{
		"as it was":     {withSchedules(nightly()), "nightly 30 2 * * * 11-24T02:30"},
		"another time":  {withSchedules(nightly(func(c *configv1.Schedule) { c.Cron = "0 5 * * *" })), "nightly 0 5 * * * 11-24T05:00"},
		"another zone":  {withSchedules(nightly(func(c *configv1.Schedule) { c.Zone = "Asia/Tokyo" })), "nightly 30 2 * * * 11-23T17:30"},
		"another name":  {withSchedules(nightly(func(c *configv1.Schedule) { c.Name = "night" })), "night 30 2 * * * 11-24T02:30"},
		"two":           {withSchedules(nightly(), &configv1.Schedule{Name: "weekly", Cron: "@weekly", Execute: nightly().GetExecute()}), "nightly 30 2 * * * 11-24T02:30, weekly @weekly 11-29T00:00"},
		"none any more": {withSchedules(), ""},
		"no file":       {absent, ""},
		"a broken file": {broken, `nightly 30 2 * * * 11-24T02:30 .forge.yml:3:1: unknown key "exceute"`},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := timed{sqliteRig(t)}
			r.hasTips()
			r.config.set(mainTip, withSchedules(nightly()))
			r.start()
			r.pushesMain()
			r.knows("2026-11-24T02:30:00Z")
			r.config.set(nextTip, c.file)
			r.config.set(mainTip, c.file)
			again := pushedTo("refs/heads/main", nextTip)
			r.send(again)
			r.lists(func(all []*schedulerv1.Schedule) bool {
				var got []string
				for _, s := range all {
					got = append(got, strings.TrimSpace(fmt.Sprint(s.GetName(), " ", s.GetCron(), " ", s.GetNextTime().AsTime().Format("01-02T15:04"), " ", s.GetProblem())))
				}
				return strings.Join(got, ", ") == c.want
			})
		})
	}
}

// A file that broke leaves what it had, which runs and says so.
func TestAScheduleOutlivesABrokenFile(t *testing.T) {
	each(t, func(t *testing.T, bare *rig) {
		r := timed{bare}
		r.hasTips()
		r.config.set(mainTip, withSchedules(nightly(func(c *configv1.Schedule) { c.Branch = "next" })))
		r.pushesMain()
		r.knows("2026-11-24T02:30:00Z")
		r.config.set(mainTip, &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{}}})
		r.clock.Advance(14*time.Hour + 30*time.Minute)
		r.knows("2026-11-25T02:30:00Z")
		b := r.ofSchedules()[0]
		if b.GetScheduleNote() != "as the file last was without errors: .forge.yml has errors" || b.GetSha() != nextTip || b.GetRef() != "refs/heads/next" {
			t.Errorf("%v", b)
		}
		r.pass(b.GetId())
	})
}

// Neither a pull request nor a fork adds a schedule, whatever its file says.
func TestNobodyElseAddsASchedule(t *testing.T) {
	each(t, func(t *testing.T, bare *rig) {
		r := timed{bare}
		r.hasTips()
		r.config.set(mainTip, withSchedules())
		for _, sha := range []string{"fork", "head", "side", "tag"} {
			r.config.set(sha, withSchedules(nightly()))
		}
		r.send(fromFork("eve", opened(1, "fork")))
		r.send(opened(2, "head"))
		r.send(pushedTo("refs/heads/side", "side"))
		r.send(pushedTo("refs/tags/v1", "tag"))
		r.pushesMain()
		kittest.Eventually(t, patience, func() error {
			r.wake()
			var due int64
			err := r.service.store.DB.Read().QueryRowContext(t.Context(), `SELECT due_time FROM schedule_files WHERE repository_id = 7`).Scan(&due)
			if err == nil && !sqldb.Time(due).After(r.clock.Now().Add(time.Hour)) {
				err = errors.New("not read yet")
			}
			return err
		})
		r.lists(func(all []*schedulerv1.Schedule) bool { return len(all) == 0 })
	})
}

// While GitHub is away the time is not lost.
func TestAScheduleWaitsForGitHub(t *testing.T) {
	each(t, func(t *testing.T, bare *rig) {
		r := timed{bare}
		r.hasTips()
		r.config.set(mainTip, withSchedules(nightly()))
		r.pushesMain()
		r.knows("2026-11-24T02:30:00Z")
		r.config.set(mainTip, nil)
		r.config.mu.Lock()
		r.config.err = fault.New(fault.Unavailable, "GitHub is down")
		r.config.mu.Unlock()
		r.clock.Advance(15 * time.Hour)
		r.lists(func(all []*schedulerv1.Schedule) bool {
			return strings.HasPrefix(all[0].GetMessage(), "tried again, late: ")
		})
		r.config.set(mainTip, withSchedules(nightly()))
		r.clock.Advance(time.Hour)
		r.knows("2026-11-25T02:30:00Z")
		if all := r.ofSchedules(); len(all) != 1 || all[0].GetScheduleNote() != "late: it was due at 2026-11-24T02:30:00Z" {
			t.Errorf("built %v", all)
		}
	})
}

// Of ten thousand schedules those that are due are looked at, and no others; lists come
// in pages.
func TestTenThousandSchedules(t *testing.T) {
	eachStopped(t, func(t *testing.T, bare *rig) {
		r := timed{bare}
		r.start()
		const many = 10_000
		config := usual()
		config.Schedules = []*configv1.Schedule{nightly()}
		err := r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			for n := range many {
				c := &store.Schedule{RepositoryID: int64(1000 + n/20), Name: fmt.Sprintf("s%05d", n), Config: config, Next: r.clock.Now().Add(time.Duration(1+n/10) * time.Hour)}
				c.Due = c.Next
				of := &eventv1.Repository{Id: c.RepositoryID, Owner: "acme", Name: fmt.Sprint("r", c.RepositoryID), DefaultBranch: "main"}
				if n%20 == 0 {
					if err := (store.Timetable{Tx: tx}).NoticeRepository(ctx, &eventv1.Event{Repository: of}); err != nil {
						return err
					}
				}
				if err := (store.Timetable{Tx: tx}).SaveSchedule(ctx, of, c); err != nil {
					return err
				}
			}
			return tx.Exec(ctx, `UPDATE schedule_files SET due_time = $1`, int64(store.Never))
		})
		if err != nil {
			t.Fatal(err)
		}
		claimed, err := r.service.store.ClaimSchedules(t.Context(), 100)
		if err != nil || len(claimed) > 0 {
			t.Errorf("%d are due, %v", len(claimed), err)
		}
		answer, err := r.times.ListSchedules(t.Context(), &schedulerv1.ListSchedulesRequest{PageSize: 500})
		if err != nil || len(answer.GetSchedules()) != 500 || answer.GetNextPageToken() == "" {
			t.Errorf("%d listed, %v", len(answer.GetSchedules()), err)
		}
		one, err := r.times.ListSchedules(t.Context(), &schedulerv1.ListSchedulesRequest{Repository: "Acme/r1001", PageToken: ""})
		if err != nil || len(one.GetSchedules()) != 20 {
			t.Errorf("%d listed of one repository, %v", len(one.GetSchedules()), err)
		}
	})
}
