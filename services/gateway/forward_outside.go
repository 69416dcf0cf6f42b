package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/grpc"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/egress"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/wording"
)

// letter is a delivery on its way to a receiver.
type letter struct {
	delivery delivery
	payload  []byte
	event    *eventv1.Event
}

// unsaid is an error that comes with a time before which the receiver wants no other try.
type unsaid struct {
	error
	answer egress.Answer
}

func (u unsaid) Unwrap() error { return u.error }

// outsider is how deliveries reach a receiver outside.
type outsider struct {
	Receiver
	client *http.Client
	conn   *grpc.ClientConn
	events eventv1.EventServiceClient // nil: HTTP
}

func newOutsider(r Receiver, deps Deps) (*outsider, error) {
	o := &outsider{Receiver: r}
	address, err := url.Parse(r.URL)
	if err != nil {
		return nil, fmt.Errorf("receiver %s: its url is none", r.Name)
	}
	if address.Scheme != "grpc" && address.Scheme != "grpcs" {
		o.client = egress.Client(true) // whom the operator names may be a neighbour
		return o, nil
	}
	peer := rpc.Peer{Tracer: deps.Tracer, Meter: deps.Meter}
	if address.Scheme == "grpcs" {
		peer.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if o.conn, err = rpc.Dial(address.Host, peer); err != nil {
		return nil, fmt.Errorf("receiver %s: %w", r.Name, err)
	}
	o.events = eventv1.NewEventServiceClient(o.conn)
	return o, nil
}

func (o *outsider) close() {
	if o.conn != nil {
		_ = o.conn.Close() // nothing is left to be sent
	} else {
		o.client.CloseIdleConnections()
	}
}

// decide forwards a letter, if it is one for this receiver.
func (o *outsider) decide(ctx context.Context, l letter) (*eventv1.Decision, error) {
	repository := ""
	if repo := l.event.GetRepository(); repo != nil {
		repository = wording.FullName(repo)
	}
	if !o.covers(repository) {
		if repository == "" {
			return wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "it concerns none of the receiver's repositories"), nil
		}
		return wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "%s is none of the receiver's repositories", repository), nil
	}
	if o.events != nil {
		return o.call(ctx, l)
	}
	return o.post(ctx, l)
}

// signature is as GitHub makes it:
// https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
func (o *outsider) signature(payload []byte) string {
	mac := hmac.New(sha256.New, []byte(o.Secret))
	mac.Write(payload)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// headersFor are GitHub's own. The payload is JSON also where the App is set to send forms.
func (o *outsider) headersFor(l letter) map[string]string {
	sent := maps.Clone(l.delivery.headers)
	if sent == nil {
		sent = map[string]string{}
	}
	sent["x-github-event"], sent["x-github-delivery"] = l.delivery.event, l.delivery.guid
	sent["content-type"] = "application/json"
	sent["x-hub-signature-256"] = o.signature(l.payload)
	maps.DeleteFunc(sent, func(_, value string) bool { return !httpguts.ValidHeaderFieldValue(value) })
	return sent
}

func (o *outsider) post(ctx context.Context, l letter) (*eventv1.Decision, error) {
	header := http.Header{}
	for name, value := range o.headersFor(l) {
		header.Set(name, value)
	}
	answer, err := egress.Post(ctx, o.client, o.URL, header, l.payload)
	switch {
	case err != nil:
		return nil, err
	case answer.OK():
		return wording.Noted("accepted: %s", answer), nil
	case answer.Refused():
		return refused(answer.String()), nil
	}
	return nil, unsaid{fmt.Errorf("it answered %s", answer), answer}
}

func (o *outsider) call(ctx context.Context, l letter) (*eventv1.Decision, error) {
	resp, err := o.events.ReceiveEvent(ctx, &eventv1.ReceiveEventRequest{Event: l.event, Payload: l.payload, Headers: o.headersFor(l)})
	switch {
	case fault.Is(err, fault.Invalid):
		return refused(egress.OneLine(err.Error(), mostShown)), nil
	case err != nil:
		return nil, errors.New(egress.OneLine(err.Error(), mostShown))
	case resp.GetText() == "":
		return wording.Noted("accepted"), nil
	}
	return wording.Noted("accepted: %s", egress.OneLine(resp.GetText(), mostShown)), nil
}

// mostShown is how many characters of what a receiver says are shown.
const mostShown = 200

func refused(what string) *eventv1.Decision {
	return &eventv1.Decision{Reason: eventv1.Reason_REASON_REFUSED, Text: storable("refused: " + what)}
}
