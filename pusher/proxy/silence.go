package proxy

import (
	"slices"
	"sync/atomic"
	"time"
	"weak"

	"github.com/pushguard/pushguard/quota"
)

// silence is what an admission knows of an upstream that does not answer at all.
//
// It begins when every place is taken, or every call of a fold, and no call has been
// answered for a while (silenceAfter, silenceCalls). Nothing is known then: the upstream may be gone,
// may have lost what it was sent, or may be about to answer all of it. What is
// sent meanwhile is of unknown fate and paid for; what waits in line and is then
// refused is neither. So from then on only one request goes every silenceProbe,
// the most important of the line first, as a circuit breaker does when it is half
// open (M. Nygard, Release It!), but without the wait for timeouts that opens one:
// the first answer ends the silence. Those that hang from before hold no place any
// more, or callers would meet the upstream's silence of a second for as long as
// its timeout is.
//
// What comes as long as there is a place goes: to refuse it would be a guess. Who has
// one and waits in a fold for a call is asked for and refused like those in line.
type silence struct {
	is    atomic.Bool
	heard atomic.Int64 // when the upstream last answered, Unix nanoseconds

	// The rest is guarded by the admission's mu.
	began  time.Time // when somebody first found no place since the last answer
	last   time.Time // when somebody last found none
	prober *time.Timer
	// lost is how many hang from before silences that are over, at most the limit;
	// ended is when the last of those was over, Unix nanoseconds.
	lost  atomic.Int64
	ended atomic.Int64
	told  func(silent bool, lasted time.Duration)
	over  func() // it ends; nil: nobody need know
	// folds are the lines behind the places, in which some wait who have one: one a
	// reload of the app, until nobody has it any more.
	folds []weak.Pointer[folder]
}

const (
	// silenceAfter is as long as a request of lesser priority stands in line:
	// before that nobody was refused.
	silenceAfter = 250 * time.Millisecond
	silenceCalls = 8 // times what a call takes
	silenceProbe = 100 * time.Millisecond
	// silencePause without anybody in want of a place makes what was before another
	// story. It is longer than who stood in vain keeps the others from the line.
	silencePause = 2 * time.Second
)

// noPlace notes that somebody found none. a.mu is held.
func (a *admission) noPlace(now time.Time) {
	s := &a.silence
	if s.is.Load() || a.under.Load() == 0 {
		return
	}
	pause := now.Sub(s.last)
	if s.last = now; pause > silencePause || s.heard.Load() >= s.began.UnixNano() {
		s.began = now
		return
	}
	if now.Sub(s.began) < max(silenceAfter, silenceCalls*a.pace.base) {
		return
	}
	s.is.Store(true)
	a.open()
	a.tell(true)
	if s.told != nil {
		s.told(true, now.Sub(s.began))
	}
	a.ask()
	if s.prober == nil {
		s.prober = time.AfterFunc(silenceProbe, a.probe)
	} else {
		s.prober.Reset(silenceProbe)
	}
}

// probe has one request find out, and comes again as long as nothing is heard.
func (a *admission) probe() {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch s := &a.silence; {
	case !s.is.Load():
	case a.under.Load() == 0 && a.waiting.Load() == 0: // nobody is left who could hear
		a.speaks(moment())
	default:
		a.ask()
		s.prober.Reset(silenceProbe)
	}
}

// ask lets the most important one of those in line go. Those in a fold's line came
// first, and have their places already. a.mu is held.
func (a *admission) ask() {
	t, class := a.head(quota.Bulk), quota.Bulk
	if t != nil {
		class = t.class
	}
	for _, p := range a.silence.folds {
		if f := p.Value(); f != nil {
			if w := f.ask(class); w != nil {
				w.rouse()
				return
			}
		}
	}
	if t != nil {
		a.under.Add(1)
		t.probe = true
		a.goes(t)
	}
}

// wanting is noPlace for who waits in a fold's line for a call.
func (a *admission) wanting() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noPlace(moment())
}

// enlist has f told of silences, for as long as anybody has it.
func (a *admission) enlist(f *folder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.silence
	s.folds = slices.DeleteFunc(s.folds, func(p weak.Pointer[folder]) bool { return p.Value() == nil })
	s.folds = append(s.folds, weak.Make(f))
}

// tell tells the folds. a.mu is held.
func (a *admission) tell(silent bool) {
	for _, p := range a.silence.folds {
		if f := p.Value(); f != nil {
			f.hears(silent)
		}
	}
}

// speaks ends a silence. a.mu is held.
func (a *admission) speaks(now time.Time) {
	s := &a.silence
	if !s.is.Load() {
		return
	}
	s.prober.Stop()
	s.lost.Store(min(a.under.Load(), a.may))
	s.ended.Store(now.UnixNano())
	s.is.Store(false)
	a.open()
	a.window.turn(now, 0) // what hung tells nothing
	if s.over != nil {
		s.over()
	}
	a.tell(false)
	if s.told != nil {
		s.told(false, now.Sub(s.began))
	}
	s.last = time.Time{}
}

// heard notes an end: an answer, or a place that comes back from one of those
// that hung.
func (a *admission) heard(began, now time.Time, answered bool) {
	s := &a.silence
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
			a.speaks(now)
		}
		a.mu.Unlock()
	}
}

// open puts in force how many may be under way. a.mu is held.
func (a *admission) open() {
	if a.silence.is.Load() {
		a.limit.Store(0)
		a.ahead.Store(0)
		return
	}
	lost := a.silence.lost.Load()
	a.limit.Store(a.may + lost)
	a.ahead.Store(a.pace.ahead() + lost)
}
