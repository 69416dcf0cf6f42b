package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/forge-ci/forge/services/kit/telemetry"
)

// scraped is what Prometheus is answered.
func scraped(t *testing.T, tel *telemetry.Telemetry, accept string) (kind, text string) {
	t.Helper()
	request, answer := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil), httptest.NewRecorder()
	request.Header.Set("Accept", accept)
	tel.Metrics.ServeHTTP(answer, request)
	return answer.Header().Get("Content-Type"), answer.Body.String()
}

func TestPrometheusIsAnsweredWithNoSetUp(t *testing.T) {
	for _, otel := range []map[string]string{{}, {"OTEL_METRICS_EXPORTER": "none"}} {
		tel, _ := start(t, io.Discard, otel)
		work(t, tel)
		for accept, want := range map[string]string{"": "text/plain", "application/openmetrics-text; version=1.0.0": "application/openmetrics-text"} {
			kind, text := scraped(t, tel, accept)
			if !strings.HasPrefix(kind, want) {
				t.Errorf("it answers %s, want %s", kind, want)
			}
			for _, name := range []string{"http_server_request_duration_seconds_count{", "go_goroutines ", `service_name="gateway"`} {
				if !strings.Contains(text, name) {
					t.Errorf("%s is not told: %s", name, text)
				}
			}
		}
	}
}

// Whoever asks an address that strangers reach chooses its Host, its path and its method.
func TestStrangersMakeNoSeries(t *testing.T) {
	tel, _ := start(t, io.Discard, nil)
	handler := telemetry.Handler(http.NotFoundHandler(), tel)
	ask := func(host string) {
		request := httptest.NewRequestWithContext(t.Context(), "BREW-"+host, "/path/"+host, nil)
		request.Host = host + ".example.com"
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	ask("first")
	_, before := scraped(t, tel, "")
	for range 100 {
		ask("stranger")
	}
	_, after := scraped(t, tel, "")
	lines := func(text string) (n int) {
		return strings.Count(text, "\nhttp_server_")
	}
	if lines(before) == 0 || lines(after) != lines(before) {
		t.Errorf("%d series, and then %d", lines(before), lines(after))
	}
	if strings.Contains(strings.ToLower(after), "stranger") {
		t.Errorf("a stranger is told of: %s", after)
	}
}

func TestOnlyKnownLabelsAreKept(t *testing.T) {
	tel, _ := start(t, io.Discard, nil)
	counter, err := tel.Meter.Meter("test").Int64Counter("deliveries")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 1, metric.WithAttributes(attribute.String("event", "push"), attribute.String("repository", "acme/shop")))
	if _, text := scraped(t, tel, ""); !strings.Contains(text, "\ndeliveries_total{event=\"push\"} 1") {
		t.Errorf("told: %s", text)
	}
}

func TestACertificateThatIsNotKnownHasNoEnd(t *testing.T) {
	tel, _ := start(t, io.Discard, nil)
	var until time.Time
	if err := telemetry.Expires(tel.Meter, "HTTPS", func() time.Time { return until }); err != nil {
		t.Fatal(err)
	}
	if _, text := scraped(t, tel, ""); strings.Contains(text, "forge_certificate_expiry_seconds{") {
		t.Errorf("told: %s", text)
	}
	until = time.Unix(2_000_000_000, 0)
	if _, text := scraped(t, tel, ""); !strings.Contains(text, `forge_certificate_expiry_seconds{certificate="HTTPS"} 2e+09`) {
		t.Errorf("told: %s", text)
	}
}
