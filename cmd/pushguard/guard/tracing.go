package guard

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/version"
	"github.com/pushguard/pushguard/pusher/proxy"
)

// tracing sends spans to a collector in the background. What the collector does
// not take in time is dropped: a queue of 2,048 spans, never a wait.
type tracing struct {
	tracer   trace.Tracer
	shutdown func(context.Context) error
}

// newTracing is nil where the config has none: then the data port has no tracer
// at all. Nothing is connected yet: a collector that is down must not keep a
// guard from starting.
func newTracing(ctx context.Context, cfg *config.Tracing, replica string, log *slog.Logger) (*tracing, error) {
	if cfg == nil {
		return nil, nil
	}
	u, err := url.Parse(cfg.OTLP)
	if err != nil {
		return nil, fmt.Errorf("tracing.otlp: %w", err)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	options := []otlptracehttp.Option{
		otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(5 * time.Second),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
	}
	if !cfg.Authorization.IsZero() {
		options = append(options, otlptracehttp.WithHeaders(map[string]string{"Authorization": cfg.Authorization.Reveal()}))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	var said atomic.Int64 // when a failure was last told, in ns
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		now := time.Now().UnixNano()
		if last := said.Load(); now-last >= int64(time.Minute) && said.CompareAndSwap(last, now) {
			log.Warn("traces are lost: the collector does not take them; publishes are not touched by it", "collector", u.Host, "err", err)
		}
	}))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(2*time.Second)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(float64(cfg.Sample)))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "pushguard"), attribute.String("service.version", version.Build()), attribute.String("service.instance.id", replica))),
	)
	return &tracing{tracer: provider.Tracer(proxy.TracerName), shutdown: provider.Shutdown}, nil
}
