// Package sim is a Pusher Channels server as far as a publisher can see. It
// checks signatures, limits and shapes strictly, bills as pusher.Billing says,
// refuses with 403 and Pusher's words when the day's messages are used up, and
// keeps a record of what arrived. It delivers nothing: how many subscribers a
// channel has is configured.
//
// Besides the Channels API it answers, without authentication, so it must only
// listen where tests are,
//
//	GET  /sim/v1/stats            what was counted, see Stats
//	GET  /sim/v1/events?limit=N   the newest N events that arrived, oldest first, see Event
//	POST /sim/v1/control          change its behaviour while it runs, see Control
//
// All apps belong to one account, as the limits of a plan do.
package sim

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// App is one app of the account, with its key pair.
type App struct{ ID, Key, Secret string }

// Pattern gives the channels that match a glob (`*` any run, `?` one character)
// a number of subscribers.
type Pattern struct {
	Pattern string
	N       int64
}

// Config is what a Server is made from. The zero value of every field is usable.
type Config struct {
	Apps []App
	// MessagesPerDay is the account's plan; 0 is no limit, a negative number a
	// plan of nothing.
	MessagesPerDay int64
	// Subscribers is the number of subscribers of every channel that matches
	// none of SubscribersOf, where the first match counts.
	Subscribers   int64
	SubscribersOf []Pattern
	// NoCounts answers without subscription_count, as where subscription counting is off in the app's settings.
	NoCounts bool
	// Latency passes between the effect of a request and its answer.
	Latency time.Duration
	// FailEvery N answers every N-th request with a 500 and no effect; 0 never.
	FailEvery int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// QuotaText is the body of the 403 at the plan's end; "" is pusher.QuotaText.
	QuotaText string
	// Billing and Limits are Pusher's, where they can differ.
	Billing pusher.Billing
	Limits  pusher.Limits
	// Record is how many events are kept, and RecordBytes how many bytes of
	// data; the oldest are forgotten first. 0 means 100,000 and 256 MiB,
	// a negative number keeps none.
	Record      int
	RecordBytes int64
	// Webhook is the URL that SendWebhook posts to; "" is nowhere.
	Webhook string
}

const (
	defaultRecord      = 100_000
	defaultRecordBytes = 256 << 20
)

// Server is a simulated Pusher. It is an http.Handler, safe for concurrent use.
type Server struct {
	now       func() time.Time
	quotaText string
	billing   pusher.Billing
	limits    pusher.Limits
	webhook   string
	noCounts  bool
	apps      []App
	keys      map[identity]*pusher.Key
	workers   sync.Pool // of *worker

	closed chan struct{} // closed by Close; ends requests that hang
	once   sync.Once

	mu       sync.Mutex
	behavior behavior
	account  account
	record   record
	channels map[string]*channel // seen in publishes, at most maxChannels
	servers  []*http.Server
	running  sync.WaitGroup
}

// identity is an app's id with its auth key. Pusher's keys are unique; here two
// apps may share one.
type identity struct{ app, key string }

// behavior is what Control can change.
type behavior struct {
	latency     time.Duration
	fail        Fail
	failEvery   int64
	subscribers int64
	patterns    []Pattern
	changed     chan struct{} // closed when fail changes, so that what hangs looks again
}

// New returns a server that answers for cfg.Apps.
func New(cfg Config) *Server {
	s := &Server{
		now:       cfg.Now,
		quotaText: cfg.QuotaText,
		billing:   cfg.Billing,
		limits:    cfg.Limits,
		webhook:   cfg.Webhook,
		noCounts:  cfg.NoCounts,
		apps:      append([]App(nil), cfg.Apps...),
		keys:      make(map[identity]*pusher.Key, len(cfg.Apps)),
		closed:    make(chan struct{}),
		channels:  make(map[string]*channel),
		behavior: behavior{
			latency:     cfg.Latency,
			failEvery:   int64(cfg.FailEvery),
			subscribers: cfg.Subscribers,
			patterns:    append([]Pattern(nil), cfg.SubscribersOf...),
			changed:     make(chan struct{}),
		},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.quotaText == "" {
		s.quotaText = pusher.QuotaText
	}
	for _, a := range cfg.Apps {
		s.keys[identity{a.ID, a.Key}] = pusher.NewKey(a.Key, a.Secret)
	}
	s.workers.New = func() any { return new(worker) }
	s.account = account{plan: cfg.MessagesPerDay, byEndpoint: map[string]int64{}, byStatus: map[int]int64{}}
	s.record = record{max: cfg.Record, maxBytes: cfg.RecordBytes}
	if s.record.max == 0 {
		s.record.max = defaultRecord
	}
	if s.record.maxBytes == 0 {
		s.record.maxBytes = defaultRecordBytes
	}
	return s
}

// Listen serves on addr (port 0 is allowed) until Close, and returns the address
// it got.
func (s *Server) Listen(addr string) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	// Ruby's SDK keeps connections for 30 s and repeats a request when one was
	// closed under it, so the idle timeout is longer than that.
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	s.mu.Lock()
	s.servers = append(s.servers, srv)
	s.mu.Unlock()
	s.running.Go(func() { srv.Serve(l) })
	return l.Addr().String(), nil
}

// Close ends every listener and every request that hangs, and waits for them.
// The record and the counts stay readable.
func (s *Server) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.mu.Lock()
	servers := s.servers
	s.servers = nil
	s.mu.Unlock()
	var first error
	for _, srv := range servers {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := srv.Shutdown(ctx); err != nil && first == nil {
			first = srv.Close()
		}
		cancel()
	}
	s.running.Wait()
	return first
}
