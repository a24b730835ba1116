package proxy

import (
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
)

// tallies are the classes of a histogram of durations: sixteen to a doubling,
// from 4 µs to about a minute.
const tallies = 21 * 16

func tallyOf(d time.Duration) int {
	v := uint64(max(d, 0)) >> 12
	if v < 16 {
		return int(v)
	}
	e := bits.Len64(v) - 5
	return min((e+1)*16+int(v>>e&15), tallies-1)
}

// tallyMiddle is the duration that stands for a class, in ns.
func tallyMiddle(i int) float64 {
	if i < 16 {
		return (float64(i) + 0.5) * (1 << 12)
	}
	e := i/16 - 1
	return (float64(16+i%16) + 0.5) * float64(uint64(1)<<(e+12))
}

// reading is what a window of calls showed.
type reading struct {
	// typical is the mean time of the faster nine tenths of the calls. The mean,
	// because a queue makes it longer in proportion (Little); without the slowest,
	// because one call of seconds tells nothing of it.
	typical time.Duration
	// noise is its standard error, relative.
	noise float64
	// rate is how many calls ended a second.
	rate float64
	// long is what the window lasted, under how many are under way at its end.
	long  time.Duration
	under int64
	// busy says that this process used all the processors it may.
	busy bool
}

func read(counts *[tallies]int64, n int64) reading {
	left := n - n/10
	m := float64(left)
	var sum, squares float64
	for i, c := range counts {
		c = min(c, left)
		if c > 0 {
			d := tallyMiddle(i)
			sum += float64(c) * d
			squares += float64(c) * d * d
		}
		if left -= c; left == 0 {
			break
		}
	}
	mean := sum / m
	return reading{typical: time.Duration(mean), noise: math.Sqrt(max(squares/m-mean*mean, 0)/m) / mean}
}

// window gathers what calls took until there is enough to think over the limit.
// After a change it waits until most of those that were under way are over, so
// that what is seen is the new limit's work.
type window struct {
	changed atomic.Int64 // when the limit was changed, Unix nanoseconds
	old     atomic.Int64 // how many of those that began before are to be waited for
	starts  atomic.Int64 // when the window began, Unix nanoseconds
	ends    atomic.Int64 // when it ends, or notYet
	peak    atomic.Int64 // the most that were under way in it
	gone    atomic.Int64 // calls that ended in it
	tally   [tallies]atomic.Int64
}

const (
	notYet = math.MaxInt64
	// paceWindow is how often the limit is thought over, fewSamples how much it
	// takes to do so, and drainPatience how long those are waited for at most that
	// began before a change.
	paceWindow    = 100 * time.Millisecond
	fewSamples    = 20
	drainPatience = 4 * time.Second
)

// ended counts a call, if it tells anything, and reports whether it is time to
// think: to one goroutine a window.
func (w *window) ended(began, now time.Time, telling bool) (think bool) {
	changed, at := w.changed.Load(), now.UnixNano()
	if began.UnixNano() < changed {
		w.old.Add(-1)
		telling = false
	}
	ends := w.ends.Load()
	if ends == notYet {
		if w.old.Load() > 0 && at-changed < int64(drainPatience) {
			return false
		}
		w.starts.Store(at)
		w.gone.Store(0)
		w.ends.CompareAndSwap(notYet, at+int64(paceWindow))
		return false
	}
	w.gone.Add(1)
	if telling {
		w.tally[tallyOf(now.Sub(began))].Add(1)
	}
	return at >= ends && w.ends.CompareAndSwap(ends, at+int64(paceWindow))
}

// take empties the window, unless it holds too little, which then counts in the
// next one.
func (w *window) take(now time.Time) (r reading, enough bool) {
	var counts [tallies]int64
	var n int64
	for i := range w.tally {
		counts[i] = w.tally[i].Load()
		n += counts[i]
	}
	if n < fewSamples {
		return r, false
	}
	for i := range w.tally {
		w.tally[i].Add(-counts[i])
	}
	r = read(&counts, n)
	r.long = max(time.Duration(now.UnixNano()-w.starts.Swap(now.UnixNano())), time.Millisecond)
	r.rate = float64(w.gone.Swap(0)) / r.long.Seconds()
	return r, true
}

// turn has the next window begin when those under way at a change are over, but
// for a few.
func (w *window) turn(now time.Time, under int64) {
	w.old.Store(under - under/8 - 1)
	w.changed.Store(now.UnixNano())
	w.ends.Store(notYet)
}

// pace is the arithmetic of the limit, without clock or lock.
//
// As long as the upstream shows no sign of a queue there is no limit but the most that
// may be: far away or slow is not full. When calls take twice as long as base, it is
// tried: a fifth fewer under way for a moment. Where calls take as long as before, the
// upstream is slow, and that is base from then on. Where they take less, it has a queue,
// and the same is tried again with fewer, as long as it helps; then the limit is in
// force, until it holds nobody back any more.
//
// Then it aims a little below the knee: the number of calls under way at which the
// upstream is just busy (throughput times what a call takes without a queue:
// Little's law, and BBR's estimate of a path). Beyond it each further call only
// makes the others wait in the upstream, where nobody goes first; below it who
// waits stands in our own line, where the important go first. Where the knee is,
// is seen only from beyond, so the limit stays for a while, grows until calls
// take longer, and goes back.
type pace struct {
	limit float64
	most  float64   // at most, and as long as there is no sign of a queue
	bound bool      // there is a queue, or was
	fully time.Time // when the limit last held somebody back
	trial trial
	again time.Duration // until the next trial, after one that found no queue
	base  time.Duration // what a call takes when none waits for another; 0: not known
	step  float64       // how much the limit grows next, relative
	hold  time.Time     // it does not grow until then
	asked time.Time     // when base was last learned for certain
	probe bool          // the next window shows what calls take at half the limit
	// While it sinks: from where, and how many calls ended a second there.
	cut, rate float64
	best      float64 // the most that it was without a queue; forgotten as it fails
	// How much slower all calls are for a moment, now and then, though there is no
	// queue, relative: as far as that made the limit sink in vain. gust is the last
	// such slowness, if it was one.
	wind, gust float64
	// After it sank far: from where. It is tried once whether it was only a hiccup.
	mark float64
}

// trial is the look whether an upstream is full or slow: first as it is, then with fewer
// under way.
type trial struct {
	share float64   // of those under way that are tried; 0: none are, 1: it is looked how it is
	began float64   // how many were under way before
	first float64   // what calls took when it began, in ns
	next  time.Time // no other one before
	// What is seen, over some windows, and what was seen before.
	seen, before glance
}

// glance is what several windows showed together.
type glance struct {
	calls, took float64 // how many ended, and their mean time in ns, times calls
	doubt       float64 // the square of its standard error, relative, times that of calls
	long        time.Duration
}

func (g *glance) add(r reading) {
	n := r.rate * r.long.Seconds()
	g.calls, g.took, g.long = g.calls+n, g.took+n*float64(r.typical), g.long+r.long
	g.doubt += square(n * r.noise)
}

func (g *glance) rate() float64    { return g.calls / max(g.long.Seconds(), 1e-3) }
func (g *glance) typical() float64 { return g.took / max(g.calls, 1) }
func (g *glance) noise() float64   { return math.Sqrt(g.doubt) / max(g.calls, 1) }

const (
	paceLeast = 8
	paceStart = 256  // it never holds back fewer where this process is what is full
	paceMost  = 4096 // UpstreamConfig.MaxCalls' default
	// A call that takes paceDoubt times base and paceSlack, where paceMany are under way,
	// is a reason for a trial, and so is a limit that is reached; but not within paceAgain
	// after one, or twice that after each that found no queue. It begins with paceAim of
	// them, or paceTrial where calls differ, goes on with paceTrials and then paceHalf of
	// the rest. What it sees must be
	// paceSure times as certain as it is large, or paceSureAfter old.
	paceDoubt     = 2
	paceMany      = 48
	paceTrial     = 0.85
	paceTrials    = 0.7
	paceHalf      = 0.5
	paceAgain     = time.Second
	paceAgainMost = 16 * time.Second
	paceSure      = 3
	paceSureAfter = 500 * time.Millisecond
	// paceForget is for how long the limit holds nobody back before it is none.
	paceForget = 2 * time.Second
	// A call may take longer than base by paceTolerance, paceNoise standard errors
	// and paceSlack before the limit sinks, to paceAim of the knee.
	paceTolerance = 1.25
	paceNoise     = 3.0
	paceSlack     = time.Millisecond
	paceAim       = 0.92
	paceWind      = 0.3 // at most
	paceBusy      = 1.3 // in place of paceTolerance where we are what is full
	// paceLate is how long this process counts as busy after it was seen to be:
	// what makes it so comes in bursts.
	paceLate = time.Second
	// paceHold is how long the limit then stays, and paceStep its growth, which
	// doubles up to a quarter as long as nothing becomes slower.
	paceHold  = 2 * time.Second
	paceBlur  = 0.04 // a noise that makes it half of that
	paceStep  = 0.02
	paceSteps = 0.25
	// paceProbe: while the limit is what holds requests back, this often half of it
	// is tried, to learn base anew; after paceRethink where base is not certain.
	paceProbe   = 10 * time.Second
	paceRethink = time.Second
)

// next is the limit after a window. While the limit is not reached nothing needs
// to be held back, and what calls take is what they take; but that may be because
// the upstream is fuller than it ever was, so base rises slowly then.
func (p *pace) next(now time.Time, r reading, full bool) (limit int64) {
	if p.base == 0 {
		p.base = r.typical
		p.unsure(now, false)
	}
	if full {
		p.fully = now
	}
	switch {
	case p.trial.share > 0:
		p.try(now, r, full)
	case !p.bound:
		p.watch(now, r, full)
	case p.probe:
		p.probe = false
		p.unsure(now, r.typical > p.base*4/5)
		p.base = r.typical
	case !full:
		if r.typical < p.base {
			p.base += (r.typical - p.base) / 3
		} else {
			p.base += (r.typical - p.base) / 100
		}
		p.unsure(now, false)
		p.cut, p.mark = 0, 0
		if p.limit < paceStart { // it is not what holds back: let it forget what was
			p.limit = min(p.limit+max(1, p.limit/20), paceStart)
		}
		p.forget(now)
	default:
		p.move(now, r)
		p.probe = p.cut == 0 && p.mark == 0 && now.Sub(p.asked) >= paceProbe
	}
	if p.probe {
		return int64(max(p.limit/2, paceLeast))
	}
	return int64(p.limit)
}

// forget takes a limit back that has held nobody back for a while.
func (p *pace) forget(now time.Time) bool {
	if !p.bound || now.Sub(p.fully) < paceForget {
		return false
	}
	p.free(now)
	return true
}

// free lets as many be under way as may be at all.
func (p *pace) free(now time.Time) {
	p.bound, p.probe, p.limit, p.cut, p.mark = false, false, p.most, 0, 0
	p.trial = trial{next: now.Add(paceAgain)}
	p.again = paceAgain
}

// watch looks for signs of a queue.
func (p *pace) watch(now time.Time, r reading, full bool) {
	if r.typical < p.base {
		p.base += (r.typical - p.base) / 3
	} else {
		p.base += (r.typical - p.base) / 100
	}
	if r.busy && p.slow(r) && r.under > paceStart { // it is this process that is full, and no trial tells of the upstream
		p.bound, p.fully, p.limit = true, now, float64(r.under)
		p.moveBusy(now, r)
		return
	}
	if r.under >= paceMany && (full || p.slow(r)) && !now.Before(p.trial.next) {
		// What this window shows may be of two times: what follows is looked at.
		p.trial = trial{share: 1, began: float64(r.under), first: float64(r.typical)}
	}
}

// slow reports whether calls take much longer than they did.
func (p *pace) slow(r reading) bool {
	return r.typical > paceDoubt*p.base+paceSlack
}

// noQueue ends a trial that found none. base goes half the way, in proportion: where
// calls take many times as long, one trial is not enough to believe it.
func (p *pace) noQueue(now time.Time, took float64) {
	again := min(2*max(p.again, paceAgain), paceAgainMost)
	p.free(now)
	p.base = time.Duration(math.Sqrt(float64(p.base) * took))
	p.trial.next, p.again = now.Add(again), again
}

// try goes on with a trial.
func (p *pace) try(now time.Time, r reading, full bool) {
	t := &p.trial
	t.seen.add(r)
	if s := &t.seen; t.share < 1 && s.noise()+t.before.noise() > (1-t.share)/2/paceSure && s.long < paceSureAfter {
		return
	}
	was, took := t.share, t.seen.typical()
	if was == 1 {
		if !full && !p.slow(r) { // it is over by itself
			p.free(now)
			return
		}
		if will := float64(r.under) / max(t.seen.rate(), 1) * 1e9; will > 1.3*took && took < 1.15*t.first {
			// More and more come, and calls take no longer: what has come lately has not
			// ended yet.
			t.seen, t.began = glance{}, float64(r.under)
			return
		}
		noise := t.seen.noise()
		t.before, t.seen, t.began = t.seen, glance{}, float64(r.under)
		// Where more and more are under way, those that end now took less than those
		// that begin now will: that is what Little's law says.
		will := t.began / max(t.before.rate(), 1) * 1e9
		switch {
		case will > 1.3*took:
			t.share, t.before.took = paceTrials, t.before.calls*will
		case noise > paceBlur/8:
			t.share = paceTrial
		default:
			t.share = paceAim
		}
		p.limit = max(t.began*t.share, paceLeast)
		return
	}
	switch {
	case !full: // fewer came by themselves: it tells nothing
		p.free(now)
	case took > t.before.typical()*(was+(1-was)*0.4): // fewer under way, and they take as long
		p.noQueue(now, took)
	default:
		if p.limit > paceLeast && took > paceTolerance*float64(p.base)+float64(paceSlack) {
			next := paceTrials
			if was <= paceTrials {
				next = paceHalf
			}
			t.before, t.seen, t.share = t.seen, glance{}, max(next, min(float64(p.base)*1.2/took, paceTrial))
			p.limit = max(p.limit*t.share, paceLeast)
			return
		}
		p.bound, p.trial, p.again = true, trial{next: now.Add(paceAgain)}, 0
		p.unsure(now, false)
	}
}

// unsure has base asked for after a second of fullness, unless it is certain.
func (p *pace) unsure(now time.Time, certain bool) {
	p.asked = now
	if !certain {
		p.best = 0
		p.asked = now.Add(paceRethink - paceProbe)
	}
}

// move moves a limit that was reached.
func (p *pace) move(now time.Time, r reading) {
	if r.busy {
		p.moveBusy(now, r)
		return
	}
	doubt := paceNoise * r.noise
	if now.Before(p.hold) { // where it was well a moment ago
		doubt *= 2
	}
	p.wind *= 0.998
	if allowed := float64(p.base)*(paceTolerance+min(doubt, 0.4)+p.wind) + float64(paceSlack); float64(r.typical) > allowed {
		if p.cut == 0 {
			p.gust = float64(r.typical)/float64(p.base) - paceTolerance
		}
		p.sink(now, r)
		return
	}
	sank := p.cut
	p.cut = 0
	p.best = max(p.best, p.limit)
	if f := p.limit / sank; sank > 0 && f >= 0.7 && r.rate < p.rate*(f+paceAim)/2 {
		// It sank and as many fewer end: that was not the knee. Whatever makes all
		// calls slower for a moment, now and then, nothing is won by refusing.
		p.limit, p.hold = sank, now
		p.wind = min(max(2*p.wind, p.gust, 0.02), paceWind)
		return
	}
	if sank > 0 && p.limit < 0.7*sank && p.mark == 0 {
		p.mark = sank
	}
	switch {
	case p.mark > 0: // calls are fast again: was it a hiccup?
		if p.limit = 1.5 * p.limit; p.limit >= p.mark*paceAim {
			p.limit, p.mark, p.hold = p.mark*paceAim, 0, now
		}
	case now.Before(p.hold): // just below the knee
		p.base += (r.typical - p.base) / 8
	default:
		if r.typical < p.base*9/10 { // it became faster, or base never was what it should be
			p.base += (r.typical - p.base) / 2
			p.unsure(now, false)
			return
		}
		if r.typical < p.base {
			p.base += (r.typical - p.base) / 8
		}
		p.limit = min(p.limit+max(1, p.limit*p.step), p.most)
		p.step = min(2*max(p.step, paceStep), paceSteps)
	}
}

// moveBusy is move where this process itself is what is full. Calls take longer
// because we are late, which tells nothing of the upstream: so the limit follows how
// many end, by Little's law. It leaves room for more to end than did, so that it is
// never itself what keeps them few, and not so much that what has come stands in our
// own way.
func (p *pace) moveBusy(now time.Time, r reading) {
	p.cut, p.mark, p.hold = 0, 0, now
	if r.typical < p.base {
		p.base += (r.typical - p.base) / 3
	}
	room := r.rate * (paceBusy*p.base.Seconds() + paceSlack.Seconds())
	p.limit += (min(max(room, paceStart), p.most) - p.limit) / 2
}

func (p *pace) sink(now time.Time, r reading) {
	tried := p.mark > 0 // it was no hiccup
	p.mark = 0
	if p.cut == 0 {
		p.cut, p.rate = p.limit, r.rate
	}
	if p.limit <= p.cut/2 && r.rate < p.rate*3/4 {
		// Fewer under way, and fewer end: it is not a queue that makes them slow.
		p.limit, p.base, p.cut = p.cut, r.typical, 0
		p.unsure(now, false)
		return
	}
	p.limit *= max(min(paceAim+paceNoise/2*r.noise, 1)*(float64(p.base)+float64(paceSlack)/4)/float64(r.typical), 0.5)
	p.limit = max(p.limit, paceLeast)
	// Where calls differ by themselves the knee is seen less surely and a short queue
	// is not felt: it is looked for more often.
	hold := float64(paceHold) / (1 + square(r.noise/paceBlur))
	p.step = paceStep
	if p.limit < p.best*0.85 { // a moment ago it could be more: was it a gust?
		hold, p.step = min(hold, float64(paceHold/8)), 4*paceStep
		p.best += (p.limit - p.best) / 4
	}
	p.hold = now.Add(time.Duration(hold))
	if tried {
		p.cut = 0
	}
}

func square(x float64) float64 { return x * x }

// ahead is how many may be under way for a critical one to go: it finds a place
// although the others have taken theirs, and a probe concerns it less.
func (p *pace) ahead() int64 {
	if p.probe {
		return int64(max(p.limit*0.75, paceLeast+2))
	}
	return int64(max(p.limit*1.15, p.limit+2))
}

// processors is how much of its processors this process has had so far.
type processors struct {
	at  time.Time
	had time.Duration // time on them, and time waited for them
}

// full reports whether since the last question this process, nearly all the time,
// used the processors that it may or waited for one that others had: then it is late
// whatever the upstream does.
func (c *processors) full(now time.Time) bool {
	used, waited := processorTime()
	wall := now.Sub(c.at)
	full := wall > 0 && float64(used+waited-c.had) > 0.9*float64(wall)*float64(runtime.GOMAXPROCS(0))
	c.at, c.had = now, used+waited
	return full
}
