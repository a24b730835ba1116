package detect_test

import (
	"math"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
)

func TestPatience(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		why        string
		left, pace float64
		reset      time.Duration
		want       time.Duration
	}{
		{"nothing is spent", 1000, 0, day, 30 * time.Second},
		{"the pace is nonsense", 1000, math.NaN(), day, 30 * time.Second},
		{"nothing is spent of nothing", 0, 0, day, 30 * time.Second},
		{"nothing is left", 0, 1, day, 0},
		{"more than all is spent", -5, 1, day, 0},
		{"the rest lasts half the day", 43200, 1, day, 30 * time.Second},
		{"the rest lasts 50 min", 3000, 1, day, 30 * time.Second},
		{"a second less", 2999, 1, day, 29 * time.Second},
		{"five minutes", 300, 1, day, 3 * time.Second},
		{"100 s", 100, 1, day, time.Second},
		{"less", 99.9, 1, day, 0},
		{"the same at a thousand times the pace", 99_900, 1000, day, 0},
		{"it lasts until the reset, just", 60, 1, time.Minute, 30 * time.Second},
		{"and not quite", 59, 1, time.Minute, 0},
		{"a reset that is past", 60, 1, -time.Second, 30 * time.Second},
	} {
		if got := detect.Patience(c.left, c.pace, c.reset); got != c.want {
			t.Errorf("%s: %v of waiting, want %v", c.why, got, c.want)
		}
	}
	// Waiting never costs more than a hundredth of the rest, and never lengthens as the rest shrinks.
	last := 30 * time.Second
	for left := 1e6; left > 0; left -= 997 {
		p := detect.Patience(left, 50, day)
		if p > last || p.Seconds()*50 > left/100 {
			t.Fatalf("with %.0f left at 50 a second it waits %v; before it was %v", left, p, last)
		}
		last = p
	}
}

// With the plan at stake the culprit is held in the second in which it is
// named; and one that waits already, in the next.
func TestHeldAtOnceWhenThePlanIsAtStake(t *testing.T) {
	p := week(t)
	p.d.SetPatience(0)
	p.rate[badge] = 200
	p.run(20*time.Second, time.Second)
	ev := p.opened()
	if len(ev) != 1 || !ev[0].Incident.Held || !ev[0].Incident.Pressed {
		t.Fatalf("opened as %+v", ev)
	}
	if h, ok := p.d.Contained(&badge); !ok || h.Rate < 55 || h.Rate > 65 {
		t.Errorf("held to %v, %v; want about 60", h, ok)
	}
	for _, k := range []detect.Key{chat, typing, orders, alarm} {
		if h, ok := p.d.Contained(&k); ok {
			t.Errorf("%v is held to %v", k, h)
		}
	}

	p = week(t)
	p.rate[badge] = 200
	for len(p.opened()) == 0 && p.now.Sub(monday) < 11*24*time.Hour {
		p.run(time.Second, time.Second)
	}
	p.run(5*time.Second, time.Second)
	if _, ok := p.d.Contained(&badge); ok {
		t.Fatal("held after five seconds with nothing at stake")
	}
	p.d.SetPatience(4 * time.Second)
	p.run(time.Second, time.Second)
	if _, ok := p.d.Contained(&badge); !ok {
		t.Error("not held, though five seconds are more than the plan can afford")
	}

	// A burst of three seconds is no incident, whatever is at stake.
	p = week(t)
	p.d.SetPatience(0)
	p.rate[badge] = 200
	p.run(3*time.Second, time.Second)
	p.rate[badge] = 40
	p.run(2*time.Minute, time.Second)
	if len(p.log) > 0 {
		t.Errorf("a burst of three seconds: %+v", p.log)
	}
}
