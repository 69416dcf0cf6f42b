package gateway

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
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
		{"no signature", hook{event: "star", id: "a3", body: star, header: map[string]string{"X-Hub-Signature-256": ""}}, 401, `"code":16`, false},
		{"signature of another body", hook{event: "star", id: "a3", body: star, header: map[string]string{"X-Hub-Signature-256": sign([]byte("{}"))}}, 401, "fits none of the webhook secrets", false},
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

func TestTwoSignaturesSignNothing(t *testing.T) {
	w := onSQLite(t, nil)
	req := hook{event: "star", id: "a1", body: star}.request(t, w.http.URL)
	req.Header.Add("X-Hub-Signature-256", sign(star))
	if code, body := w.do(req); code != 401 {
		t.Errorf("%d %s", code, body)
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
	f.Add([]byte("{}"), sign([]byte("{}")), "")
	f.Add([]byte(""), "sha256=", "sha1=")
	f.Fuzz(func(t *testing.T, body []byte, with256, with1 string) {
		if signed(body, []string{secret}, []string{with256}, []string{with1}) && !strings.EqualFold(with256, sign(body)) {
			t.Errorf("%q signs %q", with256, body)
		}
	})
}
