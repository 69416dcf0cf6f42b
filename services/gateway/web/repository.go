package web

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// repositoryBuilds is what the page of a repository shows.
type repositoryBuilds struct {
	List         *buildList
	Repository   string // owner/name
	Tabs         []filter
	GitHub       string
	Strip        *strip
	Environments []*schedulerv1.Environment
}

// repository is the page of a repository: how its last days went, and its builds.
func (p buildLists) repository(w http.ResponseWriter, r *http.Request) {
	owner, name := r.PathValue("owner"), r.PathValue("name")
	shown := repositoryBuilds{Repository: owner + "/" + name, Tabs: p.tabs(owner, name, "Builds"), GitHub: address(p.deps.GitHubURL, owner, name)}
	var err error
	if shown.List, err = p.listBuilds(r, address("/repositories", owner, name), shown.Repository); err != nil {
		p.fails(w, r, "ListBuilds", err)
		return
	}
	days, err := p.builds.GetBuildStatistics(r.Context(), &schedulerv1.GetBuildStatisticsRequest{Repository: shown.Repository, Actions: actionsOf(shown.List.Filter("action"))})
	if err != nil && !fault.Is(err, fault.Invalid) {
		p.fails(w, r, "GetBuildStatistics", err)
		return
	}
	shown.Strip = stripOf(days.GetDays())
	places, err := p.environments.ListEnvironments(r.Context(), &schedulerv1.ListEnvironmentsRequest{Repository: shown.Repository})
	if err != nil {
		p.fails(w, r, "ListEnvironments", err)
		return
	}
	shown.Environments = places.GetEnvironments()
	p.render(w, r, codeOf(shown.List.Problem), "repository.html", shown)
}

// The measures of a strip's picture.
const (
	dayWidth    = 20
	stripHeight = 60
	leastHeight = 3 // of what is not nothing
)

// strip is how the builds of some days went.
type strip struct {
	Days []stripDay
	// Rate is how many of a hundred that ran have passed; Median the middle one of the
	// days' medians, of days that have one.
	Rate, Median string
	Width        int
	Most         int32 // builds of a day
	Longest      string
	Height       int
}

// stripDay is one day of a strip: bars from the bottom up.
type stripDay struct {
	*schedulerv1.BuildDay
	X                     int
	Passed, Failed, Other stripBar
	Took                  stripBar
	Text, Median          string
}

// stripBar is where a bar is; of no height where there is none.
type stripBar struct{ Y, Height int }

// stripOf draws days; nil where nothing ended on any of them.
func stripOf(days []*schedulerv1.BuildDay) *strip {
	s := &strip{Width: dayWidth * len(days), Height: stripHeight}
	var passed, ran int32
	var medians []time.Duration
	var longest time.Duration
	for _, d := range days {
		s.Most = max(s.Most, d.GetPassed()+d.GetFailed()+d.GetErrored()+d.GetCancelled())
		passed, ran = passed+d.GetPassed(), ran+d.GetPassed()+d.GetFailed()+d.GetErrored()
		if d.GetMedianDuration() != nil {
			medians = append(medians, d.GetMedianDuration().AsDuration())
			longest = max(longest, d.GetMedianDuration().AsDuration())
		}
	}
	if s.Most == 0 {
		return nil
	}
	if ran > 0 {
		s.Rate = fmt.Sprintf("%d %%", passed*100/ran)
	}
	if len(medians) > 0 {
		slices.Sort(medians)
		s.Median, s.Longest = took(medians[(len(medians)-1)/2]), took(longest)
	}
	for n, d := range days {
		day := stripDay{BuildDay: d, X: n * dayWidth, Text: dayText(d), Median: "–"}
		top := stripHeight
		bar := func(part, whole int64) stripBar {
			if part == 0 {
				return stripBar{}
			}
			height := max(leastHeight, int(part*int64(stripHeight-2*leastHeight)/whole))
			top = max(0, top-height)
			return stripBar{top, height}
		}
		day.Passed = bar(int64(d.GetPassed()), int64(s.Most))
		day.Failed = bar(int64(d.GetFailed()+d.GetErrored()), int64(s.Most))
		day.Other = bar(int64(d.GetCancelled()), int64(s.Most))
		if d.GetMedianDuration() != nil {
			top = stripHeight
			day.Took = bar(int64(d.GetMedianDuration().AsDuration()), int64(max(longest, 1)))
			day.Median = took(d.GetMedianDuration().AsDuration())
		}
		s.Days = append(s.Days, day)
	}
	return s
}

// dayText is a day in words.
func dayText(d *schedulerv1.BuildDay) string {
	var parts []string
	for _, part := range []struct {
		count int32
		word  string
	}{{d.GetPassed(), "passed"}, {d.GetFailed(), "failed"}, {d.GetErrored(), "errored"}, {d.GetCancelled(), "cancelled"}} {
		if part.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.count, part.word))
		}
	}
	if d.GetMedianDuration() != nil {
		parts = append(parts, "half of those that passed within "+took(d.GetMedianDuration().AsDuration()))
	}
	return d.GetDate() + ": " + cmp.Or(strings.Join(parts, ", "), "nothing ended")
}
