package proxy

import (
	"sync/atomic"
	"time"
)

// stall is what an admission knows of an upstream that does not answer at all.
//
// It begins when a call's time is over and nothing was answered since it began, or when
// every place is taken and nothing is answered for a while. Nothing is known then: the
// upstream may be gone, may have lost what it was sent, or may be about to answer all of
// it. What is sent meanwhile is of unknown fate and paid for; what is refused is neither.
// So from then on one request goes every stallProbe, as a circuit breaker does when it
// is half open (M. Nygard, Release It!), and the others are refused at once; the first
// answer ends it. A stall needs no count of failures, so it is seen on a slow line too.
//
// Those that hang from before the end of a stall hold no place any more, or callers
// would meet a stall of a second for as long as the timeout is.
type stall struct {
	is     atomic.Bool
	heard  atomic.Int64 // when the upstream last answered, Unix nanoseconds
	probed atomic.Int64 // when the last probe went, or the stall began

	// The rest is guarded by the admission's mu.
	began time.Time // when somebody first found no place since the last answer
	last  time.Time // when somebody last found none
	// lost is how many hang from before stalls that are over, at most the limit;
	// ended is when the last of those was over, Unix nanoseconds.
	lost  atomic.Int64
	ended atomic.Int64
	told  func(stalled bool, lasted time.Duration)
	over  func() // it ends; nil: nobody need know
}

const (
	// stallAfter is for how long nothing may be answered while no place is free,
	// stallCalls the same in calls.
	stallAfter = 250 * time.Millisecond
	stallCalls = 8
	stallProbe = 100 * time.Millisecond
	// stallPause without anybody in want of a place makes what was before another
	// story; stallForget without a request makes a stall one.
	stallPause  = 2 * time.Second
	stallForget = 5 * time.Second
)

// shown reports whether it is one for whoever looks at it now.
func (s *stall) shown(now time.Time) bool {
	return s.is.Load() && now.UnixNano()-s.probed.Load() < int64(stallForget)
}

// stalls begins a stall; since is when the last answer was missed. a.mu is held.
func (a *admission) stalls(now, since time.Time) {
	s := &a.stall
	if s.is.Load() {
		return
	}
	s.began = since
	s.probed.Store(now.Add(-stallProbe).UnixNano()) // who comes next finds out
	s.is.Store(true)
	a.open()
	for class := range a.lines {
		for t := a.lines[class].first; t != nil; t = a.lines[class].first {
			a.lines[class].leave(t)
			a.waiting.Add(-1)
			t.wake <- false
		}
	}
	if s.told != nil {
		s.told(true, now.Sub(since))
	}
}

// noPlace notes that somebody found none. a.mu is held.
func (a *admission) noPlace(now time.Time) {
	s := &a.stall
	if s.is.Load() || a.under.Load() == 0 {
		return
	}
	pause := now.Sub(s.last)
	if s.last = now; pause > stallPause || s.heard.Load() >= s.began.UnixNano() {
		s.began = now
		return
	}
	if now.Sub(s.began) >= max(stallAfter, stallCalls*a.pace.base) {
		a.stalls(now, s.began)
	}
}

// timedOut notes that a call's time is over.
func (a *admission) timedOut(began, now time.Time) {
	if a.stall.heard.Load() >= began.UnixNano() || a.stall.is.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stalls(now, began)
}

// probe takes a place for one that is to find out whether the upstream still is stalled,
// if it is time for that.
func (a *admission) probe(now time.Time) bool {
	s := &a.stall
	last := s.probed.Load()
	since := time.Duration(now.UnixNano() - last)
	if since < stallProbe || !s.probed.CompareAndSwap(last, now.UnixNano()) {
		return false
	}
	if since > stallForget {
		a.mu.Lock()
		a.recovered(now)
		a.mu.Unlock()
	}
	a.under.Add(1)
	return true
}

// recovered ends a stall. a.mu is held.
func (a *admission) recovered(now time.Time) {
	s := &a.stall
	if !s.is.Load() {
		return
	}
	s.lost.Store(min(a.under.Load(), a.may))
	s.ended.Store(now.UnixNano())
	s.is.Store(false)
	a.open()
	a.window.turn(now, 0) // what hung tells nothing
	if s.over != nil {
		s.over()
	}
	if s.told != nil {
		s.told(false, now.Sub(s.began))
	}
	s.last = time.Time{}
}

// heard notes an end: an answer, or a place that comes back from one of those
// that hung.
func (a *admission) heard(began, now time.Time, answered bool) {
	s := &a.stall
	if answered {
		s.heard.Store(now.UnixNano())
	}
	if s.lost.Load() > 0 && began.UnixNano() < s.ended.Load() || answered && s.is.Load() {
		a.mu.Lock()
		if s.lost.Load() > 0 && began.UnixNano() < s.ended.Load() {
			s.lost.Add(-1)
			a.open()
		}
		if answered {
			a.recovered(now)
		}
		a.mu.Unlock()
	}
}

// open puts in force how many may be under way. a.mu is held.
func (a *admission) open() {
	if a.stall.is.Load() {
		a.limit.Store(0)
		a.ahead.Store(0)
		return
	}
	lost := a.stall.lost.Load()
	a.limit.Store(a.may + lost)
	a.ahead.Store(min(a.pace.ahead(), a.most+a.most/8) + lost)
}
