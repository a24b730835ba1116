package replay

import (
	"context"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/pusher"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/quota/fanout"
)

// Side is one guard that the traffic is run through.
type Side struct {
	Name  string
	Guard *Guard // nil: Pusher alone
}

// Run takes the scenario's traffic through every side at once, so that all see
// the very same publishes. The result depends on scenario and seed alone, but
// for its speed.
func Run(ctx context.Context, s *Scenario, seed uint64, sides []Side) (*Result, error) {
	if seed == 0 {
		seed = max(s.Seed, 1)
	}
	began := time.Now()
	e := &engine{s: s, fanout: newFanout(s.App)}
	start, from, until := e.span()
	var err error
	var tr *trace
	if s.Trace != "" {
		if tr, err = openTrace(s.Trace, s.App.ID); err != nil {
			return nil, err
		}
		defer tr.close()
		if start, err = tr.first(); err != nil {
			return nil, err
		}
		start = start.Truncate(time.Second)
		from = start.Add(time.Duration(s.Warmup))
	}
	for _, side := range sides {
		w, err := newWorld(ctx, side.Name, s, side.Guard, start)
		if err != nil {
			return nil, err
		}
		defer w.close()
		e.worlds = append(e.worlds, w)
		if side.Guard != nil {
			e.billing = side.Guard.Billing
		}
	}
	for _, w := range e.worlds {
		w.chart = newSeries(from, until)
	}
	e.truth = newTruth(s, e.worlds)
	if tr != nil {
		until, err = e.replayTrace(ctx, tr, start, from)
	} else {
		err = e.generate(ctx, seed, start, from, until)
	}
	if err != nil {
		return nil, err
	}
	wall := time.Since(began)
	r := &Result{
		Scenario: s.Name, Account: s.Account.Name, Seed: seed, From: from.UTC(), Until: until.UTC(),
		Publishes: e.total, WallSeconds: wall.Seconds(), PerSecond: float64(e.total) / wall.Seconds(),
	}
	for _, w := range e.worlds {
		w.endDay(true)
		r.Sides = append(r.Sides, w.finish(s.Account.Plan.MessagesPerDay))
	}
	return r, nil
}

// engine drives the worlds through virtual time.
type engine struct {
	s       *Scenario
	worlds  []*world
	truth   *truth
	fanout  *fanout.Table
	billing pusher.Billing
	total   int64
}

func newFanout(app *config.App) *fanout.Table {
	patterns := make([]fanout.Pattern, len(app.Subscribers.Patterns))
	for i, p := range app.Subscribers.Patterns {
		patterns[i] = fanout.Pattern(p)
	}
	return fanout.New(app.Subscribers.Default, patterns)
}

func (e *engine) span() (start, from, until time.Time) {
	from, until = time.Time(e.s.From), time.Time(e.s.Until)
	return from.Add(-time.Duration(e.s.Warmup)), from, until
}

func (e *engine) generate(ctx context.Context, seed uint64, start, from, until time.Time) error {
	g := newGenerator(e.s, seed, e.fanout, e.billing)
	for t := start; t.Before(until); t = t.Add(time.Second) {
		counted := !t.Before(from)
		if e.s.Progress != nil && t.Unix()%600 == 0 {
			e.s.Progress(t, until)
		}
		if err := e.open(ctx, t, counted); err != nil {
			return err
		}
		failing := e.failing(t)
		err := g.second(t, func(p *publish) error {
			return e.each(ctx, p, failing > 0 && float64(p.digest[1]>>11)/(1<<53) < failing, counted)
		})
		if err != nil {
			return err
		}
		e.truth.look(g, t)
		if err := e.close(ctx, t.Add(time.Second), counted); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// each takes one publish through every world.
func (e *engine) each(ctx context.Context, p *publish, failing, counted bool) error {
	e.total++
	for _, w := range e.worlds {
		if err := w.take(ctx, p, failing, counted); err != nil {
			return err
		}
	}
	return nil
}

// open begins a second.
func (e *engine) open(ctx context.Context, t time.Time, counted bool) error {
	for _, w := range e.worlds {
		w.turn(t, counted && t.After(e.truth.from))
		if err := w.people(ctx, t); err != nil {
			return err
		}
	}
	if t.Unix()%60 == 0 {
		for _, w := range e.worlds {
			w.forget(t)
		}
		return ctx.Err()
	}
	return nil
}

// close ends a second.
func (e *engine) close(ctx context.Context, t time.Time, counted bool) error {
	for _, w := range e.worlds {
		if err := w.tick(ctx, t, e.truth, counted); err != nil {
			return err
		}
		if counted {
			w.chart.used(t, w.used, w.plan)
		}
	}
	return nil
}

// failing is the part of publishes that get no answer at t.
func (e *engine) failing(t time.Time) float64 {
	for i := range e.s.Faults {
		if f := &e.s.Faults[i]; !t.Before(time.Time(f.From)) && t.Before(time.Time(f.Until)) {
			return float64(f.Part)
		}
	}
	return 0
}

// truth is what a scenario knows of its own incident, to judge the naming by.
type truth struct {
	from     time.Time
	culprits []*culprit
	healthy  map[string]float64
	all      map[string]float64
}

type culprit struct {
	caller, event, pattern string
	began                  time.Time // the first second in which it sends
	passed                 time.Time // when its caller passes three times what it usually sends
	named                  map[*world]time.Time
	lost                   map[*world]int64 // messages billed to the incident when it was named
}

const passes = 3

func newTruth(s *Scenario, worlds []*world) *truth {
	t := &truth{from: time.Time(s.From), healthy: map[string]float64{}, all: map[string]float64{}}
	for i := range s.Traffic {
		st := &s.Traffic[i]
		if !st.Incident {
			continue
		}
		c := &culprit{caller: st.Caller, event: st.Event, pattern: string(detect.Fold(nil, st.Channel.names[0])), named: map[*world]time.Time{}, lost: map[*world]int64{}}
		known := false
		for _, o := range t.culprits {
			known = known || o.caller == c.caller && o.event == c.event && o.pattern == c.pattern
		}
		if !known {
			t.culprits = append(t.culprits, c)
		}
	}
	for _, w := range worlds {
		w.out.truth = t
	}
	return t
}

// look notes when culprits begin, and when their callers pass three times the
// usual.
func (t *truth) look(g *generator, now time.Time) {
	due := false
	for _, c := range t.culprits {
		due = due || c.passed.IsZero()
	}
	if !due {
		return
	}
	clear(t.healthy)
	clear(t.all)
	for _, st := range g.streams {
		t.all[st.Caller] += st.now
		if !st.Incident {
			t.healthy[st.Caller] += st.now
		}
	}
	for _, c := range t.culprits {
		rises := t.all[c.caller] > t.healthy[c.caller]
		if c.began.IsZero() && rises {
			c.began = now
		}
		if c.passed.IsZero() && rises && t.all[c.caller] >= passes*t.healthy[c.caller] {
			c.passed = now
		}
	}
}

// judge notes which culprits a change names: caller, event and channel pattern,
// all three.
func (t *truth) judge(w *world, c watch.Change) {
	for _, x := range t.culprits {
		if !x.named[w].IsZero() || x.began.IsZero() {
			continue
		}
		for _, n := range c.Incident.Culprits {
			if n.Caller == x.caller && n.Event == x.event && n.Channel == x.pattern {
				x.named[w], x.lost[w] = c.At, w.out.Culprit.Billed
			}
		}
	}
}
