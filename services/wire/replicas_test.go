package wire_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// layReplicas prepares several processes of each service, on PostgreSQL and a bucket.
// Each service is known by a name with the addresses of its replicas, and stands
// behind a balancer where people and GitHub call it.
func (w *world) layReplicas(t testing.TB, replicas int) {
	t.Helper()
	var hosts []string
	for n := range replicas {
		hosts = append(hosts, fmt.Sprintf("127.0.0.%d", n+1))
	}
	names := kittest.NewDNS(t, hosts...)
	rooms := []string{"gateway", "scheduler", "reporter", "config"}
	ports, web := map[string]int{}, kittest.FreePort(t)
	w.apart = map[string]string{}
	for _, room := range rooms {
		ports[room] = kittest.FreePort(t)
		w.apart[room] = fmt.Sprintf("dns://%s/%s.forge.test:%d", names.Address(), room, ports[room])
	}
	var gateways []string
	for _, host := range hosts {
		gateways = append(gateways, fmt.Sprintf("%s:%d", host, web))
	}
	w.grpc, w.http = w.apart["gateway"], balance(t, gateways)
	w.env = append(w.env,
		"FORGE_EXTERNAL_URL="+w.http, "FORGE_ENGINE=process",
		"FORGE_CONFIG_URL="+w.apart["config"], "FORGE_SCHEDULER_URL="+w.apart["scheduler"], "FORGE_REPORTER_URL="+w.apart["reporter"])
	proofs := w.proofs(t, deployment{}, rooms)
	for n, host := range hosts {
		for _, room := range rooms {
			args := []string{fmt.Sprintf("--grpc-address=%s:%d", host, ports[room])}
			switch room {
			case "gateway":
				args = append(args, "--address="+host, fmt.Sprintf("--port=%d", web))
			case "scheduler": // its builds find it again where they left it
				args = append(args, fmt.Sprintf("--runner-address=unix://%s/runner-%d.sock", w.dir, n))
			}
			w.prepare(room, append(args, proofs[room]...)...)
		}
	}
}

// bucket has all services keep what is large in one.
func (w *world) bucket(t *testing.T) {
	t.Helper()
	_, bucket := kittest.S3(t)
	w.env = append(w.env, "FORGE_BLOB_URL="+bucket,
		"AWS_ACCESS_KEY_ID="+os.Getenv("AWS_ACCESS_KEY_ID"), "AWS_SECRET_ACCESS_KEY="+os.Getenv("AWS_SECRET_ACCESS_KEY"))
}

// balance spreads requests over addresses, and leaves out those where nobody listens.
func balance(t testing.TB, addresses []string) string {
	t.Helper()
	var next atomic.Uint64
	transport := &http.Transport{
		DisableKeepAlives: true, // so that each request may go to another
		DialContext: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
			first := next.Add(1)
			for n := range addresses {
				var one error
				if conn, one = (&net.Dialer{}).DialContext(ctx, network, addresses[(int(first)+n)%len(addresses)]); one == nil {
					return conn, nil
				}
				err = errors.Join(err, one)
			}
			return nil, err
		},
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "gateways"}) },
		Transport: transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the balancer: "+err.Error(), http.StatusBadGateway)
		},
	})
	t.Cleanup(server.Close)
	return server.URL
}

// rain is deliveries that come all the time, whatever people do: comments and
// statuses, of which nothing is built.
type rain struct {
	s        *storm
	accepted []string // ids, by drop; "" where it was not accepted before the rain ended
	again    atomic.Int64
}

// begin sends so many deliveries a second until stop is called. What was not accepted
// is sent again, as GitHub does when it is asked to.
func (s *storm) rain(perSecond int) (r *rain, stop func()) {
	r = &rain{s: s}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.fall(ctx, perSecond)
	}()
	return r, func() { cancel(); <-done }
}

func (r *rain) fall(ctx context.Context, perSecond int) {
	const senders = 16
	drops := make(chan int)
	ended := make(chan []string, senders)
	for range senders {
		go func() {
			var accepted []string
			for drop := range drops {
				id := fmt.Sprintf("%08x-0000-11f0-8000-%012x", drop, drop)
				if r.send(ctx, id, drop) {
					accepted = append(accepted, id)
				}
			}
			ended <- accepted
		}()
	}
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for drop := 1; ctx.Err() == nil; drop++ {
		select {
		case <-ctx.Done():
		case <-tick.C:
			drops <- drop
		}
	}
	close(drops)
	for range senders {
		r.accepted = append(r.accepted, <-ended...)
	}
}

// send reports whether a delivery was accepted before the rain ended.
func (r *rain) send(ctx context.Context, id string, drop int) bool {
	event, body := "status", `{"state":"success"`
	if drop%2 == 0 {
		event, body = "issue_comment", fmt.Sprintf(`{"action":"created","issue":{"number":%d,"pull_request":{"url":"u"}},"comment":{"id":%[1]d,"body":"Nice.","user":{"id":9,"login":"ann"}}`, drop)
	}
	body += `,"sender":{"id":9,"login":"ann","type":"User"},"repository":{"id":1,"name":"` + repo + `","full_name":"` + owner + "/" + repo + `","owner":{"id":3,"login":"` + owner + `"}}}`
	for {
		status, err := r.s.post(context.WithoutCancel(ctx), event, id, body)
		if err == nil && status == http.StatusOK {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.s.t.Logf("webhook %s was answered %d, %v", id, status, err)
		r.again.Add(1)
	}
}

// post sends a signed webhook.
func (s *storm) post(ctx context.Context, event, id, body string) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.http+"/v1/listen", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "X-Github-Event": {event}, "X-Github-Delivery": {id}, "X-Hub-Signature-256": {signature(body)},
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}

// isKnown: all that was accepted is known, once.
func (r *rain) isKnown() {
	r.s.t.Helper()
	known := map[string]int{}
	for _, d := range r.s.deliveries() {
		known[d.GetId()]++
	}
	for _, id := range r.accepted {
		if known[id] != 1 {
			r.s.t.Errorf("delivery %s was accepted, and is known %d times", id, known[id])
		}
	}
}

func signature(body string) string {
	mac := hmac.New(sha256.New, []byte(webhookSecret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
