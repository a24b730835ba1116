package main

import (
	"context"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// burnEvery is how often a replica looks at how fast the plan burns, and at what the others decided. With a heartbeat of
// a quarter of a second each, a decision of one holds on all of them in well under a second.
const burnEvery = 200 * time.Millisecond

// runBurn feeds the burn-rate part of the account's quota breaker until ctx ends, and shares what it decides.
func (g *guard) runBurn(ctx context.Context, a *account) {
	t := time.NewTicker(burnEvery)
	defer t.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			used, plan := a.Ledger.Used(now)
			shared := a.Ledger.CurrentBurn()
			if shared != nil {
				a.Breaker.AdoptBurn(now, *shared, used, plan)
			}
			next, changed := a.Breaker.ObserveBurn(now, a.Ledger.Sent(now), used, plan, func() quota.Forecast { return a.Ledger.Forecast(now) })
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
