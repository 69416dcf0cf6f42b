package web

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func at(second int64) *timestamppb.Timestamp {
	return timestamppb.New(time.Unix(1_800_000_000+second, 0))
}

func TestTimelineIsToScale(t *testing.T) {
	for name, test := range map[string]struct {
		build *schedulerv1.Build
		want  string
	}{
		"it waits": {
			&schedulerv1.Build{CreateTime: at(0)},
			"[{waiting waited, 1m40s 0.00% 100.00%}]",
		},
		"it gets its source": {
			&schedulerv1.Build{CreateTime: at(0), PlaceTime: at(20), ContainerTime: at(50)},
			"[{waiting waited, 20s 0.00% 20.00%} {starting started a container, 30s 20.00% 30.00%} {source fetched the source, 50s 50.00% 50.00%}]",
		},
		"an older part of Forge did not tell all": {
			&schedulerv1.Build{CreateTime: at(0), StartTime: at(50), EndTime: at(200)},
			"[{ready made caches and services ready, 50s 0.00% 25.00%} {ran passed passed, 2m30s 25.00% 75.00%}]",
		},
		"it was cancelled before it began": {
			&schedulerv1.Build{CreateTime: at(0), EndTime: at(10)},
			"[{waiting waited, 10s 0.00% 100.00%}]",
		},
		"its container's clock is wrong": {
			&schedulerv1.Build{
				CreateTime: at(0), PlaceTime: at(0), ContainerTime: at(0), SourceTime: at(0), StartTime: at(-1000), EndTime: at(100),
				Steps: []*schedulerv1.Step{{Name: "a", State: schedulerv1.Step_STATE_PASSED, StartTime: at(-1000), EndTime: at(5000)}, {Name: "not run"}},
			},
			"[{step passed a, 1h40m0s 0.00% 100.00%}]",
		},
		"it took no time at all": {&schedulerv1.Build{CreateTime: at(0), EndTime: at(0)}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			scale := scaleOf(test.build, at(100).AsTime())
			if got := fmt.Sprint(scale.bar(test.build, "passed", test.build.GetSteps())); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
