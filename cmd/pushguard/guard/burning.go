package guard

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/forecast"
)

// burnEvery is how often a replica looks at how fast the plan burns, and at what the others decided. With a heartbeat of
// a quarter of a second each, a decision of one holds on all of them in well under a second.
const burnEvery = 200 * time.Millisecond

// runBurn feeds the burn-rate part of the account's quota breaker until ctx ends, and shares what it decides.
func (g *Guard) runBurn(ctx context.Context, a *account) {
	t := time.NewTicker(burnEvery)
	defer t.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			sent, corrected := a.Ledger.Sent(now), a.Ledger.Corrected(now)
			_, plan := a.Ledger.Used(now)
			used := sent + corrected
			shared := a.Ledger.CurrentBurn()
			if shared != nil {
				a.Breaker.AdoptBurn(now, *shared, used, plan)
			}
			next, changed := a.Breaker.ObserveBurn(now, sent, used, plan, func() forecast.Forecast { return a.Ledger.Forecast(now) })
			if !changed {
				mine := a.Breaker.BurnState()
				behind := shared == nil || mine.Seq > shared.Seq || !a.Ledger.BurnStored()
				if !behind || mine.Seq == 0 || !a.Ledger.Snapshot(now).StoreUp {
					continue
				}
				next = mine // the store was out of reach, or lost it
			}
			tell, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := a.Ledger.SetBurn(tell, now, next, burnWords(next))
			cancel()
			if err != nil && !failed {
				g.log.Warn("the other replicas could not be told how fast the plan burns; this one acts on it alone", "account", a.Name, "err", err)
			}
			failed = err != nil
		}
	}
}

// burnWords is what a state is called in the audit trail.
func burnWords(s quota.Burn) string {
	switch {
	case s.Trial:
		return "breaker on trial"
	case s.Level == 0:
		return "breaker closed"
	}
	return "breaker " + limiter.Level(s.Level).String()
}

// breakerMoves are transitions of the quota breaker that wait to be written into
// the timelines of incidents. They come from the hot path, which must not wait
// for the watch.
type breakerMoves struct {
	mu  sync.Mutex
	all []limiter.Transition
}

// maxMoves bounds what waits for a second; more is not told in timelines.
const maxMoves = 64

func (m *breakerMoves) add(t limiter.Transition) {
	// While Pusher refuses, each replica tries once a minute. That is no news.
	if t.From == limiter.Open && t.To == limiter.HalfOpen || t.From == limiter.HalfOpen && t.To == limiter.Open {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.all) < maxMoves {
		m.all = append(m.all, t)
	}
}

// tellMoves writes what the breaker did into the timelines of open incidents.
func (a *account) tellMoves() {
	a.moves.mu.Lock()
	all := a.moves.all
	a.moves.all = nil
	a.moves.mu.Unlock()
	for _, t := range all {
		a.watch.Note(t.At, "", "breaker", fmt.Sprintf("quota breaker %s -> %s: %s", t.From, t.To, t.Reason))
	}
}

// tellStand writes where the breaker stood already into an incident that opens.
func (a *account) tellStand(now time.Time, c watch.Change) {
	if s := a.Breaker.State(now); c.Phase == detect.Opened && s.State != limiter.Closed {
		a.watch.Note(now, c.Incident.ID, "breaker", fmt.Sprintf("quota breaker is %s since %s: %s", s.State, s.Since.UTC().Format(time.TimeOnly), s.Reason))
	}
}
