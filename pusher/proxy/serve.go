package proxy

import (
	"bytes"
	"context"
	"net"
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// job is the scratch of one request. Every slice and string in it borrows from
// the request, so it lives exactly as long as the handler runs.
type job struct {
	query     pusher.Query
	decoder   pusher.Decoder
	items     []item
	judging   []limiter.Judging
	channels  []string // backing store of the items' channel lists
	target    []byte   // path and signed query sent upstream
	body      []byte   // a body built anew because part of a batch was held back
	wire      []byte   // the request as it goes to Pusher
	outcome   []byte
	origin    []byte
	in        *wire.Request // what is asked
	parsed    wire.Request  // in, where fasthttp read it
	response  wire.Response // what is answered
	req       fasthttp.Request
	resp      fasthttp.Response
	asked     bool // req was used
	answered  bool // resp was used
	wait      waiter
	turn      turn // its place before the upstream
	due       deadline
	errand    errand          // its call, while nobody waits for it
	standsFor int             // it is the one of so many refused requests that is judged; else 0
	judged    time.Time       // when the last of it had its verdict
	merged    [][]byte        // the channels of a publish that carries several waiters'
	trace     context.Context // with the request's span; nil: not traced
	links     []trace.Link    // to those who share this job's call
}

// item is one event of a request on its way through judgement and sending.
type item struct {
	publish  *pusher.Publish
	claim    limiter.Claim
	verdict  limiter.Verdict
	state    itemState
	observed bool   // it was counted as offered
	info     []byte // the object Pusher answered for it, when info was asked
	// deliveries is how many subscribers Pusher counted, where it said so.
	deliveries int64
	counted    bool
}

type itemState uint8

const (
	toJudge  itemState = iota // not judged yet, or to be judged again
	toSend                    // admitted: part of the next call
	inFlight                  // the same as one that is being sent: waits for its fate
	settled                   // its verdict is final
)

func newJob() *job {
	j := &job{items: make([]item, 0, 10), channels: make([]string, 0, 16)}
	j.wait.wake = make(chan struct{}, 1)
	j.resp.KeepBodyBuffer = true
	return j
}

func (j *job) release() {
	clear(j.items) // beyond their lengths all is clear
	clear(j.judging)
	clear(j.channels)
	j.items, j.channels = j.items[:0], j.channels[:0]
	clear(j.merged)
	if j.asked {
		j.asked = false
		j.req.Reset()
	}
	if j.answered {
		j.answered = false
		j.resp.ReleaseBody(64 << 10)
		j.resp.Reset()
	}
	if j.wait.j != nil {
		j.wait.release()
	}
	j.turn.probe = false
	j.due.until = time.Time{}
	if j.in == &j.parsed {
		j.parsed = wire.Request{}
	}
	j.in, j.response = nil, wire.Response{}
	if cap(j.body) > 64<<10 || cap(j.wire) > 64<<10 { // one large batch must not stay pinned in the pool
		j.body, j.wire = nil, nil
	}
}

// borrow turns bytes of the request into a string without a copy; it must not
// outlive the request.
func borrow(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// bytesOf is the bytes of a string, which must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// serve answers a request.
func (p *Proxy) serve(ctx *fasthttp.RequestCtx) { p.begin(ctx, nil) }

// begin answers a request. With a visit, which the express lane has framed, it
// may instead let the request go on later, when Pusher has answered, so that
// nobody waits for that: then it reports true, resume ends what it began, and
// neither ctx nor v are the caller's any more.
func (p *Proxy) begin(ctx *fasthttp.RequestCtx, v *visit) (later bool) {
	p.inFlight.Add(1)
	j := p.jobs.Get().(*job)
	defer func() {
		if r := recover(); r != nil {
			p.failed(ctx, j, v, r)
		} else if !later {
			p.end(ctx, j, v)
		}
	}()
	return p.handle(ctx, j, v)
}

// resume ends a request that begin left.
func (p *Proxy) resume(ctx *fasthttp.RequestCtx, j *job, v *visit) {
	defer func() {
		if r := recover(); r != nil {
			p.failed(ctx, j, v, r)
		} else {
			p.end(ctx, j, v)
		}
	}()
	p.arrive(j, j.errand.pr.app.land(j, v))
}

// end answers, and lets go of what the request was answered with.
func (p *Proxy) end(ctx *fasthttp.RequestCtx, j *job, v *visit) {
	if j.trace != nil {
		j.endSpan()
	}
	if v != nil {
		whole(&j.response)
		v.take(&j.response)
	} else {
		j.response.CopyTo(&ctx.Response)
	}
	j.release()
	p.jobs.Put(j)
	p.inFlight.Add(-1)
}

// failed answers a request that met a defect, which must cost that one and not
// the process that carries everybody's. The job is not pooled again: its state is
// unknown.
func (p *Proxy) failed(ctx *fasthttp.RequestCtx, j *job, v *visit, r any) {
	defer p.inFlight.Add(-1)
	p.stats.panics.Add(1)
	p.log.Error("a request made pushguard panic; it was answered 500", "panic", r, "stack", string(debug.Stack()))
	j.response = wire.Response{}
	refuse(&j.response, fasthttp.StatusInternalServerError, "internal_error",
		"pushguard failed on this request because of a defect of its own; nothing is known of its fate. Please report it with the log line.")
	if j.trace != nil {
		j.items = nil // they may be half made
		j.endSpan()
	}
	ctx.Response.Reset()
	if v != nil {
		v.take(&j.response)
	} else {
		j.response.CopyTo(&ctx.Response)
	}
}

// handle takes a request from its routing to its answer, or to its call to
// Pusher.
func (p *Proxy) handle(ctx *fasthttp.RequestCtx, j *job, v *visit) (later bool) {
	r := &j.response
	j.standsFor = v.sample()
	if j.in = v.asked(); j.in == nil {
		j.parsed.FromFasthttp(&ctx.Request)
		j.in = &j.parsed
	}
	if v == nil { // the lane takes none of those
		if why := wire.Smuggling(&ctx.Request.Header); why != "" {
			p.stats.refused(fasthttp.StatusBadRequest)
			refuse(r, fasthttp.StatusBadRequest, "invalid_request", why)
			r.Last = true
			return false
		}
	}
	if p.retiring.Load() {
		r.Last = true
	}
	if p.draining.Load() {
		p.unavailable(j, "draining", fasthttp.StatusServiceUnavailable, time.Second,
			"this pushguard replica is shutting down; send the request again, another replica will take it.")
		r.Last = true
		return false
	}
	if p.crowded(j) {
		return false
	}
	path, query := splitTarget(j.in.Target)
	method := j.in.Method
	if e := misspelled(method, path); e != nil {
		p.stats.refused(e.Status)
		refuse(r, e.Status, "invalid_request", e.Text)
		return false
	}
	ep, id, channel := route(method, path)
	switch ep {
	case epNone:
		refuse(r, fasthttp.StatusNotFound, "not_found",
			"this is pushguard's data port: it serves Pusher Channels' HTTP API below /apps/{app_id}/. Dashboard, metrics and health are on the admin port.")
		return false
	case epWebhook:
		p.webhook(ctx, j, string(id))
		return false
	}
	if p.cfg.Tracer != nil {
		p.beginSpan(ctx, j, ep)
	}
	now := p.now()
	pr, e := p.authenticate(j, method, path, query, id, now)
	if e != nil {
		p.stats.refused(e.Status)
		refuse(r, e.Status, "invalid_request", e.Text)
		return false
	}
	if len(j.in.LoadTest) > 0 && !pr.loadTest {
		p.stats.refused(fasthttp.StatusForbidden)
		refuse(r, fasthttp.StatusForbidden, "not_a_load_test", loadTestRefused)
		return false
	}
	events, batch, isPublish, e := p.decode(j, pr.app, ep, channel)
	if e != nil {
		p.stats.refused(e.Status)
		refuse(r, e.Status, "invalid_request", e.Text)
		return false
	}
	if !isPublish {
		p.relay(j, pr, path, now)
		return false
	}
	if pr.own {
		o := p.originOf(ctx, j, pr.app)
		o.publishes.Add(int64(len(events)))
	}
	return p.publish(j, pr, batch, path, events, now, v)
}

const loadTestRefused = "this request is marked as a load test (Pushguard-Load-Test), but its key belongs to no caller with load_test: true, so it would have been sent for real; nothing was sent."

// decode reads what is published, or checks what is asked, as Pusher would.
func (p *Proxy) decode(j *job, a *App, ep endpoint, channel []byte) (events []pusher.Publish, batch, isPublish bool, e *pusher.Error) {
	body := j.in.Body
	switch ep {
	case epEvents:
		events, e = j.decoder.Events(body, &j.query, &a.Limits)
		return events, false, true, e
	case epBatch:
		events, e = j.decoder.Batch(body, &a.Limits)
		return events, true, true, e
	case epChannelEvents:
		events, e = j.decoder.ChannelEvent(unescaped(channel), body, &j.query, &a.Limits)
		return events, false, true, e
	case epChannels:
		return nil, false, false, pusher.CheckChannels(&j.query)
	case epChannel:
		return nil, false, false, pusher.CheckChannel(unescaped(channel), &j.query, &a.Limits)
	case epChannelUsers:
		return nil, false, false, pusher.CheckUsers(unescaped(channel), &a.Limits)
	}
	return j.unknownPublish(a, j.in.Method)
}

// authenticate finds out who signed the request, and whether they really did,
// before anything is spent.
func (p *Proxy) authenticate(j *job, method, path, query, id []byte, now time.Time) (*principal, *pusher.Error) {
	if err := j.query.Parse(query); err != nil {
		return nil, &pusher.Error{Status: fasthttp.StatusBadRequest, Text: err.Error()}
	}
	name, ok := j.query.Get("auth_key")
	if !ok {
		return nil, pusher.MissingParameter("auth_key")
	}
	pr := p.table.Load().byKey[string(name)]
	if pr == nil || (id != nil && string(id) != pr.app.ID) {
		return nil, pusher.UnknownKey(name)
	}
	var e *pusher.Error
	for _, k := range pr.keys {
		if e = k.Verify(borrow(method), path, &j.query, j.in.Body, now); e == nil {
			return pr, nil
		}
	}
	return nil, e
}

// refuseUnread answers what fasthttp could not read as a request at all.
func (p *Proxy) refuseUnread(ctx *fasthttp.RequestCtx, err error) {
	r := p.unread(err)
	r.CopyTo(&ctx.Response)
	if c, ok := ctx.Conn().(lingerer); ok && r.Status == fasthttp.StatusRequestEntityTooLarge {
		c.lingerOnClose()
	}
}

// lingerer is a connection that can be closed so that the peer, who is still
// sending, reads the last answer.
type lingerer interface{ lingerOnClose() }

// expected answers a client that asks before it sends a body: what would be
// refused for its length is refused now.
func (p *Proxy) expected(ctx *fasthttp.RequestCtx) int {
	if ctx.Request.Header.ContentLength() <= p.server.MaxRequestBodySize {
		return fasthttp.StatusContinue
	}
	r := p.unread(fasthttp.ErrBodyTooLarge)
	r.CopyTo(&ctx.Response)
	return r.Status
}

// unread is the answer to what cannot be read as a request.
func (p *Proxy) unread(err error) (r wire.Response) {
	status, text := fasthttp.StatusBadRequest, "this is not a request that HTTP/1.1 allows; check the client's host and port."
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case asError(err, &small):
		status, text = fasthttp.StatusRequestHeaderFieldsTooLarge, "the request line and headers together are longer than 16 KiB; Pusher's SDKs send less than 2 KiB."
	case isError(err, fasthttp.ErrBodyTooLarge):
		status, text = fasthttp.StatusRequestEntityTooLarge, "the body is larger than any publish that Pusher accepts (10 events of 10 kB); it was cut off while reading."
	case asError(err, &netErr) && netErr.Timeout():
		status, text = fasthttp.StatusRequestTimeout, "the request did not arrive whole in time."
	}
	p.stats.refused(status)
	refuse(&r, status, "invalid_request", text)
	r.Last = true
	return r
}

var from = []byte(" from ")

// originOf tells apart those who share the app's own pair: by the SDK's name in
// its header and by the peer's address.
func (p *Proxy) originOf(ctx *fasthttp.RequestCtx, j *job, a *App) *origin {
	lib := j.in.Library
	b := j.origin[:0]
	if len(lib) == 0 {
		if lib = j.in.LibraryName; len(lib) == 0 {
			b = append(b, "unnamed SDK"...)
		} else {
			b = appendLabel(b, lib)
			b = append(b, ' ')
			lib = j.in.LibraryVersion
		}
	}
	b = appendLabel(b, lib)
	b = append(b, from...)
	if tcp, ok := ctx.RemoteAddr().(*net.TCPAddr); ok {
		b, _ = tcp.AddrPort().Addr().Unmap().AppendText(b)
	} else {
		b = append(b, "elsewhere"...)
	}
	j.origin = b
	return a.origins.of(b)
}

// appendLabel adds what a stranger sent as a header, bounded and printable, as
// it will stand on dashboards and in terminals.
func appendLabel(b, s []byte) []byte {
	const longest = 48
	s = bytes.TrimSpace(s)
	if len(s) > longest {
		s = s[:longest]
	}
	for _, c := range s {
		if c < ' ' || c > '~' {
			c = '?'
		}
		b = append(b, c)
	}
	return b
}
