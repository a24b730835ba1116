package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// admission bounds how many requests are on their way to one upstream, so that
// more than can be carried waits in a line of bounded length and time, the more
// important first, instead of making everybody slow.
//
// How many may be under way follows from how long they take: see pace. A few
// places more are for what is critical alone, which so seldom stands in line at
// all. The line's bound in time is the queue timeout of "Fail at Scale" (B. Maurer, ACM Queue 13(8), 2015). It notices
// a slow upstream and a busy processor alike: either makes the same wait longer.
//
// The gate stands after judgement, although judgement costs something: priority
// is known only then, what is refused anyway needs no place, and what is dear is
// the call. What comes while a whole replica is full is refused before that (see
// crowded), and what comes while the processor is what is full is told apart before
// it, by what it claims to be (see crowd). What is done while the upstream does not
// answer at all is with stall.
//
// The common path, below the limit with nobody waiting, is a few atomics.
type admission struct {
	limit   atomic.Int64 // how many may be under way
	under   atomic.Int64 // how many are
	waiting atomic.Int64 // how many would be

	ahead atomic.Int64 // how many may be under way for a critical one to go
	slow  atomic.Int64 // what a call takes, in ns
	shed  [quota.Priorities][ShedCauses]atomic.Int64
	// vain is until when nobody of a priority joins the line, Unix nanoseconds: one
	// has just stood there in vain, so to wait and then be refused would cost both
	// sides more than to be refused.
	vain [quota.Priorities]atomic.Int64

	mu    sync.Mutex
	lines [quota.Priorities]line
	pace  pace
	may   int64 // how many the pace lets be under way
	own   processors
	late  time.Time   // until when
	busy  atomic.Bool // we are late ourselves
	// lostFor is how long one that hangs can do so.
	lostFor time.Duration

	window window
	stall  stall
	most   int64 // may be under way, whatever the pace
}

const (
	// maxUnderWay bounds the requests that a replica has taken in and not
	// answered; beyond it nothing is looked at.
	maxUnderWay = 8192
	// maxWaiting bounds the line before one upstream.
	maxWaiting = 2048
)

// patience is how long a request of each priority stands in line. The SDKs give
// up after about 5 s, so that also a refusal arrives in time.
var patience = [quota.Priorities]time.Duration{quota.Bulk: 250 * time.Millisecond, quota.Normal: 250 * time.Millisecond, quota.Critical: time.Second}

func newAdmission(timeout time.Duration, most int64) *admission {
	a := &admission{pace: pace{limit: float64(most), most: float64(most)}, may: most, most: most, lostFor: 2*timeout + time.Second} // a fold's line, then its call
	a.open()
	return a
}

// turn is a job's place in line.
type turn struct {
	wake       chan bool // whether it may go
	prev, next *turn
	standing   bool
	class      quota.Priority
	probe      bool      // it goes to find out whether the upstream still is silent
	why        ShedCause // there is no place for it
}

// line is first in, first out: publishes of one caller must not overtake.
type line struct{ first, last *turn }

func (l *line) join(t *turn) {
	t.prev, t.next, t.standing = l.last, nil, true
	if l.last != nil {
		l.last.next = t
	} else {
		l.first = t
	}
	l.last = t
}

func (l *line) leave(t *turn) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		l.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		l.last = t.prev
	}
	t.prev, t.next, t.standing = nil, nil, false
}

// enter takes a place, waiting for one if need be, and reports whether there is
// one; who has one must leave.
func (a *admission) enter(t *turn, due *deadline, class quota.Priority) bool {
	t.class, t.probe = class, false
	if a.enterNow(class) {
		return true
	}
	if a.stall.is.Load() {
		if t.probe = a.probe(moment()); !t.probe {
			return a.refuse(t, ShedSilent)
		}
		return true
	}
	if vain := a.vain[class].Load(); vain != 0 && time.Now().UnixNano() < vain {
		return a.refuse(t, ShedVain)
	}
	a.mu.Lock()
	a.waiting.Add(1) // before the look at what is free: who leaves looks the other way round
	if a.forget(moment()); a.head(class) == nil && a.take(class) {
		a.waiting.Add(-1)
		a.mu.Unlock()
		return true
	}
	if a.waiting.Load() > maxWaiting && !a.evict(class) {
		a.waiting.Add(-1)
		a.mu.Unlock()
		return a.refuse(t, ShedLineFull)
	}
	if t.wake == nil {
		t.wake = make(chan bool, 1)
	}
	a.lines[class].join(t)
	a.noPlace(moment())
	a.mu.Unlock()
	why := ShedGaveWay
	ok, _ := wait(due, moment().Add(a.patience(class)), t.wake, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !t.standing { // in the same moment its turn came
			return false
		}
		why = ShedWaited
		a.lines[class].leave(t)
		a.waiting.Add(-1)
		return true
	})
	if !ok {
		a.vain[class].Store(time.Now().Add(a.patience(class) / 3).UnixNano())
		return a.refuse(t, why)
	}
	return true
}

// patience is how long one stands in line: where a call takes long, long enough that a
// trial of the pace refuses nobody.
func (a *admission) patience(class quota.Priority) time.Duration {
	return max(patience[class], min(time.Duration(a.slow.Load()), time.Second))
}

// forget takes a limit back that was of another time. a.mu is held.
func (a *admission) forget(now time.Time) {
	if a.pace.forget(now) {
		a.may = int64(a.pace.limit)
		a.open()
	}
}

// refuse notes why there is no place for t.
func (a *admission) refuse(t *turn, why ShedCause) (ok bool) {
	if a.stall.is.Load() {
		why = ShedSilent
	}
	t.why = why
	a.shed[t.class][why].Add(1)
	return false
}

// enterNow takes a place if there is one and nobody waits for it.
func (a *admission) enterNow(class quota.Priority) bool {
	return a.waiting.Load() == 0 && a.take(class)
}

// free reports whether there is a place for the class at this moment, or none can
// be counted on because the upstream is silent: then who waits in line is asked for.
func (a *admission) free(class quota.Priority) bool {
	if a.stall.is.Load() {
		return true
	}
	limit := a.limit.Load()
	if class == quota.Critical {
		limit = max(limit, a.ahead.Load())
	}
	return a.under.Load() < limit
}

// head is the first of those in line that are at least as important. a.mu is
// held.
func (a *admission) head(class quota.Priority) *turn {
	for c := quota.Priority(quota.Priorities); c > class; c-- {
		if t := a.lines[c-1].first; t != nil {
			return t
		}
	}
	return a.lines[class].first
}

// evict makes room in a full line for a request of class, at the cost of the
// one that is less important and has waited longest. a.mu is held.
func (a *admission) evict(class quota.Priority) bool {
	for c := range class {
		if t := a.lines[c].first; t != nil {
			a.lines[c].leave(t)
			a.waiting.Add(-1)
			t.wake <- false
			return true
		}
	}
	return false
}

// take takes a place if one is free for the class.
func (a *admission) take(class quota.Priority) bool {
	limit := a.limit.Load()
	if class == quota.Critical {
		limit = max(limit, a.ahead.Load())
	}
	for {
		n := a.under.Load()
		if n >= limit {
			a.window.peak.Store(n)
			return false
		}
		if a.under.CompareAndSwap(n, n+1) {
			if n+1 > a.window.peak.Load() {
				a.window.peak.Store(n + 1)
			}
			return true
		}
	}
}

// leave gives the place back and lets the next one go; began is since when it
// was used, telling whether that tells how busy the upstream is, and answered
// whether it tells that it is not silent.
func (a *admission) leave(began, now time.Time, telling, answered bool) {
	a.under.Add(-1)
	a.heard(began, now, answered)
	if a.window.ended(began, now, telling) {
		a.think(now)
	}
	if a.waiting.Load() > 0 {
		a.letIn()
	}
}

// letIn lets as many go as there are places.
func (a *admission) letIn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := quota.Priorities; c > 0; {
		t := a.lines[c-1].first
		if t == nil {
			c--
			continue
		}
		if !a.take(quota.Priority(c - 1)) {
			return
		}
		a.goes(t)
	}
}

// goes has one in line go, for whom a place was taken. a.mu is held.
func (a *admission) goes(t *turn) {
	a.lines[t.class].leave(t)
	a.waiting.Add(-1)
	t.wake <- true
}

// think closes a window and sets the limit for the next.
func (a *admission) think(now time.Time) {
	if a.stall.is.Load() { // nothing that ended says how it would be if it spoke
		return
	}
	r, enough := a.window.take(now)
	if !enough {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.UnixNano()-a.stall.ended.Load() > int64(a.lostFor) {
		a.stall.lost.Store(0)
	}
	lost := a.stall.lost.Load()
	if a.own.full(now) {
		a.late = now.Add(paceLate)
	}
	r.busy = now.Before(a.late)
	a.busy.Store(r.busy)
	before := a.may
	r.under = a.under.Load() - lost
	full := float64(a.window.peak.Swap(a.under.Load())-lost) >= 0.9*float64(before)
	a.may = a.pace.next(now, r, full)
	a.open()
	if a.may != before && (full || a.pace.trial.share > 0 && a.pace.trial.share < 1) {
		a.window.turn(now, a.under.Load()-lost)
	}
	a.slow.Store(int64(r.typical))
}

// crowded refuses a request unread when this replica has too many under way.
func (p *Proxy) crowded(j *job) bool {
	if p.inFlight.Load() <= maxUnderWay {
		return false
	}
	p.stats.crowded.Add(1)
	p.unavailable(j, limiter.Overloaded.String(), fasthttp.StatusServiceUnavailable, time.Second, overloadText)
	return true
}

const overloadText = "pushguard has more publishes than it can carry at this moment, and more important ones go first; the request was not sent and cost no message. Try again in a second."

// noPlace is the answer of a call that was not made for want of a place.
func (u *Upstream) noPlace(why ShedCause) answer {
	if why == ShedSilent {
		return u.unasked()
	}
	return answer{
		fate: limiter.NotSent, outcome: limiter.Unavailable, reason: limiter.Overloaded, word: limiter.Overloaded.String(),
		status: fasthttp.StatusServiceUnavailable, retryAfter: time.Second, text: overloadText, silent: true,
	}
}

// unasked is the answer of a call that was not made because the upstream is silent.
func (u *Upstream) unasked() answer {
	return answer{
		fate: limiter.NotSent, outcome: limiter.Unavailable, reason: limiter.UpstreamFailing, word: "upstream_silent",
		status: fasthttp.StatusServiceUnavailable, retryAfter: time.Second, silent: true,
		text: "Pusher at " + u.url.Host + " does not answer anything at this moment, so only now and then a request goes to it; this one was not sent and cost no message. Try again in a second.",
	}
}

// carry takes the events of j that are to be sent upstream, alone or with
// others, in their turn and if there is a place for them.
func (a *App) carry(j *job, pr *principal, batch bool, sending int, out outgoing, now time.Time) (got answer) {
	w := &j.wait
	w.asked(j, batch, sending, out)
	if !a.order.strict(w, pr.caller.Name()) {
		return a.dispatch(j, pr, batch, sending, out, now)
	}
	if !a.order.enter(w) {
		return late(awaitedOrder, a.Upstream.timeout)
	}
	n := len(w.group)
	if n == 0 {
		return w.got
	}
	if n == 1 {
		defer a.order.leave(w, 1)
		return a.dispatch(j, pr, batch, sending, out, now)
	}
	return a.carryGroup(w, now)
}

// carryGroup takes several events in strict order upstream, as one batch.
func (a *App) carryGroup(w *waiter, now time.Time) (got answer) {
	defer a.order.leave(w, len(w.group))
	door := a.Upstream.admission
	if door.enter(&w.j.turn, &w.j.due, w.class) {
		defer door.done(moment(), &got)
		return a.fold.sendGroup(w, now)
	}
	got = a.Upstream.noPlace(w.j.turn.why)
	for _, x := range w.group[1:] {
		x.got = got
		x.rouse()
	}
	return got
}

// dispatch is carry for what waits for nobody's answer.
func (a *App) dispatch(j *job, pr *principal, batch bool, sending int, out outgoing, now time.Time) (got answer) {
	if a.fold == nil {
		return a.Upstream.admit(j, j.class(), out, now)
	}
	door := a.Upstream.admission
	if !door.enter(&j.turn, &j.due, j.class()) {
		return a.Upstream.noPlace(j.turn.why)
	}
	defer door.done(moment(), &got)
	got, _ = a.fold.send(j, pr, batch, sending, out, now, nil)
	return got
}

// admit is call, if there is a place for it.
func (u *Upstream) admit(j *job, class quota.Priority, out outgoing, now time.Time) (got answer) {
	if !u.admission.enter(&j.turn, &j.due, class) {
		return u.noPlace(j.turn.why)
	}
	defer u.admission.done(moment(), &got)
	return u.call(j, out, now)
}

// done leaves. Only what Pusher answered tells how busy it is; what it does not
// answer is the breaker's to judge, and stall's.
func (a *admission) done(began time.Time, got *answer) {
	ended := got.ended
	if ended.IsZero() {
		ended = moment()
	}
	if got.fate == limiter.Unknown && got.silent {
		a.timedOut(began, ended)
	}
	a.leave(began, ended, got.fate == limiter.Delivered || got.fate == limiter.Refused, !got.silent)
}

// class is the priority of the most important event that is to be sent.
func (j *job) class() quota.Priority {
	c := quota.Bulk
	for i := range j.items {
		if it := &j.items[i]; it.state == toSend {
			c = max(c, it.verdict.Rule.Priority())
		}
	}
	return c
}

// Overload is how an upstream's admission stands.
type Overload struct {
	Limit    int64 // requests that may be under way at once
	UnderWay int64 // that are
	Waiting  int64 // that stand in line for a place
	// Silent is whether the upstream answers nothing; then Limit is 0, and one request
	// goes now and then to find out.
	Silent bool
	// Base is what a call takes when it waits for no other; 0: not known yet.
	Base time.Duration
	// Shed counts requests that were answered 503 because they got none, by
	// quota.Priority; ShedBy the same by cause.
	Shed   [quota.Priorities]int64
	ShedBy [quota.Priorities][ShedCauses]int64
}

// ShedCause is why a request got no place. ShedSilent is answered upstream_silent,
// the others overloaded.
type ShedCause uint8

const (
	ShedWaited    ShedCause = iota // it stood in line for as long as its patience is
	ShedVain                       // one of its priority had just stood there in vain
	ShedLineFull                   // of those as important as it, or more
	ShedGaveWay                    // to a more important one, in a full line
	ShedSilent                     // the upstream answers nothing
	ShedProcessor                  // unverified: the processor is full
	ShedCauses    = iota
)

func (c ShedCause) String() string {
	return [ShedCauses]string{"waited", "vain", "line_full", "gave_way", "silent", "processor"}[c]
}

// Overload tells how many requests are on their way and how many had to be sent
// away.
func (u *Upstream) Overload() Overload {
	o := Overload{Limit: u.admission.limit.Load(), Silent: u.admission.stall.shown(moment()), UnderWay: u.admission.under.Load(), Waiting: u.admission.waiting.Load()}
	u.admission.mu.Lock()
	o.Base = u.admission.pace.base
	u.admission.mu.Unlock()
	for i := range o.Shed {
		for c := range o.ShedBy[i] {
			n := u.admission.shed[i][c].Load()
			o.ShedBy[i][c] = n
			o.Shed[i] += n
		}
	}
	return o
}

// Crowded counts requests that were refused unread because the replica was full.
func (s *Stats) Crowded() int64 { return s.crowded.Load() }
