package reporter

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestStepWithAnEmojiFails(t *testing.T) {
	w := newWorld(t)
	w.adjust = func(d *Deps) { d.Report = "both" }
	s := w.reporter(sqlite(t))
	b := w.failed()
	b.Steps[1].Name = "🧪 unit tests 👩\u200d🔬"
	w.report(s, 1, b)
	w.publishAll(s)
	w.wantHistory(`failure: Step 2 "□ unit tests □" failed (exit 1) after 34s`)
	if title := w.runs()[0].Title; title != `Step 2 "🧪 unit tests 👩`+"\u200d"+`🔬" failed (exit 1) after 34s` {
		t.Errorf("the check run, which takes it, is titled %q", title)
	}
}

func TestDeployWithAnEmojiInItsTitleIsRecorded(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	b := w.deploy("d1", "staging", good)
	b.Title = "Sell 🍎"
	w.report(s, 1, b)
	w.publishAll(s)
	if all := w.deployments(); len(all) != 1 || states(all[0]) != "success" || all[0].Description != "Sell □" {
		t.Errorf("deployments %+v", all)
	}
}

func TestCharactersBeyondTheBasicPlaneAreReplacedAsTheyAreDrawn(t *testing.T) {
	for text, want := range map[string]string{
		"plain é 測試": "plain é 測試", //nolint:gosmopolitan // the point of it
		"🧪🧪 two":     "□□ two",
		"👨\u200d👩\u200d👧\u200d👦, 👍🏽 and 🇩🇪🇫🇷": "□, □ and □□",
		"❤\ufe0f stays": "❤\ufe0f stays",
		"𠮷野家":           "□野家", //nolint:gosmopolitan // as above
	} {
		if got := basicPlane(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// refusing answers 422 in GitHub's place to each request that has one of the
// words in it.
func refusing(words ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(rw http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		for _, word := range words {
			if bytes.Contains(body, []byte(word)) {
				return responding(422, nil, `{"message":"Validation Failed","errors":[{"resource":"Status","code":"custom","message":"this text is not liked"}]}`)(rw, r)
			}
		}
		return false
	}
}

// Whatever GitHub has against somebody's wording, it is told the state at once.
func TestNoStateIsLostToItsWording(t *testing.T) {
	words := []string{"unit tests", "Sell apples", "staging.example.com", "may not write", "It carries"}
	for kind, thing := range eachKind() {
		t.Run(kind.String(), func(t *testing.T) {
			w := newWorld(t)
			if kind == reporterv1.Target_KIND_CHECK_RUN {
				w.adjust = asChecks
			}
			s := w.reporter(sqlite(t))
			w.onTheWay(refusing(words...))
			stop := w.background(s.Run)
			switch kind {
			case reporterv1.Target_KIND_STATUS, reporterv1.Target_KIND_CHECK_RUN:
				b := w.failed()
				b.Title = "Sell apples"
				w.reportOutput(s, 1, b, "unit tests: oops\na.go:1:1: unit tests\n")
			case reporterv1.Target_KIND_DEPLOYMENT:
				b := w.deploy("d1", "staging", bad)
				b.Steps, b.Reason = w.failed().GetSteps(), w.failed().GetReason()
				w.report(s, 1, b)
			default:
				thing.ask(w, s)
			}
			got := w.becomes(s, kind, told)
			stop()
			if n := thing.made(w); n != 1 {
				t.Errorf("GitHub has %d", n)
			}
			if strings.Contains(got.GetDescription(), "unit tests") || got.GetAttempts() != 0 {
				t.Errorf("target is %v", got)
			}
			w.clock.Advance(verifyFirst) // and what GitHub shows is right
			w.must(s.verify(t.Context()))
			if again := w.becomes(s, kind, told); again.GetDescription() != got.GetDescription() {
				t.Errorf("target is %v", again)
			}
		})
	}
}

func TestPlainWordsOfAStatus(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.onTheWay(refusing("unit tests"))
	w.background(s.Run)
	w.report(s, 1, w.failed())
	w.reaches(s, told)
	w.wantHistory("failure: Failure; GitHub refused the text")
}

// GitHub can refuse for a while what it takes later: its copies lag behind.
func TestPassingRefusalOfAFinalStateIsOverComeByItself(t *testing.T) {
	for name, refuse := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"404": responding(404, nil, `{"message":"Not Found"}`),
		"403": responding(403, nil, `{"message":"Resource not accessible by integration"}`),
		"422": responding(422, nil, `{"message":"No commit found for SHA: 3f2a"}`),
	} {
		t.Run(name, func(t *testing.T) {
			databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
				s := w.reporter(open())
				w.onTheWay(refuse)
				w.background(s.Run)
				w.report(s, 1, like(w.build(good), good))
				first := w.reaches(s, failing)
				w.clock.Advance(first.GetNextTryTime().AsTime().Sub(w.clock.Now()))
				s.wake()
				kittest.Eventually(t, patience, func() error {
					if got := w.target(s); got.GetAttempts() != 2 || got.GetState() != failing {
						return fmt.Errorf("target is %v", got)
					}
					return nil
				})
				w.onTheWay(nil)
				w.clock.Advance(2 * firstRefusedPause)
				s.wake()
				w.reaches(s, told)
				w.wantHistory("success: Passed, 1 step")
			})
		})
	}
}

func TestRefusedFinalStateIsTriedForADayEverMoreRarely(t *testing.T) {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	now := begin
	one := target{version: 1, desired: display{state: "success"}}
	var pauses []time.Duration
	for one.state != kept {
		one.fail(1, failure{state: kept, text: "GitHub did not set it: Not Found"}, now, func() float64 { return 0 })
		if one.state != kept {
			pauses = append(pauses, one.due.Sub(now))
			now = one.due
		}
	}
	if tried := now.Sub(begin); tried != refusedFor || len(pauses) > 20 {
		t.Errorf("gave up after %v and %d tries", tried, len(pauses))
	}
	for i := 1; i < len(pauses)-1; i++ { // the last one ends with the day
		if pauses[i] < pauses[i-1] {
			t.Errorf("pauses %v", pauses)
		}
	}
	if !strings.HasPrefix(one.err, "gave up after ") || !strings.HasSuffix(one.err, "GitHub did not set it: Not Found") {
		t.Errorf("says %q", one.err)
	}
}

func TestRefusedPendingStateIsKeptAndTheFinalOneTold(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.onTheWay(responding(404, nil, `{"message":"Not Found"}`))
	w.background(s.Run)
	w.report(s, 1, w.build(running))
	w.reaches(s, kept)
	w.onTheWay(nil)
	w.report(s, 2, like(w.build(good), good))
	w.reaches(s, told)
	w.wantHistory("success: Passed, 1 step")
}

// A refusal is not the last word about what GitHub shows.
func TestRefusedTargetsAreReadBack(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPost && responding(404, nil, `{"message":"Not Found"}`)(rw, r)
		})
		stop := w.background(s.Run)
		w.report(s, 1, like(w.build(good), good))
		w.reaches(s, failing)
		stop()

		// It was carried out all the same.
		w.onTheWay(nil)
		w.overwrite("/repos/octo/shop/statuses/"+w.sha, `{"state":"success","context":"forge/test","description":"Passed, 1 step","target_url":"http://forge.example/builds/b1"}`)
		w.clock.Advance(verifyFirst)
		w.must(s.verify(t.Context()))
		if got := w.target(s); got.GetState() != told || got.GetError() != "" || got.GetNextTryTime() != nil {
			t.Errorf("target is %v", got)
		}
		w.wantHistory("success: Passed, 1 step")
	})
}

// One that is kept is tried again where GitHub does not show it.
func TestKeptTargetIsReadBackAndTriedAgain(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.onTheWay(responding(404, nil, `{"message":"Not Found"}`))
	stop := w.background(s.Run)
	w.report(s, 1, w.build(running))
	w.reaches(s, kept)
	stop()
	w.onTheWay(nil)
	w.must(s.verify(t.Context())) // too early
	if got := w.target(s); got.GetState() != kept {
		t.Errorf("target is %v", got)
	}
	w.clock.Advance(verifyFirst)
	w.must(s.verify(t.Context()))
	w.publishAll(s)
	w.wantHistory("pending: Running")
}

// A token whose permissions GitHub has not copied everywhere yet answers 403.
func TestRefusalOfATokenThatWasJustMadeIsNotFinal(t *testing.T) {
	w := newWorld(t)
	w.expires = w.clock.Now().Add(tokenLife)
	s := w.reporter(sqlite(t))
	w.onTheWay(responding(403, nil, `{"message":"Resource not accessible by integration"}`))
	w.background(s.Run)
	w.report(s, 1, w.build(queued)) // which is left to a person where it is refused
	w.reaches(s, failing)
	w.onTheWay(nil)
	w.clock.Advance(firstPause)
	s.wake()
	w.reaches(s, told)
	if len(w.asked) != 1 {
		t.Errorf("%d tokens for one that only needs its time", len(w.asked))
	}

	// Once it is known everywhere, its refusal is asked of a new one, and counts.
	w.onTheWay(responding(403, nil, `{"message":"Resource not accessible by integration"}`))
	w.clock.Advance(2 * tokenSpare)
	if w.report(s, 2, w.build(running)); w.target(s).GetNextTryTime() == nil {
		t.Error("nothing is tried")
	}
	kittest.Eventually(t, patience, func() error {
		w.tick(s)
		if got := w.target(s); got.GetState() != kept {
			return fmt.Errorf("target is %v", got)
		}
		return nil
	})
}
