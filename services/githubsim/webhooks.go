package githubsim

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" // GitHub's older signature, still sent beside the newer
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	hookID      = 1
	sendTimeout = 10 * time.Second   // GitHub waits no longer
	maxWaiting  = 10_000             // deliveries in the queue
	maxRecorded = 20_000             // deliveries kept; the oldest are dropped first
	keptFor     = 3 * 24 * time.Hour // GitHub lists no older ones
	maxResponse = 64 << 10           // bytes of an answer that are kept
)

// A Delivery is one attempt to send the App an event. GitHub makes another one only when asked to.
type Delivery struct {
	ID           int64
	GUID         string // the same for every attempt
	Event        string
	Action       string
	Installation int64
	Repository   int64
	Redelivery   bool
	At           time.Time
	Payload      []byte
	Request      http.Header

	Duration     time.Duration
	Status       string // OK, or what went wrong
	StatusCode   int    // 0: no answer
	Response     http.Header
	ResponseBody string

	dropped bool
}

// SetWebhook sets the address of deliveries from now on, and the secret that signs them.
func (s *Controls) SetWebhook(url, secret string) {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	s.hooks.hook.URL, s.hooks.hook.Secret = url, secret
}

// Deliveries lists the attempts that have ended, the oldest first.
func (s *Controls) Deliveries() []Delivery {
	var list []Delivery
	for _, d := range s.hooks.ended() {
		list = append(list, *d)
	}
	return list
}

// DropDeliveries has the next n deliveries not arrive: they are recorded as failed to connect, and can be redelivered.
func (s *Controls) DropDeliveries(n int) {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	s.hooks.drop = n
}

// LoseDeliveries has the next n deliveries neither sent nor recorded.
func (s *Controls) LoseDeliveries(n int) {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	s.hooks.lose = n
}

// WaitDeliveries waits until nothing is left to send.
func (s *Controls) WaitDeliveries(ctx context.Context) error {
	s.hooks.mu.Lock()
	idle := s.hooks.idle
	s.hooks.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for webhooks: %w", ctx.Err())
	}
}

// A sender sends deliveries one after the other, in the order of the events.
type sender struct {
	client  *http.Client
	log     *slog.Logger
	waiting chan *Delivery
	stop    context.CancelFunc
	stopped chan struct{}

	mu         sync.Mutex // guards all below
	appID      int64
	hook       hookConfig
	drop, lose int // of the next deliveries
	done       []*Delivery
	pending    int           // waiting or being sent
	idle       chan struct{} // closed while pending is 0
}

func newSender(config Config) *sender {
	ctx, stop := context.WithCancel(context.Background()) // ends with close
	w := &sender{
		client: &http.Client{
			Timeout:       sendTimeout,
			Transport:     &http.Transport{},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		log: config.Log, appID: config.AppID,
		hook:    hookConfig{URL: config.WebhookURL, ContentType: "json", Secret: config.WebhookSecret, InsecureSSL: "0"},
		waiting: make(chan *Delivery, maxWaiting), stop: stop, stopped: make(chan struct{}), idle: make(chan struct{}),
	}
	close(w.idle)
	go w.run(ctx)
	return w
}

func (w *sender) run(ctx context.Context) {
	defer close(w.stopped)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case d := <-w.waiting:
			w.send(context.WithoutCancel(ctx), d) // a send that has begun goes on until its timeout
			w.end(d)
		}
	}
}

func (w *sender) close() {
	w.stop()
	<-w.stopped
	w.client.CloseIdleConnections()
}

func (w *sender) address() string { return w.config().URL }

func (w *sender) config() hookConfig {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hook
}

// configure sets whose webhook it is from now on, and how.
func (w *sender) configure(appID int64, hook hookConfig) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.appID, w.hook = appID, hook
}

func (w *sender) ended() []*Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.done)
}

// queue adds a delivery to those to be sent; without an address of the webhook it drops it.
func (w *sender) queue(d *Delivery) {
	w.mu.Lock()
	switch {
	case w.hook.URL == "":
		w.mu.Unlock()
		return
	case w.lose > 0:
		w.lose--
		w.mu.Unlock()
		return
	case w.drop > 0:
		w.drop--
		d.dropped = true
	}
	if w.pending++; w.pending == 1 {
		w.idle = make(chan struct{})
	}
	w.mu.Unlock()
	if d.GUID == "" {
		d.GUID = uuid.NewString()
	}
	select {
	case w.waiting <- d:
	default:
		d.Status = fmt.Sprintf("not sent: %d deliveries are waiting", maxWaiting)
		w.end(d)
	}
}

func (w *sender) end(d *Delivery) {
	w.log.Debug("webhook", "event", d.Event, "action", d.Action, "delivery", d.GUID, "status", d.Status)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.done) == maxRecorded {
		w.done = slices.Delete(w.done, 0, maxRecorded/10)
	}
	w.done = append(w.done, d)
	if w.pending--; w.pending == 0 {
		close(w.idle)
	}
}

const unreachable = "failed to connect to host"

func (w *sender) send(ctx context.Context, d *Delivery) {
	if d.dropped {
		d.Status = unreachable
		return
	}
	w.mu.Lock()
	to, secret, appID := w.hook.URL, w.hook.Secret, w.appID
	w.mu.Unlock()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(string(d.Payload)))
	if err != nil {
		d.Status = "invalid webhook address: " + err.Error()
		return
	}
	for name, value := range map[string]string{
		"Accept":                                 "*/*",
		"Content-Type":                           "application/json",
		"User-Agent":                             "GitHub-Hookshot/f00d5aa",
		"X-GitHub-Delivery":                      d.GUID,
		"X-GitHub-Event":                         d.Event,
		"X-GitHub-Hook-ID":                       strconv.Itoa(hookID),
		"X-GitHub-Hook-Installation-Target-ID":   strconv.FormatInt(appID, 10),
		"X-GitHub-Hook-Installation-Target-Type": "integration",
	} {
		request.Header.Set(name, value)
	}
	if secret != "" {
		request.Header.Set("X-Hub-Signature", "sha1="+signature(sha1.New, secret, d.Payload))
		request.Header.Set("X-Hub-Signature-256", "sha256="+signature(sha256.New, secret, d.Payload))
	}
	d.Request = request.Header
	start := time.Now()
	response, err := w.client.Do(request)
	d.Duration = time.Since(start)
	if err != nil {
		d.Status = unreachable
		if failure := (*url.Error)(nil); errors.As(err, &failure) && failure.Timeout() {
			d.Status = "timed out"
		}
		return
	}
	defer response.Body.Close()                                       //nolint:errcheck // nothing is left to do about it
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxResponse)) // a body that breaks off is shown as far as it came
	d.StatusCode, d.Response, d.ResponseBody = response.StatusCode, response.Header, string(body)
	d.Status = "OK"
	if !d.succeeded() {
		d.Status = fmt.Sprintf("Invalid HTTP Response: %d", d.StatusCode)
	}
}

func signature(with func() hash.Hash, secret string, payload []byte) string {
	mac := hmac.New(with, []byte(secret))
	mac.Write(payload)
	return hex.EncodeToString(mac.Sum(nil))
}
