package proxy

import (
	"context"
	"strings"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// A trace has two kinds of span. One for a request on the data port, child of
// what the caller's traceparent names; one for the call to Pusher, whose
// traceparent goes out with it. A folded call is the child of the publish that
// made it, with a link to each of the others.
//
// Names of channels are in no span: they often hold a user's id, and a trace
// goes to a further party.

var traceContext propagation.TraceContext

// carrier reads and writes a request's headers as W3C's trace context wants.
type carrier struct{ h *fasthttp.RequestHeader }

func (c carrier) Get(key string) string { return string(c.h.Peek(key)) }
func (c carrier) Set(key, value string) { c.h.Set(key, value) }
func (c carrier) Keys() []string        { return nil } // only baggage asks, and it is not read

var spanNames = [...]string{
	epNone: "other", epEvents: "POST events", epBatch: "POST batch_events", epChannelEvents: "POST channel events",
	epChannels: "GET channels", epChannel: "GET channel", epChannelUsers: "GET channel users", epWebhook: "POST webhook",
}

func spanName(ep endpoint) string {
	if int(ep) < len(spanNames) && spanNames[ep] != "" {
		return "pushguard " + spanNames[ep]
	}
	return "pushguard other"
}

// beginSpan begins the span of one request. It is called only with a Tracer.
func (p *Proxy) beginSpan(ctx *fasthttp.RequestCtx, j *job, ep endpoint) {
	h := &ctx.Request.Header
	parent := traceContext.Extract(context.Background(), carrier{h})
	j.trace, _ = p.cfg.Tracer.Start(parent, spanName(ep), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", string(h.Method()))))
}

// endSpan ends the request's span with what the caller was told.
func (j *job) endSpan() {
	span := trace.SpanFromContext(j.trace)
	if span.IsRecording() {
		r := &j.response
		span.SetAttributes(
			attribute.Int("http.response.status_code", r.Status),
			attribute.String("pushguard.outcome", strings.Clone(r.Outcome)),
			attribute.String("pushguard.reason", strings.Clone(r.Reason)),
			attribute.Int("messaging.batch.message_count", len(j.items)),
		)
		if len(j.items) > 0 {
			it := &j.items[0]
			span.SetAttributes(
				attribute.String("pushguard.caller", strings.Clone(it.claim.Caller.Name())),
				attribute.String("pushguard.event", strings.Clone(it.claim.Event)), // it borrows from the request
				attribute.Int64("pushguard.messages", it.claim.Cost),
			)
			if it.claim.Rule != nil {
				span.SetAttributes(attribute.String("pushguard.rule", it.claim.Rule.Name()))
			}
		}
		if r.Status >= 500 {
			span.SetStatus(codes.Error, "")
		}
	}
	span.End()
	j.trace = nil
}

// beginCall begins the span of the call to Pusher, and writes its context into
// the request.
func (j *job) beginCall(u *Upstream, req *fasthttp.Request, method string) trace.Span {
	parent := trace.SpanFromContext(j.trace)
	ctx, span := parent.TracerProvider().Tracer(TracerName).Start(j.trace, "pusher "+method, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithLinks(j.links...),
		trace.WithAttributes(attribute.String("server.address", u.url.Host), attribute.String("http.request.method", strings.Clone(method))))
	j.links = j.links[:0]
	traceContext.Inject(ctx, carrier{&req.Header})
	return span
}

func endCall(span trace.Span, status int, err error) {
	if err != nil {
		// Not the error's text: it can hold the signed URL.
		span.SetStatus(codes.Error, "Pusher gave no answer")
	} else {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= 500 {
			span.SetStatus(codes.Error, "")
		}
	}
	span.End()
}

// linkGroup ties the publishes that share the leader's call to its span.
func linkGroup(group []*waiter) {
	j := group[0].j
	j.links = j.links[:0]
	for _, w := range group[1:] {
		if w.j.trace != nil {
			j.links = append(j.links, trace.LinkFromContext(w.j.trace))
		}
	}
}

// TracerName is the instrumentation scope of all spans.
const TracerName = "github.com/pushguard/pushguard"
