package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
)

// guard is one running replica: both ports, and everything behind them.
type guard struct {
	cfg      *config.Config
	log      *slog.Logger
	store    *store.Store
	proxy    *proxy.Proxy
	ops      *ops.Server
	accounts []ops.Account
	data     net.Listener
	admin    net.Listener
	adminSrv *http.Server

	ready    atomic.Bool // every step of start has been proven
	leaving  atomic.Bool // SIGTERM came
	stopRun  context.CancelFunc
	running  sync.WaitGroup
	upstream *prometheus.HistogramVec
}

// startGuard proves config, store, credentials' form and a first lease, opens
// both ports and serves. The order matters: nothing answers before everything
// behind it is there.
func startGuard(ctx context.Context, cfg *config.Config, log *slog.Logger) (g *guard, err error) {
	g = &guard{cfg: cfg, log: log, upstream: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "pushguard_upstream_seconds",
		Help:    "Duration of calls to Pusher, from the wait for a connection to the last byte.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	}, []string{"app"})}
	runCtx, stopRun := context.WithCancel(context.WithoutCancel(ctx))
	g.stopRun = stopRun
	defer func() {
		if err != nil {
			g.stop(context.WithoutCancel(ctx))
		}
	}()
	started := time.Now()
	replica := cfg.Replica
	if replica == "" {
		if replica, err = os.Hostname(); err != nil || replica == "" {
			replica = "replica"
		}
	}
	g.store, err = store.Open(ctx, cfg.Store.Reveal(), store.Options{Dir: cfg.DataDir, Log: log})
	if err != nil {
		return g, err
	}
	g.proxy = proxy.New(proxy.Config{Log: log, MaxBody: int(cfg.MaxBody), MaxConns: cfg.MaxConnections})
	var apps []*proxy.App
	for i := range cfg.Accounts {
		account, err := g.openAccount(ctx, runCtx, &cfg.Accounts[i], replica)
		if err != nil {
			return g, fmt.Errorf("account %s: %w", cfg.Accounts[i].Name, err)
		}
		g.accounts = append(g.accounts, account)
		apps = append(apps, account.Apps...)
	}
	if err := g.proxy.Apply(apps); err != nil {
		return g, err
	}
	g.ops = ops.New(ops.Config{
		Version: buildVersion(), Replica: replica, Started: started,
		Accounts:   func() []ops.Account { return g.accounts },
		Stats:      g.proxy.Stats(),
		Store:      g.storeState,
		Checks:     g.checks(),
		Token:      cfg.Admin.Token.Reveal(),
		Log:        log,
		Collectors: []prometheus.Collector{g.upstream},
	})
	if g.data, err = net.Listen("tcp", cfg.Listen); err != nil {
		return g, fmt.Errorf("data port: %w; another process may hold it, see --listen", err)
	}
	if g.admin, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
		return g, fmt.Errorf("admin port: %w; another process may hold it, see --admin", err)
	}
	g.adminSrv = &http.Server{Handler: g.ops, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	g.running.Go(func() { g.ops.Run(runCtx) })
	g.running.Go(func() {
		if err := g.adminSrv.Serve(g.admin); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin port ended", "err", err)
		}
	})
	g.running.Go(func() {
		if err := g.proxy.Serve(g.data); err != nil {
			log.Error("the data port ended", "err", err)
		}
	})
	g.ready.Store(true)
	log.Info("listening", "data", g.data.Addr().String(), "admin", g.admin.Addr().String())
	return g, nil
}

// openAccount joins one account in the store and builds its apps.
func (g *guard) openAccount(ctx, runCtx context.Context, c *config.Account, replica string) (ops.Account, error) {
	shares := map[string]float64{}
	for _, app := range c.Apps {
		for _, caller := range app.Callers {
			if caller.Share > 0 {
				shares[caller.Name] = float64(caller.Share)
			}
		}
	}
	ledger, err := quota.Open(ctx, time.Now(), g.store, replica, quota.Config{
		Account:     c.Name,
		Plan:        quota.Plan(c.Plan),
		Floors:      floors(c),
		OnStoreLoss: lossPolicy(g.cfg.OnStoreLoss),
		Shares:      shares,
	}, g.log)
	if err != nil {
		return ops.Account{}, err
	}
	g.running.Go(func() { ledger.Run(runCtx) })

	out := ops.Account{Name: c.Name, Ledger: ledger, Floors: floors(c), Levels: limiter.BreakerConfig{
		ShedBulkAt:     float64(g.cfg.Breaker.ShedBulkAt),
		ShedNormalAt:   float64(g.cfg.Breaker.ShedNormalAt),
		CriticalOnlyAt: float64(g.cfg.Breaker.CriticalOnlyAt),
		Probe:          g.cfg.Breaker.Probe,
	}}
	out.Breaker, err = limiter.NewBreaker(time.Now(), out.Levels, g.breakerMoved(c.Name))
	if err != nil {
		return out, err
	}
	for i := range c.Apps {
		app, err := g.buildApp(c, &c.Apps[i], ledger, out.Breaker)
		if err != nil {
			return out, fmt.Errorf("app %s: %w", c.Apps[i].ID, err)
		}
		out.Apps = append(out.Apps, app)
	}
	return out, nil
}

func (g *guard) buildApp(account *config.Account, c *config.App, ledger *quota.Ledger, breaker *limiter.Breaker) (*proxy.App, error) {
	policy, err := policyOf(g.cfg, account, c)
	if err != nil {
		return nil, err
	}
	judge, err := limiter.New(policy, ledger, breaker)
	if err != nil {
		return nil, err
	}
	var keys []proxy.CallerKey
	for _, secret := range c.Secret {
		keys = append(keys, proxy.CallerKey{Key: pusher.NewKey(c.Key, secret.Reveal()), Caller: "app", Own: true})
	}
	for _, caller := range c.Callers {
		for _, secret := range caller.Secret {
			keys = append(keys, proxy.CallerKey{Key: pusher.NewKey(caller.Key, secret.Reveal()), Caller: caller.Name})
		}
	}
	app := c.ID
	up, err := proxy.NewUpstream(proxy.UpstreamConfig{
		URL:         c.UpstreamURL(),
		Key:         keys[0].Key,
		Timeout:     c.Timeout,
		FailureRate: float64(c.UpstreamBreaker.ErrorRate),
		MinCalls:    uint(c.UpstreamBreaker.MinRequests),
		Window:      c.UpstreamBreaker.Window,
		Cooldown:    c.UpstreamBreaker.OpenFor,
		Off:         c.UpstreamBreaker.Off,
		Seconds:     g.upstream.WithLabelValues(app),
		OnBreaker: func(from, to string, rate float64) {
			g.log.Warn("upstream breaker moved", "app", app, "from", from, "to", to, "error_rate", rate)
		},
	})
	if err != nil {
		return nil, err
	}
	patterns := make([]quota.FanoutPattern, len(c.Subscribers.Patterns))
	for i, p := range c.Subscribers.Patterns {
		patterns[i] = quota.FanoutPattern(p)
	}
	return &proxy.App{
		ID: c.ID, Account: account.Name, Keys: keys, Upstream: up, Limiter: judge, Ledger: ledger, Breaker: breaker,
		Fanout:  quota.NewFanout(c.Subscribers.Default, patterns),
		Billing: billing(account.Billing),
		Limits:  pusher.Limits{DataBytes: c.Limits.DataBytes, Channels: c.Limits.Channels, Batch: c.Limits.Batch, ChannelName: c.Limits.ChannelName, EventName: c.Limits.EventName},
	}, nil
}

// breakerMoved logs each transition with its reason.
func (g *guard) breakerMoved(account string) func(limiter.Transition) {
	return func(t limiter.Transition) {
		g.log.Warn("quota breaker moved", "account", account, "from", t.From.String(), "to", t.To.String(), "reason", t.Reason)
	}
}

// storeState is kind and state of the store for people.
func (g *guard) storeState() (kind, state string) {
	kind = g.store.Kind()
	now := time.Now()
	for _, a := range g.accounts {
		if snap := a.Ledger.Snapshot(now); !snap.StoreUp {
			return kind, "down: " + snap.StoreErr
		}
	}
	return kind, "up"
}

// checks are the named conditions of /readyz.
func (g *guard) checks() []ops.Check {
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
	for _, a := range g.accounts {
		all = append(all, ops.Check{Name: "lease_" + a.Name, Run: func() (string, error) { return leaseState(a.Ledger.Snapshot(time.Now())) }})
	}
	return all
}

// leaseState says whether this replica can still spend. A lost store alone does
// not make it unready: all replicas lose it at the same moment, and taking them
// all out would turn a fault of the store into an outage.
func leaseState(s quota.Snapshot) (string, error) {
	switch {
	case s.StoreUp && s.Healing:
		return fmt.Sprintf("the store lost data and is being healed; this replica spends from %d leased messages", s.Lease), nil
	case s.StoreUp:
		return fmt.Sprintf("%d messages leased, %d of %d used", s.Lease, s.Used, s.Plan.MessagesPerDay), nil
	case s.OnStoreLoss == quota.LossClosed:
		return "", fmt.Errorf("the store is out of reach since %s (%s), and on_store_loss is closed: nothing passes", s.StoreSince.UTC().Format(time.RFC3339), s.StoreErr)
	case s.OnStoreLoss == quota.LossLease && s.Lease == 0:
		return "", fmt.Errorf("the store is out of reach since %s (%s), and the lease is spent", s.StoreSince.UTC().Format(time.RFC3339), s.StoreErr)
	}
	return fmt.Sprintf("STORE LOST since %s (%s): going on with %d leased messages, %d borrowed", s.StoreSince.UTC().Format(time.RFC3339), s.StoreErr, s.Lease, s.Borrowed), nil
}

// drain leaves in the order that loses nothing: not ready, still serving, then
// refusing, then settled, then gone.
func (g *guard) drain(ctx context.Context) error {
	g.leaving.Store(true)
	g.log.Info("draining", "serve_on_for", g.cfg.DrainDelay)
	select {
	case <-time.After(g.cfg.DrainDelay):
	case <-ctx.Done():
	}
	return g.stop(context.WithoutCancel(ctx))
}

// stop ends whatever of the guard has begun. It may be called on a guard that
// did not start whole.
func (g *guard) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var errs []error
	if g.proxy != nil {
		if err := g.proxy.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%d requests were still under way at the end: %w", g.proxy.InFlight(), err))
		}
	}
	for _, a := range g.accounts {
		if err := a.Ledger.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("account %s: leases could not be handed back, they end by themselves: %w", a.Name, err))
		}
		for _, app := range a.Apps {
			app.Upstream.Close()
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
	if g.store != nil {
		if err := g.store.Close(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// writeAddrFile tells other programs where the ports are, in one atomic step.
func writeAddrFile(path string, addrs map[string]string) error {
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
