package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/metadata"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

var star = []byte(`{"action":"created","repository":{"id":1,"name":"web","full_name":"acme/web"},"installation":{"id":7}}`)

func TestListenAnswersByWhatIsWrong(t *testing.T) {
	w := onSQLite(t, nil)
	largest := append([]byte(`{"x":"`), bytes.Repeat([]byte("x"), maxPayload-8)...)
	largest = append(largest, `"}`...)
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write(star)
	with1 := "sha1=" + hex.EncodeToString(mac.Sum(nil))
	cases := []struct {
		name   string
		hook   hook
		code   int
		says   string
		stores bool
	}{
		{"signed", hook{event: "star", id: "a1", body: star}, 200, "{}", true},
		{"the same again", hook{event: "star", id: "a1", body: star}, 200, "{}", false},
		{"no event", hook{id: "a2", body: star}, 200, "{}", false},
		{"no event and no signature", hook{id: "a2", body: star, header: map[string]string{"X-Hub-Signature-256": ""}}, 200, "{}", false},
		{"event that is no text", hook{event: "st\xffar", id: "a2", body: star}, 200, "{}", false},
		{"event of a thousand letters", hook{event: strings.Repeat("e", 1000), id: "a9", body: star}, 200, "{}", true},
		{"no signature", hook{event: "star", id: "a3", body: star, header: map[string]string{"X-Hub-Signature-256": ""}}, 401, `"code":16`, false},
		{"signature of another body", hook{event: "star", id: "a3", body: star, header: map[string]string{"X-Hub-Signature-256": sign([]byte("{}"))}}, 401, "fits none of the webhook secrets", false},
		{"signature by the other secret", hook{event: "star", id: "a8", body: star, header: map[string]string{"X-Hub-Signature-256": signBy("old secret", star)}}, 200, "{}", true},
		{"signature by no secret", hook{event: "star", id: "a3", body: star, header: map[string]string{"X-Hub-Signature-256": signBy("", star)}}, 401, `"code":16`, false},
		{"signature that is no hex", hook{event: "star", id: "a3", body: star, header: map[string]string{"X-Hub-Signature-256": "sha256=zz"}}, 401, `"code":16`, false},
		{"empty signature", hook{event: "star", id: "a3", body: star, header: map[string]string{"X-Hub-Signature-256": "sha256="}}, 401, `"code":16`, false},
		{"sha1 of an old server", hook{event: "star", id: "a4", body: star, header: map[string]string{"X-Hub-Signature-256": "", "X-Hub-Signature": with1}}, 200, "{}", true},
		{"good sha1 beside a bad sha256", hook{event: "star", id: "a5", body: star, header: map[string]string{"X-Hub-Signature-256": "sha256=00", "X-Hub-Signature": with1}}, 401, `"code":16`, false},
		{"empty body", hook{event: "star", id: "a6"}, 200, "{}", true},
		{"chunked", hook{event: "star", id: "a7", body: star, chunked: true}, 200, "{}", true},
		{"no delivery id", hook{event: "star", body: star}, 200, "{}", true},
		{"no delivery id again", hook{event: "star", body: star}, 200, "{}", false},
		{"delivery id with a path", hook{event: "watch", id: "../../x", body: star}, 200, "{}", true},
		{"25 MiB", hook{event: "star", id: "b1", body: largest}, 200, "{}", true},
		{"25 MiB and a byte", hook{event: "star", id: "b2", body: append(largest, ' ')}, 413, "larger than 25 MiB", false},
		{"25 MiB and a byte, chunked", hook{event: "star", id: "b2", body: append(largest, ' '), chunked: true}, 413, "larger than 25 MiB", false},
	}
	stored := 0
	for _, c := range cases {
		code, body := w.post(c.hook)
		if code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s, want %d %s", c.name, code, body, c.code, c.says)
		}
		if c.stores {
			stored++
		}
		if n := w.count(); n != stored {
			t.Fatalf("%s: %d deliveries are stored, want %d", c.name, n, stored)
		}
	}
}

// A header that comes twice may be a smuggler's: two signatures sign nothing, and
// of other headers the first counts, whoever reads them.
func TestHeadersThatComeTwice(t *testing.T) {
	w := onSQLite(t, nil)
	for name, c := range map[string]struct {
		value string
		code  int
	}{
		"X-Hub-Signature-256": {sign(star), 401},
		"X-GitHub-Event":      {"push", 200},
		"X-GitHub-Delivery":   {"other", 200},
		"Content-Type":        {"application/x-www-form-urlencoded", 200},
	} {
		req := hook{event: "star", id: "twice-" + name, body: star}.request(t, w.http.URL)
		req.Header.Add(name, c.value)
		if code, body := w.do(req); code != c.code {
			t.Errorf("%s: %d %s", name, code, body)
			continue
		}
		if c.code == 200 {
			if d := w.ends("twice-" + name); d.GetEvent() != "star" || string(d.GetPayload()) != string(star) {
				t.Errorf("%s: kept as %v", name, d)
			}
		}
	}
}

// Whatever says how long a body is, or does not, what was signed is what is kept.
func TestBodiesOfUnsaidLength(t *testing.T) {
	w := onSQLite(t, nil)
	head := "POST /v1/listen HTTP/%s\r\nHost: forge\r\nContent-Type: application/json\r\nX-GitHub-Event: star\r\nX-GitHub-Delivery: %s\r\nX-Hub-Signature-256: " +
		sign(star) + "\r\n%s\r\n"
	for name, c := range map[string]struct {
		version, header string
		code            int
	}{
		"none-in-1.0":  {"1.0", "", 401}, // there is no body then, and of that it is no signature
		"none-in-1.1":  {"1.1", "", 401},
		"twice":        {"1.1", fmt.Sprintf("Content-Length: %d\r\nContent-Length: 3\r\n", len(star)), 400},
		"both":         {"1.1", fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: gzip\r\n", len(star)), 501},
		"too-little":   {"1.1", "Content-Length: 3\r\n", 401},
		"not-a-number": {"1.1", "Content-Length: many\r\n", 400},
		"negative":     {"1.1", "Content-Length: -1\r\n", 400},
		"exact":        {"1.1", fmt.Sprintf("Content-Length: %d\r\n", len(star)), 200},
	} {
		conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, head, c.version, name, c.header)
		conn.Write(star)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if resp.Body.Close(); resp.StatusCode != c.code {
			t.Errorf("%s: %s, want %d", name, resp.Status, c.code)
		}
		conn.Close()
	}
	if n := w.count(); n != 1 {
		t.Errorf("%d are kept", n)
	}
}

func TestEveryKindIsTakenAndDecided(t *testing.T) {
	payloads := kittest.ExamplePayloads(t)
	for event, payload := range small() {
		payloads[event+".small"] = []byte(payload)
	}
	areTakenAndDecided(t, payloads)
}

func TestEveryRealPayloadIsTakenAndDecided(t *testing.T) {
	kittest.Require(t, "payloads")
	areTakenAndDecided(t, kittest.RealPayloads(t))
}

// areTakenAndDecided holds that all payloads are decided by those they concern, and
// malformed for none.
func areTakenAndDecided(t *testing.T, payloads map[string][]byte) {
	t.Helper()
	w := onSQLite(t, nil)
	for name, payload := range payloads {
		event, _, _ := strings.Cut(name, ".")
		id := strings.ReplaceAll(name, ".", "-")
		if code, body := w.post(hook{event: event, id: id, body: payload}); code != 200 {
			t.Errorf("%s: %d %s", name, code, body)
			continue
		}
		d := w.ends(id)
		want := eventv1.Reason_REASON_NOTED
		if routes[event].decode == nil {
			want = eventv1.Reason_REASON_EVENT_IGNORED
		}
		if len(d.GetForwards()) != len(routeOf(event).receivers) {
			t.Errorf("%s went to %v", name, d.GetForwards())
		}
		for _, f := range d.GetForwards() {
			if f.GetDecision().GetReason() != want {
				t.Errorf("%s: %s decided %v", name, f.GetReceiver(), f.GetDecision())
			}
		}
		if !bytes.Equal(d.GetPayload(), payload) {
			t.Errorf("%s: another payload is kept", name)
		}
	}
}

// Neither GitHub nor anybody else can have a receiver miss a delivery by sending
// its body under another id: idempotency by content is the receivers'.
func TestSameBodyUnderANewIDIsADeliveryOfItsOwn(t *testing.T) {
	w := onSQLite(t, nil)
	for _, id := range []string{"one", "other"} {
		w.post(hook{event: "pull_request", id: id, body: pullRequestPayload()})
		w.ends(id)
	}
	got := w.rooms.received("scheduler")
	if w.count() != 2 || len(got) != 2 || got[0].GetDeliveryId() == got[1].GetDeliveryId() {
		t.Errorf("%d are kept, the scheduler got %v", w.count(), got)
	}
}

func TestFormPayloadIsUnpacked(t *testing.T) {
	w := onSQLite(t, nil)
	for id, body := range map[string]string{
		"f1": url.Values{"payload": {string(star)}}.Encode(),
		"f2": "payload=%zz",
		"f3": "other=1",
	} {
		h := hook{event: "star", id: id, body: []byte(body), header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}}
		if code, answer := w.post(h); code != 200 {
			t.Errorf("%s: %d %s", id, code, answer)
		}
	}
	d := w.ends("f1")
	if string(d.GetPayload()) != string(star) || d.GetAction() != "created" {
		t.Errorf("payload %q, action %q", d.GetPayload(), d.GetAction())
	}
	for _, id := range []string{"f2", "f3"} {
		if got := w.ends(id).GetForwards()[0].GetDecision().GetReason(); got != eventv1.Reason_REASON_MALFORMED {
			t.Errorf("%s: %v", id, got)
		}
	}
}

func TestOneDeliveryTwentyTimesAtOnceIsOneRow(t *testing.T) {
	w := onSQLite(t, nil)
	var sending sync.WaitGroup
	for range 20 {
		req := hook{event: "push", id: "same", body: sample(t, "push")}.request(t, w.http.URL)
		sending.Go(func() {
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s", resp.Status)
			}
		})
	}
	sending.Wait()
	w.ends("same")
	if n := w.count(); n != 1 {
		t.Errorf("%d rows", n)
	}
	if n := len(w.rooms.received("scheduler")); n != 1 {
		t.Errorf("the scheduler got it %d times", n)
	}
}

func TestListenOverGRPC(t *testing.T) {
	w := onSQLite(t, nil)
	client := gatewayv1.NewWebhookServiceClient(w.grpc)
	call := func(signature string, body []byte) error {
		ctx := metadata.AppendToOutgoingContext(t.Context(),
			"x-github-event", "star", "x-github-delivery", "g1", "x-hub-signature-256", signature)
		_, err := client.Listen(ctx, &httpbody.HttpBody{ContentType: "application/json", Data: body})
		return err
	}
	if err := call("sha256=00", star); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("bad signature: %v", err)
	}
	large := make([]byte, maxPayload+1)
	if err := call(sign(large), large); !fault.Is(err, fault.Invalid) {
		t.Errorf("too large: %v", err)
	}
	if err := call(sign(star), star); err != nil {
		t.Errorf("signed: %v", err)
	}
	if got := w.ends("g1").GetForwards()[0].GetDecision().GetText(); got != "ignored: no receiver for event star" {
		t.Errorf("decision %q", got)
	}
}

func TestNothingIsAcceptedThatIsNotKept(t *testing.T) {
	db := open(t)
	w := start(t, db, nil)
	if code, body := w.post(hook{event: "star", id: "a0", body: star}); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	w.ends("a0")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if code, body := w.post(hook{event: "star", id: "a1", body: star}); code != 503 || !strings.Contains(body, "send it again") {
		t.Errorf("no database: %d %s", code, body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newInbox(nil, nil, nil).put(ctx, &arrival{}); err == nil {
		t.Error("accepted without a writer")
	}
}

func TestKeptHeadersHoldNoSignature(t *testing.T) {
	w := onSQLite(t, nil)
	w.post(hook{event: "star", id: "a1", body: star, header: map[string]string{
		"X-GitHub-Hook-ID": "42", "Authorization": "Bearer x", "Cookie": "a=b", "X-Hub-Signature": "sha1=00",
	}})
	got := w.ends("a1").GetHeaders()
	want := map[string]string{
		"x-github-event": "star", "x-github-delivery": "a1", "x-github-hook-id": "42",
		"user-agent": "GitHub-Hookshot/044aadd", "content-type": "application/json",
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %q", name, got[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("headers %v", got)
	}
}

func FuzzSignature(f *testing.F) {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write(star)
	with1 := "sha1=" + hex.EncodeToString(mac.Sum(nil))
	for _, seed := range []struct {
		body           []byte
		with256, with1 string
	}{
		{star, sign(star), ""},
		{star, "", with1},
		{star, sign(star), with1},
		{star, "sha256=00", with1},
		{star, with1, ""},
		{star, strings.ToUpper(sign(star)), ""},
		{star, " " + sign(star), ""},
		{star, sign(star) + "00", ""},
		{star, "sha256=zz", ""},
		{nil, sign(nil), ""},
		{nil, "sha256=", "sha1="},
		{nil, "", ""},
	} {
		f.Add(seed.body, seed.with256, seed.with1)
	}
	one := func(value string) []string { // as a header that is left out, where it is empty
		if value == "" {
			return nil
		}
		return []string{value}
	}
	f.Fuzz(func(t *testing.T, body []byte, with256, with1 string) {
		mac := hmac.New(sha1.New, []byte(secret))
		mac.Write(body)
		digits, scheme := strings.CutPrefix(with1, "sha1=")
		fits1 := scheme && strings.EqualFold(digits, hex.EncodeToString(mac.Sum(nil)))
		digits, scheme = strings.CutPrefix(with256, "sha256=")
		fits256 := scheme && strings.EqualFold("sha256="+digits, sign(body))
		want := fits256 || with256 == "" && fits1
		if got := signed(body, []string{"", "old secret", secret}, one(with256), one(with1)); got != want {
			t.Errorf("%q and %q sign %q: %v", with256, with1, body, got)
		}
	})
}

func FuzzForm(f *testing.F) {
	for _, payload := range small() {
		f.Add("application/x-www-form-urlencoded", []byte(url.Values{"payload": {payload}}.Encode()), "3f2a-91")
	}
	f.Add("application/x-www-form-urlencoded; charset=utf-8", []byte("payload=%zz"), "../../x")
	f.Add("application/x-www-form-urlencoded", []byte("payload=1&payload=2"), strings.Repeat("x", 101))
	f.Add("application/json", []byte("payload=1"), "")
	f.Add("a/b; c=\"", []byte(nil), "\xff")
	f.Fuzz(func(t *testing.T, kind string, body []byte, id string) {
		payload := payloadOf(&httpbody.HttpBody{ContentType: kind, Data: body})
		if len(payload) > len(body) {
			t.Errorf("%q makes %q of %q", kind, payload, body)
		}
		if got := guid(id, "star", body); !addressable.MatchString(got) {
			t.Errorf("known by %q", got)
		}
	})
}
