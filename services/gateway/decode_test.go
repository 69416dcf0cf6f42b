package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const repo = `"repository":{"id":11,"name":"web","full_name":"acme/web","default_branch":"main","private":true,"owner":{"id":3,"login":"acme","type":"Organization"}}`

func pullRequestPayload() []byte {
	return []byte(`{"action":"synchronize","number":5,"before":"b0","after":"a1","pull_request":{"number":5,"state":"open","title":"T",
	"html_url":"https://x/5","draft":true,"commits":2,"author_association":"MEMBER","user":{"id":9,"login":"ann","type":"User"},
	"created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T03:04:06Z","labels":[{"name":"bug"}],
	"head":{"ref":"fix","sha":"a1","repo":null},"base":{"ref":"main","sha":"c2","repo":{"id":11,"name":"web","full_name":"acme/web"}}},
	"changes":{"base":{"ref":{"from":"old"},"sha":{"from":"x"}}},
	"sender":{"id":9,"login":"ann[bot]","type":"Bot"},"installation":{"id":7},` + repo + `}`)
}

// small payloads have just what their kind needs.
func small() map[string]string {
	const more = `,"sender":{"id":9,"login":"ann","type":"User"},"installation":{"id":7},` + repo + `}`
	return map[string]string{
		"pull_request":              string(pullRequestPayload()),
		"push":                      `{"ref":"refs/heads/main","before":"b0","after":"a1","forced":true,"commits":[{"id":"a1"}],"head_commit":{"message":"m","timestamp":"2026-01-02T03:04:05Z"},"pusher":{"name":"ann"}` + strings.Replace(more, `"id":11,`, `"id":11,"pushed_at":1767323046,`, 1),
		"merge_group":               `{"action":"destroyed","reason":"merged","merge_group":{"head_sha":"a1","head_ref":"refs/heads/gh-readonly-queue/main/pr-1-b0","base_sha":"b0","base_ref":"refs/heads/main","head_commit":{"message":"m"}}` + more,
		"check_run":                 `{"action":"requested_action","requested_action":{"identifier":"retest"},"check_run":{"id":1,"name":"forge/test","head_sha":"a1","external_id":"bld","check_suite":{"id":2},"app":{"id":4},"pull_requests":[{"number":5}]}` + more,
		"check_suite":               `{"action":"rerequested","check_suite":{"id":2,"head_sha":"a1","head_branch":"fix","updated_at":"2026-01-02T03:04:06Z","app":{"id":4},"pull_requests":[{"number":5}]}` + more,
		"issue_comment":             `{"action":"created","issue":{"number":5,"state":"open","pull_request":{"url":"u"}},"comment":{"id":6,"body":"/forge retest","user":{"id":9,"login":"ann","type":"User"},"author_association":"OWNER","created_at":"2026-01-02T03:04:05Z"}` + more,
		"installation":              `{"action":"created","installation":{"id":7,"account":{"id":3,"login":"acme","type":"Organization"},"repository_selection":"selected","permissions":{"contents":"read","a_new_one":"write"}},"repositories":[{"id":11,"name":"web","full_name":"acme/web"}],"sender":{"id":9,"login":"ann","type":"User"}}`,
		"installation_repositories": `{"action":"removed","installation":{"id":7,"account":{"id":3,"login":"acme","type":"Organization"}},"repository_selection":"selected","repositories_added":[],"repositories_removed":[{"id":11,"name":"web","full_name":"acme/web"}],"sender":{"id":9,"login":"ann","type":"User"}}`,
		"repository":                `{"action":"transferred","changes":{"owner":{"from":{"organization":{"login":"old"}}},"repository":{"name":{"from":"site"}}}` + more,
		"release":                   `{"action":"published","release":{"id":8,"tag_name":"v1.2","name":"A till","draft":false,"prerelease":true}` + more,
		"ping":                      `{"zen":"Keep it logically awesome.","hook_id":3,"hook":{"events":["*"]}}`,
	}
}

// sample is a payload that fits its kind of event.
func sample(t testing.TB, event string) []byte {
	t.Helper()
	payload, ok := small()[event]
	if !ok {
		t.Fatalf("no sample of %s", event)
	}
	return []byte(payload)
}

func TestEachKindIsDecoded(t *testing.T) {
	for event, payload := range small() {
		decoded, err := routeOf(event).decode([]byte(payload))
		if err != nil {
			t.Errorf("%s: %v", event, err)
			continue
		}
		kittest.Golden(t, event, stable(t, decoded))
	}
	for event := range routes {
		if _, ok := small()[event]; !ok {
			t.Errorf("%s has a route and no sample", event)
		}
	}
}

func TestButtonsAreKnownByTheirNames(t *testing.T) {
	for identifier, want := range map[string]eventv1.Button{
		"rerun": eventv1.Button_BUTTON_RERUN, "cancel": eventv1.Button_BUTTON_CANCEL, "approve": eventv1.Button_BUTTON_APPROVE,
		"retest": eventv1.Button_BUTTON_UNSPECIFIED, "": eventv1.Button_BUTTON_UNSPECIFIED,
	} {
		payload := strings.Replace(small()["check_run"], `"identifier":"retest"`, `"identifier":"`+identifier+`"`, 1)
		decoded, err := decodeCheckRun([]byte(payload))
		if run := decoded.GetCheckRun(); err != nil || run.GetButton() != want || run.GetRequestedAction() != identifier {
			t.Errorf("button %q: %v, error %v; want %v", identifier, run, err, want)
		}
	}
}

// stable is the event as text that stays the same: protojson varies its spaces.
func stable(t *testing.T, event *eventv1.Event) []byte {
	t.Helper()
	text, err := protojson.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	if text, err = json.MarshalIndent(tree, "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func TestExamplePayloadsAreDecoded(t *testing.T) {
	seen := map[string]bool{}
	for name, payload := range kittest.ExamplePayloads(t) {
		event, _, _ := strings.Cut(name, ".")
		seen[event] = true
		decoded, err := routeOf(event).decode(payload)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kittest.Golden(t, "payloads/"+name, stable(t, decoded))
	}
	for event := range routes {
		if !seen[event] {
			t.Errorf("%s has a route and no example", event)
		}
	}
}

func TestExamplePayloadsFitTheirKindAndNoOther(t *testing.T) {
	fitTheirKindAlone(t, kittest.ExamplePayloads(t))
}

func TestRealPayloadsFitTheirKindAndNoOther(t *testing.T) {
	kittest.Require(t, "payloads")
	fitTheirKindAlone(t, kittest.RealPayloads(t))
}

func fitTheirKindAlone(t *testing.T, payloads map[string][]byte) {
	t.Helper()
	for name, payload := range payloads {
		own, _, _ := strings.Cut(name, ".")
		for event := range routes {
			_, err := routeOf(event).decode(payload)
			if event == own && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if event != own && err == nil {
				t.Errorf("%s passes for %s", name, event)
			}
		}
	}
}

func TestPayloadsFitNoOtherKind(t *testing.T) {
	for own, payload := range small() {
		for event := range routes {
			if _, err := routeOf(event).decode([]byte(payload)); event != own && err == nil {
				t.Errorf("%s passes for %s", own, event)
			}
		}
	}
}

func TestPayloadsThatLackWhatTheirKindNeeds(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)
	for event := range routes {
		for _, payload := range []string{"", "{", "null", "[]", `"x"`, "{}", `{"action":"opened"}`, "\xff\xfe", deep, `{"action":{"a":1}}`} {
			if _, err := routeOf(event).decode([]byte(payload)); err == nil {
				t.Errorf("%s: %.40q is taken", event, payload)
			} else if len(err.Error()) > 150 {
				t.Errorf("%s: a long error: %v", event, err)
			}
		}
	}
	// Each member of a payload that is taken away is either missed or was not needed; nothing breaks.
	for event, payload := range small() {
		var whole map[string]json.RawMessage
		if err := json.Unmarshal([]byte(payload), &whole); err != nil {
			t.Fatalf("%s: %v", event, err)
		}
		for _, key := range slices.Sorted(maps.Keys(whole)) {
			less := maps.Clone(whole)
			less[key] = json.RawMessage("17")
			text, err := json.Marshal(less)
			if err != nil {
				t.Fatal(err)
			}
			if e, err := routeOf(event).decode(text); err == nil && e.GetPayload() == nil {
				t.Errorf("%s without %s: decoded to nothing", event, key)
			}
		}
	}
}

func TestForeignTypesInUnneededFieldsDoNotMatter(t *testing.T) {
	payload := strings.Replace(string(sample(t, "pull_request")), `"id":11,`, `"id":11,"custom_properties":{"teams":["a","b"]},"topics":"none",`, 1)
	e, err := decodePullRequest([]byte(payload))
	if err != nil || e.GetRepository().GetOwner() != "acme" || e.GetPullRequest().GetPullRequest().GetNumber() != 5 {
		t.Errorf("%v %v", e, err)
	}
}

func TestMomentsInOddFormsAreLeftOut(t *testing.T) {
	payload := strings.Replace(string(sample(t, "pull_request")), `"2026-01-02T03:04:05Z"`, `"2026-01-02 03:04:05"`, 1)
	e, err := decodePullRequest([]byte(payload))
	if err != nil || e.GetPullRequest().GetPullRequest().GetCreateTime() != nil || e.GetPullRequest().GetPullRequest().GetUpdateTime() == nil {
		t.Errorf("%v %v", e, err)
	}
	payload = strings.Replace(payload, `"2026-01-02T03:04:06Z"`, `"soon"`, 1)
	if _, err := decodePullRequest([]byte(payload)); err == nil || err.Error() != "no pull_request.updated_at in the payload" {
		t.Errorf("without the moment that orders events: %v", err)
	}
}

func TestNumbersBeyondTheirTypeStayInBounds(t *testing.T) {
	for n, want := range map[int]int32{-1: 0, 7: 7, 1 << 40: 1<<31 - 1} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %d", n, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for event, payload := range small() {
		f.Add(event, []byte(payload))
	}
	for _, payloads := range []map[string][]byte{kittest.ExamplePayloads(f), kittest.RealPayloads(f)} {
		for name, payload := range payloads {
			event, _, _ := strings.Cut(name, ".")
			f.Add(event, payload)
		}
	}
	f.Fuzz(func(t *testing.T, event string, payload []byte) {
		e, err := routeOf(event).decode(payload)
		if err == nil && e == nil {
			t.Error("neither an event nor an error")
		}
		if _, routed := routes[event]; err == nil && routed && e.GetPayload() == nil {
			t.Error("an event without its payload")
		}
		if err != nil && fmt.Sprint(err) == "" {
			t.Error("an error that says nothing")
		}
	})
}
