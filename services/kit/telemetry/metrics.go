package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	prometheusexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
)

// mostScrapes is how many may ask for the metrics at once: each asks the databases.
const mostScrapes = 4

// Labels are all keys that a metric may have. Each has few values, from a list in the
// code or in the contract: no name of a repository or a person, and no id. What an
// instrumentation adds besides, such as the Host header of a request, is left out.
func Labels() []attribute.Key {
	return []attribute.Key{
		"cicd.pipeline.name", "cicd.pipeline.result", "cicd.pipeline.run.state", "cicd.system.component", "cicd.worker.state",
		"db.client.connection.pool.name", "db.client.connection.state", "error.type",
		"http.request.method", "http.response.status_code", "http.route",
		"rpc.method", "rpc.response.status_code",
		"certificate", "decision", "engine", "event", "kind", "outcome", "reason", "receiver", "result", "room", "state", "volume",
	}
}

// newMeter returns what is measured with, what answers a scrape, and what stops it.
func newMeter(ctx context.Context, res *resource.Resource) (*sdkmetric.MeterProvider, http.Handler, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scraped, err := prometheusexporter.New(prometheusexporter.WithRegisterer(registry), prometheusexporter.WithoutScopeInfo())
	if err != nil {
		return nil, nil, fmt.Errorf("metrics for Prometheus: %w", err)
	}
	options := []sdkmetric.Option{
		sdkmetric.WithResource(res), sdkmetric.WithReader(scraped),
		sdkmetric.WithView(view),
		// An exemplar would tell what a view leaves out.
		sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
	}
	if wanted("OTEL_METRICS_EXPORTER") {
		reader, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, nil, errors.Join(err, scraped.Shutdown(ctx))
		}
		if !autoexport.IsNoneMetricReader(reader) {
			options = append(options, sdkmetric.WithReader(reader))
		}
	}
	answer := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: mostScrapes,
		ErrorHandling: promhttp.ContinueOnError, // a room whose database is away hides the others' metrics no less
	})
	return sdkmetric.NewMeterProvider(options...), answer, nil
}

// view keeps of each instrument what has few values.
func view(i sdkmetric.Instrument) (sdkmetric.Stream, bool) {
	stream := sdkmetric.Stream{Name: i.Name, Description: i.Description, Unit: i.Unit, AttributeFilter: attribute.NewAllowKeysFilter(Labels()...)}
	switch i.Name {
	case "http.server.request.body.size", "http.server.response.body.size": // a histogram of each route that nobody asks for
		stream.Aggregation = sdkmetric.AggregationDrop{}
	}
	return stream, true
}

// Expires has an operator see until when a certificate holds; until says so, and the zero
// time where it is not known yet.
func Expires(provider metric.MeterProvider, certificate string, until func() time.Time) error {
	of := metric.WithAttributes(attribute.String("certificate", certificate))
	_, err := provider.Meter("forge/telemetry").Int64ObservableGauge("forge.certificate.expiry", metric.WithUnit("s"),
		metric.WithDescription("When a certificate of Forge's own ends, in seconds since 1970."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			if end := until(); !end.IsZero() {
				o.Observe(end.Unix(), of)
			}
			return nil
		}))
	return err
}
