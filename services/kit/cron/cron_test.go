package cron

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/adhocore/gronx"
)

func TestWhatIsNoScheduleSaysWhy(t *testing.T) {
	for _, c := range []struct{ expression, zone, want string }{
		{"17 3 * * 1-5", "", ""},
		{"17 3 * * mon-fri", "Europe/Berlin", ""},
		{"0 0 1 jul *", "UTC", ""},
		{"0 0 29 2 *", "", ""},
		{"*/5 * * * *", "", ""},
		{"@daily", "", ""},
		{"@Hourly", "", ""},
		{" 0  0 * * * ", "", ""},
		{"", "", `"" has 0 fields: expected five`},
		{"0 0 * *", "", `"0 0 * *" has 4 fields`},
		{"* * * * * *", "", `"* * * * * *" has 6 fields`},
		{"0 0 1 1 * 2030", "", "has 6 fields"},
		{"@everysecond", "", `"@everysecond" is no time`},
		{"@always", "", `"@always" is no time`},
		{"@reboot", "", `"@reboot" is no time`},
		{"60 * * * *", "", `"60" is no minute`},
		{"*/0 * * * *", "", `"*/0" is no minute`},
		{"-5 * * * *", "", `"-5" is no minute`},
		{"0 24 * * *", "", `"24" is no hour`},
		{"0 0 32 * *", "", `"32" is no day of the month`},
		{"0 0 0 * *", "", `"0" is no day of the month`},
		{"0 0 L * *", "", `"L" is no day of the month`},
		{"0 0 ? * *", "", `"?" is no day of the month`},
		{"0 0 * 13 *", "", `"13" is no month`},
		{"0 0 * * 8", "", `"8" is no day of the week`},
		{"0 0 * * 5#1", "", `"5#1" is no day of the week`},
		{"a * * * *", "", `"a" is no minute`},
		{"1,,2 * * * *", "", `"1,,2" is no minute`},
		{"0 0 30 2 *", "", `"0 0 30 2 *" never comes`},
		{"0 0 31 4,6,9,11 *", "", "never comes"},
		{"0 0 * * *", "Mars", `"Mars" is not a zone`},
		{"0 0 * * *", "Local", `"Local" is not a zone`},
		{"0 0 * * *", "../etc/passwd", `"../etc/passwd" is not a zone`},
	} {
		_, err := Parse(c.expression, c.zone)
		if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
			t.Errorf("%q in %q: %v, want %q", c.expression, c.zone, err, c.want)
		}
	}
}

// What zones skip, and what comes twice. Each row is what follows, one after the other.
func TestNextIsRightWhereTheZoneChanges(t *testing.T) {
	for _, c := range []struct {
		name, expression, zone, after string
		next                          []string
	}{
		{"an ordinary night", "30 2 * * *", "Europe/Berlin", "2026-03-27T00:00:00Z", []string{"2026-03-27T02:30:00+01:00", "2026-03-28T02:30:00+01:00"}},
		{"a time that is skipped", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"several that are skipped", "0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"just before it", "59 1 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:59:00+01:00", "2026-03-30T01:59:00+02:00"}},
		{"just after it", "0 3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T03:00:00+02:00"}},
		{"skipped and after it", "30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"}},
		{"each hour through what is skipped", "0 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"}},
		{"a time that comes twice", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		{"asked for between the two", "30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", []string{"2026-10-26T02:30:00+01:00"}},
		{"the end of what comes twice", "0 3 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", []string{"2026-10-25T03:00:00+01:00"}},
		{"each hour through what comes twice", "0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", []string{"2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"}},
		{"each quarter of what comes twice", "*/30 2 * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", []string{"2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:00:00+01:00"}},
		{"midnight that is skipped", "0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", []string{"2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"}},
		{"half an hour that is skipped", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", []string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		{"a day that is skipped", "0 12 30 12 *", "Pacific/Apia", "2011-12-29T00:00:00Z", []string{"2011-12-31T00:00:00+14:00", "2012-12-30T12:00:00+14:00"}},
		{"a zone that never changes", "30 2 * * *", "Asia/Tokyo", "2026-03-28T12:00:00Z", []string{"2026-03-29T02:30:00+09:00"}},
		{"the 29th of February", "0 0 29 2 *", "Europe/Berlin", "2026-03-01T00:00:00Z", []string{"2028-02-29T00:00:00+01:00", "2032-02-29T00:00:00+01:00"}},
		{"the 31st", "0 0 31 * *", "UTC", "2026-01-31T00:00:00Z", []string{"2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"}},
		{"a weekday", "17 3 * * 1-5", "UTC", "2026-11-27T04:00:00Z", []string{"2026-11-30T03:17:00Z"}},
		{"Sunday as 7", "0 0 * * 7", "UTC", "2026-11-27T04:00:00Z", []string{"2026-11-29T00:00:00Z"}},
		{"seconds are none", "0 4 * * *", "UTC", "2026-11-27T03:59:59.5Z", []string{"2026-11-27T04:00:00Z", "2026-11-28T04:00:00Z"}},
	} {
		s, err := Parse(c.expression, c.zone)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		at, _ := time.Parse(time.RFC3339Nano, c.after)
		for _, want := range c.next {
			if at = s.Next(at); at.Format(time.RFC3339) != want {
				t.Errorf("%s: %s, want %s", c.name, at.Format(time.RFC3339), want)
			}
		}
	}
}

// Minute by minute, what is due is what Next says.
func TestNextLeavesNothingOut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	field := func(from, to int) string {
		a := from + random.IntN(to-from+1)
		switch random.IntN(5) {
		case 0:
			return strconv.Itoa(a)
		case 1:
			return fmt.Sprintf("%d-%d", a, a+random.IntN(to-a+1))
		case 2:
			return fmt.Sprintf("*/%d", 1+random.IntN(to))
		case 3:
			return fmt.Sprintf("%d,%d", a, from+random.IntN(to-from+1))
		default:
			return "*"
		}
	}
	for range 60 {
		expression := strings.Join([]string{field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)}, " ")
		s, err := Parse(expression, "")
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		from := time.Date(2026, time.Month(1+random.IntN(12)), 1+random.IntN(28), random.IntN(24), random.IntN(60), 0, 0, time.UTC)
		next := s.Next(from)
		for minute := from.Add(time.Minute); minute.Before(from.Add(3 * 24 * time.Hour)); minute = minute.Add(time.Minute) {
			due, err := gronx.New().IsDue(expression, minute)
			if err != nil {
				t.Fatal(err)
			}
			if due != minute.Equal(next) {
				t.Errorf("%s: %s is due: %v; next after %s is %s", expression, minute, due, from, next)
				break
			}
			if due {
				next = s.Next(minute)
			}
		}
	}
}
