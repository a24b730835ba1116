package quota

import (
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// A replica that lacks tokens beats for publishes that have waited for half a second, with their times, beside its own
// heartbeats. Its demand is what it is all the same, or its next lease takes all that is left from the others.
func TestDemandIsNotInflatedByThoseWhoWaited(t *testing.T) {
	p := &pot{cells: new(cells)}
	now := noon
	const perSecond, horizon = 2000, 1500 * time.Millisecond
	p.measure(now, horizon)
	for i := range 200 { // ten seconds of a shortage, a flight every 50 ms
		now = now.Add(50 * time.Millisecond)
		p.waiting[Normal].Add(perSecond / 20)
		at := now
		if i%3 > 0 {
			at = now.Add(-time.Duration(i%7) * 100 * time.Millisecond)
		}
		p.measure(at, horizon)
		p.measure(at.Add(25*time.Millisecond), horizon)
		if r := p.rate[Normal]; i > 5 && r < perSecond*0.8 || r > perSecond*2.5 {
			t.Fatalf("a demand of %d a second was measured as %.0f", perSecond, r)
		}
	}
	// A clock that was set back by an hour is another matter: what was counted before says nothing.
	p.waiting[Normal].Add(100_000)
	now = now.Add(-time.Hour)
	p.measure(now, horizon)
	for range 40 {
		now = now.Add(50 * time.Millisecond)
		p.waiting[Normal].Add(perSecond / 20)
		p.measure(now, horizon)
	}
	if r := p.rate[Normal]; r < perSecond*0.8 || r > perSecond*2 {
		t.Errorf("after the clock was set back the demand is measured as %.0f", r)
	}
}

// After a loss of data nothing is leased for three seconds. Publishes wait for half a second and are refused; when the lease
// comes, those that still wait take theirs at once. None of it is more demand than there was, or the lease is many times
// what is needed, and a replica that is killed with it wastes it.
func TestWhatWaitedIsNoRate(t *testing.T) {
	p := &pot{cells: new(cells)}
	now := noon
	const perSecond, horizon, beat = 2000, 1500 * time.Millisecond, 50 * time.Millisecond
	const step = int64(perSecond * beat / time.Second)
	p.measure(now, horizon)
	for range 60 {
		now = now.Add(beat)
		for range step {
			p.want(Normal, 1, false)
		}
		p.measure(now, horizon)
	}
	p.granted[Normal] += 10_000
	p.lease[Normal].Add(10_000)
	waiting := 10 * step
	for i := range 60 {
		for range waiting {
			h := Hold{pot: p, cost: 1}
			h.class, _, _ = p.take(Normal, 1)
			wanted{plan: p}.got(h)
		}
		waiting = 0
		now = now.Add(beat)
		for range step {
			p.take(Normal, 1)
		}
		p.measure(now, horizon)
		if r := p.rate[Normal]; r < perSecond*0.9 || r > perSecond*1.3 {
			t.Fatalf("%v after the lease came a demand of %d a second is measured as %.0f", time.Duration(i+1)*beat, perSecond, r)
		}
	}
}

// The same through Reserve: a burst that finds the lease dry counts once, though it first waits and then takes.
func TestABurstThatWaitedCountsOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		const publishes, cost, share = 40, 100, "batch"
		cfg := plan(1_000_000)
		cfg.Shares = map[string]float64{share: 0.5}
		l := join(t, st, noon, "a", cfg)
		at := noon.Add(50 * time.Millisecond)
		var all sync.WaitGroup
		for range publishes {
			all.Go(func() {
				if _, d := l.Reserve(ctx, at, l.Share(share), Normal, cost); d != Granted {
					t.Errorf("refused: %v", d)
				}
			})
		}
		all.Wait()
		b := l.find(noon)
		beat(t, noon.Add(300*time.Millisecond), l)
		if t.Failed() {
			return
		}
		const most = publishes * cost / 0.3
		var rate float64
		for _, r := range b.plan.rate {
			rate += r
		}
		if r := b.shares[share].rate[Bulk]; rate > 1.02*most || r > 1.02*most || rate < 0.9*most || r < 0.9*most {
			t.Errorf("%d messages in 300 ms are measured as %.0f a second of the plan, %.0f of the share", publishes*cost, rate, r)
		}
	})
}
