package githubsim

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits are how many calls one caller may make; 0 is no limit. See PublishedLimits.
//
// Minutes and hours are sliding windows, except the hour of Calls, which begins with a first call and ends at
// X-RateLimit-Reset. A refused call does not count. A call of an installation that creates, changes or deletes something
// is one of content.
type Limits struct {
	Calls         int // an hour; only of installations and the App, nobody in particular has 60
	ContentMinute int // calls that create content, a minute
	ContentHour   int // and an hour
	Points        int // a minute of one route: a call that reads costs 1, one that writes 5
	AtOnce        int // calls that are being answered
	GitReads      int // clones and fetches that begin, a second of one repository; refused with 429, and no calls of the API
	Status        int // of a refusal, 403 or 429; 0 is 403, the one that go-github takes for a limit

	// Speed is how much faster the minutes and hours of limits pass than the caller's; 0 is 1. At 60 an hour of content is
	// over in a minute. Retry-After and X-RateLimit-Reset are told in the caller's time, so a caller that obeys them needs
	// to know nothing of it; but they are whole seconds, rounded up, which above 100 outweighs a minute.
	Speed float64
}

// PublishedLimits are those of an installation that is not on GitHub Enterprise Cloud, as told at
// https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api, and of git at
// https://docs.github.com/repositories/creating-and-managing-repositories/repository-limits.
func PublishedLimits() Limits {
	return Limits{Calls: hourly, ContentMinute: 80, ContentHour: 500, Points: 900, AtOnce: 100, GitReads: 15}
}

// GitHub gives an installation this many calls an hour; nobody in particular gets 60.
const (
	hourly          = 5000
	hourlyAnonymous = 60
)

// What calls cost of the points of a route.
const (
	readPoints  = 1
	writePoints = 5
)

// LeastTime is the shortest time, on the caller's clock, in which one caller can make that many content-creating calls.
func (l Limits) LeastTime(calls int) time.Duration {
	start := time.Unix(0, 0)
	now, used, post := start, &usage{limits: l, calls: allowance{limit: l.Calls}}, route{pattern: "POST /", access: writes("contents")}
	for range calls {
		for excess := used.charge(now, post); excess != nil; excess = used.charge(now, post) {
			now = now.Add(excess.wait)
		}
		used.inFlight-- // answered at once
	}
	return now.Sub(start)
}

// LeastTime is Limits.LeastTime of Config.Limits.
func (s *Controls) LeastTime(calls int) time.Duration { return s.config.Limits.LeastTime(calls) }

// after converts a time of the limits to the caller's time.
func (l Limits) after(d time.Duration) time.Duration {
	if l.Speed == 0 {
		return d
	}
	return time.Duration(float64(d) / l.Speed)
}

// A usage is what one caller has used of its limits.
type usage struct {
	limits   Limits
	calls    allowance
	windows  map[string]*window
	inFlight int // calls that are being answered
}

// An allowance counts the calls of the hour that ends at reset.
type allowance struct {
	limit, used int
	reset       time.Time
}

func (a *allowance) object() object {
	return object{"limit": a.limit, "used": a.used, "remaining": a.remaining(), "reset": a.until()}
}

func (a *allowance) remaining() int { return max(a.limit-a.used, 0) }

// until is the reset in whole seconds, rounded up.
func (a *allowance) until() int64 { return a.reset.Add(time.Second - 1).Unix() }

// A window is what was spent within a sliding window, the oldest first.
type window []spending

type spending struct {
	at     time.Time
	points int
}

// wait drops what was spent before the window, and returns how long it takes until cost fits under limit with the rest; 0
// if it fits now.
func (w *window) wait(now time.Time, length time.Duration, limit, cost int) time.Duration {
	*w = slices.DeleteFunc(*w, func(one spending) bool { return !now.Before(one.at.Add(length)) })
	total := cost
	for _, one := range *w {
		total += one.points
	}
	if total <= limit {
		return 0
	}
	for _, one := range *w {
		if total -= one.points; total <= limit {
			return one.at.Add(length).Sub(now)
		}
	}
	return length
}

// An excess is why a call is refused, and how long its caller should wait.
type excess struct {
	message, docs string
	wait          time.Duration
	primary       bool // told by X-RateLimit-Reset, not by Retry-After
}

const (
	limitDocs     = "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api"
	primaryDocs   = limitDocs + "#about-primary-rate-limits"
	secondaryDocs = limitDocs + "#about-secondary-rate-limits"
	tooFast       = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
	tooMuch       = "You have exceeded a secondary rate limit and have been temporarily blocked from content creation. Please retry your request again later."
)

// charge counts a call if it is within all limits, and else returns why it is not. The caller of charge decreases inFlight
// once the call is answered.
func (u *usage) charge(now time.Time, rt route) *excess {
	u.refill(now)
	if u.limits.Calls == 0 && u.calls.remaining() == 1 {
		u.calls.used = 0 // or go-github would believe the header, and wait for the next hour
	}
	if u.limits.Calls > 0 && u.calls.remaining() == 0 {
		return &excess{message: "API rate limit exceeded", docs: primaryDocs, wait: u.calls.reset.Sub(now), primary: true}
	}
	if u.limits.AtOnce > 0 && u.inFlight >= u.limits.AtOnce {
		return &excess{message: tooFast, docs: secondaryDocs, wait: u.limits.after(time.Minute)}
	}
	var longest *excess
	prices := u.limits.prices(rt)
	for _, p := range prices {
		if wait := u.window(p.of).wait(now, p.length, p.limit, p.cost); wait > 0 && (longest == nil || wait > longest.wait) {
			longest = &excess{message: p.message, docs: secondaryDocs, wait: wait}
		}
	}
	if longest != nil {
		return longest
	}
	for _, p := range prices {
		w := u.window(p.of)
		*w = append(*w, spending{now, p.cost})
	}
	u.calls.used++
	u.inFlight++
	return nil
}

// A price is what a call costs of one window.
type price struct {
	of      string
	length  time.Duration
	limit   int
	cost    int
	message string // once the window is spent
}

func (l Limits) prices(rt route) []price {
	points, content := readPoints, 0
	if rt.changes() {
		points = writePoints
		if rt.access.who == anInstallation {
			content = 1
		}
	}
	minute, hour := l.after(time.Minute), l.after(time.Hour)
	return slices.DeleteFunc([]price{
		{"content a minute", minute, l.ContentMinute, content, tooMuch},
		{"content an hour", hour, l.ContentHour, content, tooMuch},
		{rt.pattern, minute, l.Points, points, tooFast},
	}, func(p price) bool { return p.limit == 0 || p.cost == 0 })
}

func (u *usage) refill(now time.Time) {
	if !now.Before(u.calls.reset) {
		u.calls.used, u.calls.reset = 0, now.Add(u.limits.after(time.Hour))
	}
}

func (u *usage) window(name string) *window {
	if u.windows == nil {
		u.windows = map[string]*window{}
	}
	if u.windows[name] == nil {
		u.windows[name] = &window{}
	}
	return u.windows[name]
}

// usageOf returns what a caller has used. An hour of calls that has ended begins anew.
func (s *state) usageOf(by caller) *usage {
	u := s.usages[by.name()]
	if u == nil {
		u = &usage{limits: s.config.Limits, calls: allowance{limit: hourly}}
		if u.limits.Calls > 0 {
			u.calls.limit = u.limits.Calls
		}
		if by == (caller{}) {
			u.calls.limit = hourlyAnonymous
		}
		s.usages[by.name()] = u
	}
	u.refill(s.now())
	return u
}

// limit counts the call, or refuses it. Routes that are open to anybody, such as the rate limit and downloads, cost
// nothing.
func (s *front) limit(c *call, rt route) *response {
	switch {
	case rt.access.who == anyone, rt.access.who == browser:
		return nil
	case rt.access.overGit():
		return s.limitGit(c, rt)
	}
	u := s.usageOf(c.caller)
	excess := u.charge(s.now(), rt)
	if excess == nil {
		c.usage = u
		return nil
	}
	status := http.StatusForbidden
	if u.limits.Status != 0 {
		status = u.limits.Status
	}
	if excess.primary {
		excess.message += " for " + c.caller.whom() + "."
		return documented(status, excess.message, excess.docs)
	}
	return slowDown(status, excess.message, excess.wait)
}

// limitGit refuses to begin another clone or fetch of a repository where there were too many within the last second.
func (s *front) limitGit(c *call, rt route) *response {
	r, _ := s.repositoryOf(c)
	if s.config.Limits.GitReads == 0 || r == nil || !s.canSee(c.caller, r) || !strings.HasSuffix(rt.pattern, "/info/refs") {
		return nil
	}
	now, second := s.now(), s.config.Limits.after(time.Second)
	if wait := r.reads.wait(now, second, s.config.Limits.GitReads, 1); wait > 0 {
		return slowDown(http.StatusTooManyRequests, tooFast, wait)
	}
	r.reads = append(r.reads, spending{now, 1})
	return nil
}

// slowDown is GitHub's refusal of calls that come too fast.
func slowDown(status int, message string, wait time.Duration) *response {
	return documented(status, message, secondaryDocs).retryAfter(wait)
}

// retryAfter tells the caller to wait, in whole seconds; 0 tells nothing.
func (r *response) retryAfter(wait time.Duration) *response {
	if wait > 0 {
		r.header = http.Header{"Retry-After": {strconv.FormatFloat(math.Ceil(wait.Seconds()), 'f', 0, 64)}}
	}
	return r
}

func documented(status int, message, docs string) *response {
	return &response{status: status, body: &apiError{Message: message, Docs: docs, Status: strconv.Itoa(status)}}
}

// release ends a call that limit counted.
func (s *front) release(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.usage != nil {
		c.usage.inFlight--
	}
}

// writeUsage writes the headers that say how many calls are left. It takes a 304 off the count again.
func (s *front) writeUsage(c *call, header http.Header, status int) {
	a := &s.usageOf(c.caller).calls
	if status == http.StatusNotModified && c.usage != nil {
		a.used = max(a.used-1, 0)
	}
	header.Set("X-Ratelimit-Limit", strconv.Itoa(a.limit))
	header.Set("X-Ratelimit-Used", strconv.Itoa(a.used))
	header.Set("X-Ratelimit-Remaining", strconv.Itoa(a.remaining()))
	header.Set("X-Ratelimit-Reset", strconv.FormatInt(a.until(), 10))
	header.Set("X-Ratelimit-Resource", "core")
}

func (s *appAPI) getRateLimit(c *call) *response {
	core := s.usageOf(c.caller).calls.object()
	return ok(object{"resources": object{"core": core}, "rate": core})
}

// whom names the caller as a refusal does.
func (c caller) whom() string {
	switch {
	case c.app:
		return "app"
	case c.grant != nil:
		return fmt.Sprintf("installation ID %d", c.installationID())
	case c.user != nil:
		return fmt.Sprintf("user ID %d", c.user.who.id)
	}
	return "127.0.0.1"
}
