package proxy

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/pusher/upstream"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// UpstreamConfig says where an app's publishes go and how much failure is too
// much.
type UpstreamConfig struct {
	// URL is scheme and host: "https://api-eu.pusher.com" or
	// "http://127.0.0.1:6001". A path is refused: Pusher's paths are signed.
	URL string
	// Key signs what goes out.
	Key *pusher.Key
	// Timeout bounds one call, from the wait for a connection to the last byte
	// of the answer. 0 means 4 s, which is shorter than the SDKs' own 5 s, so
	// that the caller hears the reason.
	Timeout time.Duration
	// MaxCalls bounds requests under way to the upstream, and with them its connections,
	// apart from those that hang from before an answer that ended a stall. 0 means 4096.
	MaxCalls int
	// FailureRate, MinCalls and Window: the breaker opens when at least
	// MinCalls calls ended within Window and FailureRate (0–1) of them failed.
	// 0 means 0.5, 20 calls, 10 s. A ratio and not a count, so that a busy app
	// does not trip on a handful.
	FailureRate float64
	MinCalls    uint
	Window      time.Duration
	// Off sends whatever happens.
	Off bool
	// Cooldown is how long an open breaker waits before it lets probes through.
	// 0 means 5 s.
	Cooldown time.Duration
	// OnBreaker, if set, is told of each change of the breaker's state. It runs
	// inside the breaker and must not call the Upstream.
	OnBreaker func(from, to string, failureRate float64)
	// OnSilence, if set, is told when Pusher answers nothing any more, with for how
	// long it has not, and when it answers again. It must not call the Upstream.
	OnSilence func(silent bool, lasted time.Duration)
	// Roots may sign for the upstream; nil: the system's.
	Roots *x509.CertPool
	// OnLacking, if set, is told once of an endpoint that the upstream does not have.
	OnLacking func(endpoint string)
	// ReadMost bounds the answer to a read, in bytes. 0 means 256 MiB.
	ReadMost int64
	// OnUnauthorized, if set, is told what Pusher says against a signature of pushguard's, without any signature. It may be
	// called for every request and must not call the Upstream.
	OnUnauthorized func(said string)
	// Seconds, if set, takes the duration of each call.
	Seconds prometheus.Observer
	// Sink, if set, answers every call in Pusher's place; nothing is sent and no
	// connection made. It keeps neither request nor response.
	Sink func(req *fasthttp.Request, resp *fasthttp.Response)
}

// Upstream is Pusher as one app reaches it: kept-alive connections, a timeout
// and a circuit breaker. It is safe for concurrent use.
//
// It never sends a request twice. A publish whose answer did not come may have
// been delivered, and only its caller can know whether twice is better than
// never.
type Upstream struct {
	key     *pusher.Key
	url     *url.URL
	proxy   *url.URL // nil: none
	dial    upstream.Dial
	client  *fasthttp.HostClient
	conns   *upstream.Conns // instead of client, where that is possible
	slots   upstream.Slots
	breaker circuitbreaker.CircuitBreaker[any]
	// asks is the breaker of the guard's own questions: that lists of channels take long
	// says nothing of publishes. Callers' reads have none.
	asks    circuitbreaker.CircuitBreaker[any]
	timeout time.Duration
	off     bool
	// admission bounds what is under way to it.
	admission *admission
	sink      func(*fasthttp.Request, *fasthttp.Response)

	askOnce   sync.Once
	askClient *http.Client // for questions of the guard's own

	reads     reads
	unescapes atomic.Bool // it unescapes a path before it checks a signature, as was learned

	lastFault          atomic.Pointer[string] // what was last answered that is no answer of Pusher's
	onRefusedSignature func(said string)
	onLacking          func(endpoint string)

	codes   [600]atomic.Int64 // answers by status; 0 stands for none at all
	seconds prometheus.Observer
}

// NewUpstream checks cfg and connects to nothing yet.
func NewUpstream(cfg UpstreamConfig) (*Upstream, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("upstream: %w", err)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("upstream %q: write http://host:port or https://host", cfg.URL)
	case u.Host == "", strings.Trim(u.Path, "/") != "", u.RawQuery != "", u.User != nil:
		return nil, fmt.Errorf("upstream %q: only scheme, host and port are possible, because Pusher's signature covers the path", u.Redacted())
	case cfg.Key == nil:
		return nil, errors.New("upstream: no key to sign with")
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	up := &Upstream{key: cfg.Key, url: u, timeout: or(cfg.Timeout, 4*time.Second), admission: newAdmission(or(cfg.Timeout, 4*time.Second), int64(or(cfg.MaxCalls, paceMost)))}
	up.admission.stall.told = cfg.OnSilence
	up.seconds, up.sink = cfg.Seconds, cfg.Sink
	up.reads.most, up.reads.busy = or(cfg.ReadMost, defaultReadMost), make(chan struct{}, readsAtOnce)
	up.onRefusedSignature, up.onLacking = cfg.OnUnauthorized, cfg.OnLacking
	dialer := &fasthttp.TCPDialer{Concurrency: or(cfg.MaxCalls, paceMost), DNSCacheDuration: 30 * time.Second, Resolver: upstream.NoLinkLocal{Next: net.DefaultResolver}}
	up.dial = func(addr string, timeout time.Duration) (net.Conn, error) {
		if timeout <= 0 || timeout > up.timeout {
			timeout = up.timeout
		}
		c, err := dialer.DialDualStackTimeout(addr, timeout)
		if err != nil {
			return nil, &upstream.NotSentError{Err: err}
		}
		return c, nil
	}
	if up.proxy, err = ForwardProxy(cfg.URL); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	if up.proxy != nil {
		up.dial = through(up.proxy, up.dial)
	}
	dial := func(addr string, timeout time.Duration) (net.Conn, error) { return up.dial(addr, timeout) }
	up.client = &fasthttp.HostClient{
		Addr:        addr,
		DialTimeout: dial,
		MaxConns:    math.MaxInt, // slots bounds them
		// A connection that Pusher's side has closed is only noticed by
		// sending on it, and then the publish's fate is unknown. So idle ones
		// go early, well before the 60 s of the usual load balancer.
		MaxIdleConnDuration:       15 * time.Second,
		MaxIdemponentCallAttempts: 1,
		RetryIfErr:                func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
		ReadTimeout:               up.timeout,
		WriteTimeout:              up.timeout,
		MaxResponseBodySize:       8 << 20,
		ReadBufferSize:            maxAnswerHead,
		NoDefaultUserAgentHeader:  true,
		DisablePathNormalizing:    true,
		SecureErrorLogMessage:     true,
	}
	if c := up.client; u.Scheme == "https" {
		c.IsTLS, c.TLSConfig = true, upstream.TLSConfig(u.Hostname())
		c.TLSConfig.RootCAs = cfg.Roots
		c.DialTimeout = func(addr string, timeout time.Duration) (net.Conn, error) {
			until := time.Now().Add(or(timeout, up.timeout))
			tcp, err := dial(addr, timeout)
			if err != nil {
				return nil, err
			}
			sec, err := upstream.Handshake(tcp, c.TLSConfig, until)
			if err != nil {
				return nil, err
			}
			return sec, nil
		}
	}
	up.slots.SetMost(or(cfg.MaxCalls, paceMost))
	up.admission.stall.over = up.slots.Reset
	up.conns = upstream.NewConns(addr, up.client, dial, &up.slots)
	up.off = cfg.Off
	rate := or(cfg.FailureRate, 0.5)
	breaker := func() circuitbreaker.Builder[any] {
		return circuitbreaker.NewBuilder[any]().
			WithFailureRateThreshold(rate, or(cfg.MinCalls, 20), or(cfg.Window, 10*time.Second)).
			WithDelay(or(cfg.Cooldown, 5*time.Second)).
			WithSuccessThreshold(3)
	}
	up.asks = breaker().Build()
	up.breaker = breaker().
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			if cfg.OnBreaker != nil {
				cfg.OnBreaker(e.OldState.String(), e.NewState.String(), e.Metrics().FailureRate())
			}
		}).
		Build()
	return up, nil
}

// State is "closed", "open" or "half-open", with the share of recent calls that
// failed, 0–1.
func (u *Upstream) State() (state string, errorRate float64) {
	return u.breaker.State().String(), u.breaker.Metrics().FailureRate()
}

// Host is where this upstream is, without credentials.
func (u *Upstream) Host() string { return u.url.Scheme + "://" + u.url.Host }

// Codes calls f for each status that upstream answered, with its count; status
// 0 stands for calls that got no answer.
func (u *Upstream) Codes(f func(status int, n int64)) {
	for i := range u.codes {
		if n := u.codes[i].Load(); n > 0 {
			f(i, n)
		}
	}
}

// Close drops idle connections.
func (u *Upstream) Close() {
	if u.conns != nil {
		u.conns.Close()
	}
	u.client.CloseIdleConnections()
	u.asking().CloseIdleConnections()
	u.reader().CloseIdleConnections()
}

// answer is what became of one upstream call. Its body borrows from the job.
type answer struct {
	fate    limiter.Fate
	outcome limiter.Outcome // Sent where Pusher's own answer is passed on
	reason  limiter.Reason
	word    string // reason as the header has it, where it is this border's own
	status  int
	body    []byte
	// contentType of body; empty where pushguard made it, which is JSON.
	contentType []byte
	encoding    []byte  // of body, where it is not plain
	share       sharing // how the call was shared with other publishes, for its price
	text        string  // for people, where pushguard answers instead of Pusher
	retryAfter  time.Duration
	ended       time.Time // when the call was over; zero if none was made
	quotaSpent  bool      // Pusher said that the account is over its message quota
	silent      bool      // Pusher was waited for in vain, or not at all
}

var (
	contentJSON  = []byte("application/json")
	contentPlain = []byte("text/plain; charset=utf-8")
)

// outgoing is one request to Pusher, before it is signed.
type outgoing struct {
	method  string
	path    []byte
	query   *pusher.Query // the caller's own parameters are kept; nil: none
	body    []byte
	library []byte // the caller's SDK, as it calls itself
	// unescaped: the signature is over the unescaped path.
	unescaped bool
}

// call signs a request anew and sends it once, with the job's scratch.
func (u *Upstream) call(j *job, out outgoing, now time.Time) (got answer) {
	if j.due.over(moment()) {
		return late(awaitedPlace, u.timeout)
	}
	if !u.off && !u.breaker.TryAcquirePermit() {
		wait := max(u.breaker.RemainingDelay(), time.Second)
		return answer{
			fate: limiter.NotSent, outcome: limiter.Unavailable, reason: limiter.UpstreamFailing, word: "upstream_breaker_open",
			status: fasthttp.StatusServiceUnavailable, retryAfter: wait,
			text: "Pusher at " + u.url.Host + " is failing, so pushguard's circuit breaker does not send to it; the request was not sent and cost no message." + u.fault(),
		}
	}
	u.sign(j, &out, now)
	began := moment()
	return u.became(j, &out, u.exchange(j, out, began), began, now)
}

// sign leaves the path and the signed query in j.target.
func (u *Upstream) sign(j *job, out *outgoing, now time.Time) {
	j.target = append(append(j.target[:0], out.path...), '?')
	if out.unescaped {
		j.target = u.key.AppendSignedUnescaped(j.target, out.method, out.path, out.query, out.body, now)
		return
	}
	j.target = u.key.AppendSigned(j.target, out.method, out.path, out.query, out.body, now)
}

// became says what became of a call that ended with err, or with the answer in
// j.resp.
func (u *Upstream) became(j *job, asked *outgoing, err error, began, now time.Time) (got answer) {
	ended := moment()
	defer func() { got.ended = ended }()
	if u.seconds != nil {
		u.seconds.Observe(ended.Sub(began).Seconds())
	}
	if err != nil {
		if oversize(err) { // it was answered
			u.breaker.RecordSuccess()
		} else {
			u.breaker.RecordFailure()
		}
		u.codes[0].Add(1)
		return u.failed(asked, err)
	}
	resp := &j.resp
	status := resp.StatusCode()
	if status >= 0 && status < len(u.codes) {
		u.codes[status].Add(1)
	}
	if status >= 500 {
		u.breaker.RecordFailure()
		return u.failing(asked, resp, now)
	}
	got, faulty := u.understand(j, asked, resp, now)
	if faulty {
		u.breaker.RecordFailure()
		return got
	}
	u.breaker.RecordSuccess()
	if u.lastFault.Load() != nil {
		u.lastFault.Store(nil)
	}
	return got
}

// failing is what is made of an answer of 500 or above.
func (u *Upstream) failing(asked *outgoing, resp *fasthttp.Response, now time.Time) answer {
	status := resp.StatusCode()
	out := answer{fate: limiter.Unknown, outcome: limiter.Unavailable, reason: limiter.UpstreamFailing, word: "upstream_error", status: fasthttp.StatusBadGateway, retryAfter: time.Second}
	if status == fasthttp.StatusServiceUnavailable || status == fasthttp.StatusGatewayTimeout {
		out.status = status
	}
	out.text = fmt.Sprintf("Pusher answered %d. %s", status, fateText(asked))
	if after := retryAfter(resp.Header.PeekBytes(headerRetryAfter), now); after > 0 {
		out.retryAfter = after
	}
	return out
}

// exchange sends the request that j.target names, and has the answer in j.resp.
func (u *Upstream) exchange(j *job, out outgoing, began time.Time) (err error) {
	resp := &j.resp
	if j.answered { // a group that was split, an event that is tried again
		resp.Reset()
	}
	j.answered = true
	if u.sink == nil && !j.turn.probe {
		slot, err := u.slots.Take(j.due.until)
		if err != nil {
			return err
		}
		defer slot.Free()
	}
	if u.conns != nil && u.sink == nil && j.trace == nil {
		j.wire = u.appendRequest(j.wire[:0], out, j.target)
		return u.conns.Do(j.wire, out.method == fasthttp.MethodHead, resp, j.due.began(u.timeout))
	}
	req := &j.req
	req.Reset()
	j.asked = true
	req.Header.SetMethod(out.method)
	req.Header.SetHost(u.url.Host)
	req.SetRequestURIBytes(j.target)
	req.URI().DisablePathNormalizing = true
	req.URI().SetScheme(u.url.Scheme)
	if len(out.library) > 0 {
		req.Header.SetBytesKV(wire.HeaderLibrary, out.library)
	}
	if len(out.body) > 0 {
		req.Header.SetContentTypeBytes(contentJSON)
		req.SetBodyRaw(out.body)
	}
	var span trace.Span
	if j.trace != nil {
		span = j.beginCall(u, req, out.method)
	}
	if u.sink != nil {
		u.sink(req, resp)
	} else {
		err = u.client.DoDeadline(req, resp, j.due.until)
	}
	if span != nil {
		endCall(span, resp.StatusCode(), err)
	}
	return err
}

// appendRequest writes a request as fasthttp's client would. What it is made of
// was read by fasthttp's server, so no part can hold a line's end.
func (u *Upstream) appendRequest(b []byte, out outgoing, target []byte) []byte {
	b = append(append(b, out.method...), ' ')
	b = append(append(b, target...), " HTTP/1.1\r\nHost: "...)
	b = append(b, u.url.Host...)
	if len(out.library) > 0 {
		b = append(append(b, "\r\nX-Pusher-Library: "...), out.library...)
	}
	if len(out.body) > 0 {
		b = append(b, "\r\nContent-Type: application/json"...)
	}
	if len(out.body) > 0 || (out.method != fasthttp.MethodGet && out.method != fasthttp.MethodHead) {
		b = strconv.AppendInt(append(b, "\r\nContent-Length: "...), int64(len(out.body)), 10)
	}
	return append(append(b, "\r\n\r\n"...), out.body...)
}

// failed tells a request that never left from one whose fate is unknown. The
// error's own text is not passed on: it can hold the signed URL.
func (u *Upstream) failed(asked *outgoing, err error) answer {
	var early *upstream.NotSentError
	var netErr net.Error
	out := answer{outcome: limiter.Unavailable, reason: limiter.UpstreamFailing, retryAfter: time.Second}
	switch {
	case errors.As(err, &early):
		out.silent = errors.Is(err, fasthttp.ErrDialTimeout)
		out.fate, out.status, out.word = limiter.NotSent, fasthttp.StatusBadGateway, "upstream_unreachable"
		out.text = "Pusher at " + u.url.Host + " cannot be reached (" + connectFailure(early.Err) + "); the request was not sent and cost no message."
	case errors.Is(err, fasthttp.ErrNoFreeConns):
		out.silent = true // all were busy for as long as a call may take
		out.fate, out.status, out.word = limiter.NotSent, fasthttp.StatusServiceUnavailable, "upstream_connections_busy"
		out.text = "all connections to Pusher are busy; the request was not sent and cost no message."
	case errors.Is(err, fasthttp.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		out.silent = true
		out.fate, out.status, out.word = limiter.Unknown, fasthttp.StatusGatewayTimeout, "upstream_timeout"
		out.text = "Pusher did not answer within " + u.timeout.String() + ". " + fateText(asked)
	default:
		out.fate, out.status, out.word = limiter.Unknown, fasthttp.StatusBadGateway, "upstream_connection_lost"
		out.text = "the connection to Pusher broke before it answered. " + fateText(asked)
	}
	return out
}

// connectFailure names a failed connect without addresses or URLs.
func connectFailure(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	if text := upstream.TLSFailure(err); text != "" {
		return text
	}
	switch {
	case errors.As(err, &dns):
		return "its name cannot be resolved"
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	}
	return "connecting failed"
}

// oversize tells an answer that is larger than our buffers from none.
func oversize(err error) bool {
	var small *fasthttp.ErrSmallBuffer
	return errors.As(err, &small) || errors.Is(err, fasthttp.ErrBodyTooLarge)
}

// firstLine bounds a text from upstream to what fits a log line.
func firstLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return b[:min(len(b), 200)]
}

func asError[T error](err error, target *T) bool { return errors.As(err, target) }
func isError(err, target error) bool             { return errors.Is(err, target) }
