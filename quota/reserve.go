package quota

import (
	"context"
	"time"
)

// How long a reserve pauses before it asks the store again, when other replicas hold tokens that they are
// going to hand back.
const pause = 25 * time.Millisecond

// reserveSlow decides what the fast path could not: a dry lease, a new day, an exhausted account, a lost store.
func (l *Ledger) reserveSlow(ctx context.Context, now time.Time, s *Share, p Priority, cost int64, probe bool) (Hold, Denial) {
	if cost <= 0 {
		return Hold{}, Granted
	}
	if p >= Priorities {
		p = Bulk
	}
	cfg := l.cfg.Load()
	var timer *time.Timer
	var w wanted
	for try := 0; ; try++ {
		b := l.find(now)
		if b != nil {
			if !probe && l.exhausted(b.day) {
				return Hold{}, Exhausted
			}
			if l.closed.Load() {
				return Hold{}, StoreLost
			}
			lost := l.gate.Load()&gateLost != 0
			if lost && (cfg.OnStoreLoss == LossClosed ||
				cfg.OnStoreLoss == LossLease && b.plan.inHand()-cost < b.plan.reserved[p].Load()) {
				l.kick()
				if b.plan.inHand() < cost {
					l.spent.Store(true)
				}
				return Hold{}, StoreLost
			}
			if h, left, ok := takeBoth(b, s, p, cost); ok {
				if left < b.plan.low.Load() {
					l.kick()
				}
				return w.got(h), Granted
			}
			if b.plan.holds(p) < cost && b.plan.dip(p, cost) {
				l.kick()
			}
			b.plan.gatherFor(p, cost)
			if h, _, ok := takeBoth(b, s, p, cost); ok {
				return w.got(h), Granted
			}
			if lost {
				l.kick()
				return l.borrow(b, s, p, cost, cfg.OnStoreLoss)
			}
			d := l.hopeless(b, s, p, cost)
			// Also who gives up at once says what it lacks: what others hold unused is called back by their next
			// heartbeats, and is not stranded.
			if d == Granted || b.plan.mayCallBack(p, cost) {
				if b.plan.holds(p) < cost {
					b.plan.want(p, cost, w.plan == b.plan)
					w.plan = b.plan
				}
			}
			if s != nil {
				if sp := s.on(b.day); sp != nil && (d == Granted || sp.mayCallBack(Bulk, cost)) && sp.holds(Bulk) < cost {
					sp.want(Bulk, cost, w.share == sp)
					w.share = sp
				}
			}
			if d != Granted && (try > 0 || now.Sub(l.view.Load().at) < cfg.Every) {
				return Hold{}, d
			}
		} else if l.gate.Load()&gateLost != 0 || l.closed.Load() {
			l.openLocal(now)
			if l.find(now) == nil {
				return Hold{}, StoreLost
			}
			continue
		}
		if timer == nil {
			wait := cfg.Wait
			if wait < 0 {
				wait = 5 * time.Second // the store's own timeout ends it sooner
			}
			timer = time.NewTimer(wait)
			defer timer.Stop()
		}
		f := l.fly(now)
		select {
		case <-f.done:
		case <-ctx.Done():
			return l.lastTry(now, s, p, cost, w, StoreLost)
		case <-timer.C:
			return l.lastTry(now, s, p, cost, w, StoreLost)
		}
		if f.err != nil || try == 0 {
			continue
		}
		// The store had nothing, yet others hold tokens or a loss of data is being healed.
		if cfg.Wait < 0 && try >= 2 {
			return l.lastTry(now, s, p, cost, w, PlanSpent)
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return l.lastTry(now, s, p, cost, w, PlanSpent)
		case <-timer.C:
			again.Stop()
			return l.lastTry(now, s, p, cost, w, PlanSpent)
		}
	}
}

// wanted is where a reserve has told that it waits.
type wanted struct{ plan, share *pot }

// got notes that it need not any more.
func (w wanted) got(h Hold) Hold {
	if w.plan != nil && w.plan == h.pot {
		h.pot.late[h.class].Add(h.cost)
	}
	if w.share != nil && w.share == h.share {
		h.share.late[Bulk].Add(h.cost)
	}
	return h
}

// gatherFor heaps up tokens of several classes when none alone can pay.
func (t *pot) gatherFor(p Priority, cost int64) {
	if t.holds(p) >= cost {
		t.gather(p)
	}
}

// hopeless says why no wait can bring cost, Granted if one may.
func (l *Ledger) hopeless(b *book, s *Share, p Priority, cost int64) Denial {
	if l.view.Load().withheld {
		return Granted // the store gives nothing for the moment, but will
	}
	if !b.plan.mayGet(p, cost) {
		return planDenial(b.plan, p, cost)
	}
	if s != nil && s.ppm.Load() != 0 {
		if sp := s.on(b.day); sp != nil {
			if !sp.mayGet(Bulk, cost) {
				return ShareSpent
			}
			if sp.waitsInVain(Bulk, cost) {
				return NotYet
			}
		}
	}
	if b.plan.waitsInVain(p, cost) {
		return NotYet
	}
	return Granted
}

// waitsInVain reports whether only tokens would do that other replicas hold, and waiting for those was in vain.
func (t *pot) waitsInVain(p Priority, cost int64) bool {
	return t.stuck.Load() && t.room[p].Load()+t.own(p) < cost
}

// inHand is what may be spent without the store.
func (t *pot) inHand() int64 { return t.holds(Critical) + t.standbyFor(Critical) }

// planDenial tells a plan that is used up from one whose rest is kept for higher priorities.
func planDenial(t *pot, p Priority, cost int64) Denial {
	if p < Critical && t.room[Critical].Load() >= cost {
		return FloorReserved
	}
	return PlanSpent
}

// lastTry ends a wait that was in vain.
func (l *Ledger) lastTry(now time.Time, s *Share, p Priority, cost int64, w wanted, why Denial) (Hold, Denial) {
	b := l.find(now)
	if b == nil {
		return Hold{}, StoreLost
	}
	if h, _, ok := takeBoth(b, s, p, cost); ok {
		return w.got(h), Granted
	}
	if d := l.hopeless(b, s, p, cost); d != Granted {
		return Hold{}, d
	}
	if why == StoreLost || l.view.Load().withheld {
		return Hold{}, StoreLost
	}
	// The plan has room, but the tokens did not come in time. Where others hold them, nobody waits for them again until
	// they move.
	if s != nil && b.plan.holds(p) >= cost {
		if sp := s.on(b.day); sp != nil {
			sp.stuck.Store(true)
		}
		return Hold{}, NotYet
	}
	b.plan.stuck.Store(true)
	return Hold{}, NotYet
}

// borrow decides while the store is out of reach and the lease of the plan, or of the caller's share, is dry. A share may
// go on to this replica's part of what was left of it; it is no money, the plan's tokens are.
func (l *Ledger) borrow(b *book, s *Share, p Priority, cost int64, policy LossPolicy) (Hold, Denial) {
	if s != nil && s.ppm.Load() != 0 {
		if class, _, ok := b.plan.take(p, cost); ok {
			if sp := s.on(b.day); sp != nil && sp.borrow(Bulk, cost) {
				return Hold{pot: b.plan, share: sp, cost: cost, class: class}, Granted
			}
			b.plan.lease[class].Add(cost)
			return Hold{}, StoreLost
		}
	}
	if policy != LossOpen || !b.plan.borrow(p, cost) {
		return Hold{}, StoreLost
	}
	h := Hold{pot: b.plan, cost: cost, class: p}
	if s != nil && s.ppm.Load() != 0 {
		if sp := s.on(b.day); sp != nil {
			if _, _, ok := sp.take(Bulk, cost); !ok && !sp.borrow(Bulk, cost) {
				b.plan.lease[p].Add(cost) // stays ours, for somebody else
				return Hold{}, StoreLost
			}
			h.share = sp
		}
	}
	return h, Granted
}

// exhausted reports whether Pusher closed the account for day.
func (l *Ledger) exhausted(day Day) bool {
	if m := l.pending.Load(); m != nil && m.day == day {
		return true
	}
	v := l.view.Load()
	return v.exhausted != nil && v.exhausted.day == day
}
