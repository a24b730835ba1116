package replay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/forecast"
	"github.com/pushguard/pushguard/quota/store"
)

// Guard is what the config means, compiled as the live guard compiles it.
type Guard struct {
	Policy  limiter.Policy
	Ledger  quota.Config
	Breaker limiter.BreakerConfig
	Billing pusher.Billing
	Mode    watch.Mode
}

// world is one course of things: Pusher with its plan, alone or behind a guard.
type world struct {
	out  Outcome
	name string

	// Pusher's own side.
	plan    int64
	used    int64
	day     quota.Day
	spentAt time.Time
	stopped bool // by hand, where there is no guard to tell

	g *guard // nil: Pusher alone

	pending []*pendingAction
	minutes map[int64]int64 // billed, by minute, for actions that look at the rate
	chart   *series
}

// guard is the real thing, run by the engine's clock.
type guard struct {
	store   *store.Store
	ledger  *quota.Ledger
	breaker *limiter.Breaker
	app     *limiter.App
	watch   *watch.Watch
	appID   string
	callers map[string]*limiter.Caller
	claim   limiter.Claim
	beatAt  time.Time
	now     time.Time
}

// beatEvery is between heartbeats in virtual time. A lease that runs dry is
// refilled at once all the same, as in the live guard.
const beatEvery = time.Minute

func newWorld(ctx context.Context, name string, s *Scenario, gd *Guard, now time.Time) (*world, error) {
	w := &world{name: name, plan: s.Account.Plan.MessagesPerDay, day: quota.DayOf(now), minutes: map[int64]int64{}}
	w.out.Name = name
	w.out.Outcomes = map[string]int64{}
	for i := range s.Actions {
		a := &s.Actions[i]
		if a.Only == "" || (a.Only == "guarded") == (gd != nil) {
			w.pending = append(w.pending, &pendingAction{Action: a})
		}
	}
	if gd == nil {
		return w, nil
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	g := &guard{appID: s.App.ID, callers: map[string]*limiter.Caller{}, beatAt: now, now: now}
	var err error
	if g.store, err = store.Open(ctx, "embedded", store.Options{Log: quiet, Timeout: 10 * time.Second}); err != nil {
		return nil, err
	}
	cfg := gd.Ledger
	cfg.Wait, cfg.Every, cfg.Horizon, cfg.DeadIn = -1, beatEvery, 2*beatEvery, time.Hour
	if g.ledger, err = quota.Open(ctx, now, g.store, "replay", cfg, quiet); err != nil {
		return nil, err
	}
	if g.breaker, err = limiter.NewBreaker(now, gd.Breaker, func(t limiter.Transition) {
		w.out.Transitions = append(w.out.Transitions, Transition{t.At.UTC(), t.From.String(), t.To.String(), t.Reason})
	}); err != nil {
		return nil, err
	}
	if g.app, err = limiter.New(gd.Policy, g.ledger, g.breaker); err != nil {
		return nil, err
	}
	g.watch = watch.New(watch.Config{
		Account: s.Account.Name, Apps: []string{s.App.ID}, Mode: gd.Mode, Used: g.ledger.Used,
		Pace:  g.breaker.Pace,
		Level: func(now time.Time) limiter.Level { return g.breaker.State(now).State },
		Bears: func(plan int64) watch.Bears {
			return watch.BearsOf(plan, gd.Breaker.ShedBulkAt, gd.Ledger.Floors)
		},
	})
	g.app.SetContainment(g.watch.Containment(s.App.ID))
	w.g = g
	return w, nil
}

func (w *world) close() {
	if w.g != nil {
		_ = w.g.store.Close()
	}
}

// turn begins a new day at Pusher's.
func (w *world) turn(now time.Time, counted bool) {
	if d := quota.DayOf(now); d != w.day {
		w.endDay(counted)
		w.day, w.used, w.spentAt = d, 0, time.Time{}
	}
}

// endDay writes the day's bill down.
func (w *world) endDay(counted bool) {
	if counted {
		w.out.Days = append(w.out.Days, Day{Day: w.day.String(), Billed: w.used, Plan: w.plan, UsedUpAt: stamp(w.spentAt)})
	}
}

// take is one publish's way.
func (w *world) take(ctx context.Context, p *publish, failing, counted bool) error {
	var outcome limiter.Outcome
	var cost int64
	if w.g == nil {
		outcome, cost = w.alone(p, failing)
	} else {
		var err error
		if outcome, cost, err = w.guarded(ctx, p, failing); err != nil {
			return err
		}
	}
	w.minutes[p.at.Unix()/60] += cost
	if !counted {
		return nil
	}
	o := &w.out
	o.Publishes++
	o.Outcomes[outcomeName(w.g == nil, outcome)]++
	delivered := !outcome.Refuses()
	if p.incident {
		o.Culprit.Offered++
		o.Culprit.Billed += cost
		if delivered {
			o.Culprit.Delivered++
		}
	} else {
		o.Healthy.Offered++
		o.Healthy.Billed += cost
		if delivered {
			o.Healthy.Delivered++
		}
	}
	w.chart.publish(p.at, p.incident, delivered, cost)
	return nil
}

// outcomeName is the guard's word, or Pusher's.
func outcomeName(alone bool, o limiter.Outcome) string {
	if alone && o == limiter.OverBudget {
		return "refused by Pusher (403)"
	}
	return o.String()
}

// alone is Pusher without a guard: everybody is served until the plan is spent,
// then nobody is.
func (w *world) alone(p *publish, failing bool) (limiter.Outcome, int64) {
	switch {
	case w.stopped:
		return limiter.Braked, 0
	case failing:
		return limiter.Unavailable, 0
	case !w.bill(p):
		return limiter.OverBudget, 0
	}
	return limiter.Sent, p.cost
}

// bill is Pusher's counting.
func (w *world) bill(p *publish) bool {
	if w.used+p.cost > w.plan {
		if w.spentAt.IsZero() {
			w.spentAt = p.at
			w.line(p.at, "used up", fmt.Sprintf("the plan of %s messages is used up: Pusher refuses everybody", grouped(w.plan)))
		}
		return false
	}
	w.used += p.cost
	return true
}

// guarded is what the live data port does with one publish, without the wire.
func (w *world) guarded(ctx context.Context, p *publish, failing bool) (limiter.Outcome, int64, error) {
	g := w.g
	caller := g.callers[p.caller]
	if caller == nil {
		caller = g.app.Caller(p.caller)
		g.callers[p.caller] = caller
	}
	g.watch.Observe(p.at, g.appID, p.caller, p.event, p.channels, p.digest[0], p.cost)
	c := &g.claim
	*c = limiter.Claim{Caller: caller, Event: p.event, Channels: p.channels, Digest: p.digest, Cost: p.cost, Size: p.size}
	v := g.app.Admit(ctx, p.at, c)
	if v.Outcome != limiter.Sent {
		g.app.Done(p.at, c, &v, limiter.NotSent, 0)
		return v.Outcome, 0, nil
	}
	fate := limiter.Delivered
	switch {
	case failing:
		fate = limiter.Unknown
	case !w.bill(p):
		fate = limiter.Refused
		v.Outcome, v.Reason = limiter.OverBudget, limiter.Exhausted
	}
	cost := p.cost
	if fate == limiter.Refused {
		cost = 0
	}
	g.app.Done(p.at, c, &v, fate, cost)
	switch {
	case fate == limiter.Refused:
		g.breaker.Trip(p.at, "over message quota")
		if err := g.ledger.Exhaust(ctx, p.at, "over message quota"); err != nil {
			return 0, 0, err
		}
		return limiter.OverBudget, 0, nil
	case fate == limiter.Unknown:
		return limiter.Unavailable, 0, nil
	case v.Probe:
		if err := g.ledger.Reopen(ctx, p.at, "a probe was taken"); err != nil {
			return 0, 0, err
		}
	}
	return limiter.Sent, cost, nil
}

// tick is the end of a second.
func (w *world) tick(ctx context.Context, now time.Time, truth *truth, counted bool) error {
	g := w.g
	if g == nil {
		return nil
	}
	g.now = now
	used, plan := g.ledger.Used(now)
	g.breaker.ObserveBurn(now, g.ledger.Sent(now), used, plan, func() forecast.Forecast { return g.ledger.Forecast(now) })
	for _, c := range g.watch.Tick(now) {
		if counted {
			w.changed(c, truth)
		} else if c.Phase == detect.Opened {
			w.out.WarmupIncidents++
		}
	}
	if !now.Before(g.beatAt) {
		g.beatAt = now.Add(beatEvery)
		return g.ledger.Beat(ctx, now)
	}
	return nil
}

// changed writes an incident's step down, and whether it names who it is.
func (w *world) changed(c watch.Change, truth *truth) {
	in := &c.Incident
	named := ""
	for i, x := range in.Culprits {
		if i > 0 {
			named += ", "
		}
		named += x.String()
	}
	switch c.Phase {
	case detect.Opened:
		w.line(c.At, "incident", fmt.Sprintf("opened at %.3g times the usual rate: %s (%s)", in.Factor, named, in.Action))
	case detect.Updated:
		w.line(c.At, "incident", "now: "+named)
	case detect.Resolved:
		w.line(c.At, "incident", fmt.Sprintf("resolved after %s: %s messages beyond the usual were offered", in.ResolvedAt.Sub(in.StartedAt).Round(time.Second), grouped(in.Excess)))
	}
	truth.judge(w, c)
}

func (w *world) line(at time.Time, kind, text string) {
	if len(w.out.Timeline) < 1000 {
		w.out.Timeline = append(w.out.Timeline, Line{at.UTC(), kind, text})
	}
}
