package proxy

import (
	"math"
	"testing"
	"time"
)

// near compares limits and shares, which are sums of roundings.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6*max(math.Abs(a), math.Abs(b)) }

// Where this process is what is full the limit goes half the way to what Little's law
// gives, for calls 1.3 times and a millisecond as long as base; however long they take,
// for that is our own lateness. It is never so small that it could hold back.
func TestPaceOfABusyProcess(t *testing.T) {
	const ms = time.Millisecond
	now := time.Unix(100, 0)
	for _, c := range []struct {
		name        string
		limit, want float64
		rate        float64 // that ended a second
		took        time.Duration
		base        time.Duration // that is learned, from 20 ms
	}{
		{"more end than it lets", 300, 435, 570 / .027, 20 * ms, 20 * ms},
		{"as many as it lets", 540, 540, 20000, 27 * ms, 20 * ms},
		{"late tells nothing", 540, 540, 20000, 270 * ms, 20 * ms},
		{"fewer", 540, 405, 10000, 20 * ms, 20 * ms},
		{"faster than ever: base follows by a third", 500, 494, 20000, 14 * ms, 18 * ms},
		{"few: what it begins with", 300, 278, 100, 25 * ms, 20 * ms},
		{"from below", 56, 156, 100, 25 * ms, 20 * ms},
		{"the most", 4000, 4048, 1e6, 20 * ms, 20 * ms},
	} {
		p := pace{bound: true, most: paceMost, limit: c.limit, base: 20 * ms, asked: now, cut: 500, mark: 500, hold: now.Add(time.Hour)}
		got := p.next(now, reading{typical: c.took, rate: c.rate, busy: true}, true)
		if !near(p.limit, c.want) || got != int64(p.limit) || p.base != c.base {
			t.Errorf("%s: limit %v (%d), not %v; base %s, not %s", c.name, p.limit, got, c.want, p.base, c.base)
		}
		if p.cut != 0 || p.mark != 0 || !p.hold.Equal(now) {
			t.Errorf("%s: it goes on with what it did before it was busy: %+v", c.name, p)
		}
	}
	// While the limit is not reached that changes nothing.
	p := pace{bound: true, most: paceMost, fully: now, limit: 300, base: 20 * ms}
	if got := p.next(now, reading{typical: 270 * ms, busy: true}, false); got != 300 {
		t.Errorf("not reached, it moved to %d", got)
	}
}

// A cut after which as many fewer calls end met no queue: it is taken back, and
// as much slowness is allowed for from then on, for a while.
func TestPaceAllowsForTheWind(t *testing.T) {
	const ms = time.Millisecond
	now := time.Unix(100, 0)
	step := func(p *pace, took time.Duration, rate float64) float64 {
		now = now.Add(paceWindow)
		p.move(now, reading{typical: took, rate: rate})
		return p.limit
	}
	// 26.5 ms is more than a quarter and a millisecond over 20.
	gust := 26500 * time.Microsecond
	p := &pace{bound: true, most: paceMost, limit: 100, base: 20 * ms}
	if got := step(p, gust, 5000); got > 75 || got < 70 || p.cut != 100 || p.wind != 0 {
		t.Fatalf("a gust: limit %v, %+v", got, p)
	}
	if got := step(p, 20*ms, 3500); got != 100 || !near(p.wind, 26.5/20-paceTolerance) || p.cut != 0 {
		t.Fatalf("as many fewer end, and the limit is %v, the wind %v", got, p.wind)
	}
	if got := step(p, gust, 5000); got < 100 {
		t.Errorf("the same gust again: limit %v", got)
	}
	if got := step(p, 30*ms, 5000); got >= 100 {
		t.Errorf("a stronger one is let through: limit %v", got)
	}
	// Where fewer under way end as many it was a queue: the limit stays low.
	p = &pace{bound: true, most: paceMost, limit: 100, base: 20 * ms}
	low := step(p, gust, 5000)
	if got := step(p, 20*ms, 4900); got != low || p.wind != 0 || p.cut != 0 {
		t.Errorf("after a queue: limit %v, not %v; %+v", got, low, p)
	}
	// From a cut as deep as to half nothing is taken back: that was no gust.
	p = &pace{bound: true, most: paceMost, limit: 100, base: 20 * ms}
	step(p, 40*ms, 5000)
	if got := step(p, 20*ms, 3000); got == 100 || p.wind != 0 {
		t.Errorf("after a deep cut: limit %v, wind %v", got, p.wind)
	}
	// It doubles as gusts go on, up to paceWind, and fades: by half in 35 s of windows.
	p = &pace{bound: true, most: paceMost, limit: 75, cut: 100, rate: 5000, base: 20 * ms, wind: 0.05}
	if step(p, 20*ms, 3500); !near(p.wind, 0.1*0.998) {
		t.Errorf("a second gust: wind %v", p.wind)
	}
	p.wind, p.cut, p.limit = 0.2, 100, 75
	if step(p, 20*ms, 3500); p.wind != paceWind {
		t.Errorf("a third gust: wind %v", p.wind)
	}
	for range 347 {
		step(p, 20*ms, 5000)
	}
	if p.wind > paceWind*0.501 || p.wind < paceWind*0.498 {
		t.Errorf("after 35 s the wind is %v", p.wind)
	}
	// The first gust that was none to speak of still teaches something.
	p = &pace{bound: true, most: paceMost, limit: 75, cut: 100, rate: 5000, base: 20 * ms, gust: 0.001}
	if step(p, 20*ms, 3500); p.wind != 0.02 {
		t.Errorf("the least wind is %v", p.wind)
	}
}

// A limit far below what was well a moment ago looks for more after a quarter of a
// second and in larger steps; what was well fades with each such failure.
func TestPaceRemembersItsBest(t *testing.T) {
	const ms = time.Millisecond
	now := time.Unix(100, 0)
	for _, c := range []struct {
		name       string
		best, left float64
		hold       time.Duration
		step       float64
	}{
		{"never more", 0, 0, paceHold, paceStep},
		{"a little more", 55, 55, paceHold, paceStep},
		{"much more", 100, 87.5, paceHold / 8, 4 * paceStep},
	} {
		p := &pace{bound: true, most: paceMost, limit: 100, base: 20 * ms, best: c.best}
		p.move(now, reading{typical: 40 * ms, rate: 2000})
		if p.limit != 50 || p.hold.Sub(now) != c.hold || p.step != c.step || !near(p.best, c.left) {
			t.Errorf("%s: %+v", c.name, p)
		}
		// Just below the knee it stays until then, and then grows by that step.
		p.cut = 0
		if p.move(p.hold.Add(-1), reading{typical: 20 * ms, rate: 2000}); p.limit != 50 {
			t.Errorf("%s: %v before its time", c.name, p.limit)
		}
		if p.move(p.hold, reading{typical: 20 * ms, rate: 2000}); !near(p.limit, 50+max(1, 50*c.step)) {
			t.Errorf("%s: it grew to %v", c.name, p.limit)
		}
	}
	// What is well now is the best, and what is not known any more is forgotten.
	p := &pace{bound: true, most: paceMost, limit: 120, base: 20 * ms, best: 100, hold: now.Add(time.Second)}
	if p.move(now, reading{typical: 20 * ms}); p.best != 120 {
		t.Errorf("the best is %v", p.best)
	}
	p.limit = 110
	if p.move(now, reading{typical: 20 * ms}); p.best != 120 {
		t.Errorf("what was better a moment ago is forgotten: %v", p.best)
	}
	if p.unsure(now, true); p.best != 120 {
		t.Error("forgotten although base is certain")
	}
	if p.unsure(now, false); p.best != 0 {
		t.Errorf("what was best with another base is kept: %v", p.best)
	}
}

// Without a sign of a queue this process alone can be what is full: then the limit comes
// into force, but not where little is under way, or calls take no longer.
func TestPaceOfABusyProcessWithoutALimit(t *testing.T) {
	const ms = time.Millisecond
	now := time.Unix(100, 0)
	for _, c := range []struct {
		under int64
		took  time.Duration
		busy  bool
		want  float64
	}{
		{1000, 200 * ms, true, 793}, // half the way to 20,000/s × (1.3 × base + 1 ms)
		{1000, 25 * ms, true, paceMost},
		{200, 200 * ms, true, paceMost},
		{1000, 200 * ms, false, paceMost},
	} {
		p := pace{limit: paceMost, most: paceMost, base: 20 * ms}
		p.next(now, reading{typical: c.took, rate: 20000, under: c.under, busy: c.busy}, false)
		if math.Abs(p.limit-c.want) > c.want/50 || p.bound != (c.want < paceMost) {
			t.Errorf("%+v: limit %v", c, p.limit)
		}
	}
}
