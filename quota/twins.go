package quota

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Twins is what all replicas of an account know of publishes that must not go out twice: who is sending one, and
// which were delivered inside their window. Safe for concurrent use.
//
// A replica claims a publish before it sends it, and says afterwards whether it was delivered. Until it has said so,
// others that want to send the same wait. A claim of which nothing more is heard, because its replica died, ends by
// itself (hold, of Claim); then one of those that wait sends: twice is better than never.
//
// What is asked and told at the same moment shares a round trip: while one is under way all that comes waits for the
// next. A round trip takes at most twinsWait, so nobody waits longer than two of them. If the store does not answer by
// then, or is lost, every Claim is answered TwinAlone at once until it answers again, which is tried once a second.
//
// Times are those of the replicas' own clocks: a clock that is ahead of the others by some time shortens windows by
// as much.
type Twins struct {
	st      *store.Store
	account string
	log     *slog.Logger
	now     func() time.Time
	most    int

	state atomic.Uint32
	wake  chan struct{}

	mu      sync.Mutex
	queue   []*twinAsk
	free    []*twinAsk
	watched map[TwinID][]TwinFate
	lostFor string // why, while lost

	stats twinStats
}

// TwinID is what makes two publishes the same on every replica.
type TwinID = store.TwinID

// TwinFate is told once what became of a publish that another replica was sending: until is when it will be forgotten
// if it was delivered. It must not block.
type TwinFate func(delivered bool, until time.Time)

// TwinAs is the answer to a Claim.
type TwinAs uint8

// The answers.
const (
	TwinYours     TwinAs = iota // send it, then call Settle
	TwinDelivered               // it was delivered inside the window
	TwinElsewhere               // another replica is sending it: see Watch
	TwinAlone                   // the store was not asked, or did not answer: decide without, then call Settle
)

// TwinWant is a publish that somebody wants to send now, and the answer to that.
type TwinWant struct {
	ID     TwinID
	Window time.Duration // its rule's
	Hold   time.Duration // how long it can be under way at most
	Got    Twin          // what ClaimAll puts there

	place *twinAsk // while it is asked
}

// Twin is an answer with what belongs to it.
type Twin struct {
	As    TwinAs
	Token uint64    // for Settle
	Until time.Time // of TwinDelivered: when that is forgotten
}

// TwinStats count answers to Claim, and what they cost.
type TwinStats struct {
	Claimed, Delivered, Elsewhere int64
	Alone                         int64 // decided by this replica alone
	Ops, Trips                    int64 // what was asked and told, and in how many round trips
	Untold                        int64 // fates that the store never heard of
	Up                            bool
	Why                           string // not Up: why
}

type twinStats struct{ claimed, delivered, elsewhere, alone, ops, trips, untold atomic.Int64 }

const (
	// TwinsMost is how many publishes an account remembers at once, in the store: about 60 MB there. More are judged
	// by each replica alone.
	TwinsMost = 1 << 18

	twinsWait  = 250 * time.Millisecond
	twinsRetry = time.Second
	twinsLook  = 20 * time.Millisecond // how often it is asked what became of those that others send
	twinsBatch = 512
	twinsQueue = 16 << 10
)

const (
	twinsIdle uint32 = iota // Run does not run
	twinsUp
	twinsLost
)

type twinAsk struct {
	op   store.TwinOp
	got  Twin
	done chan struct{} // of a claim
}

// Twins is the account's record. Run must run for it to answer anything but TwinAlone.
func (l *Ledger) Twins() *Twins {
	return &Twins{st: l.st, account: l.cfg.Load().Account, log: l.log, now: l.now, most: TwinsMost,
		wake: make(chan struct{}, 1), watched: map[TwinID][]TwinFate{}}
}

// Stats reads the counters.
func (t *Twins) Stats() TwinStats {
	t.mu.Lock()
	why := t.lostFor
	t.mu.Unlock()
	s := &t.stats
	return TwinStats{Claimed: s.claimed.Load(), Delivered: s.delivered.Load(), Elsewhere: s.elsewhere.Load(), Alone: s.alone.Load(),
		Ops: s.ops.Load(), Trips: s.trips.Load(), Untold: s.untold.Load(), Up: t.state.Load() == twinsUp, Why: why}
}

// Claim asks to send a publish now. window is its rule's, hold is how long it can be under way at most.
func (t *Twins) Claim(now time.Time, id TwinID, window, hold time.Duration) Twin {
	one := [1]TwinWant{{ID: id, Window: window, Hold: hold}}
	t.ClaimAll(now, one[:])
	return one[0].Got
}

// ClaimAll is Claim for all that one request wants to send: they wait for one round trip together. No two of wants may
// have the same ID, or the second is told that the first, its own, is under way.
func (t *Twins) ClaimAll(now time.Time, wants []TwinWant) {
	for i := range wants {
		wants[i].Got = Twin{As: TwinAlone, Token: rand.Uint64()}
	}
	if t.state.Load() == twinsUp {
		t.ask(now, wants)
	}
	for i := range wants {
		switch wants[i].Got.As {
		case TwinYours:
			t.stats.claimed.Add(1)
		case TwinDelivered:
			t.stats.delivered.Add(1)
		case TwinElsewhere:
			t.stats.elsewhere.Add(1)
		default:
			t.stats.alone.Add(1)
		}
	}
}

// ask has the wants answered by the store, as far as it can be asked. They get into the queue at once, so that no
// round trip begins between them.
func (t *Twins) ask(now time.Time, wants []TwinWant) {
	t.mu.Lock()
	for i := range wants {
		w := &wants[i]
		if t.state.Load() != twinsUp || len(t.queue) >= twinsQueue {
			break
		}
		w.place = t.take()
		w.place.op = store.TwinOp{Do: store.TwinClaim, ID: w.ID, Token: w.Got.Token, At: now, Window: w.Window, Hold: w.Hold}
		t.queue = append(t.queue, w.place)
	}
	t.mu.Unlock()
	t.ring()
	for i := range wants {
		if a := wants[i].place; a != nil {
			<-a.done
			wants[i].Got = a.got
		}
	}
	t.mu.Lock()
	for i := range wants {
		if a := wants[i].place; a != nil {
			t.free = append(t.free, a)
			wants[i].place = nil
		}
	}
	t.mu.Unlock()
}

// take is a place for something to ask. t.mu is held.
func (t *Twins) take() *twinAsk {
	if n := len(t.free); n > 0 {
		a := t.free[n-1]
		t.free = t.free[:n-1]
		return a
	}
	return &twinAsk{done: make(chan struct{}, 1)}
}

func (t *Twins) ring() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Settle says what became of a publish after TwinYours or TwinAlone. It does not wait.
func (t *Twins) Settle(now time.Time, id TwinID, token uint64, window time.Duration, delivered bool) {
	op := store.TwinOp{Do: store.TwinFailed, ID: id, Token: token, At: now, Window: window}
	if delivered {
		op.Do = store.TwinDelivered
	}
	t.mu.Lock()
	if t.state.Load() == twinsIdle || len(t.queue) >= twinsQueue {
		t.mu.Unlock()
		t.stats.untold.Add(1)
		return
	}
	a := t.take()
	a.op = op
	t.queue = append(t.queue, a)
	t.mu.Unlock()
	t.ring()
}

// Watch tells f what becomes of a publish that was TwinElsewhere: delivered; or not, which is also what it says when
// the claim ended of itself or the store is lost.
func (t *Twins) Watch(id TwinID, f TwinFate) {
	t.mu.Lock()
	watch := t.state.Load() == twinsUp && len(t.watched) < twinsQueue
	if watch {
		t.watched[id] = append(t.watched[id], f)
	}
	t.mu.Unlock()
	if !watch {
		f(false, time.Time{})
		return
	}
	t.ring()
}

// Run carries questions and answers until ctx ends; then it tells what is still to be told.
func (t *Twins) Run(ctx context.Context) {
	t.state.Store(twinsUp)
	var looked time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		t.mu.Lock()
		wait := time.Hour
		if len(t.watched) > 0 {
			wait = max(twinsLook-time.Since(looked), 0)
		}
		if t.state.Load() == twinsLost {
			wait = twinsRetry
		}
		waiting := len(t.queue) > 0 && t.state.Load() == twinsUp
		t.mu.Unlock()
		if !waiting && wait > 0 {
			timer.Reset(wait)
			wake := t.wake
			if t.state.Load() == twinsLost {
				wake = nil
			}
			select {
			case <-ctx.Done():
				t.end(ctx)
				return
			case <-wake:
			case <-timer.C:
			}
		}
		if ctx.Err() != nil {
			t.end(ctx)
			return
		}
		look := time.Since(looked) >= twinsLook
		if look {
			looked = time.Now()
		}
		t.trip(ctx, look)
	}
}

// end tells what is still to be told, and answers those that wait.
func (t *Twins) end(ctx context.Context) {
	for range twinsQueue / twinsBatch {
		t.trip(ctx, false)
		t.mu.Lock()
		more := len(t.queue) > 0 && t.state.Load() == twinsUp
		t.mu.Unlock()
		if !more {
			break
		}
	}
	t.mu.Lock()
	t.state.Store(twinsIdle)
	rest := t.queue
	t.queue = nil
	fates := t.unwatch()
	t.mu.Unlock()
	t.alone(rest)
	for _, f := range fates {
		f(false, time.Time{})
	}
}

// unwatch takes all that is watched. t.mu is held.
func (t *Twins) unwatch() (all []TwinFate) {
	for _, fs := range t.watched {
		all = append(all, fs...)
	}
	clear(t.watched)
	return all
}

// alone ends asks without the store.
func (t *Twins) alone(asks []*twinAsk) {
	for _, a := range asks {
		if a.op.Do == store.TwinClaim {
			a.got = Twin{As: TwinAlone, Token: a.op.Token}
			a.done <- struct{}{}
			continue
		}
		t.stats.untold.Add(1)
	}
}

// trip is one round trip, with all that waits; with look it also asks what became of what is watched.
func (t *Twins) trip(ctx context.Context, look bool) {
	t.mu.Lock()
	n := min(len(t.queue), twinsBatch)
	asks := append([]*twinAsk(nil), t.queue[:n]...)
	t.queue = append(t.queue[:0], t.queue[n:]...)
	ops := make([]store.TwinOp, 0, n+len(t.watched))
	now := t.now()
	oldest := now // what ended before it is forgotten: by the clock of those who ask
	for _, a := range asks {
		ops = append(ops, a.op)
		if a.op.At.Before(oldest) {
			oldest = a.op.At
		}
	}
	if look {
		for id := range t.watched {
			if len(ops) >= 2*twinsBatch {
				break // the map's order differs from one look to the next
			}
			ops = append(ops, store.TwinOp{Do: store.TwinLook, ID: id, At: now})
		}
	}
	lost := t.state.Load() == twinsLost
	t.mu.Unlock()
	if len(ops) == 0 && !lost {
		return
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), twinsWait)
	answers, err := t.st.Twins(call, t.account, oldest, t.most, ops)
	cancel()
	t.stats.trips.Add(1)
	t.stats.ops.Add(int64(len(ops)))
	if err != nil {
		t.lost(asks, err)
		return
	}
	if lost {
		t.found()
	}
	t.mu.Lock()
	for i, a := range asks {
		if ops[i].Do != store.TwinClaim && len(t.free) < twinsBatch {
			t.free = append(t.free, a)
		}
	}
	t.mu.Unlock()
	for i, a := range asks {
		if ops[i].Do == store.TwinClaim { // from here on the place is the asker's, to give away
			a.got = Twin{As: twinAs(answers[i].Is), Token: ops[i].Token, Until: answers[i].Until}
			a.done <- struct{}{}
		}
	}
	for i := len(asks); i < len(ops); i++ {
		if answers[i].Is == store.TwinUnderWay {
			continue
		}
		t.mu.Lock()
		fates := t.watched[ops[i].ID]
		delete(t.watched, ops[i].ID)
		t.mu.Unlock()
		for _, f := range fates {
			f(answers[i].Is == store.TwinSent, answers[i].Until)
		}
	}
}

func twinAs(is store.TwinIs) TwinAs {
	switch is {
	case store.TwinClaimed:
		return TwinYours
	case store.TwinSent:
		return TwinDelivered
	case store.TwinUnderWay:
		return TwinElsewhere
	}
	return TwinAlone
}

// lost notes that the store does not answer. What was to be told is kept, in order, for when it does.
func (t *Twins) lost(asks []*twinAsk, err error) {
	t.mu.Lock()
	before := t.state.Swap(twinsLost)
	t.lostFor = err.Error()
	var tell, ended []*twinAsk
	for _, a := range append(asks, t.queue...) {
		if a.op.Do == store.TwinClaim || len(tell) >= twinsQueue/2 {
			ended = append(ended, a)
		} else {
			tell = append(tell, a)
		}
	}
	t.queue = tell
	fates := t.unwatch()
	t.mu.Unlock()
	if before == twinsUp {
		t.log.Warn("the store does not answer in time: until it does, rules that deduplicate with scope cluster look in this replica only", "account", t.account, "err", err)
	}
	t.alone(ended)
	for _, f := range fates {
		f(false, time.Time{})
	}
}

func (t *Twins) found() {
	t.mu.Lock()
	t.state.Store(twinsUp)
	t.lostFor = ""
	t.mu.Unlock()
	t.log.Info("the store answers again: rules that deduplicate with scope cluster look in all replicas", "account", t.account)
}
