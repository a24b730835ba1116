package guard

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota/fanout"
)

// sink answers in Pusher's place: the simulator, called without a network. So
// an answer has Pusher's shape by the same code that the tests hold to it, and
// what would have been billed is counted by the other side's arithmetic.
type sink struct {
	cfg    sim.Config
	sim    *sim.Server
	before ops.Swallowed // counted before the config changed
}

// newSink is old, if that is made of the same; else it goes on with old's counts.
func newSink(account *config.Account, app *config.App, old *sink) *sink {
	cfg := sim.Config{
		Apps:    []sim.App{{ID: app.ID, Key: app.Key, Secret: app.Secret.Current().Reveal()}},
		Billing: billing(account.Billing), Limits: limits(app), Subscribers: app.Subscribers.Default, Record: -1,
	}
	for _, p := range app.Subscribers.Patterns {
		cfg.SubscribersOf = append(cfg.SubscribersOf, sim.Pattern{Pattern: p.Pattern, N: p.Subscribers})
	}
	if old != nil && reflect.DeepEqual(old.cfg, cfg) {
		return old
	}
	s := &sink{cfg: cfg, sim: sim.New(cfg)}
	if old != nil {
		s.before = old.report()
	}
	return s
}

// swallowed are the buffers of one call.
type swallowed struct {
	req    http.Request
	url    url.URL
	body   bytes.Reader
	header http.Header
	resp   *fasthttp.Response
}

var swallowedPool = sync.Pool{New: func() any { return &swallowed{header: http.Header{}} }}

// answer is proxy.UpstreamConfig.Sink.
func (s *sink) answer(req *fasthttp.Request, resp *fasthttp.Response) {
	w := swallowedPool.Get().(*swallowed)
	defer swallowedPool.Put(w)
	target := string(req.Header.RequestURI())
	path, query, _ := strings.Cut(target, "?")
	w.body.Reset(req.Body())
	w.url = url.URL{Path: path, RawQuery: query}
	w.req = http.Request{Method: string(req.Header.Method()), URL: &w.url, RequestURI: target, ContentLength: int64(w.body.Len()), Body: io.NopCloser(&w.body)}
	clear(w.header)
	w.resp = resp
	s.sim.ServeHTTP(w, &w.req)
	w.resp = nil
}

func (w *swallowed) Header() http.Header { return w.header }
func (w *swallowed) WriteHeader(status int) {
	w.resp.SetStatusCode(status)
	if kind := w.header["Content-Type"]; len(kind) > 0 {
		w.resp.Header.SetContentType(kind[0])
	}
}

func (w *swallowed) Write(b []byte) (int, error) {
	if kind := w.header["Content-Type"]; len(kind) > 0 {
		w.resp.Header.SetContentType(kind[0])
	}
	w.resp.AppendBody(b)
	return len(b), nil
}

// report is what the sink kept from being billed.
func (s *sink) report() ops.Swallowed {
	st := s.sim.Stats()
	out := s.before
	out.Add(ops.Swallowed{Calls: st.Requests, Events: st.Events, Deliveries: st.Deliveries, Messages: st.Messages})
	return out
}

// buildLoadTest makes what serves the app's load-test callers: the same rules
// with buckets of their own, no ledger, no breaker and no detector, and the sink
// for Pusher. So no publish of theirs can be sent, and none can touch what
// others may send.
func (g *Guard) buildLoadTest(c *config.App, policy limiter.Policy, live *proxy.App, sunk *sink, old *proxy.App) (*proxy.App, error) {
	var judge *limiter.App
	var err error
	if old != nil {
		judge = old.Limiter // its policy is replaced together with the live one's
	} else if judge, err = limiter.New(loadTestPolicy(policy), nil, nil); err != nil {
		return nil, err
	}
	up, err := g.buildUpstream(c, live.Keys[0].Key, sunk)
	if err != nil {
		return nil, err
	}
	return &proxy.App{
		ID: live.ID, Account: live.Account, Upstream: up, Limiter: judge,
		Ledger: live.Ledger, // asked for nothing: the judge has none
		Fanout: newFanout(c), Billing: live.Billing, Limits: live.Limits, Fold: live.Fold,
	}, nil
}

func newFanout(c *config.App) *fanout.Table {
	patterns := make([]fanout.Pattern, len(c.Subscribers.Patterns))
	for i, p := range c.Subscribers.Patterns {
		patterns[i] = fanout.Pattern(p)
	}
	return fanout.New(c.Subscribers.Default, patterns)
}

func hasLoadTest(c *config.App) bool {
	for i := range c.Callers {
		if c.Callers[i].LoadTest {
			return true
		}
	}
	return false
}

// swallowed sums what the sinks of an account kept from being billed; nil where
// nothing has a sink.
func (a *account) swallowed() *ops.Swallowed {
	var out *ops.Swallowed
	for _, x := range a.apps {
		if x.sink == nil {
			continue
		}
		if out == nil {
			out = &ops.Swallowed{}
		}
		out.Add(x.sink.report())
	}
	return out
}

// SaySunk tells at the end of serve --sink what it would have cost.
func (g *Guard) SaySunk() {
	now := time.Now()
	for _, a := range g.fleet.Load().accounts {
		if r := a.swallowed(); r != nil && g.extras.Sink {
			plan := a.Ledger.Snapshot(now).Plan.MessagesPerDay
			g.log.Info("sink: nothing was sent; it would have cost", "account", a.Name, "messages", r.Messages, "part_of_plan",
				strconv.FormatFloat(100*float64(r.Messages)/float64(max(plan, 1)), 'f', 2, 64)+"%", "deliveries", r.Deliveries, "events", r.Events, "calls", r.Calls)
		}
	}
}

// IsolateSink keeps a sink apart from everything that a guard that sends may share with it: the count of the plan,
// the incidents, the people who are told. dir is its data_dir.
func IsolateSink(cfg *config.Config, dir string) {
	cfg.Store, cfg.DataDir, cfg.Alerts = config.Default().Store, dir, nil
}
