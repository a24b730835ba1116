// Package dedupe is what the replicas of an account know together of publishes that must not go out twice.
package dedupe

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Claims are the replicas' shared record of publishes: which one is being sent by a replica, and which were delivered
// inside their window. Safe for concurrent use.
//
// A replica claims a publish before it sends it, and says afterwards whether it was delivered. Until it has said so,
// others that want to send the same wait. A claim of which nothing more is heard, because its replica died, ends by
// itself (hold, of Claim); then one of those that wait sends: twice is better than never.
//
// What is asked and told at the same moment shares a round trip: while one is under way all that comes waits for the
// next. A round trip takes at most tripWait, so nobody waits longer than two of them. If the store does not answer by
// then, or is lost, every Claim is answered Alone at once until it answers again, which is tried once a second.
//
// Times are those of the replicas' own clocks: a clock that is ahead of the others by some time shortens windows by
// as much.
type Claims struct {
	st      *store.Store
	account string
	log     *slog.Logger
	now     func() time.Time
	most    int

	state atomic.Uint32
	wake  chan struct{}

	mu      sync.Mutex
	queue   []*question
	free    []*question
	watched map[ID][]Fate
	lostFor string // why, while lost

	stats counters
}

// ID is what makes two publishes the same on every replica.
type ID = store.TwinID

// Fate is told once what became of a publish that another replica was sending: until is when it will be forgotten
// if it was delivered. It must not block.
type Fate func(delivered bool, until time.Time)

// Answer is the answer to a Claim.
type Answer uint8

// The answers.
const (
	Yours     Answer = iota // send it, then call Settle
	Delivered               // it was delivered inside the window
	Elsewhere               // another replica is sending it: see Watch
	Alone                   // the store was not asked, or did not answer: decide without, then call Settle
)

// Want is a publish that somebody wants to send now, and the answer to that.
type Want struct {
	ID     ID
	Window time.Duration // its rule's
	Hold   time.Duration // how long it can be under way at most
	Got    Claim         // what ClaimAll puts there

	place *question // while it is asked
}

// Claim is an answer with what belongs to it.
type Claim struct {
	As    Answer
	Token uint64    // for Settle
	Until time.Time // of Delivered: when that is forgotten
}

// Stats count answers to Claim, and what they cost.
type Stats struct {
	Claimed, Delivered, Elsewhere int64
	Alone                         int64 // decided by this replica alone
	Ops, Trips                    int64 // what was asked and told, and in how many round trips
	Untold                        int64 // fates that the store never heard of
	Up                            bool
	Why                           string // not Up: why
}

type counters struct{ claimed, delivered, elsewhere, alone, ops, trips, untold atomic.Int64 }

const (
	// Most is how many publishes an account remembers at once, in the store: about 60 MB there. More are judged
	// by each replica alone.
	Most = 1 << 18

	tripWait   = 250 * time.Millisecond
	retryEvery = time.Second
	lookEvery  = 20 * time.Millisecond // how often it is asked what became of those that others send
	maxTrip    = 512
	maxQueue   = 16 << 10
)

const (
	stateIdle uint32 = iota // Run does not run
	stateUp
	stateLost
)

type question struct {
	op   store.TwinOp
	got  Claim
	done chan struct{} // of a claim
}

// New is the account's record on st. Run must run for it to answer anything but Alone. A nil log is slog.Default().
func New(st *store.Store, account string, log *slog.Logger) *Claims {
	if log == nil {
		log = slog.Default()
	}
	return &Claims{st: st, account: account, log: log, now: time.Now, most: Most,
		wake: make(chan struct{}, 1), watched: map[ID][]Fate{}}
}

// Stats reads the counters.
func (c *Claims) Stats() Stats {
	c.mu.Lock()
	why := c.lostFor
	c.mu.Unlock()
	s := &c.stats
	return Stats{Claimed: s.claimed.Load(), Delivered: s.delivered.Load(), Elsewhere: s.elsewhere.Load(), Alone: s.alone.Load(),
		Ops: s.ops.Load(), Trips: s.trips.Load(), Untold: s.untold.Load(), Up: c.state.Load() == stateUp, Why: why}
}

// Claim asks to send a publish now. window is its rule's, hold is how long it can be under way at most.
func (c *Claims) Claim(now time.Time, id ID, window, hold time.Duration) Claim {
	one := [1]Want{{ID: id, Window: window, Hold: hold}}
	c.ClaimAll(now, one[:])
	return one[0].Got
}

// ClaimAll is Claim for all that one request wants to send: they wait for one round trip together. No two of wants may
// have the same ID, or the second is told that the first, its own, is under way.
func (c *Claims) ClaimAll(now time.Time, wants []Want) {
	for i := range wants {
		wants[i].Got = Claim{As: Alone, Token: rand.Uint64()}
	}
	if c.state.Load() == stateUp {
		c.ask(now, wants)
	}
	for i := range wants {
		switch wants[i].Got.As {
		case Yours:
			c.stats.claimed.Add(1)
		case Delivered:
			c.stats.delivered.Add(1)
		case Elsewhere:
			c.stats.elsewhere.Add(1)
		default:
			c.stats.alone.Add(1)
		}
	}
}

// ask has the wants answered by the store, as far as it can be asked. They get into the queue at once, so that no
// round trip begins between them.
func (c *Claims) ask(now time.Time, wants []Want) {
	c.mu.Lock()
	for i := range wants {
		w := &wants[i]
		if c.state.Load() != stateUp || len(c.queue) >= maxQueue {
			break
		}
		w.place = c.take()
		w.place.op = store.TwinOp{Do: store.TwinClaim, ID: w.ID, Token: w.Got.Token, At: now, Window: w.Window, Hold: w.Hold}
		c.queue = append(c.queue, w.place)
	}
	c.mu.Unlock()
	c.ring()
	for i := range wants {
		if a := wants[i].place; a != nil {
			<-a.done
			wants[i].Got = a.got
		}
	}
	c.mu.Lock()
	for i := range wants {
		if a := wants[i].place; a != nil {
			c.free = append(c.free, a)
			wants[i].place = nil
		}
	}
	c.mu.Unlock()
}

// take is a place for something to ask. c.mu is held.
func (c *Claims) take() *question {
	if n := len(c.free); n > 0 {
		a := c.free[n-1]
		c.free = c.free[:n-1]
		return a
	}
	return &question{done: make(chan struct{}, 1)}
}

func (c *Claims) ring() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Settle says what became of a publish after Yours or Alone. It does not wait.
func (c *Claims) Settle(now time.Time, id ID, token uint64, window time.Duration, delivered bool) {
	op := store.TwinOp{Do: store.TwinFailed, ID: id, Token: token, At: now, Window: window}
	if delivered {
		op.Do = store.TwinDelivered
	}
	c.mu.Lock()
	if c.state.Load() == stateIdle || len(c.queue) >= maxQueue {
		c.mu.Unlock()
		c.stats.untold.Add(1)
		return
	}
	a := c.take()
	a.op = op
	c.queue = append(c.queue, a)
	c.mu.Unlock()
	c.ring()
}

// Watch tells f what becomes of a publish that was Elsewhere: delivered; or not, which is also what it says when
// the claim ended of itself or the store is lost.
func (c *Claims) Watch(id ID, f Fate) {
	c.mu.Lock()
	watch := c.state.Load() == stateUp && len(c.watched) < maxQueue
	if watch {
		c.watched[id] = append(c.watched[id], f)
	}
	c.mu.Unlock()
	if !watch {
		f(false, time.Time{})
		return
	}
	c.ring()
}

// Run carries questions and answers until ctx ends; then it tells what is still to be told.
func (c *Claims) Run(ctx context.Context) {
	c.state.Store(stateUp)
	var looked time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		c.mu.Lock()
		wait := time.Hour
		if len(c.watched) > 0 {
			wait = max(lookEvery-time.Since(looked), 0)
		}
		if c.state.Load() == stateLost {
			wait = retryEvery
		}
		waiting := len(c.queue) > 0 && c.state.Load() == stateUp
		c.mu.Unlock()
		if !waiting && wait > 0 {
			timer.Reset(wait)
			wake := c.wake
			if c.state.Load() == stateLost {
				wake = nil
			}
			select {
			case <-ctx.Done():
				c.end(ctx)
				return
			case <-wake:
			case <-timer.C:
			}
		}
		if ctx.Err() != nil {
			c.end(ctx)
			return
		}
		look := time.Since(looked) >= lookEvery
		if look {
			looked = time.Now()
		}
		c.trip(ctx, look)
	}
}

// end tells what is still to be told, and answers those that wait.
func (c *Claims) end(ctx context.Context) {
	for range maxQueue / maxTrip {
		c.trip(ctx, false)
		c.mu.Lock()
		more := len(c.queue) > 0 && c.state.Load() == stateUp
		c.mu.Unlock()
		if !more {
			break
		}
	}
	c.mu.Lock()
	c.state.Store(stateIdle)
	rest := c.queue
	c.queue = nil
	fates := c.unwatch()
	c.mu.Unlock()
	c.alone(rest)
	for _, f := range fates {
		f(false, time.Time{})
	}
}

// unwatch takes all that is watched. c.mu is held.
func (c *Claims) unwatch() (all []Fate) {
	for _, fs := range c.watched {
		all = append(all, fs...)
	}
	clear(c.watched)
	return all
}

// alone ends asks without the store.
func (c *Claims) alone(asks []*question) {
	for _, a := range asks {
		if a.op.Do == store.TwinClaim {
			a.got = Claim{As: Alone, Token: a.op.Token}
			a.done <- struct{}{}
			continue
		}
		c.stats.untold.Add(1)
	}
}

// trip is one round trip, with all that waits; with look it also asks what became of what is watched.
func (c *Claims) trip(ctx context.Context, look bool) {
	c.mu.Lock()
	n := min(len(c.queue), maxTrip)
	asks := append([]*question(nil), c.queue[:n]...)
	c.queue = append(c.queue[:0], c.queue[n:]...)
	ops := make([]store.TwinOp, 0, n+len(c.watched))
	now := c.now()
	oldest := now // what ended before it is forgotten: by the clock of those who ask
	for _, a := range asks {
		ops = append(ops, a.op)
		if a.op.At.Before(oldest) {
			oldest = a.op.At
		}
	}
	if look {
		for id := range c.watched {
			if len(ops) >= 2*maxTrip {
				break // the map's order differs from one look to the next
			}
			ops = append(ops, store.TwinOp{Do: store.TwinLook, ID: id, At: now})
		}
	}
	lost := c.state.Load() == stateLost
	c.mu.Unlock()
	if len(ops) == 0 && !lost {
		return
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), tripWait)
	answers, err := c.st.Twins(call, c.account, oldest, c.most, ops)
	cancel()
	c.stats.trips.Add(1)
	c.stats.ops.Add(int64(len(ops)))
	if err != nil {
		c.lost(asks, err)
		return
	}
	if lost {
		c.found()
	}
	c.mu.Lock()
	for i, a := range asks {
		if ops[i].Do != store.TwinClaim && len(c.free) < maxTrip {
			c.free = append(c.free, a)
		}
	}
	c.mu.Unlock()
	for i, a := range asks {
		if ops[i].Do == store.TwinClaim { // from here on the place is the asker's, to give away
			a.got = Claim{As: answerOf(answers[i].Is), Token: ops[i].Token, Until: answers[i].Until}
			a.done <- struct{}{}
		}
	}
	for i := len(asks); i < len(ops); i++ {
		if answers[i].Is == store.TwinUnderWay {
			continue
		}
		c.mu.Lock()
		fates := c.watched[ops[i].ID]
		delete(c.watched, ops[i].ID)
		c.mu.Unlock()
		for _, f := range fates {
			f(answers[i].Is == store.TwinSent, answers[i].Until)
		}
	}
}

func answerOf(is store.TwinIs) Answer {
	switch is {
	case store.TwinClaimed:
		return Yours
	case store.TwinSent:
		return Delivered
	case store.TwinUnderWay:
		return Elsewhere
	}
	return Alone
}

// lost notes that the store does not answer. What was to be told is kept, in order, for when it does.
func (c *Claims) lost(asks []*question, err error) {
	c.mu.Lock()
	before := c.state.Swap(stateLost)
	c.lostFor = err.Error()
	var tell, ended []*question
	for _, a := range append(asks, c.queue...) {
		if a.op.Do == store.TwinClaim || len(tell) >= maxQueue/2 {
			ended = append(ended, a)
		} else {
			tell = append(tell, a)
		}
	}
	c.queue = tell
	fates := c.unwatch()
	c.mu.Unlock()
	if before == stateUp {
		c.log.Warn("the store does not answer in time: until it does, rules that deduplicate with scope cluster look in this replica only", "account", c.account, "err", err)
	}
	c.alone(ended)
	for _, f := range fates {
		f(false, time.Time{})
	}
}

func (c *Claims) found() {
	c.mu.Lock()
	c.state.Store(stateUp)
	c.lostFor = ""
	c.mu.Unlock()
	c.log.Info("the store answers again: rules that deduplicate with scope cluster look in all replicas", "account", c.account)
}
