package proxy

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// order sends publishes of rules that say `order: strict` one after the other: of a
// caller to a channel, each waits for the answer to the one before it. Those that wait
// behind the same call may leave together, as one batch in order of arrival.
//
// A request takes its place in all its lanes at once, so no two can wait for each
// other. Who waits here holds no place before the upstream. What no strict rule matches
// never comes here.
type order struct {
	seed  maphash.Seed
	batch int // most events of one call; 1: none share one

	mu    sync.Mutex
	lanes map[uint64][]*waiter // by caller and channel, in order of arrival
}

func newOrder(batch int) *order {
	return &order{seed: maphash.MakeSeed(), batch: batch, lanes: map[uint64][]*waiter{}}
}

// strict leaves in w the lanes of the events that are to be sent in strict order, and
// reports whether there are any.
func (o *order) strict(w *waiter, caller string) bool {
	w.lanes = w.lanes[:0]
	for i := range w.j.items {
		it := &w.j.items[i]
		if it.state != toSend || !it.verdict.Rule.IsStrict() {
			continue
		}
		own := maphash.String(o.seed, caller)
		for _, ch := range it.claim.Channels {
			lane := maphash.String(o.seed, ch) + own
			if !w.in(lane) {
				w.lanes = append(w.lanes, lane)
			}
		}
	}
	return len(w.lanes) > 0
}

func (w *waiter) in(lane uint64) bool {
	for _, l := range w.lanes {
		if l == lane {
			return true
		}
	}
	return false
}

// enter waits until nothing is ahead of w, and reports false if that was not so in time.
// Then w has a group: it leads those that are to leave with it, and calls leave when all
// have their answers. Without a group an earlier one's call has carried it.
func (o *order) enter(w *waiter) (inTime bool) {
	o.mu.Lock()
	w.ahead = 0
	for _, l := range w.lanes {
		if len(o.lanes[l]) > 0 {
			w.ahead++
		}
		o.lanes[l] = append(o.lanes[l], w)
	}
	if w.ahead == 0 {
		w.group = append(w.group[:0], w)
		o.mu.Unlock()
		return true
	}
	o.mu.Unlock()
	_, inTime = wait(&w.j.due, time.Time{}, w.wake, func() bool { return o.quit(w) })
	return inTime
}

// quit takes w out of its lanes, unless its call has begun.
func (o *order) quit(w *waiter) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.ahead == 0 {
		return false
	}
	for _, l := range w.lanes {
		lane := o.lanes[l]
		i := slices.Index(lane, w)
		if lane = slices.Delete(lane, i, i+1); len(lane) == 0 {
			delete(o.lanes, l)
			continue
		}
		o.lanes[l] = lane
		if i == 0 { // it was the first there, and waited for another lane
			o.next(lane)
		}
	}
	return true
}

// next tells the first of a lane that nobody is before it there any more. o.mu is held.
func (o *order) next(lane []*waiter) {
	w := lane[0]
	if w.ahead--; w.ahead == 0 {
		w.group, w.kind = o.follow(append(w.group[:0], w), lane), sharesBatch
		w.wake <- struct{}{}
	}
}

// leave gives the lanes of w to those behind it; n is how many w was the first of. Those
// behind it may be gone already.
func (o *order) leave(w *waiter, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range w.lanes {
		rest := o.lanes[l][n:]
		if len(rest) == 0 {
			delete(o.lanes, l)
			continue
		}
		o.lanes[l] = rest
		o.next(rest)
	}
}

// follow adds to a group those directly behind its first in its only lane that wait for
// nothing else.
func (o *order) follow(group, lane []*waiter) []*waiter {
	head := group[0]
	if head.publish == nil || len(head.lanes) != 1 {
		return group
	}
	for _, w := range lane[1:] {
		if len(group) == o.batch || w.publish == nil || len(w.lanes) != 1 {
			break
		}
		w.ahead = 0
		group = append(group, w)
	}
	return group
}
