package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota/delayed"
)

// What is held is bounded in bytes, by account and by caller, in each replica: a store keeps it in memory.

const (
	defaultHeldMost       = 64 << 20
	defaultHeldMostCaller = 32 << 20
	// heldEntry is what an entry counts beside its payload.
	heldEntry = 512
	// heldSettles is how long after its time an entry of which this replica heard nothing more is taken for sent, by
	// another replica, unless more than heldStuck wait for their turn.
	heldSettles = 5 * time.Second
	heldStuck   = 512
)

// heldBytes counts what this replica put into an account's queue. The zero value is empty.
type heldBytes struct {
	mu      sync.Mutex
	by      map[string]heldSize
	total   int64
	callers map[string]int64
	swept   time.Time
	flushed atomic.Int64 // Unix s
}

type heldSize struct {
	caller string
	bytes  int64
	due    time.Time
}

// add counts an entry, and reports whether there is room for it. One that replaces another always has room, for the older must
// not arrive after it; then over says that the bound is passed.
func (h *heldBytes) add(id, caller string, bytes int64, due, now time.Time, most, mostCaller int64, stuck bool) (ok, over bool) {
	bytes += heldEntry
	h.mu.Lock()
	defer h.mu.Unlock()
	old, replaces := h.by[id]
	fits := func() bool {
		return h.total-old.bytes+bytes <= most && h.callers[caller]-old.bytes+bytes <= mostCaller
	}
	if over = !fits(); over && now.Sub(h.swept) > time.Second {
		h.sweep(now, stuck)
		old, replaces = h.by[id]
		over = !fits()
	}
	if over && !replaces {
		return false, true
	}
	if replaces {
		h.drop(id, old)
		due = old.due
	}
	if h.by == nil {
		h.by, h.callers = map[string]heldSize{}, map[string]int64{}
	}
	h.by[id] = heldSize{caller, bytes, due}
	h.total += bytes
	h.callers[caller] += bytes
	return true, over
}

func (h *heldBytes) drop(id string, e heldSize) {
	delete(h.by, id)
	h.total -= e.bytes
	if h.callers[e.caller] -= e.bytes; h.callers[e.caller] <= 0 {
		delete(h.callers, e.caller)
	}
}

// sweep forgets what must have been sent. h.mu is held.
func (h *heldBytes) sweep(now time.Time, stuck bool) {
	h.swept = now
	if stuck {
		return
	}
	for id, e := range h.by {
		if now.Sub(e.due) > heldSettles {
			h.drop(id, e)
		}
	}
}

// over forgets an entry that was sent, or dropped, if it is not a newer one by now.
func (h *heldBytes) over(id string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok := h.by[id]; ok && !e.due.After(now) {
		h.drop(id, e)
	}
}

// size is what is counted now.
func (h *heldBytes) size() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total
}

// heldOf is the count of an account.
func (p *Proxy) heldOf(account string) *heldBytes {
	if h, ok := p.held.Load(account); ok {
		return h.(*heldBytes)
	}
	h, _ := p.held.LoadOrStore(account, &heldBytes{})
	return h.(*heldBytes)
}

// HeldBytes is about how many bytes of an account this replica has put where they wait.
func (p *Proxy) HeldBytes(account string) int64 { return p.heldOf(account).size() }

// roomToHold reports whether a publish may be held.
func (p *Proxy) roomToHold(a *App, caller, id string, rec []byte, due, now time.Time) bool {
	h := p.heldOf(a.Account)
	count := a.Shelf.Held()
	ok, over := h.add(id, caller, int64(len(rec)), due, now, or(a.HeldMost, defaultHeldMost), or(a.HeldMostCaller, defaultHeldMostCaller), count.Overdue > heldStuck)
	if over {
		p.stats.heldCounts.noRoom.Add(1)
		if last := h.flushed.Load(); now.Unix() > last+60 {
			p.log.Warn("what is held has reached its bound in bytes; further publishes that would be held go out at once (held_max, held_max_per_caller)", "account", a.Account, "app", a.ID, "caller", caller, "held_bytes", h.size())
		}
		if last := h.flushed.Load(); ok && now.Unix() > last && h.flushed.CompareAndSwap(last, now.Unix()) {
			go p.flushHeld(a.Shelf, now) // it replaced an older one, so all that waits goes out instead
		} else {
			h.flushed.CompareAndSwap(last, now.Unix())
		}
	}
	return ok
}

func (p *Proxy) flushHeld(q *delayed.Queue, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
	defer cancel()
	if _, err := q.Flush(ctx, now); err != nil {
		p.log.Warn("what is held could not be sent ahead of its time", "err", err)
	}
}
