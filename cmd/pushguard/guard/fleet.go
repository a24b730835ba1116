package guard

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/learn"
	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/trial"
	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/fanout"
)

// fleet is everything that one config made: its accounts with their apps. It
// is not changed once it is in force; a reload makes the next one, of the same
// parts where the config says the same.
type fleet struct {
	cfg      *config.Config
	accounts []*account
}

// account is one account in force.
type account struct {
	ops.Account
	quota   quota.Config
	apps    []*app // in the order of Account.Apps
	watch   *watch.Watch
	contain config.Contain
	moves   *breakerMoves
	end     context.CancelFunc
	unread  bool // what was saved of the usual rates could not be read yet: the store was away
}

// app is one app in force.
type app struct {
	*proxy.App
	form   appForm
	policy limiter.Policy
	sink   *sink // nil: nothing of this app is swallowed
	*asker
}

// asker is what asks Pusher about an app by itself. It is kept over reloads.
type asker struct {
	learner *learn.Learner
	asking  atomic.Bool // a turn is under way
}

// appForm is what of the config an app is built from, beside its policy; equal
// forms share one proxy.App.
type appForm struct {
	account  string
	app      config.App // without what belongs to the policy
	billing  config.Billing
	digest   *config.Digest
	upstream upstreamForm
	held     [2]config.Bytes
}

// upstreamForm is what of the config an upstream is built from; equal forms
// share one upstream with its connections and its breaker's memory.
type upstreamForm struct {
	id, key, url string
	ca           string
	readMax      config.Bytes
	secret       config.Secret
	timeout      time.Duration
	maxCalls     int
	breaker      config.UpstreamBreaker
}

func formOf(account *config.Account, c *config.App) appForm {
	f := appForm{account: account.Name, app: *c, billing: account.Billing, digest: account.Digest, upstream: upstreamForm{
		id: c.ID, key: c.Key, url: c.UpstreamURL(), secret: c.Secret.Current(), timeout: c.Timeout, maxCalls: c.MaxCalls, breaker: c.UpstreamBreaker, ca: c.CA, readMax: c.ReadMax,
	}, held: [2]config.Bytes{account.HeldMax, account.HeldMaxPerCaller}}
	f.app.Rate, f.app.Burst = nil, 0
	f.app.Callers = slices.Clone(c.Callers)
	for i := range f.app.Callers {
		one := &f.app.Callers[i]
		one.Rate, one.Burst, one.Share, one.Mode = nil, 0, 0, ""
	}
	return f
}

// observe tells those who learn from what is offered. It is on the hot path.
func (a *account) observe(now time.Time, app, caller, event string, channels []string, payload uint64, messages int64) {
	a.watch.Observe(now, app, caller, event, channels, payload, messages)
	a.Recent.Note(now, app, caller, event, channels, payload, messages)
}

func (f *fleet) account(name string) *account {
	for _, a := range f.accounts {
		if a.Name == name {
			return a
		}
	}
	return nil
}

func (a *account) app(id string) *app {
	if a != nil {
		for _, x := range a.apps {
			if x.ID == id {
				return x
			}
		}
	}
	return nil
}

// undo takes steps back, last one first.
type undo []func()

func (u *undo) add(step func()) { *u = append(*u, step) }

func (u undo) run() {
	for _, step := range slices.Backward(u) {
		step()
	}
}

// apply makes cfg the config in force, all of it or nothing. First everything
// new is built and checked beside what runs, a first lease of each new account
// included; only then is it put in place, in steps that have been proven to
// succeed and that are taken back if one does not.
func (g *Guard) apply(ctx context.Context, cfg *config.Config) (err error) {
	old := g.fleet.Load()
	next := &fleet{cfg: cfg}
	var back undo // of what is built beside, and then of what is put in place
	defer func() {
		if err != nil {
			back.run()
		}
	}()
	var place []func() error
	var served []*proxy.App
	for i := range cfg.Accounts {
		c := &cfg.Accounts[i]
		a, steps, err := g.buildAccount(ctx, cfg, c, old.account(c.Name), &back)
		if err != nil {
			return fmt.Errorf("account %s: %w", c.Name, err)
		}
		next.accounts, place = append(next.accounts, a), append(place, steps...)
		served = append(served, a.Apps...)
	}
	for _, a := range next.accounts {
		if a.end == nil {
			a.Rates.Begin(ctx, time.Now)
		}
	}
	for _, step := range place {
		if err := step(); err != nil {
			return err
		}
	}
	if err := g.proxy.Apply(served); err != nil {
		return err
	}
	g.fleet.Store(next)
	for _, a := range next.accounts {
		if a.end == nil {
			var run context.Context
			run, a.end = context.WithCancel(g.runCtx)
			g.running.Go(func() { a.Ledger.Run(run) })
			g.running.Go(func() { g.runWatch(run, a) })
			g.running.Go(func() { g.runBurn(run, a) })
			g.running.Go(func() { a.Shelf.Run(run) })
			g.running.Go(func() { g.runLearn(run, a.Name) })
			g.running.Go(func() { a.Rates.Run(run) })
			g.running.Go(func() { g.runBill(run, a.Name) })
			if a.Twins != nil {
				g.running.Go(func() { a.Twins.Run(run) })
			}
			g.running.Go(func() { g.proxy.Release(run, a.Shelf) })
		}
	}
	g.retire(old, next)
	return nil
}

// buildAccount builds c beside old (nil: it is new), and returns the steps that
// put it in place.
func (g *Guard) buildAccount(ctx context.Context, cfg *config.Config, c *config.Account, old *account, back *undo) (*account, []func() error, error) {
	a := &account{quota: quotaConfig(cfg, c)}
	a.contain = cfg.Contain
	a.Name, a.Floors, a.Levels = c.Name, a.quota.Floors, levels(cfg)
	for i := range c.Apps { // mistakes first: nothing has been touched
		policy, err := policyOf(cfg, c, &c.Apps[i])
		if err == nil {
			_, err = limiter.New(policy, nil, nil)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("app %s: %w", c.Apps[i].ID, err)
		}
	}
	var steps []func() error
	var err error
	if old == nil {
		a.moves = &breakerMoves{}
		if a.Breaker, err = limiter.NewBreaker(time.Now(), a.Levels, g.breakerMoved(c.Name, a.moves)); err != nil {
			return nil, nil, err
		}
		if a.Ledger, err = quota.Open(ctx, time.Now(), g.store, g.replica, a.quota, g.log); err != nil {
			return nil, nil, err
		}
		back.add(func() { _ = a.Ledger.Close(context.WithoutCancel(ctx)) })
		a.Recent = trial.NewHistory()
		a.watch, a.Shelf = g.newWatch(ctx, cfg, c, a), a.Ledger.Shelf()
		if !g.store.Exclusive() {
			a.Twins = a.Ledger.Twins()
		}
		a.Rates = a.Ledger.Rates(cfg.Replicas)
	} else {
		a.Ledger, a.Breaker, a.end, a.moves = old.Ledger, old.Breaker, old.end, old.moves
		a.watch, a.Shelf, a.Recent, a.Twins, a.unread, a.Rates = old.watch, old.Shelf, old.Recent, old.Twins, old.unread, old.Rates
		if old.contain != cfg.Contain {
			steps = append(steps, func() error {
				back.add(func() { a.watch.SetMode(containMode(old.contain)) })
				a.watch.SetMode(containMode(cfg.Contain))
				return nil
			})
		}
		if !reflect.DeepEqual(a.quota, old.quota) {
			steps = append(steps, func() error {
				back.add(func() { _ = a.Ledger.Reconfigure(old.quota) })
				return a.Ledger.Reconfigure(a.quota)
			})
		}
		if a.Levels != old.Levels {
			steps = append(steps, func() error {
				back.add(func() { _ = a.Breaker.Configure(old.Levels) })
				return a.Breaker.Configure(a.Levels)
			})
		}
	}
	for i := range c.Apps {
		one, step, err := g.buildApp(cfg, c, &c.Apps[i], a, old, back)
		if err != nil {
			return nil, nil, fmt.Errorf("app %s: %w", c.Apps[i].ID, err)
		}
		a.apps, a.Apps = append(a.apps, one), append(a.Apps, one.App)
		if step != nil {
			steps = append(steps, step)
		}
	}
	return a, steps, nil
}

func (g *Guard) buildApp(cfg *config.Config, account *config.Account, c *config.App, a, oldAccount *account, back *undo) (*app, func() error, error) {
	policy, err := policyOf(cfg, account, c)
	if err != nil {
		return nil, nil, err
	}
	out := &app{form: formOf(account, c), policy: policy}
	old := oldAccount.app(c.ID)
	if old != nil {
		out.asker = old.asker
	} else {
		out.asker = &asker{learner: learn.New(c.ID, g.log)}
	}
	var step func() error
	var judge *limiter.App
	if old != nil {
		judge = old.Limiter
		// A share counts through the ledger's own list, looked up when a policy is
		// applied: so a changed share is a changed policy.
		if !reflect.DeepEqual(policy, old.policy) {
			step = func() error {
				back.add(func() { _ = judge.Apply(old.policy) })
				return judge.Apply(policy)
			}
			if test := old.LoadTest; test != nil {
				live := step
				step = func() error {
					back.add(func() { _ = test.Limiter.Apply(loadTestPolicy(old.policy)) })
					if err := test.Limiter.Apply(loadTestPolicy(policy)); err != nil {
						return err
					}
					return live()
				}
			}
		}
		if reflect.DeepEqual(out.form, old.form) {
			out.App, out.sink = old.App, old.sink
			return out, step, nil
		}
	} else if judge, err = limiter.New(policy, a.Ledger, a.Breaker); err != nil {
		return nil, nil, err
	} else {
		judge.SetContainment(a.watch.Containment(c.ID))
		judge.SetTwins(a.Twins)
		a.shareRates(judge, back)
	}
	var keys []proxy.CallerKey
	for _, secret := range c.Secret {
		keys = append(keys, proxy.CallerKey{Key: pusher.NewKey(c.Key, secret.Reveal()), Caller: "app", Own: true})
	}
	for _, caller := range c.Callers {
		for _, secret := range caller.Secret {
			keys = append(keys, proxy.CallerKey{Key: pusher.NewKey(caller.Key, secret.Reveal()), Caller: caller.Name, LoadTest: caller.LoadTest})
		}
	}
	if g.extras.Sink || hasLoadTest(c) {
		var before *sink
		if old != nil {
			before = old.sink
		}
		out.sink = newSink(account, c, before)
	}
	var live *sink // where what is no load test goes
	if g.extras.Sink {
		live = out.sink
	}
	var up *proxy.Upstream
	if old != nil && (live == nil || live == old.sink) && reflect.DeepEqual(out.form.upstream, old.form.upstream) {
		up = old.Upstream
	} else if up, err = g.buildUpstream(c, keys[0].Key, live); err != nil {
		return nil, nil, err
	}
	var fanout *fanout.Table
	if old != nil && reflect.DeepEqual(out.form.app.Subscribers, old.form.app.Subscribers) {
		fanout = old.Fanout // with what it has learned
	} else {
		fanout = newFanout(c)
		a.Ledger.ShareFanout(c.ID, fanout)
	}
	var webhooks *proxy.Endpoint
	if old != nil && out.form.app.ForwardWebhooks.Equal(old.form.app.ForwardWebhooks) {
		webhooks = old.Webhooks
	} else if !c.ForwardWebhooks.IsZero() {
		if webhooks, err = proxy.NewEndpoint(c.ForwardWebhooks.Reveal()); err != nil {
			return nil, nil, err
		}
	}
	learner := out.learner
	out.App = &proxy.App{
		ID: c.ID, Account: account.Name, Keys: keys, Upstream: up, Limiter: judge, Ledger: a.Ledger, Breaker: a.Breaker,
		Fanout: fanout, Webhooks: webhooks,
		Billing: billing(account.Billing),
		Limits:  limits(c),
		Fold:    fold(c),
		Observe: func(now time.Time, app, caller, event string, channels []string, payload uint64, messages int64) {
			a.observe(now, app, caller, event, channels, payload, messages)
			learner.Note(now, channels, messages)
		},
		Shelf: a.Shelf, HeldExpiry: c.HeldExpiry, HeldMost: int64(account.HeldMax), HeldMostCaller: int64(account.HeldMaxPerCaller),
		Seed:    seedOf(c),
		Refresh: refresh(account.Digest),
	}
	if g.extras.Record != nil {
		out.Record = g.extras.Record.of(c.ID)
	}
	if hasLoadTest(c) {
		var before *proxy.App
		if old != nil {
			before = old.LoadTest
		}
		if out.LoadTest, err = g.buildLoadTest(c, policy, out.App, out.sink, before); err != nil {
			return nil, nil, err
		}
		if before == nil {
			a.shareRates(out.LoadTest.Limiter, back)
		}
	}
	return out, step, nil
}

// buildUpstream makes the way to Pusher, or with a sink the end of it.
func (g *Guard) buildUpstream(c *config.App, key *pusher.Key, swallow *sink) (*proxy.Upstream, error) {
	id := c.ID
	cfg := proxy.UpstreamConfig{
		URL:         c.UpstreamURL(),
		Key:         key,
		Timeout:     c.Timeout,
		ReadMost:    int64(c.ReadMax),
		FailureRate: float64(c.UpstreamBreaker.ErrorRate),
		MinCalls:    uint(c.UpstreamBreaker.MinRequests),
		Window:      c.UpstreamBreaker.Window,
		Cooldown:    c.UpstreamBreaker.OpenFor,
		MaxCalls:    c.MaxCalls,
		Off:         c.UpstreamBreaker.Off,
		Seconds:     g.upstream.WithLabelValues(id),
		OnBreaker: func(from, to string, rate float64) {
			g.log.Warn("upstream breaker moved", "app", id, "from", from, "to", to, "error_rate", rate)
		},
		OnUnauthorized: func(said string) {
			if now := time.Now().Unix(); g.unauthorized.Swap(now) < now-60 { // it may be said of every request
				g.log.Error("Pusher does not accept what is signed for an app; publishes are answered 401 until key, secret and cluster are right", "app", id, "said", said)
			}
		},
		OnLacking: func(endpoint string) {
			g.log.Warn("the upstream does not have an endpoint; publishes share calls without it from now on, and nothing was lost", "app", id, "endpoint", endpoint)
		},
		OnSilence: func(silent bool, lasted time.Duration) {
			if silent {
				g.log.Warn("Pusher does not answer, so one request each 100 ms is sent to it until it does", "app", id, "silent_for", lasted)
				return
			}
			g.log.Warn("Pusher answers again", "app", id, "silent_for", lasted)
		},
	}
	if c.CA != "" {
		var err error
		if cfg.Roots, err = proxy.Roots(c.CA); err != nil {
			return nil, fmt.Errorf("app %s: %w", id, err)
		}
	}
	if swallow != nil {
		cfg.Sink = swallow.answer
	}
	return proxy.NewUpstream(cfg)
}

// shareRates has judge's token buckets shared with the other replicas.
func (a *account) shareRates(judge *limiter.App, back *undo) {
	src := judge.Shares()
	a.Rates.Attach(src)
	back.add(func() { a.Rates.Detach(src) })
}

// loadTestPolicy is the policy of an app's load tests: the same, with buckets of its own.
func loadTestPolicy(p limiter.Policy) limiter.Policy {
	p.Realm = "load test"
	return p
}

func limits(c *config.App) pusher.Limits {
	return pusher.Limits{DataBytes: c.Limits.DataBytes, Channels: c.Limits.Channels, Batch: c.Limits.Batch, ChannelName: c.Limits.ChannelName, EventName: c.Limits.EventName}
}

// retire lets go of what next no longer has, once requests under way with it
// have ended.
func (g *Guard) retire(old, next *fleet) {
	ids := map[string]bool{}
	inUse := map[*proxy.Upstream]bool{}
	for _, a := range next.accounts {
		for _, x := range a.apps {
			ids[x.ID], inUse[x.Upstream] = true, true
		}
	}
	for _, a := range old.accounts {
		var longest time.Duration
		for _, x := range a.apps {
			longest = max(longest, x.form.upstream.timeout)
			if !ids[x.ID] {
				g.upstream.DeleteLabelValues(x.ID)
				a.Rates.Detach(x.Limiter.Shares())
				if x.LoadTest != nil {
					a.Rates.Detach(x.LoadTest.Limiter.Shares())
				}
			}
			if !inUse[x.Upstream] {
				x.Upstream.Close()
			}
		}
		if next.account(a.Name) != nil {
			continue
		}
		g.running.Go(func() {
			select {
			case <-time.After(longest + time.Second):
			case <-g.runCtx.Done():
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(g.runCtx), 5*time.Second)
			defer cancel()
			if err := a.close(ctx); err != nil {
				g.log.Warn("could not close an account removed from the config", "err", err)
			}
		})
	}
}

// close hands the account's leases back and ends what runs for it.
func (a *account) close(ctx context.Context) error {
	a.Rates.Close(ctx, time.Now())
	err := a.Ledger.Close(ctx)
	if a.end != nil {
		a.end()
	}
	for _, x := range a.apps {
		x.Upstream.Close()
	}
	if err != nil {
		return fmt.Errorf("account %s: leases could not be handed back, they end by themselves: %w", a.Name, err)
	}
	return nil
}

func quotaConfig(cfg *config.Config, c *config.Account) quota.Config {
	shares := map[string]float64{}
	for _, app := range c.Apps {
		for _, caller := range app.Callers {
			if caller.Share > 0 {
				shares[caller.Name] = float64(caller.Share)
			}
		}
	}
	if c.Digest != nil {
		shares[limiter.DigestShare] = float64(c.Digest.Budget)
	}
	out := quota.Config{Account: c.Name, Plan: quota.Plan(c.Plan), Floors: floors(c), OnStoreLoss: lossPolicy(cfg.OnStoreLoss), Shares: shares,
		Standby: cfg.Standby, Patient: true, Headroom: float64(c.Headroom), NoUnseen: c.Billing.Unseen == config.Free}
	if !cfg.Store.Embedded() { // the embedded store's journal is that record already
		out.RecordDir = cfg.DataDir
		out.Listen = time.Second // four heartbeats of the others
	}
	return out
}

func levels(cfg *config.Config) limiter.BreakerConfig {
	return limiter.BreakerConfig{
		ShedBulkAt:     float64(cfg.Breaker.ShedBulkAt),
		ShedNormalAt:   float64(cfg.Breaker.ShedNormalAt),
		CriticalOnlyAt: float64(cfg.Breaker.CriticalOnlyAt),
		Probe:          cfg.Breaker.Probe,
		Burn:           burnMode(cfg.Breaker.BurnRate),
		ByMarks:        cfg.Breaker.Protect == config.ProtectMarks,
	}
}

func burnMode(m config.BurnMode) limiter.BurnMode {
	switch m {
	case "observe":
		return limiter.BurnObserve
	case "off":
		return limiter.BurnOff
	}
	return limiter.BurnOn
}

func fold(c *config.App) *proxy.FoldConfig {
	if !c.Fold.Enabled {
		return nil
	}
	return &proxy.FoldConfig{Window: c.Fold.Window, Batch: c.Fold.Batch}
}

var errLeaving = errors.New("this replica is shutting down")
