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
	sum, found := FindMetric(t, reader, name, attributes...)
	if !found {
		t.Errorf("nobody measured %s %v", name, attributes)
	}
	return sum
}

// FindMetric is Metric where it may be that nobody has measured it yet.
func FindMetric(t testing.TB, reader sdkmetric.Reader, name string, attributes ...string) (sum float64, found bool) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			for _, p := range points(m.Data) {
				if p.has(attributes) {
					found, sum = true, sum+p.value
				}
			}
		}
	}
	return sum, found
}

// point is what was measured with the same attributes.
type point struct {
	attributes attribute.Set
	value      float64
}

func (p point) has(attributes []string) bool {
	for _, wanted := range attributes {
		if !slices.ContainsFunc(p.attributes.ToSlice(), func(kv attribute.KeyValue) bool { return string(kv.Key)+"="+kv.Value.String() == wanted }) {
			return false
		}
	}
	return true
}

func points(data metricdata.Aggregation) []point {
	var all []point
	switch data := data.(type) {
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			all = append(all, point{p.Attributes, p.Value})
		}
	case metricdata.Gauge[int64]:
		for _, p := range data.DataPoints {
			all = append(all, point{p.Attributes, float64(p.Value)})
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			all = append(all, point{p.Attributes, float64(p.Count)})
		}
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			all = append(all, point{p.Attributes, float64(p.Value)})
		}
	}
	return all
}
