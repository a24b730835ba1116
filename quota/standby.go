package quota

import (
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// A standby is what a replica holds beyond its lease, to go on from while the store is out of reach: some minutes of its
// own traffic. It is leased like all else, so the sum over all replicas stays within the plan, and it is handed back as
// soon as others lack tokens. Three things keep it from being stranded: it is small beside the plan, a replica takes it
// only as it sends, and the cells on disk tell the next process what was left of it.

// Bounds of a standby.
const (
	standbyPart  = 100 // never more than this part of the plan, lease and standby of one replica together
	standbyGrown = 10  // times what this process has sent so far: one that keeps crashing never holds much
)

// wastedPart is the part of the plan that may be lost in a day with replicas that never come back; beyond it no standby is
// taken until the day ends.
const wastedPart = 100

// leaseMost is the largest lease of a pot, beyond one publish's price: a hundredth of what is left of the plan.
func (t *pot) leaseMost() int64 {
	if t.acked == 0 {
		return 0
	}
	return max((t.room[Critical].Load()+t.own(Critical)+t.lent.Load())/100, 1)
}

// standbyFor is what p should hold as standby, sized by the demand on like: p itself, or today's pot for a day that has
// not begun. It belongs to the flight.
func (l *Ledger) standbyWanted(cfg *Config, p, like *pot) (want store.Counts) {
	v := l.view.Load()
	plan := l.plan.Load()
	if cfg.Standby <= 0 || p.name != "" || p.acked == 0 || l.st.Exclusive() || l.wasteful(p, plan) || !v.up || v.withheld {
		return want
	}
	budget := min(standbyGrown*l.lived, plan/standbyPart-p.holds(Critical))
	sum := int64(0)
	for c := range want {
		n := int64(like.slow[c] * cfg.Standby.Seconds())
		left := p.room[c].Load() + p.own(Priority(c)) + p.lent.Load()
		n = min(n, budget-sum, left/2/int64(max(v.replicas, 1))-sum)
		want[c] = max(n, 0)
		sum += want[c]
	}
	return want
}

// wasteful reports whether so much of the day was lost with dead replicas that no more is put at risk, and says so once.
func (l *Ledger) wasteful(p *pot, plan int64) bool {
	if p.heard.Wasted <= plan/wastedPart {
		return false
	}
	if l.wasteSaid != p.day {
		l.wasteSaid = p.day
		l.log.Warn("no standby is taken for the rest of the day: replicas that were killed and did not come back on the same disk "+
			"have left more than a hundredth of the plan unspent. Give each replica a name and a data_dir of its own that it keeps",
			"day", p.day.String(), "messages", p.heard.Wasted)
	}
	return true
}

// live counts what this process has sent.
func (l *Ledger) live(b *book) {
	n := b.plan.spent.Load()
	l.lived += max(n-b.lived, 0)
	b.lived = n
}

// ahead is how long before midnight tomorrow's lease is taken; with a standby as long as that lasts.
func (l *Ledger) ahead() time.Duration {
	if l.st.Exclusive() {
		return dayAhead
	}
	return max(dayAhead, l.cfg.Load().Standby)
}

// aheadEvery is between heartbeats of tomorrow's book: often enough to be taken for alive.
const aheadEvery = 2 * time.Second
