package plan

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// clock is who causes what is done at a time, where GitHub's logins are shown. No login
// has a blank.
const clock = "a schedule"

// Occurrence is one time of a schedule.
type Occurrence struct {
	ID             string // of its build
	Repository     *eventv1.Repository
	InstallationID int64
	// Config is the file, with this schedule alone.
	Config             *configv1.BuildConfig
	Name               string // of the schedule
	Branch, Sha, Title string // what it runs at
	Time               time.Time
	Notes              []string // for the log
}

// Apply makes the build of it.
func (o Occurrence) Apply(ctx context.Context, t *store.Tx, s *Service) (*eventv1.Decision, error) {
	return s.addBuild(ctx, t, prepared{
		Intent: trigger.Intent{
			Event: &eventv1.Event{Repository: o.Repository, InstallationId: o.InstallationID, Sender: &eventv1.Account{Login: clock}},
			Kind:  trigger.TimeCame, Action: schedulerv1.Build_ACTION_SCHEDULE, Sha: o.Sha, Ref: trigger.BranchRef + o.Branch,
			Pull: &eventv1.PullRequest{Title: o.Title}, Schedule: o.Name, Time: o.Time, Note: strings.Join(o.Notes, "; "),
		},
		// What is built takes its jobs out of it.
		config: &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Config{Config: proto.CloneOf(o.Config)}},
		id:     o.ID,
	})
}

// ofSchedule leaves one of a file's schedules in it.
func ofSchedule(config *configv1.BuildConfig, name string) {
	if config != nil {
		config.Schedules = slices.DeleteFunc(config.GetSchedules(), func(c *configv1.Schedule) bool { return c.GetName() != name })
	}
}
