// Package cron says when something that is done again and again is due, by the five
// fields of a crontab and a zone.
//
//   - At a time that the zone skips, fixed minutes and hours are due at the first moment
//     after it; at one that comes twice, the first time alone.
//   - What begins with * in its minute or its hour goes by the time that passes: it is
//     left out where the zone skips, and due again where a time comes twice.
package cron

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a container may have no zones

	"github.com/adhocore/gronx"
)

// Schedule is when something is due.
type Schedule struct {
	expression string
	zone       *time.Location
	fixed      bool // neither its minute nor its hour begins with *
}

// names are the fields of a crontab.
var names = []string{"minute", "hour", "day of the month", "month", "day of the week"}

// short are names that stand for all five fields.
var short = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
	"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

// Parse reads a schedule; without a zone it is in UTC. Its errors are for people.
func Parse(expression, zone string) (Schedule, error) {
	text := expression
	if strings.HasPrefix(text, "@") {
		if text = short[strings.ToLower(text)]; text == "" {
			return Schedule{}, fmt.Errorf("%q is no time: expected five fields such as 17 3 * * 1-5, or @hourly, @daily, @weekly, @monthly or @yearly", expression)
		}
	}
	fields := strings.Fields(text)
	if len(fields) != len(names) {
		return Schedule{}, fmt.Errorf("%q has %d fields: expected five, the minute, hour, day of the month, month and day of the week, such as 17 3 * * 1-5", expression, len(fields))
	}
	for n, field := range fields {
		// Others than these mean something to some, as do more fields.
		alone := slices.Repeat([]string{"*"}, len(names))
		alone[n] = field
		if strings.ContainsAny(field, "?#LWlw") && !named(field) || !gronx.IsValid(strings.Join(alone, " ")) {
			return Schedule{}, fmt.Errorf("%q is no %s", field, names[n])
		}
	}
	location, err := Zone(zone)
	if err != nil {
		return Schedule{}, err
	}
	s := Schedule{
		expression: strings.Join(fields, " "), zone: location,
		fixed: !strings.HasPrefix(fields[0], "*") && !strings.HasPrefix(fields[1], "*"),
	}
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, fmt.Errorf("%q never comes", expression)
	}
	return s, nil
}

// named reports whether a field has names of months or days, some of which hold the
// letters of what is not read.
func named(field string) bool {
	return !strings.ContainsAny(field, "?#") && strings.ContainsAny(strings.ToUpper(field), "JFMASOND") && !strings.HasPrefix(strings.ToUpper(field), "L")
}

// Zone is a zone by its name in the IANA database; empty is UTC.
func Zone(name string) (*time.Location, error) {
	location, err := time.LoadLocation(name)
	if err != nil || strings.EqualFold(name, "local") {
		return nil, fmt.Errorf("%q is not a zone: expected one such as Europe/Berlin or UTC", name)
	}
	return location, nil
}

// maxPeriods bounds the changes of a zone's offset that are looked beyond: a 29th of
// February is eight years off at most.
const maxPeriods = 40

// Next is when it is due next after a time; zero where it never is.
func (s Schedule) Next(after time.Time) time.Time {
	at, including := after.In(s.zone), false
	for range maxPeriods {
		// Within a period the zone has one offset, so that clocks can be told as in UTC.
		start, end := at.ZoneBounds()
		offset := offsetOf(at)
		clock := at.UTC().Add(offset)
		if !start.IsZero() && s.fixed {
			again := start.UTC().Add(offsetOf(start.Add(-time.Second))) // what its clocks show before is a second time
			if clock.Before(again) {
				clock, including = again, true
			}
		}
		next, ok := s.tick(clock, including)
		if !ok {
			return time.Time{}
		}
		due := next.Add(-offset).In(s.zone)
		switch {
		case end.IsZero() || due.Before(end):
			return due
		case s.fixed && next.Before(end.UTC().Add(offsetOf(end))): // the zone skips it
			return end
		}
		at, including = end, true
	}
	return time.Time{}
}

// tick is the next time by the clock.
func (s Schedule) tick(clock time.Time, including bool) (time.Time, bool) {
	if !clock.Equal(clock.Truncate(time.Minute)) {
		clock, including = clock.Truncate(time.Minute).Add(time.Minute), true
	}
	next, err := gronx.NextTickAfter(s.expression, clock, including)
	return next, err == nil
}

func offsetOf(at time.Time) time.Duration {
	_, seconds := at.Zone()
	return time.Duration(seconds) * time.Second
}
