// Package guard puts one replica together from its config and takes it down: the data port, the admin port, the
// store, and for each account its ledger, limiter, detector and upstreams. A config that is loaded again replaces
// all of it or nothing.
package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/pushguard/pushguard/cmd/pushguard/alert"
	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/version"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
)

// Guard is one running replica: both ports, and everything behind them.
type Guard struct {
	log     *slog.Logger
	level   *slog.LevelVar // nil: the log's level is fixed
	replica string
	store   *store.Store
	proxy   *proxy.Proxy
	ops     *ops.Server
	data    net.Listener
	admin   net.Listener
	certs   *certificates // nil: the data port speaks plain HTTP

	unauthorized atomic.Int64 // unix s of when the log last said that Pusher takes no signature
	gate         *gate        // data, closable without losing a connection
	adminGate    *gate

	adminSrv *http.Server
	upstream *prometheus.HistogramVec
	reloads  reloads
	alerts   *alert.Sender // nil: nobody is to be told
	tracing  *tracing      // nil: no traces
	extras   extras

	// fleet is what is served now; applying guards its replacement.
	applying sync.Mutex
	fleet    atomic.Pointer[fleet]

	ready   atomic.Bool // every step of start has been proven
	leaving atomic.Bool // SIGTERM came
	runCtx  context.Context
	stopRun context.CancelFunc
	running sync.WaitGroup
}

// ports are listeners that this process was given or how to open its own.
type ports struct {
	data, admin net.Listener // nil: to be opened
	Reuse       bool         // beside another process on the same address
	Extras      extras
}

// startGuard proves config, store, credentials' form and a first lease, opens
// both ports and serves. The order matters: nothing answers before everything
// behind it is there.
func Start(ctx context.Context, cfg *config.Config, log *slog.Logger) (*Guard, error) {
	return StartOn(ctx, cfg, log, nil, ports{})
}

func StartOn(ctx context.Context, cfg *config.Config, log *slog.Logger, level *slog.LevelVar, given ports) (g *Guard, err error) {
	g = &Guard{log: log, level: level, data: given.data, admin: given.admin, upstream: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "pushguard_upstream_seconds",
		Help:    "Duration of calls to Pusher, from the wait for a connection to the last byte.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	}, []string{"app"})}
	g.extras = given.Extras
	g.runCtx, g.stopRun = context.WithCancel(context.WithoutCancel(ctx))
	g.fleet.Store(&fleet{cfg: cfg})
	defer func() {
		if err != nil {
			g.Stop(context.WithoutCancel(ctx))
		}
	}()
	started := time.Now()
	g.reloads.began(started, cfg)
	if g.replica = cfg.Replica; g.replica == "" {
		if g.replica, err = os.Hostname(); err != nil || g.replica == "" {
			g.replica = "replica"
		}
	}
	for _, p := range Prove(cfg) {
		if p.Err != nil {
			return g, p.Err
		}
	}
	if cfg.TLS != nil {
		if g.certs, err = loadCertificates(cfg.TLS); err != nil {
			return g, err
		}
	}
	if cfg.Store.Embedded() {
		if err := WritableDir(cfg.DataDir); err != nil {
			return g, err
		}
	}
	g.store, err = store.Open(ctx, cfg.Store.Reveal(), store.Options{Dir: cfg.DataDir, Log: log, Patient: true})
	if err != nil {
		return g, err
	}
	if g.tracing, err = newTracing(ctx, cfg.Tracing, g.replica, log); err != nil {
		return g, err
	}
	var tracer trace.Tracer
	if g.tracing != nil {
		tracer = g.tracing.tracer
	}
	g.proxy = proxy.New(proxy.Config{Log: log, Tracer: tracer, MaxBody: int(cfg.MaxBody), MaxConns: cfg.MaxConnections,
		MaxConnsPerIP: cfg.MaxConnectionsPerPeer, ReadTimeout: cfg.ReadTimeout})
	if g.alerts, err = newAlerts(cfg, log); err != nil {
		return g, err
	}
	if g.alerts != nil {
		g.running.Go(func() { g.alerts.Run(g.runCtx) })
	}
	if err := g.apply(ctx, cfg); err != nil {
		return g, err
	}
	g.ops = ops.New(ops.Config{
		Version: version.Build(), Replica: g.replica, Started: started,
		Accounts:       g.accounts,
		Stats:          g.proxy.Stats(),
		Store:          g.storeState,
		Checks:         g.checks(),
		ReloadOK:       g.reloads.ok,
		Token:          cfg.Admin.Token.Reveal(),
		ReadToken:      cfg.Admin.ReadToken.Reveal(),
		Hosts:          cfg.Admin.Hosts,
		TrustHeader:    trustHeader(cfg),
		TrustFrom:      trustFrom(cfg),
		Log:            log,
		Incidents:      g.Incidents,
		IncidentAction: g.incidentAction,
		Top:            g.top,
		ParseRule:      parseRule,
		Collectors:     g.collectors(),
	})
	if g.data == nil {
		if g.data, err = Listen(ctx, cfg.Listen, given.Reuse); err != nil {
			return g, fmt.Errorf("data port: %w%s; see listen in the config, and --listen", err, PortHint(err))
		}
	}
	if g.admin == nil {
		if g.admin, err = Listen(ctx, cfg.Admin.Listen, given.Reuse); err != nil {
			return g, fmt.Errorf("admin port: %w%s; see admin.listen in the config, and --admin", err, PortHint(err))
		}
	}
	g.gate, g.adminGate = newGate(g.data, given.Reuse), newGate(g.admin, given.Reuse)
	g.adminSrv = &http.Server{Handler: g.ops, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	g.running.Go(func() { g.ops.Run(g.runCtx) })
	g.running.Go(func() {
		if err := g.adminSrv.Serve(g.adminGate); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, io.EOF) {
			log.Error("the admin port ended", "err", err)
		}
	})
	g.running.Go(func() {
		if err := g.proxy.Serve(g.certs.over(g.gate)); err != nil {
			log.Error("the data port ended", "err", err)
		}
	})
	g.ready.Store(true)
	log.Info("listening", "data", g.data.Addr().String(), "admin", g.admin.Addr().String())
	return g, nil
}

func (g *Guard) collectors() []prometheus.Collector {
	all := append([]prometheus.Collector{g.upstream}, g.reloads.collectors()...)
	if g.extras.Record != nil {
		all = append(all, g.extras.Record)
	}
	return all
}

func trustHeader(cfg *config.Config) string {
	if cfg.Admin.TrustHeader == nil {
		return ""
	}
	return cfg.Admin.TrustHeader.Name
}

func trustFrom(cfg *config.Config) (from []netip.Prefix) {
	if cfg.Admin.TrustHeader != nil {
		for _, s := range cfg.Admin.TrustHeader.From {
			if p, err := config.ParsePrefix(s); err == nil { // the config was checked
				from = append(from, p)
			}
		}
	}
	return from
}

// accounts are what is served now.
func (g *Guard) accounts() []ops.Account {
	f := g.fleet.Load()
	all := make([]ops.Account, len(f.accounts))
	for i, a := range f.accounts {
		all[i] = a.Account
		all[i].Swallowed, all[i].Sink = a.swallowed, g.extras.Sink
		all[i].Learned = a.learned
	}
	return all
}

// breakerMoved logs each transition with its reason, and hands it over for the
// timelines of incidents.
func (g *Guard) breakerMoved(account string, moves *breakerMoves) func(limiter.Transition) {
	return func(t limiter.Transition) {
		g.log.Warn("quota breaker moved", "account", account, "from", t.From.String(), "to", t.To.String(), "reason", t.Reason)
		moves.add(t)
		g.tell(alert.OfBreaker(account, t, g.fleet.Load().cfg.Admin.URL))
	}
}

// storeState is kind and state of the store for people.
func (g *Guard) storeState() (kind, state string) {
	kind = g.store.Kind()
	now := time.Now()
	for _, a := range g.fleet.Load().accounts {
		if snap := a.Ledger.Snapshot(now); !snap.StoreUp {
			return kind, "down: " + snap.StoreErr
		}
	}
	return kind, "up"
}

// checks are the named conditions of /readyz.
func (g *Guard) checks() []ops.Check {
	all := []ops.Check{
		{Name: "started", Run: func() (string, error) {
			if !g.ready.Load() {
				return "", errors.New("still starting")
			}
			return "", nil
		}},
		{Name: "not_draining", Run: func() (string, error) {
			if g.leaving.Load() {
				return "", errors.New("this replica is shutting down; send traffic to another")
			}
			return "", nil
		}},
	}
	return append(all,
		ops.Check{Name: "leases", Run: func() (string, error) {
			var notes []string
			var errs []error
			for _, a := range g.fleet.Load().accounts {
				note, err := leaseState(a.Ledger.Snapshot(time.Now()))
				if err != nil {
					errs = append(errs, fmt.Errorf("account %s: %w", a.Name, err))
				}
				notes = append(notes, "account "+a.Name+": "+note)
			}
			return strings.Join(notes, "; "), errors.Join(errs...)
		}},
		ops.Check{Name: "dedupe", Run: func() (string, error) { return g.dedupeState(), nil }},
		ops.Check{Name: "rates", Run: func() (string, error) { return g.rateState(), nil }},
		ops.Check{Name: "count", Run: func() (string, error) { return g.billState(), nil }},
		ops.Check{Name: "config", Run: func() (string, error) { return g.reloads.note(), nil }},
	)
}

// dedupeState tells of accounts whose replicas do not share what they
// deduplicate at the moment. That costs duplicates, not readiness.
func (g *Guard) dedupeState() string {
	var notes []string
	for _, a := range g.fleet.Load().accounts {
		if a.Twins == nil {
			continue
		}
		if st := a.Twins.Stats(); !st.Up && st.Why != "" {
			notes = append(notes, fmt.Sprintf("account %s: the store does not answer in time (%s): duplicates are looked for in this replica only", a.Name, st.Why))
		}
	}
	return strings.Join(notes, "; ")
}

// rateState tells of accounts whose replicas do not share rates at the moment.
// That is not readiness: all of them lose the store at the same moment.
func (g *Guard) rateState() string {
	var notes []string
	for _, a := range g.fleet.Load().accounts {
		switch st := a.Rates.Status(); {
		case st.Away && !st.Active:
			notes = append(notes, fmt.Sprintf("account %s: the store was never heard, so publishes that have a rate are refused; replicas: N in the config lets one part of N pass", a.Name))
		case st.Away:
			notes = append(notes, fmt.Sprintf("account %s: the store does not answer since %s; each replica goes on with its last share of each rate", a.Name, st.Since.UTC().Format(time.RFC3339)))
		}
	}
	return strings.Join(notes, "; ")
}

// leaseState says whether this replica can still spend. A lost store alone does
// not make it unready: all replicas lose it at the same moment, and taking them
// all out would turn a fault of the store into an outage.
func leaseState(s quota.Snapshot) (string, error) {
	switch {
	case s.StoreUp && !s.Opened:
		return "", errors.New("waiting for the first lease: the store was empty, and other replicas are given a second to say that it lost its data")
	case s.StoreUp && s.Healing:
		return fmt.Sprintf("the store lost data and is being healed; this replica spends from %d leased messages", s.Lease), nil
	case s.StoreUp:
		return fmt.Sprintf("%d messages leased, %d of %d used", s.Lease, s.Used, s.Plan.MessagesPerDay), nil
	case s.OnStoreLoss == quota.LossClosed:
		return "", fmt.Errorf("the store is out of reach since %s (%s), and on_store_loss is closed: nothing passes", s.StoreSince.UTC().Format(time.RFC3339), s.StoreErr)
	case !s.Joined:
		return "", fmt.Errorf("the store has not answered since this replica started at %s (%s), and no record of today says what it may send; it is tried each second", s.StoreSince.UTC().Format(time.RFC3339), s.StoreErr)
	case s.LeaseSpent:
		return "", fmt.Errorf("the store is out of reach since %s (%s), and lease and standby are spent; %d messages are left of them", s.StoreSince.UTC().Format(time.RFC3339), s.StoreErr, s.Lease+s.Standby)
	}
	return fmt.Sprintf("STORE LOST since %s (%s): going on with %d messages held ready, %d borrowed", s.StoreSince.UTC().Format(time.RFC3339), s.StoreErr, s.Lease+s.Standby, s.Borrowed), nil
}

// Drain leaves in the order that loses nothing: not ready, still serving but
// with an end to every kept-alive connection, then no new connections, then
// refusing, then settled, then gone.
func (g *Guard) Drain(ctx context.Context) error {
	g.leaving.Store(true)
	delay := g.fleet.Load().cfg.DrainDelay
	g.log.Info("draining", "serve_on_for", delay)
	g.proxy.Retire()
	if g.adminGate.reuse {
		g.adminGate.shut() // probes and people now ask the one that takes over
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
	}
	return g.Stop(context.WithoutCancel(ctx))
}

// Stop ends whatever of the guard has begun. It may be called on a guard that
// did not start whole.
func (g *Guard) Stop(ctx context.Context) error {
	serve, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var errs []error
	if g.gate != nil {
		g.gate.shut() // who was accepted by the kernel already is still served
		g.proxy.Linger(serve, lingerFor)
	}
	if g.proxy != nil {
		if err := g.proxy.Shutdown(serve); err != nil {
			errs = append(errs, fmt.Errorf("%d requests were still under way at the end: %w", g.proxy.InFlight(), err))
		}
	}
	g.applying.Lock() // a reload under way ends first, and none follows
	defer g.applying.Unlock()
	// A time of its own: a connection that would not end must not cost the leases.
	settle, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, a := range g.fleet.Load().accounts {
		if err := a.close(settle); err != nil {
			errs = append(errs, err)
		}
	}
	if g.adminSrv != nil {
		_ = g.adminSrv.Close()
	}
	for _, ln := range []net.Listener{g.data, g.admin} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	g.stopRun()
	g.running.Wait()
	if g.tracing != nil {
		// The last spans are worth a moment, and no more.
		last, cancel := context.WithTimeout(ctx, 3*time.Second)
		if err := g.tracing.shutdown(last); err != nil {
			g.log.Warn("the last traces are lost", "err", err)
		}
		cancel()
	}
	errs = append(errs, g.extras.close())
	if g.store != nil {
		if err := g.store.Close(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// WriteAddrFile tells other programs where the ports are, in one atomic step.
func WriteAddrFile(path string, addrs map[string]string) error {
	b, err := json.Marshal(addrs)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".addr-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(append(b, '\n')); err == nil {
		err = tmp.Chmod(0o644)
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Addrs are the addresses of the two ports, by name: data and admin.
func (g *Guard) Addrs() map[string]string {
	return map[string]string{"data": g.data.Addr().String(), "admin": g.admin.Addr().String()}
}

// Status is what GET /api/v1/status answers.
func (g *Guard) Status() ops.Status { return g.ops.Status() }

// KeepAlive tells systemd's watchdog that this process serves, until the guard is stopped.
func (g *Guard) KeepAlive() { g.running.Go(func() { g.watchdog(g.runCtx) }) }
