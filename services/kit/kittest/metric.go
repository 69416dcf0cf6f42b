package kittest

import (
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Metric reads a counter, a gauge or how often a histogram was recorded: the sum
// over all its points that have these attributes, given as "key=value".
func Metric(t testing.TB, reader sdkmetric.Reader, name string, attributes ...string) float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	var sum float64
	found := false
	add := func(has attribute.Set, value float64) {
		for _, wanted := range attributes {
			if !slices.ContainsFunc(has.ToSlice(), func(kv attribute.KeyValue) bool { return string(kv.Key)+"="+kv.Value.String() == wanted }) {
				return
			}
		}
		found, sum = true, sum+value
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Value))
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Count))
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Value))
				}
			}
		}
	}
	if !found {
		t.Errorf("nobody measured %s %v", name, attributes)
	}
	return sum
}
