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

	*cells
	spent counter // settled
	low   atomic.Int64

	emergency atomic.Int64             // the part of over that was lent while the store was out of reach
	reserved  [Priorities]atomic.Int64 // of lease and standby, for higher priorities
	allowed   [Priorities]atomic.Int64 // what emergency may reach, by priority
	room      [Priorities]atomic.Int64 // what the store could give when last heard
	lent      atomic.Int64             // what other replicas held unused when last heard
	stuck     atomic.Bool              // waiting for lent was in vain
	usedBase  atomic.Int64             // spent by the others, corrections included
	waiting   [Priorities]atomic.Int64 // cost of publishes that found the lease dry since the last flight
	biggest   [Priorities]atomic.Int64 // the most expensive of them
	late      [Priorities]atomic.Int64 // tokens that went to publishes counted in waiting, since the last flight

	granted  store.Counts // cells has it too, for the next process
	returned store.Counts // likewise
	acked    int64
	sent     store.PotReport // the report under way or last confirmed
	heard    store.PotState
	saved    int64               // over, as last written to the record
	price    int64               // of the most expensive publish that waited of late
	asked    int64               // tokens asked for the lease; what is granted beyond is standby
	arming   [2]store.Counts     // standby by age; see arm
	turned   time.Time           // when it last grew older
	slow     [Priorities]float64 // messages a second over half a minute, from each class: what standby is sized by
	slowFor  float64             // seconds that slow was measured over, faded
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

// unspent is every token that this replica holds of the pot.
func (t *pot) unspent() int64 {
	return t.holds(Critical) + t.standbyFor(Critical) + t.cells.armingSum()
}

// standbyFor is how much armed standby p could spend.
func (t *pot) standbyFor(p Priority) (n int64) {
	for c := Bulk; c <= p; c++ {
		n += t.standby[c].Load()
	}
	return n
}

// dip moves tokens of the standby to the lease, enough for cost and for a while: the lease is dry. What is reserved
// for priorities above p stays.
func (t *pot) dip(p Priority, cost int64) bool {
	free := t.holds(Critical) + t.standbyFor(Critical) - t.reserved[p].Load()
	short := cost - t.holds(p)
	if cost > free || short > t.standbyFor(p) {
		return false
	}
	chunk := max(short, min(t.low.Load(), free-t.holds(Critical)))
	moved := false
	for c := p; chunk > 0; c-- {
		for {
			have := t.standby[c].Load()
			x := min(have, chunk)
			if x <= 0 {
				break
			}
			if t.standby[c].CompareAndSwap(have, have-x) {
				t.lease[c].Add(x)
				chunk -= x
				moved = true
				break
			}
		}
		if c == Bulk {
			break
		}
	}
	return moved
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

// Parts of a standby that stay for higher priorities: bulk may use the first half, normal four fifths.
const (
	keptFromBulk   = 2
	keptFromNormal = 5
)

// ration keeps a part of what is in hand for higher priorities: the store is out of reach, and this is all there is. Of a
// lease the floors say how much, of a standby at least the parts above.
func (t *pot) ration(floors [Priorities]float64) {
	lease, standby := float64(t.holds(Critical)), t.standbyFor(Critical)
	have := lease + float64(standby)
	t.reserved[Normal].Store(max(int64(have*floors[Critical]), standby/keptFromNormal))
	t.reserved[Bulk].Store(max(int64(have*(floors[Normal]+floors[Critical])), standby/keptFromBulk))
}

// reserve keeps parts of a standby of n for higher priorities while the store is there.
func (t *pot) reserve(n int64) {
	t.reserved[Normal].Store(n / keptFromNormal)
	t.reserved[Bulk].Store(n / keptFromBulk)
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
				t.ret(c, x)
				n -= x
				break
			}
		}
	}
}

// ret notes tokens that are handed back. They left lease or standby before, so that a kill in between counts them twice
// and never loses count of them.
func (t *pot) ret(c int, n int64) {
	t.returned[c] += n
	t.cells.returned[c].Store(t.returned[c])
}

// pending is what is reserved and neither settled nor refunded.
func (t *pot) pending() int64 {
	spent := t.spent.Load()
	return t.granted.Sum() - t.returned.Sum() + t.over.Load() - t.unspent() - spent
}

// outOf is what was ever taken out of a class of the lease; what moved there from standby counts when it is taken.
func (t *pot) outOf(c int) int64 {
	return t.granted[c] - t.returned[c] - t.lease[c].Load() - t.standby[c].Load() - t.cells.arming[c].Load()
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
		g := t.outOf(c)
		demand[c] = max(g-t.gone[c]-t.caughtUp[c], 0) + t.unmet[c]
	}
	dt := now.Sub(t.measured)
	switch {
	case t.measured.IsZero() || dt < -maxStale:
		t.unmet, t.caughtUp, t.measured = store.Counts{}, store.Counts{}, now
		for c := range t.gone {
			t.gone[c] = t.outOf(c)
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
			t.gone[c] = t.outOf(c)
		}
		t.average(dt.Seconds(), demand)
		t.unmet, t.caughtUp, t.measured = store.Counts{}, store.Counts{}, now
	}
}

// slowTime is the time that slow looks back over.
const slowTime = 30.0

// average updates slow with demand of the last dt seconds.
func (t *pot) average(dt float64, demand store.Counts) {
	fade := math.Exp(-dt / slowTime)
	sum := t.slowFor*fade + dt
	for c := range t.slow {
		t.slow[c] = (t.slow[c]*t.slowFor*fade + float64(demand[c])) / sum
	}
	t.slowFor = sum
}

// asks is what a report asks the store for: tokens for the lease, and for standby.
type asks struct {
	keep    int64         // tokens that an idle replica holds
	horizon time.Duration // of demand that a lease holds
	most    int64         // the largest lease beyond one publish's price; 0: not known yet
	standby store.Counts  // wanted of each class
	drain   bool          // hand all back
	lost    bool          // the store does not answer, or gives nothing: what is in hand is all there is, and stays
}

// report says what this replica did with the pot and what it wants, and hands back what it does not need.
func (t *pot) report(now time.Time, a asks) store.PotReport {
	t.measure(now, a.horizon)
	var target, cum int64
	var want, need, lease store.Counts
	for c := range lease {
		lease[c] = int64(math.Ceil(t.rate[c] * a.horizon.Seconds()))
		if c == int(Bulk) {
			lease[c] = max(lease[c], a.keep)
		}
		if a.most > 0 {
			lease[c] = min(lease[c], max(a.most+t.price-target, 0))
		}
		target += lease[c]
	}
	limit := t.room[Critical].Load() < 0
	hungry := t.heard.Hungry && !a.lost
	if a.drain || limit || hungry || a.lost {
		a.standby = store.Counts{}
	}
	if !a.lost || a.drain {
		t.trim(a.standby, lease, a.drain || limit || hungry)
		t.reserve(a.standby.Sum())
	}
	have := t.holds(Critical)
	switch {
	case a.drain || limit:
		t.giveBack(have) // the day is over, or the plan was lowered below what is out already
	case a.lost:
	case hungry:
		spare := have
		for c := range t.rate {
			spare -= int64(t.recent[c] * 0.25) // what is going to be used here before the next heartbeat
		}
		t.giveBack(max(spare, have-have/2)) // recent may be stale, so half at least
	case have > 2*target+a.keep+t.price:
		t.giveBack(have - target)
	}
	var wanted int64
	target = 0
	for c := range want {
		target += lease[c]
		cum += t.lease[c].Load()
		if big := t.biggest[c].Swap(0); big > 0 {
			need[c] = max(big-cum, 0)
			t.price = max(big, t.price/2)
		}
		if !a.drain && !hungry && !limit {
			want[c] = max(target-cum-wanted, 0)
			wanted += want[c]
		}
	}
	t.low.Store(target / 2)
	t.asked = 0
	for c := range want {
		t.asked += max(want[c], need[c])
	}
	for c := range a.standby {
		if short := a.standby[c] - t.standby[c].Load() - t.cells.arming[c].Load(); short > 0 {
			want[c] += short
		}
	}
	if a.drain {
		need = store.Counts{}
	}
	// spent is read before over and idle: what is settled in between is then still pending, never forgotten.
	r := store.PotReport{Name: t.name, Acked: t.acked, Spent: t.spent.Load(), Want: want, Need: need}
	r.Over, r.Ret, r.Idle = t.over.Load(), t.returned.Sum(), t.unspent()
	r.ClosedTaken, r.ClosedSpent, r.ClosedVersion = t.heard.ClosedTaken, t.heard.ClosedSpent, t.heard.ClosedVersion
	t.sent = r
	return r
}

// slack is how much more standby than wanted is kept: demand moves, and each change would be a write.
const slack = 4

// trim hands back the standby beyond what is wanted, all of it where others starve or the day is over; what the lease
// lacks it gets first.
func (t *pot) trim(want, lease store.Counts, all bool) {
	for c := int(Critical); c >= 0; c-- {
		have := t.standby[c].Load() + t.cells.arming[c].Load()
		excess := have - want[c]
		if excess <= 0 || !all && excess <= want[c]/slack {
			continue
		}
		for _, from := range []*counter{&t.cells.arming[c], &t.standby[c]} {
			x := t.takeUpTo(from, excess)
			excess -= x
			if from == &t.cells.arming[c] {
				t.unarm(c, x)
			}
			if keep := min(max(lease[c]-t.lease[c].Load(), 0), x); keep > 0 && !all {
				t.lease[c].Add(keep)
				x -= keep
			}
			t.ret(c, x)
		}
	}
}

func (t *pot) takeUpTo(from *counter, n int64) int64 {
	for {
		have := from.Load()
		x := min(have, n)
		if x <= 0 {
			return 0
		}
		if from.CompareAndSwap(have, have-x) {
			return x
		}
	}
}

func (t *pot) unarm(c int, n int64) {
	for i := range t.arming {
		x := min(t.arming[i][c], n)
		t.arming[i][c] -= x
		n -= x
	}
}

// arm lets the standby that was granted before the last heartbeat but one be spent: by now every other replica has
// heard of it, so that a fail-over to a server that lags cannot make all forget it. every is the time between heartbeats;
// those in between, that a dry lease asks for, are no news to the others.
func (t *pot) arm(now time.Time, every time.Duration, news store.Counts) {
	if age := now.Sub(t.turned); age < 0 || age >= every {
		for c, n := range t.arming[1] {
			if x := t.takeUpTo(&t.cells.arming[c], n); x > 0 {
				t.standby[c].Add(x)
			}
		}
		t.arming[1], t.arming[0], t.turned = t.arming[0], store.Counts{}, now
	}
	for c, n := range news {
		t.arming[0][c] += n
		t.cells.arming[c].Add(n)
	}
}

// apply takes the store's answer to the report that was sent.
func (t *pot) apply(now time.Time, every time.Duration, seq int64, s store.PotState, limits store.Counts) {
	t.acked = seq
	t.cells.acked.Store(seq)
	short := false
	var news store.Counts
	lease := t.asked
	asked := t.asked
	for c := range t.granted {
		if d := s.Granted[c] - t.granted[c]; d > 0 {
			t.granted[c] = s.Granted[c]
			t.cells.granted[c].Store(t.granted[c])
			x := min(d, lease)
			t.lease[c].Add(x)
			lease -= x
			news[c] = d - x
		}
		room := limits[c] - s.Taken
		t.room[c].Store(room)
		short = short || room < asked
	}
	t.asked = 0
	t.arm(now, every, news)
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
	return t.room[p].Load()+t.own(p)+t.lent.Load() >= cost
}

// own is what this replica holds that p may spend, now or when it is armed.
func (t *pot) own(p Priority) (n int64) {
	for c := Bulk; c <= p; c++ {
		n += t.lease[c].Load() + t.standby[c].Load() + t.cells.arming[c].Load()
	}
	return n
}

// mayCallBack reports whether what other replicas hold unused would do, although waiting for it was in vain before.
func (t *pot) mayCallBack(p Priority, cost int64) bool {
	return t.stuck.Load() && t.mayGet(p, cost)
}
