package telemetry

import (
	"context"
	"log/slog"
	"os"

	"github.com/mattn/go-isatty"
	"go.opentelemetry.io/otel/trace"
)

func newLog(cfg Config) *slog.Logger {
	options := &slog.HandlerOptions{ReplaceAttr: legible}
	if cfg.Debug {
		options.Level = slog.LevelDebug
	}
	out := cfg.Out
	if out == nil {
		out = os.Stderr
	}
	if f, ok := out.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		return slog.New(traced{slog.NewTextHandler(out, options)})
	}
	return slog.New(traced{slog.NewJSONHandler(out, options)}).With("service", cfg.Service)
}

// legible writes durations as 1.5s; slog's JSON has nanoseconds.
func legible(_ []string, attr slog.Attr) slog.Attr {
	if attr.Value.Kind() == slog.KindDuration {
		attr.Value = slog.StringValue(attr.Value.Duration().String())
	}
	return attr
}

// traced adds the ids of the span in the context to each record.
type traced struct{ slog.Handler }

func (h traced) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		record = record.Clone()
		record.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, record)
}

func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }

func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }
