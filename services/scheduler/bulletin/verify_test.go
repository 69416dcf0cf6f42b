package bulletin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vector was made by openssl dgst -sha256 -hmac hush of msg_1.1674087231.{}
const vector = "gCA7zPZbNLcc8uRgqpDxY2z25lYTqLkPibbIUV0YNfw="

func verify(secret string, header http.Header, body []byte) bool {
	id, sent := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	at, err := strconv.ParseInt(sent, 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)).Abs() > 5*time.Minute {
		return false // sent by somebody who kept an old one
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(id + "." + sent + "."))
	mac.Write(body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return hmac.Equal([]byte(want), []byte(header.Get("Webhook-Signature")))
}

func TestTheVerifierThatThePageShowsVerifies(t *testing.T) {
	source, err := os.ReadFile("verify_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(source), "\nfunc verify(")
	function, _, _ := strings.Cut(rest, "\n}\n")
	page, err := os.ReadFile("../../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	if shown := "```go\nfunc verify(" + function + "\n}\n```"; !strings.Contains(string(page), shown) {
		t.Errorf("docs/events.md does not show\n%s", shown)
	}
	signed := func(secret string, at time.Time) http.Header {
		header := http.Header{}
		sign(header, secret, "b1.passed.1", at, []byte(`{"a":1}`))
		return header
	}
	good := signed("hush", time.Now())
	if !verify("hush", good, []byte(`{"a":1}`)) {
		t.Errorf("%v is refused", good)
	}
	if verify("hush", good, []byte(`{"a":2}`)) || verify("other", good, []byte(`{"a":1}`)) ||
		verify("hush", signed("hush", time.Now().Add(-time.Hour)), []byte(`{"a":1}`)) || verify("hush", http.Header{}, nil) {
		t.Error("what is not signed, or long ago, is taken")
	}
	// As others make it: https://github.com/standard-webhooks/standard-webhooks, with the same key.
	known := http.Header{}
	sign(known, "hush", "msg_1", time.Unix(1674087231, 0), []byte("{}"))
	if got := known.Get("Webhook-Signature"); got != "v1,"+vector {
		t.Errorf("signature %s", got)
	}
}
