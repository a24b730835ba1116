// Package quota is the money: what an account may send in a day, and who may spend how much of it.
//
// The plan belongs to an account, and every replica spends from it. A replica holds a lease: tokens that the
// store took out of the plan for it. Reserve takes tokens from the lease, with atomics alone; a heartbeat
// (Run, Beat) reports to the store what was spent, renews the lease and hands back what is not needed.
//
// The law, which the tests hold on to: what all replicas were granted and did not hand back, plus what gone
// ones ever took, never exceeds the plan. So their sum cannot be overspent, whatever crashes when. A replica
// that dies leaves at most its lease unspent, and that counts as spent until the day ends.
//
// Exceptions, each asked for: LossOpen lends beyond the lease while the store is out of reach, a Settle above
// the hold is booked as it is (it did go out; what the lease could not pay of it is unknown to the others until the
// next heartbeat, which begins at once, and is lost if the replica is killed before), and the plan or the count can
// be changed under way.
package quota

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota/forecast"
	"github.com/pushguard/pushguard/quota/store"
)

// Denial says why a reserve was refused; Granted is the zero value.
type Denial uint8

// The denials.
const (
	Granted       Denial = iota
	PlanSpent            // the plan is used up
	FloorReserved        // what is left is kept for higher priorities
	ShareSpent           // the caller's share is used up
	StoreLost            // the store is out of reach, or catching up after a loss, and the policy allows no more
	Exhausted            // Pusher itself said that the account is over its quota
	NotYet               // the plan has room, but its tokens did not come in time: try again in a second
)

var denialNames = [...]string{"granted", "plan_spent", "floor_reserved", "share_spent", "store_lost", "exhausted", "not_yet"}

// String is a stable word for machines.
func (d Denial) String() string {
	if int(d) < len(denialNames) {
		return denialNames[d]
	}
	return "unknown"
}

// Hold is a reserve that has not been settled. It is a value; settle or refund it exactly once.
// The zero Hold holds nothing.
type Hold struct {
	pot, share *pot
	cost       int64
	class      Priority
}

// Cost is what was reserved, in messages.
func (h Hold) Cost() int64 { return h.cost }

// Share is a caller's part of the plan. It outlives Reconfigure: a caller that loses its share spends freely.
type Share struct {
	caller          string
	ppm             atomic.Int64
	cur, prev, next atomic.Pointer[pot]
}

func (s *Share) on(day Day) *pot {
	if p := s.cur.Load(); p != nil && p.day == day {
		return p
	}
	if p := s.prev.Load(); p != nil && p.day == day {
		return p
	}
	if p := s.next.Load(); p != nil && p.day == day {
		return p
	}
	return nil
}

// book is one day of this replica.
type book struct {
	day        Day
	start, end int64 // Unix seconds
	id         string
	seq        int64
	epoch      string
	plan       *pot
	shares     map[string]*pot // belongs to the flight
	closing    bool
	page       *page // nil: none survives a kill
	lived      int64 // spent, as last counted in Ledger.lived
	recorded   *record
}

func (b *book) covers(sec int64) bool { return b != nil && sec >= b.start && sec < b.end }

// Ledger is an account's money as one replica sees it. All methods may be called at the same time.
type Ledger struct {
	st      *store.Store
	replica string
	log     *slog.Logger
	now     func() time.Time // for Run and nothing else

	cfg    atomic.Pointer[Config]
	shares atomic.Pointer[map[string]*Share]
	cur    atomic.Pointer[book]
	prev   atomic.Pointer[book]
	next   atomic.Pointer[book]
	gate   atomic.Uint32 // not zero: the fast path must not decide
	view   atomic.Pointer[view]
	plan   atomic.Int64
	brake  atomic.Pointer[Brake]
	aims   atomic.Pointer[Aims]
	burn   atomic.Pointer[Burn]
	kicks  chan struct{}
	kicked atomic.Bool

	fmu      sync.Mutex
	inflight *flight

	// These belong to the flight.
	books     map[Day]*book
	inc       string
	bookCount int
	join      bool
	brakeJSON string
	owed      *owedBrake
	burnJSON  string
	fresh     bool // this replica began the store
	listening bool // no lease is asked for: Open waits whether somebody says that the store lost its data

	forecaster   *forecast.Model
	protected    protected
	unseen       unseen
	counts       counts
	shortfall    atomic.Pointer[Shortfall]
	tally        tally
	fanouts      sync.Map      // name → *sharedFanout
	record       *store.Record // nil: none is kept
	recordFailed bool
	pageFailed   bool
	lived        int64     // messages that this process has sent
	aheadAt      time.Time // of the last heartbeat of tomorrow's book
	wasteSaid    Day
	joined       bool      // the store has answered since the start
	listenUntil  time.Time // no lease is asked for until then, see begin
	profiled     bool      // the stored profile was read
	dead         []*legacy // of this name, which the store has yet to be told of
	adopted      *record   // of the newest book that goes on from a process before

	opened  atomic.Bool  // a first lease was asked for and answered, or a process before left one
	skew    atomic.Int64 // ns that Pusher's clock is ahead of this one's
	closed  atomic.Bool
	spent   atomic.Bool          // a publish of any priority found too little in the lease while the store was out of reach
	pending atomic.Pointer[mark] // an Exhaust that the store has not heard of
}

// mark is Pusher's word that the account is over its quota.
type mark struct {
	day Day
	at  time.Time
	why string
}

// view is what the last heartbeat showed; replaced whole.
type view struct {
	at        time.Time // of the last answer
	up        bool
	err       string
	since     time.Time // of up or down
	epoch     string
	faults    int // losses of data seen since the start
	withheld  bool
	replicas  int
	state     store.State
	exhausted *mark
	taken     int64
	spent     int64
	adjust    int64 // the part of spent that a person corrected it by
	sentSpent int64 // this replica's part of spent
}

const (
	gateExhausted = 1 << iota
	gateLost
	gateClosed
)

// Open joins the account on st under the name replica and proves a first lease: it fails when the store does not
// answer. Names may repeat (an old and a new process side by side); each Ledger is counted for itself.
// A nil log is slog.Default().
func Open(ctx context.Context, now time.Time, st *store.Store, replica string, cfg Config, log *slog.Logger) (*Ledger, error) {
	if log == nil {
		log = slog.Default()
	}
	l := &Ledger{
		st: st, replica: replica, log: log.With("account", cfg.Account), now: time.Now,
		kicks: make(chan struct{}, 1), books: map[Day]*book{}, inc: rand.Text()[:10], join: true,
		forecaster: forecast.New(), protected: protected{forecast.New(), forecast.New()},
	}
	l.view.Store(&view{})
	l.shares.Store(&map[string]*Share{})
	if err := l.Reconfigure(cfg); err != nil {
		return nil, err
	}
	l.openRecords(now)
	if err := l.begin(ctx, now); err != nil {
		err = fmt.Errorf("account %s: no first lease: %w", cfg.Account, err)
		if !cfg.Patient || l.st.Exclusive() || errors.Is(err, store.ErrNewer) {
			if l.record != nil {
				l.record.Close()
			}
			return nil, err
		}
		l.log.Error("started without the store", "err", err, "lease", l.Snapshot(now).Lease, "standby", l.Snapshot(now).Standby)
	}
	return l, nil
}

// listens is how long a replica on an empty shared store waits whether somebody says that it lost its data.
func (l *Ledger) listens() time.Duration {
	if l.st.Exclusive() {
		return 0
	}
	return l.cfg.Load().Listen
}

// begin takes the first lease. A store that is empty may be new, or may have lost its data a moment ago while others
// still spend: then they are given the time to say so.
func (l *Ledger) begin(ctx context.Context, now time.Time) error {
	l.goOn(now)
	if err := l.Beat(ctx, now); err != nil {
		return err
	}
	l.readProfile(ctx)
	if l.listens() == 0 {
		return nil
	}
	if wait := l.listenUntil.Sub(now); wait > 0 {
		select {
		case <-time.After(wait):
			now = now.Add(wait)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return l.Beat(ctx, now)
}

// Reconfigure takes a new config: all of it, or nothing and an error that joins every mistake. It holds from
// the next heartbeat on; floors and shares at once where no lease is in the way.
func (l *Ledger) Reconfigure(cfg Config) error {
	if err := cfg.check(); err != nil {
		return fmt.Errorf("account %s: %w", cfg.Account, err)
	}
	old := l.cfg.Load()
	if old != nil && old.Account != cfg.Account {
		return fmt.Errorf("account %s cannot become %s: its counts are kept under its name", old.Account, cfg.Account)
	}
	cfg = cfg.withDefaults()
	l.fmu.Lock()
	defer l.fmu.Unlock()
	if old == nil || old.Plan != cfg.Plan {
		l.join = true
	}
	shares := map[string]*Share{}
	for caller, s := range *l.shares.Load() {
		s.ppm.Store(ppm(cfg.Shares[caller]))
		shares[caller] = s
	}
	for caller, f := range cfg.Shares {
		if shares[caller] == nil {
			shares[caller] = &Share{caller: caller}
		}
		shares[caller].ppm.Store(ppm(f))
	}
	l.shares.Store(&shares)
	l.cfg.Store(&cfg)
	if old == nil {
		l.plan.Store(cfg.Plan.MessagesPerDay)
	}
	l.kick()
	return nil
}

// Share is the caller's share of the plan, nil when it has none and may spend freely.
func (l *Ledger) Share(caller string) *Share {
	s := (*l.shares.Load())[caller]
	if s == nil || s.ppm.Load() == 0 {
		return nil
	}
	return s
}

// find is the book of now's day, nil if it is not open.
func (l *Ledger) find(now time.Time) *book {
	sec := now.Add(l.Skew()).Unix()
	if b := l.cur.Load(); b.covers(sec) {
		return b
	}
	if b := l.prev.Load(); b.covers(sec) {
		return b
	}
	if b := l.next.Load(); b.covers(sec) {
		return b
	}
	return nil
}

// Reserve takes cost messages out of the plan before they are sent, for a publish of priority p by the caller
// that s belongs to (nil: no share). It decides from the lease, without a round trip; only when the lease is dry
// and the store may have more does it wait for a refill, for Config.Wait at most. When ctx ends it stops waiting,
// but a refill under way goes on. A cost of 0 or less is granted as the zero Hold.
//
// Every granted Hold must be settled or refunded once.
func (l *Ledger) Reserve(ctx context.Context, now time.Time, s *Share, p Priority, cost int64) (Hold, Denial) {
	if l.gate.Load() == 0 && cost > 0 && p < Priorities {
		if b := l.find(now); b != nil {
			if h, left, ok := takeBoth(b, s, p, cost); ok {
				if left < b.plan.low.Load() {
					l.kick()
				}
				return h, Granted
			}
		}
	}
	return l.reserveSlow(ctx, now, s, p, cost, false)
}

// Probe is Reserve for the one publish that may try whether Pusher accepts again after Exhaust.
func (l *Ledger) Probe(ctx context.Context, now time.Time, s *Share, p Priority, cost int64) (Hold, Denial) {
	return l.reserveSlow(ctx, now, s, p, cost, true)
}

func takeBoth(b *book, s *Share, p Priority, cost int64) (h Hold, left int64, ok bool) {
	class, left, ok := b.plan.take(p, cost)
	if !ok {
		return Hold{}, 0, false
	}
	h = Hold{pot: b.plan, cost: cost, class: class}
	if s == nil || s.ppm.Load() == 0 {
		return h, left, true
	}
	if sp := s.on(b.day); sp != nil {
		if _, shareLeft, ok := sp.take(Bulk, cost); ok {
			h.share = sp
			if shareLeft < sp.low.Load() {
				left = -1
			}
			return h, left, true
		}
	}
	b.plan.lease[class].Add(cost)
	return Hold{}, 0, false
}

// Settle says what a hold really cost. Less than reserved gives the rest back; more is taken from the lease or,
// when that is dry, booked beyond it, for it did go out. now serves the zero Hold alone.
func (l *Ledger) Settle(now time.Time, h Hold, actual int64) {
	actual = max(actual, 0)
	if h.pot == nil {
		if actual > 0 {
			l.book(now, actual)
		}
		return
	}
	if h.pot.settle(h.class, h.cost, actual) {
		l.kick() // until the store knows of it, a crash would hide it
	}
	if h.share != nil {
		h.share.settle(Bulk, h.cost, actual)
	}
}

// book records messages that went out without a hold.
func (l *Ledger) book(now time.Time, n int64) {
	b := l.find(now)
	if b == nil {
		if b = l.cur.Load(); b == nil {
			return
		}
	}
	if b.plan.settle(Critical, 0, n) {
		l.kick()
	}
}

// Refund gives a hold back: nothing went out.
func (l *Ledger) Refund(now time.Time, h Hold) { l.Settle(now, h, 0) }

// Net is a plan without its headroom.
func (l *Ledger) Net(plan int64) int64 {
	if h := l.cfg.Load().Headroom; h > 0 {
		return plan - part(plan, ppm(h))
	}
	return plan
}

// Used is the account's spending on now's day and its plan: this replica's to the message, the others' as of
// the last heartbeat. For the hot path: atomics alone.
func (l *Ledger) Used(now time.Time) (used, plan int64) {
	plan = l.Net(l.plan.Load())
	if b := l.find(now); b != nil {
		used = max(b.plan.usedBase.Load()+b.plan.spent.Load(), 0)
	}
	return used, plan
}

// CurrentBrake is the brake in force; nil when there is none or its time has passed. For the hot path.
func (l *Ledger) CurrentBrake(now time.Time) *Brake {
	b := l.brake.Load()
	if b == nil || (!b.Until.IsZero() && !now.Before(b.Until)) {
		return nil
	}
	return b
}

// kick asks Run for a heartbeat now; it never blocks.
func (l *Ledger) kick() {
	if l.kicked.Load() || !l.kicked.CompareAndSwap(false, true) {
		return
	}
	select {
	case l.kicks <- struct{}{}:
	default:
	}
}

// Run beats until ctx ends: every Config.Every, and when a lease runs low. It does not hand anything back; Close does.
func (l *Ledger) Run(ctx context.Context) {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { l.shareFanouts(ctx) })
	every := l.cfg.Load().Every
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if l.idle(l.now()) {
				continue
			}
		case <-l.kicks:
			if v := l.view.Load(); !v.up && v.err != "" { // at the next tick: a store that is away is not asked more often
				l.kicked.Store(false)
				continue
			}
		}
		now := l.now()
		l.Beat(ctx, now) // a failure is logged, and shown by Snapshot
		l.keepProfile(ctx)
	}
}

// dayOf is the day on which Pusher counts what is sent at now.
func (l *Ledger) dayOf(now time.Time) Day { return DayOf(now.Add(l.Skew())) }

// Skew is by how much Pusher's clock is ahead of this one's, as far as it is known.
func (l *Ledger) Skew() time.Duration { return time.Duration(l.skew.Load()) }

// idleBeat is between heartbeats on a store of one's own, while nothing happens: nobody waits for them, and each
// costs a write to disk.
const idleBeat = 5 * time.Second

func (l *Ledger) idle(now time.Time) bool {
	b, v := l.cur.Load(), l.view.Load()
	return l.st.Exclusive() && v.up && b.covers(now.Add(l.Skew()).Unix()) && l.prev.Load() == nil && l.pending.Load() == nil &&
		b.plan.spent.Load() == v.sentSpent && now.Sub(v.at) < idleBeat && !now.Before(v.at)
}

// Close settles what it can and hands the leases back; what is still reserved counts as spent. The Ledger
// refuses every reserve from then on.
func (l *Ledger) Close(ctx context.Context) error {
	if l.closed.Swap(true) {
		return nil
	}
	l.setGate(gateClosed, true)
	return l.leave(ctx)
}

func (l *Ledger) setGate(bit uint32, on bool) {
	if on {
		l.gate.Or(bit)
	} else {
		l.gate.And(^bit)
	}
}

var errClosed = errors.New("the ledger is closed")
