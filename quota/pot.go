package quota

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// counter is an atomic alone on its cache line, so that two of them do not slow each other down.
type counter struct {
	atomic.Int64
	_ [56]byte
}

// A pot is what one replica holds of one budget on one day: the plan, or a caller's share of it. The tokens of
// the lease come in classes: a bulk token may be spent by anybody, a critical one by critical alone.
//
// The atomics are for everybody; the fields below them belong to the flight (beat.go), one at a time.
type pot struct {
	name string // "" for the plan, else the caller
	day  Day

	lease [Priorities]counter
	spent counter // settled
	low   atomic.Int64

	over      atomic.Int64             // spent beyond the leases
	emergency atomic.Int64             // the part of over that was lent while the store was out of reach
	reserved  [Priorities]atomic.Int64 // of the lease, for higher priorities while the store is out of reach
	allowed   [Priorities]atomic.Int64 // what emergency may reach, by priority
	room      [Priorities]atomic.Int64 // what the store could give when last heard
	lent      atomic.Int64             // what other replicas held unused when last heard
	stuck     atomic.Bool              // waiting for lent was in vain
	usedBase  atomic.Int64             // spent by the others, corrections included
	waiting   [Priorities]atomic.Int64 // cost of publishes that found the lease dry since the last flight
	biggest   [Priorities]atomic.Int64 // the most expensive of them
	late      [Priorities]atomic.Int64 // tokens that went to publishes counted in waiting, since the last flight

	granted  store.Counts
	returned store.Counts
	acked    int64
	sent     store.PotReport // the report under way or last confirmed
	heard    store.PotState
	saved    int64               // over, as last written to the record
	rate     [Priorities]float64 // messages a second taken from each class of the lease
	recent   [Priorities]float64 // the same in the last interval alone
	gone     store.Counts        // granted−returned−lease when rate was last measured
	unmet    store.Counts        // waiting, collected since then
	caughtUp store.Counts        // late, collected since then
	measured time.Time
}

// take takes cost tokens that p may spend, its own class first.
func (t *pot) take(p Priority, cost int64) (class Priority, left int64, ok bool) {
	for class = p; ; class-- {
		c := &t.lease[class]
		for have := c.Load(); have >= cost; have = c.Load() {
			if c.CompareAndSwap(have, have-cost) {
				return class, have - cost, true
			}
		}
		if class == Bulk {
			return 0, 0, false
		}
	}
}

// gather makes one heap of the tokens that p may spend, for a cost that no class alone can pay.
func (t *pot) gather(p Priority) {
	for c := Bulk; c < p; c++ {
		if n := t.lease[c].Swap(0); n > 0 {
			t.lease[p].Add(n)
		}
	}
}

// holds is how many tokens p could spend.
func (t *pot) holds(p Priority) (n int64) {
	for c := Bulk; c <= p; c++ {
		n += t.lease[c].Load()
	}
	return n
}

// want notes a publish that waits for tokens. It is demand once, when it came: neither when it has to ask again, nor
// when it gets them, or what gathered while nothing was leased would pass for the demand of the moment it ends.
func (t *pot) want(p Priority, cost int64, again bool) {
	if !again {
		t.waiting[p].Add(cost)
	}
	for {
		b := t.biggest[p].Load()
		if cost <= b || t.biggest[p].CompareAndSwap(b, cost) {
			return
		}
	}
}

// settle books what a hold of cost tokens of class really cost; beyond says that the lease could not pay for it.
func (t *pot) settle(class Priority, cost, actual int64) (beyond bool) {
	switch {
	case actual < cost:
		t.lease[class].Add(cost - actual)
	case actual > cost:
		if _, _, ok := t.take(class, actual-cost); !ok {
			t.over.Add(actual - cost)
			beyond = true
		}
	}
	t.spent.Add(actual)
	return beyond
}

// borrow lends cost while the store is out of reach.
func (t *pot) borrow(p Priority, cost int64) bool {
	for {
		e := t.emergency.Load()
		if e+cost > t.allowed[p].Load() {
			return false
		}
		if t.emergency.CompareAndSwap(e, e+cost) {
			t.over.Add(cost)
			return true
		}
	}
}

// ration keeps a part of the lease for higher priorities, as their floors keep a part of the plan: the store is out
// of reach, and this is all there is.
func (t *pot) ration(floors [Priorities]float64) {
	have := float64(t.holds(Critical))
	t.reserved[Normal].Store(int64(have * floors[Critical]))
	t.reserved[Bulk].Store(int64(have * (floors[Normal] + floors[Critical])))
}

// giveBack takes up to n tokens out of the lease, those that the fewest may spend first.
func (t *pot) giveBack(n int64) {
	for c := int(Critical); c >= 0 && n > 0; c-- {
		for {
			have := t.lease[c].Load()
			x := min(have, n)
			if x <= 0 {
				break
			}
			if t.lease[c].CompareAndSwap(have, have-x) {
				t.returned[c] += x
				n -= x
				break
			}
		}
	}
}

// pending is what is reserved and neither settled nor refunded.
func (t *pot) pending() int64 {
	spent := t.spent.Load()
	return t.granted.Sum() - t.returned.Sum() + t.over.Load() - t.holds(Critical) - spent
}

// maxStale is how old the time of a flight can be: that of a publish that waits. What is older is a clock set back.
const maxStale = 5 * time.Second

// leastSpan is the shortest time that tells a rate. In less, publishes that waited together for a lease look like a
// hundred times what they are, and a kill would waste all that was leased for them.
const leastSpan = 200 * time.Millisecond

// measure updates the demand from what was taken since the last time.
func (t *pot) measure(now time.Time, horizon time.Duration) {
	var demand store.Counts
	for c := range t.rate {
		t.unmet[c] += t.waiting[c].Swap(0)
		t.caughtUp[c] += t.late[c].Swap(0)
		g := t.granted[c] - t.returned[c] - t.lease[c].Load()
		demand[c] = max(g-t.gone[c]-t.caughtUp[c], 0) + t.unmet[c]
	}
	dt := now.Sub(t.measured)
	switch {
	case t.measured.IsZero() || dt < -maxStale:
		t.unmet, t.caughtUp, t.measured = store.Counts{}, store.Counts{}, now
		for c := range t.gone {
			t.gone[c] = t.granted[c] - t.returned[c] - t.lease[c].Load()
		}
	case dt < leastSpan:
		// Also the time of a publish that has been waiting, and flies once more: what has been taken since the last
		// measurement was not taken since then.
		// Too short to tell a rate; a burst must still find a lease as large as itself next time.
		for c := range t.rate {
			t.rate[c] = max(t.rate[c], float64(demand[c])/horizon.Seconds())
		}
	default:
		// Up at once, down slowly: a lease a little too large costs nothing while there is enough.
		fade := math.Exp(-dt.Seconds() / 3)
		for c := range t.rate {
			r := float64(demand[c]) / dt.Seconds()
			t.rate[c] = max(r, r+(t.rate[c]-r)*fade)
			t.recent[c] = r
			t.gone[c] = t.granted[c] - t.returned[c] - t.lease[c].Load()
		}
		t.unmet, t.caughtUp, t.measured = store.Counts{}, store.Counts{}, now
	}
}

// report says what this replica did with the pot and what it wants, and hands back what it does not need.
// keep is how many tokens an idle replica holds.
func (t *pot) report(now time.Time, keep int64, horizon time.Duration, drain bool) store.PotReport {
	t.measure(now, horizon)
	var target, cum int64
	var want, need, lease store.Counts
	for c := range lease {
		lease[c] = int64(math.Ceil(t.rate[c] * horizon.Seconds()))
		if c == int(Bulk) {
			lease[c] = max(lease[c], keep)
		}
		target += lease[c]
	}
	have := t.holds(Critical)
	limit := t.room[Critical].Load() < 0
	switch {
	case drain || limit:
		t.giveBack(have) // the day is over, or the plan was lowered below what is out already
	case t.heard.Hungry:
		spare := have
		for c := range t.rate {
			spare -= int64(t.recent[c] * 0.25) // what is going to be used here before the next heartbeat
		}
		t.giveBack(max(spare, have-have/2)) // recent may be stale, so half at least
	case have > 2*target+keep:
		t.giveBack(have - target)
	}
	var wanted int64
	target = 0
	for c := range want {
		target += lease[c]
		cum += t.lease[c].Load()
		if big := t.biggest[c].Swap(0); big > 0 {
			need[c] = max(big-cum, 0)
		}
		if !drain && !t.heard.Hungry && !limit {
			want[c] = max(target-cum-wanted, 0)
			wanted += want[c]
		}
	}
	t.low.Store(target / 2)
	if drain {
		need = store.Counts{}
	}
	// spent is read before over and idle: what is settled in between is then still pending, never forgotten.
	r := store.PotReport{Name: t.name, Acked: t.acked, Spent: t.spent.Load(), Want: want, Need: need}
	r.Over, r.Ret, r.Idle = t.over.Load(), t.returned.Sum(), t.holds(Critical)
	r.ClosedTaken, r.ClosedSpent, r.ClosedVersion = t.heard.ClosedTaken, t.heard.ClosedSpent, t.heard.ClosedVersion
	t.sent = r
	return r
}

// apply takes the store's answer to the report that was sent.
func (t *pot) apply(seq int64, s store.PotState, limits store.Counts) {
	t.acked = seq
	short := false
	for c := range t.granted {
		if d := s.Granted[c] - t.granted[c]; d > 0 {
			t.lease[c].Add(d)
			t.granted[c] = s.Granted[c]
		}
		room := limits[c] - s.Taken
		t.room[c].Store(room)
		short = short || room < t.sent.Want.Sum()
	}
	if s.Idle < t.heard.Idle || s.Idle == 0 {
		t.stuck.Store(false)
	}
	t.lent.Store(s.Idle)
	t.usedBase.Store(s.Spent - t.sent.Spent)
	if short {
		t.low.Store(0) // asking again would bring no more
	}
	t.heard = t.complete(s)
}

// complete adds to an answer what it left out because it was heard before.
func (t *pot) complete(s store.PotState) store.PotState {
	if !s.ClosedNews {
		s.Closed, s.ClosedFrom, s.ClosedVersion = t.heard.Closed, t.heard.ClosedFrom, t.heard.ClosedVersion
	}
	return s
}

// mayGet reports whether waiting for tokens makes sense: the store, or another replica, may have cost more.
func (t *pot) mayGet(p Priority, cost int64) bool {
	n := t.room[p].Load() + t.holds(p)
	if !t.stuck.Load() {
		n += t.lent.Load()
	}
	return n >= cost
}

// mayCallBack reports whether what other replicas hold unused would do, although waiting for it was in vain before.
func (t *pot) mayCallBack(p Priority, cost int64) bool {
	return t.stuck.Load() && t.room[p].Load()+t.holds(p)+t.lent.Load() >= cost
}
