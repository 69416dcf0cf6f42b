package buildfile

import (
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/cron"
)

const (
	maxSchedules    = 20
	maxScheduleName = 60
)

// timing reads schedules.
type timing struct{ *file }

// all are one or a list of them.
func (f timing) all(at string, n *yaml.Node) []*configv1.Schedule {
	items := f.items(at, n)
	if len(items) > maxSchedules {
		f.complainf(items[maxSchedules], "%s has more than %d entries: have one run at several times, such as 0 3,15 * * *, or several jobs at one", at, maxSchedules)
		return nil
	}
	var all []*configv1.Schedule
	for _, item := range items {
		c := &configv1.Schedule{}
		given := readMapping(f.file, at, item, c, scheduleKeys())
		name := given["name"]
		if name == nil {
			c.Name, name = strings.Join(strings.Fields(c.GetCron()), " "), f.place(item)
		}
		if slices.ContainsFunc(all, func(other *configv1.Schedule) bool { return other.GetName() == c.GetName() && c.GetName() != "" }) {
			f.complainf(name, "%s: two are called %q: give one another name", at, clip(c.GetName()))
		}
		all = append(all, c)
	}
	return all
}

func scheduleKeys() []key[*configv1.Schedule] {
	return append([]key[*configv1.Schedule]{
		{name: "cron", missing: "the minute, hour, day of the month, month and day of the week, such as 17 3 * * 1-5", read: func(f *file, path string, n *yaml.Node, c *configv1.Schedule) {
			c.Cron = timing{f}.cron(path, n)
		}},
		{name: "zone", read: func(f *file, path string, n *yaml.Node, c *configv1.Schedule) {
			zone, n, ok := f.text(path, n)
			if _, err := cron.Zone(zone); ok && (err != nil || zone == "") {
				f.complainf(n, "%s: %q is not a zone: expected one such as Europe/Berlin or UTC", path, clip(zone))
			}
			c.Zone = zone
		}},
		{name: "branch", read: func(f *file, path string, n *yaml.Node, c *configv1.Schedule) {
			branch, n, ok := f.text(path, n)
			if ok && (branch == "" || strings.HasPrefix(branch, "refs/") || strings.ContainsFunc(branch, unicode.IsSpace)) {
				f.complainf(n, "%s: %q is not the name of a branch", path, clip(branch))
			}
			c.Branch = branch
		}},
		{name: "name", read: func(f *file, path string, n *yaml.Node, c *configv1.Schedule) {
			name, n, ok := f.text(path, n)
			if ok && (!jobPattern.MatchString(name) || len(name) > maxScheduleName) {
				f.complainf(n, "%s: %q cannot be the name of a schedule: letters, digits, blanks, and . _ -, a letter or digit first, %d at most", path, clip(name), maxScheduleName)
			}
			c.Name = name
		}},
	}, lent(partKeys("the commands that run then", timed), func(c *configv1.Schedule) *configv1.Pipeline { return made(&c.Execute) })...)
}

func (f timing) cron(path string, n *yaml.Node) string {
	text, n, ok := f.text(path, n)
	if !ok {
		return ""
	}
	if len(text) > maxScheduleName {
		f.complainf(n, "%s is longer than %d characters", path, maxScheduleName)
	} else if _, err := cron.Parse(text, ""); err != nil {
		f.complainf(n, "%s: %v", path, err)
	}
	return text
}
