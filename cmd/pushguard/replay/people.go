package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// pendingAction is an action that waits for its time in one world.
type pendingAction struct {
	*Action
	done  bool
	since time.Time // since when its condition holds
}

// people do what is due at now.
func (w *world) people(ctx context.Context, now time.Time) error {
	for _, a := range w.pending {
		if a.done || !a.due(w, now) {
			continue
		}
		a.done, a.since = !a.Again, time.Time{}
		if err := w.act(ctx, now, a.Action); err != nil {
			return err
		}
	}
	return nil
}

func (a *pendingAction) due(w *world, now time.Time) bool {
	if a.When == nil {
		return !now.Before(time.Time(a.At))
	}
	c := a.When
	if now.Before(time.Time(c.After)) {
		return false
	}
	if float64(w.used) < float64(c.Used)*float64(w.plan) && !(c.Used == 1 && !w.spentAt.IsZero()) {
		a.since = time.Time{}
		return false
	}
	if c.Rate > 0 && now.Unix()%60 == 0 && !w.rateAbove(now, c.Rate) {
		a.since = time.Time{}
		return false
	}
	if c.Rate > 0 && now.Unix()%60 != 0 {
		return false
	}
	if a.since.IsZero() {
		a.since = now
	}
	return now.Sub(a.since) >= time.Duration(c.For)
}

// rateAbove compares the last ten minutes with the same ten of the day before,
// as one does who looks at a graph.
func (w *world) rateAbove(now time.Time, times float64) bool {
	var today, yesterday int64
	m := now.Unix() / 60
	for i := m - 10; i < m; i++ {
		today += w.minutes[i]
		yesterday += w.minutes[i-24*60]
	}
	return yesterday > 0 && float64(today) >= times*float64(yesterday)
}

// forget drops the minutes that nobody will ask for.
func (w *world) forget(now time.Time) {
	old := now.Unix()/60 - 25*60
	delete(w.minutes, old)
}

func (w *world) act(ctx context.Context, now time.Time, a *Action) error {
	why := a.Why
	if why == "" {
		why = a.Do
	}
	var err error
	switch a.Do {
	case "plan":
		used := 100 * float64(w.used) / float64(w.plan)
		w.line(now, "action", fmt.Sprintf("%s: plan raised from %s to %s messages at %.1f %% used", why, grouped(w.plan), grouped(int64(a.Plan)), used))
		w.plan, w.spentAt = int64(a.Plan), time.Time{}
		if w.g != nil {
			err = w.g.ledger.SetPlan(ctx, now, int64(a.Plan), "operator", why)
		}
		return err
	case "usage":
		if w.g != nil {
			err = w.g.ledger.SetUsage(ctx, now, a.Used, "operator", why)
		}
	case "stop", "brake":
		w.stopped = w.g == nil
		if w.g != nil {
			allow := map[string]string{"stop": "none", "brake": "critical"}[a.Do]
			err = w.g.ledger.SetBrake(ctx, now, &quota.Brake{Allow: allow, Reason: why, By: "operator"})
		}
	case "resume":
		w.stopped = false
		if w.g != nil {
			err = w.g.ledger.LiftBrake(ctx, now, "operator", why)
		}
	}
	w.line(now, "action", why)
	return err
}
