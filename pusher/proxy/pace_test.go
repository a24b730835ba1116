package proxy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// world is an upstream with so many servers and one queue, callers that come at
// random whatever happens, and the gate with its line between them, in virtual
// time and without a goroutine: only the limit's arithmetic is real.
type world struct {
	rate    func(at time.Duration) float64       // publishes a second
	servers func(at time.Duration) int           // calls at once
	takes   func(at time.Duration) time.Duration // a call, once it is served
	spread  float64                              // of what a call takes: sigma of a log-normal
	burst   int                                  // so many come at once
	all     bool                                 // all of it is critical

	rng    *rand.Rand
	pace   pace
	limit  int64
	ahead  int64
	slow   time.Duration
	window window
	under  int64
	busy   int
	queue  []called
	lines  [quota.Priorities][]called
	events events
	log    []done
}

type called struct {
	class quota.Priority
	came  time.Duration
	began time.Duration
}

type done struct {
	at, took, call time.Duration
	class          quota.Priority
	ok             bool
}

type event struct {
	at    time.Duration
	call  called
	comes bool // somebody comes; else the call ends
}

// events is a heap by time.
type events []event

func (e *events) push(x event) {
	h := append(*e, x)
	for i := len(h) - 1; i > 0 && h[i].at < h[(i-1)/2].at; i = (i - 1) / 2 {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
	}
	*e = h
}

func (e *events) pop() event {
	h := *e
	x, last := h[0], len(h)-1
	h[0], h = h[last], h[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if h[c].at < h[least].at {
				least = c
			}
		}
		if least == i {
			break
		}
		h[i], h[least], i = h[least], h[i], least
	}
	*e = h
	return x
}

func (w *world) run(long time.Duration) {
	w.rng = rand.New(rand.NewPCG(1, 2))
	w.pace = pace{limit: paceMost, most: paceMost}
	w.limit, w.ahead = paceMost, w.pace.ahead()
	w.burst = max(w.burst, 1)
	w.events.push(event{comes: true})
	for w.events[0].at < long {
		e := w.events.pop()
		if e.comes {
			for range w.burst {
				class := quota.Bulk
				switch n := w.rng.IntN(20); {
				case n == 0 || w.all:
					class = quota.Critical
				case n < 11:
					class = quota.Normal
				}
				if line := &w.lines[class]; len(*line) < 1024/3 {
					*line = append(*line, called{class: class, came: e.at})
				}
			}
			w.letIn(e.at)
			w.events.push(event{at: e.at + time.Duration(float64(w.burst)*w.rng.ExpFloat64()/w.rate(e.at)*1e9), comes: true})
			continue
		}
		w.busy--
		w.under--
		c := e.call
		w.log = append(w.log, done{e.at, e.at - c.came, e.at - c.began, c.class, true})
		if w.window.ended(clock(c.began), clock(e.at), true) {
			w.think(e.at)
		}
		w.serve(e.at)
		w.letIn(e.at)
	}
}

func (w *world) letIn(at time.Duration) {
	for c := quota.Priorities; c > 0; c-- {
		line := &w.lines[c-1]
		limit := w.limit
		if quota.Priority(c-1) == quota.Critical {
			limit = w.ahead
		}
		for len(*line) > 0 {
			head := (*line)[0]
			if at-head.came > max(patience[c-1], min(w.slow, time.Second)) {
				*line = (*line)[1:]
				w.log = append(w.log, done{at, 0, 0, head.class, false})
				continue
			}
			if w.under >= limit {
				w.window.peak.Store(max(w.window.peak.Load(), w.under))
				break
			}
			*line = (*line)[1:]
			w.under++
			w.window.peak.Store(max(w.window.peak.Load(), w.under))
			head.began = at
			w.queue = append(w.queue, head)
		}
	}
	w.serve(at)
}

func (w *world) serve(at time.Duration) {
	for w.busy < w.servers(at) && len(w.queue) > 0 {
		c := w.queue[0]
		w.queue = w.queue[1:]
		w.busy++
		takes := float64(w.takes(at)) * math.Exp(w.spread*w.rng.NormFloat64()-w.spread*w.spread/2)
		w.events.push(event{at: at + time.Duration(takes), call: c})
	}
}

func clock(at time.Duration) time.Time { return time.Unix(0, 0).Add(at) }

func (w *world) think(at time.Duration) {
	r, enough := w.window.take(clock(at))
	if !enough {
		return
	}
	full := float64(w.window.peak.Swap(w.under)) >= 0.9*float64(w.limit)
	before := w.limit
	r.under = w.under
	w.slow = r.typical
	w.limit = w.pace.next(clock(at), r, full)
	if w.limit != before && (full || w.pace.trial.share > 0 && w.pace.trial.share < 1) {
		w.window.turn(clock(at), w.under)
	}
	w.ahead = w.pace.ahead()
}

// between tells of a span of time: answers a second, and the p99 of what was
// critical.
func (w *world) between(from, to time.Duration) (perSecond float64, critical99 time.Duration) {
	var took []time.Duration
	n := 0
	for _, d := range w.log {
		if d.at >= from && d.at < to && d.ok {
			n++
			if d.class == quota.Critical {
				took = append(took, d.took)
			}
		}
	}
	slices.Sort(took)
	if len(took) == 0 {
		return 0, time.Hour
	}
	return float64(n) / (to - from).Seconds(), took[len(took)*99/100]
}

func always[T any](v T) func(time.Duration) T { return func(time.Duration) T { return v } }

// then is a value for each span of time, the last for ever.
func then[T any](pairs ...any) func(time.Duration) T {
	return func(at time.Duration) (v T) {
		for i := 0; i < len(pairs); i += 2 {
			if from := pairs[i].(time.Duration); at >= from {
				v = pairs[i+1].(T)
			}
		}
		return v
	}
}

// Whatever the upstream is and does, what is critical takes little longer than a
// call that is alone, and most of what can be carried is.
func TestPaceFindsTheKnee(t *testing.T) {
	const ms, sec = time.Millisecond, time.Second
	type upstream = world
	for _, c := range []struct {
		name     string
		w        *upstream
		from, to time.Duration
		carries  float64       // answers a second at best
		alone    time.Duration // the p99 of calls without a queue
	}{
		{"twice what it carries, from the first second", &upstream{rate: always(4000.0), servers: always(40), takes: always(20 * ms)},
			3 * sec, 20 * sec, 2000, 20 * ms},
		{"filled slowly, so that its queue grows before the limit is reached", &upstream{rate: then[float64](0*sec, 1000.0, 2*sec, 1900.0, 4*sec, 2100.0, 6*sec, 4000.0), servers: always(40), takes: always(20 * ms)},
			9 * sec, 30 * sec, 2000, 20 * ms},
		{"long at the brink", &upstream{rate: then[float64](0*sec, 1000.0, 2*sec, 2005.0, 20*sec, 4000.0), servers: always(40), takes: always(20 * ms)},
			23 * sec, 40 * sec, 2000, 20 * ms},
		{"in bursts", &upstream{rate: always(4000.0), servers: always(40), takes: always(20 * ms), burst: 20},
			3 * sec, 30 * sec, 2000, 20 * ms},
		{"calls that differ", &upstream{rate: always(4000.0), servers: always(40), takes: always(20 * ms), spread: 0.3},
			3 * sec, 30 * sec, 2000, 40 * ms},
		{"calls that differ much", &upstream{rate: always(4000.0), servers: always(40), takes: always(20 * ms), spread: 0.8},
			3 * sec, 30 * sec, 2000, 93 * ms},
		{"few and slow", &upstream{rate: always(200.0), servers: always(20), takes: always(200 * ms), spread: 0.3},
			15 * sec, 90 * sec, 100, 400 * ms},
		{"many and fast", &upstream{rate: always(20000.0), servers: always(40), takes: always(4 * ms), spread: 0.3},
			4 * sec, 10 * sec, 10000, 8 * ms},
		{"more than the limit begins with", &upstream{rate: always(20000.0), servers: always(600), takes: always(60 * ms), spread: 0.3},
			6 * sec, 15 * sec, 10000, 120 * ms},
		{"three quarters of it fail", &upstream{rate: always(4000.0), servers: then[int](0*sec, 40, 10*sec, 10), takes: always(20 * ms)},
			13 * sec, 40 * sec, 500, 20 * ms},
		{"and come back", &upstream{rate: always(4000.0), servers: then[int](0*sec, 40, 10*sec, 10, 20*sec, 40), takes: always(20 * ms)},
			24 * sec, 40 * sec, 2000, 20 * ms},
		{"slower by itself, and not full", &upstream{rate: always(4000.0), servers: always(1 << 20), takes: then[time.Duration](0*sec, 20*ms, 5*sec, 100*ms), spread: 0.3},
			9 * sec, 30 * sec, 4000, 200 * ms},
		{"slower, and full", &upstream{rate: always(4000.0), servers: always(40), takes: then[time.Duration](0*sec, 20*ms, 10*sec, 60*ms)},
			14 * sec, 40 * sec, 667, 60 * ms},
		{"faster, and full", &upstream{rate: always(4000.0), servers: always(40), takes: then[time.Duration](0*sec, 60*ms, 10*sec, 20*ms)},
			14 * sec, 30 * sec, 2000, 20 * ms},
		{"in a wind: all calls together are slower for moments", &upstream{rate: always(40000.0), servers: always(400), takes: func(at time.Duration) time.Duration {
			gust := rand.New(rand.NewPCG(7, uint64(at/(90*ms)))).Float64()
			return 20*ms + time.Duration(gust*float64(4*ms))
		}}, 6 * sec, 20 * sec, 18000, 24 * ms},
		{"after it stood still", &upstream{rate: always(4000.0), servers: then[int](0*sec, 1000, 5*sec, 0, 7*sec, 1000), takes: always(20 * ms), spread: 0.3},
			11 * sec, 20 * sec, 4000, 40 * ms},
		{"all is critical: nobody is ahead, what matters is that it is carried", &upstream{rate: always(4000.0), servers: always(40), takes: always(20 * ms), spread: 0.1, all: true},
			3 * sec, 40 * sec, 2000, patience[quota.Critical]},
		{"it stands still for 150 ms every three seconds", &upstream{rate: always(4000.0), servers: func(at time.Duration) int {
			if at%(3*sec) < 150*ms {
				return 1
			}
			return 40
		}, takes: always(20 * ms), spread: 0.1}, 3 * sec, 40 * sec, 1900, 170 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.w.run(c.to)
			got, p99 := c.w.between(c.from, c.to)
			text := fmt.Sprintf("%.0f a second of %.0f, critical p99 %s where alone %s; base %s, limit %.0f", got, c.carries, p99, c.alone, c.w.pace.base, c.w.pace.limit)
			if got < 0.9*c.carries || p99 > c.alone*21/10 {
				t.Error(text)
			} else {
				t.Log(text)
			}
		})
	}
}

// An upstream that takes long for every call is not full: nobody is refused, however far
// away it is, and however it became so slow; and nobody waits for much longer.
func TestSlowIsNotFull(t *testing.T) {
	const ms, sec = time.Millisecond, time.Second
	for _, c := range []struct {
		rate  float64
		takes func(time.Duration) time.Duration
		most  time.Duration // that anybody waits besides the call
	}{
		{500, always(100 * ms), 0},
		{5000, always(200 * ms), 0},
		{100, then[time.Duration](0*sec, 100*ms, 5*sec, 1*sec), 500 * ms},
		{500, then[time.Duration](0*sec, 100*ms, 5*sec, 1*sec), 400 * ms},
		{100, then[time.Duration](0*sec, 100*ms, 5*sec, 2500*ms), 900 * ms},
		{500, then[time.Duration](0*sec, 100*ms, 5*sec, 2500*ms), 900 * ms},
		{500, then[time.Duration](0*sec, 1*ms, 5*sec, 2500*ms, 30*sec, 1*ms, 31*sec, 2500*ms), sec},
		{500, func(at time.Duration) time.Duration { return 100*ms + at/20 }, 600 * ms}, // to 2.1 s in 40 s
		{1000, func(at time.Duration) time.Duration { return 600*ms + time.Duration(200e6*math.Sin(at.Seconds())) }, 600 * ms},
	} {
		for _, spread := range []float64{0, 0.3} {
			w := &world{rate: then[float64](0*sec, c.rate, 25*sec, 3*c.rate), servers: always(1 << 20), takes: c.takes, spread: spread}
			if c.rate > 1000 || c.takes(39*sec) > c.takes(38*sec) {
				w.rate = always(c.rate)
			}
			w.run(40 * sec)
			var refused int
			var waited time.Duration
			for _, d := range w.log {
				if waited = max(waited, d.took-d.call); !d.ok {
					refused++
				}
			}
			// Where calls differ by themselves a trial takes longer.
			if spread == 0 && (refused > len(w.log)/50 || waited > c.most) || refused > len(w.log)/6 {
				t.Errorf("%v a second at %s, then %s, spread %v: %d of %d refused, one waited %s; base %s", c.rate, c.takes(0), c.takes(39*sec), spread, refused, len(w.log), waited, w.pace.base)
			}
		}
	}
}

// steady tells the limit of an upstream whose calls take as long whatever is
// under way, for so many windows.
func (p *pace) steady(now *time.Time, windows int, took time.Duration, full bool) (least, last int64) {
	least = paceMost
	for range windows {
		*now = now.Add(paceWindow)
		last = p.next(*now, reading{typical: took, rate: p.limit / took.Seconds(), long: paceWindow, under: int64(p.limit)}, full)
		least = min(least, last)
	}
	return least, last
}

// An upstream that becomes slower by itself is not an overload.
func TestPaceFollowsASlowerUpstream(t *testing.T) {
	p, now := pace{limit: paceStart, most: paceMost, bound: true}, time.Unix(0, 0)
	p.steady(&now, 15, 20*time.Millisecond, false)
	least, last := p.steady(&now, 10, 100*time.Millisecond, true)
	if last < paceStart*9/10 || p.base < 40*time.Millisecond {
		t.Errorf("limit %d (least %d), base %s a second after it became slower", last, least, p.base)
	}
	// And below the limit it costs nothing at all.
	q := pace{limit: paceStart, most: paceMost, bound: true, fully: now.Add(time.Hour)}
	for i := range 100 {
		if least, _ := q.steady(&now, 1, time.Duration(i+1)*10*time.Millisecond, false); least != paceStart {
			t.Fatalf("limit %d though it was never reached", least)
		}
	}
}

func TestPaceKeepsItsBounds(t *testing.T) {
	p, now := pace{limit: paceStart, most: paceMost, bound: true, fully: time.Unix(0, 0)}, time.Unix(0, 0)
	p.steady(&now, 1, time.Millisecond, false)
	for range 50 {
		now = now.Add(paceWindow)
		if got := p.next(now, reading{typical: time.Minute, rate: 1e6}, true); got < paceLeast {
			t.Fatal(got)
		}
	}
	if p.limit != paceLeast {
		t.Errorf("everything is slow and the limit is %v", p.limit)
	}
	p = pace{limit: paceStart, most: paceMost, bound: true}
	for range 500 {
		if _, got := p.steady(&now, 1, time.Millisecond, true); got > paceMost {
			t.Fatal(got)
		}
	}
	if p.limit != paceMost {
		t.Errorf("nothing is slow and the limit is %v", p.limit)
	}
}

// A duration's class stands for it within a sixteenth, over the whole range.
func TestTallies(t *testing.T) {
	last := -1
	for d := 5 * time.Microsecond; d < 60*time.Second; d += d/50 + 1 {
		i := tallyOf(d)
		if i < last || i >= tallies {
			t.Fatalf("%s is in class %d after %d", d, i, last)
		}
		last = i
		if got := tallyMiddle(i); d > 64*time.Microsecond && math.Abs(got/float64(d)-1) > 1.0/16 {
			t.Fatalf("%s is counted as %s", d, time.Duration(got))
		}
	}
	if tallyOf(-1) != 0 || tallyOf(time.Hour) != tallies-1 {
		t.Error("the ends are open")
	}
}

// What a window tells is what ended in it and began under its limit.
func TestWindow(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	var w window
	w.turn(at(0), 80)
	for i := range 68 { // seven eighths of those that were under way are waited for
		if w.ended(at(-50), at(i), true) {
			t.Fatal("thought over before the change can be seen")
		}
	}
	w.ended(at(-50), at(70), true) // the last of them: the window begins
	for i := range 99 {
		if w.ended(at(49+i), at(70+i), true) || w.ended(at(-50), at(70+i), true) || w.ended(at(0), at(70+i), false) {
			t.Fatalf("thought over after %d ms", 1+i)
		}
	}
	if !w.ended(at(149), at(170), true) || w.ended(at(149), at(170), true) {
		t.Error("not one is told that a window is over")
	}
	r, enough := w.take(at(170))
	if !enough || r.typical < 20*time.Millisecond || r.typical > 22*time.Millisecond {
		t.Errorf("%+v %v: calls of 21 ms", r, enough)
	}
	if want := float64(1+3*99) / 0.1; math.Abs(r.rate/want-1) > 0.02 {
		t.Errorf("%v a second ended, not %v", r.rate, want)
	}
	if _, enough := w.take(at(300)); enough {
		t.Error("a window counts twice")
	}
	// Those that never end are not waited for for ever.
	w.turn(at(1000), 80)
	if w.ended(at(1001), at(1500), true); w.ends.Load() != notYet {
		t.Error("the window began although all are still under way")
	}
	if w.ended(at(1001), at(1000).Add(drainPatience), true); w.ends.Load() == notYet {
		t.Error("the window waits for those that hang")
	}
}
