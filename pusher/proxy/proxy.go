// Package proxy is the data port: Pusher Channels' HTTP API towards app
// servers, the same API towards Pusher, and the judgement of package limiter
// in between.
//
// A request goes one way: it is routed by its auth key, verified as Pusher
// verifies, decoded once, judged, sent, settled, answered. Everything that one
// request needs lives in a pooled job, so that a steady caller costs no heap
// allocation here.
//
// The HTTP server and client are fasthttp. net/http on both sides was measured
// at about a third of its throughput for this shape of traffic (small bodies,
// kept-alive connections, one upstream), and every publish of every app server
// crosses this code. HTTP/2, which some SDKs agree on over TLS, is net/http's
// (h2.go), on its way into the same code.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// Config is what a Proxy needs once, at its start; what can change while it
// runs is in the apps given to Apply.
type Config struct {
	// Log takes the proxy's few lines: states that change, never one a request.
	Log *slog.Logger
	// Tracer, if set, gets a span of each request and each call to Pusher, and
	// the callers' W3C trace context is passed on. nil costs nothing.
	Tracer trace.Tracer
	// Now is the border's clock, read once a request. Nil means time.Now.
	Now func() time.Time
	// MaxBody bounds a request's body in bytes; more is cut off while reading
	// and answered 413. 0 means 1 MiB, which holds a full batch of ten events
	// of 10 kB in their longest JSON escaping.
	MaxBody int
	// MaxConns bounds connections of all peers together, MaxConnsPerIP those of
	// one. 0 means 65,536 and no bound a peer.
	MaxConns, MaxConnsPerIP int
	// ReadTimeout bounds the reading of one request, headers and body, from its
	// first byte. 0 means 10 s.
	ReadTimeout time.Duration
	// IdleTimeout bounds the wait for a next request on a kept-alive
	// connection. It must stay above the 30 s for which Ruby's SDK keeps a
	// connection, because that SDK sends a publish again, silently, when the
	// connection turns out closed. 0 means 75 s.
	IdleTimeout time.Duration
}

// Proxy serves the data port. Its methods are safe for concurrent use.
type Proxy struct {
	held     sync.Map // what is held, by account: *heldBytes
	cfg      Config
	now      func() time.Time
	log      *slog.Logger
	server   *fasthttp.Server
	h2       *h2
	table    atomic.Pointer[table]
	jobs     sync.Pool
	draining atomic.Bool
	toldTLS  atomic.Int64 // when a caller that speaks TLS to a plain port was last told of, Unix seconds
	retiring atomic.Bool

	endMu     sync.Mutex
	over      bool // Shutdown was called
	listeners []net.Listener
	lanes     sync.Once
	lane      atomic.Pointer[lane] // nil where there is none, or before Serve
	inFlight  atomic.Int64
	stats     Stats
	// holdFails is set while the store takes no publish to be held, so that the
	// log says so once.
	holdFails atomic.Bool
}

// table is the routing state of one configuration, replaced whole by Apply.
type table struct {
	apps  map[string]*App
	byKey map[string]*principal
}

// principal is whoever holds an auth key: an app with one of its callers.
type principal struct {
	app    *App
	caller *limiter.Caller
	keys   []*pusher.Key // more than one while a secret is being rotated
	own    bool          // the app's own pair, shared by callers that have no key
	// loadTest: app is the one that swallows
	loadTest bool
}

// New returns a proxy that knows no app yet and answers 401 to everybody; give
// it its apps with Apply.
func New(cfg Config) *Proxy {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{cfg: cfg, now: cfg.Now, log: cfg.Log}
	p.stats.init()
	p.jobs.New = func() any { return newJob() }
	p.table.Store(&table{})
	maxBody := or(cfg.MaxBody, 1<<20)
	p.server = &fasthttp.Server{
		Handler:                      p.serve,
		ExpectHandler:                p.expected,
		ErrorHandler:                 p.refuseUnread,
		Name:                         wire.ServerName,
		Concurrency:                  or(cfg.MaxConns, 65536),
		MaxConnsPerIP:                cfg.MaxConnsPerIP,
		MaxRequestBodySize:           maxBody,
		ReadBufferSize:               16 << 10, // the longest request line and headers together
		ReadTimeout:                  or(cfg.ReadTimeout, 10*time.Second),
		WriteTimeout:                 30 * time.Second,
		IdleTimeout:                  or(cfg.IdleTimeout, 75*time.Second),
		TCPKeepalive:                 true,
		DisablePreParseMultipartForm: true,
		NoDefaultContentType:         true,
		LogAllErrors:                 false,
		SecureErrorLogMessage:        true,
		CloseOnShutdown:              true,
		LazyRequestTime:              true,
		Logger:                       quiet{},
	}
	p.h2 = newH2(p)
	return p
}

var epoch = time.Now()

// moment is now for what measures durations: it reads one clock where time.Now
// reads two, and does not follow when the time of day is set anew.
func moment() time.Time { return epoch.Add(time.Since(epoch)) }

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// quiet drops fasthttp's own log lines: they are about single connections of
// peers, they may quote a request, and the Stats count what they tell.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// discard is quiet for net/http.
var discard = log.New(io.Discard, "", 0)

// Apply makes apps the ones that are served, all at once. Requests under way
// finish with what they began with. An error means that nothing changed.
func (p *Proxy) Apply(apps []*App) error {
	t := &table{apps: make(map[string]*App, len(apps)), byKey: make(map[string]*principal)}
	var errs []error
	for _, a := range apps {
		if _, taken := t.apps[a.ID]; taken {
			errs = append(errs, errors.New("proxy: app id "+strconv.Quote(a.ID)+" is given twice"))
			continue
		}
		if err := a.prepare(p); err != nil {
			errs = append(errs, err)
			continue
		}
		t.apps[a.ID] = a
		for _, c := range a.Keys {
			if c.Key == nil {
				errs = append(errs, errors.New("proxy: app "+a.ID+": caller "+c.Caller+" has no key"))
				continue
			}
			serving := a
			if c.LoadTest {
				if serving = a.LoadTest; serving == nil {
					errs = append(errs, errors.New("proxy: app "+a.ID+": caller "+c.Caller+" is a load test, but nothing serves it"))
					continue
				}
			}
			name := c.Key.Name()
			pr := t.byKey[name]
			if pr == nil {
				pr = &principal{app: serving, caller: serving.Limiter.Caller(c.Caller), own: c.Own, loadTest: c.LoadTest}
				t.byKey[name] = pr
			} else if pr.app != serving || pr.caller != serving.Limiter.Caller(c.Caller) {
				errs = append(errs, errors.New("proxy: auth key "+strconv.Quote(name)+" belongs to two callers"))
				continue
			}
			pr.keys = append(pr.keys, c.Key)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	p.table.Store(t)
	return nil
}

// Apps returns what is served now, in no order.
func (p *Proxy) Apps() []*App {
	t := p.table.Load()
	all := make([]*App, 0, len(t.apps))
	for _, a := range t.apps {
		all = append(all, a)
	}
	return all
}

// Serve answers on ln until Shutdown, and closes it. It returns nil after a
// Shutdown, also one that came first.
func (p *Proxy) Serve(ln net.Listener) error {
	ln = &onceListener{Listener: ln}
	if !p.opens(ln) {
		return ln.Close()
	}
	if l := p.lane.Load(); l != nil {
		ln = l.over(ln)
	}
	return p.server.Serve(ln)
}

// opens has Shutdown know of a listener, or reports that there was one.
func (p *Proxy) opens(ln net.Listener) bool {
	p.endMu.Lock()
	defer p.endMu.Unlock()
	if p.over {
		return false
	}
	p.lanes.Do(func() { p.lane.Store(newLane(p)) })
	p.listeners = append(p.listeners, ln)
	return true
}

// onceListener can be closed by all who have to see to it.
type onceListener struct {
	net.Listener
	once sync.Once
	err  error
}

func (l *onceListener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

// Drain makes every request from now on answered with 503 and an end of its
// connection; those under way go on.
func (p *Proxy) Drain() { p.draining.Store(true) }

// Shutdown closes the listeners and waits for requests under way, or for ctx.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.Drain()
	p.endMu.Lock()
	p.over = true
	for _, ln := range p.listeners {
		_ = ln.Close() // the server does so too, and says if it failed; but it may not know of this one yet
	}
	p.endMu.Unlock()
	over, done := context.WithCancel(ctx)
	defer done()
	go p.h2.close(over)
	ended := make(chan error, 1)
	go func() { ended <- p.lane.Load().shutdown(ctx) }()
	err := p.server.ShutdownWithContext(ctx)
	return cmp.Or(err, <-ended)
}

// Stats returns the proxy's counters, live.
func (p *Proxy) Stats() *Stats { return &p.stats }

// InFlight is the number of requests being served right now.
func (p *Proxy) InFlight() int64 { return p.inFlight.Load() }
