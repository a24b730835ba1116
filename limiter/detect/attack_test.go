package detect_test

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
)

// Somebody who has read doc.go, and what he gets.

// He sends what another caller sends: same event, same channels, even the same
// payloads. It is he who is named, and the other is not held.
func TestAttackerCannotPassForAnother(t *testing.T) {
	p := week(t)
	evil := badge
	evil.Caller = "evil"
	p.rate[evil] = 5
	p.run(48*time.Hour, 30*time.Second)
	p.log = nil
	p.rate[evil] = 300
	p.run(2*time.Minute, time.Second)
	if len(p.opened()) != 1 {
		t.Fatalf("opened %+v", p.opened())
	}
	for _, c := range p.log[len(p.log)-1].Incident.Culprits {
		if c.Caller != "evil" {
			t.Errorf("named %+v", c)
		}
	}
	if _, ok := p.d.Contained(&evil); !ok {
		t.Error("he is not held")
	}
	if h, ok := p.d.Contained(&badge); ok {
		t.Errorf("the one he imitates is held to %+v", h)
	}
}

// With a crowd of accomplices of the same event the event is named. Who sends
// it too is then held to half more than his own usual rate, which is no less
// than he sends.
func TestAccompliceCrowdLeavesOthersTheirUsualRate(t *testing.T) {
	p := week(t)
	for i := range 6 {
		p.rate[detect.Key{Caller: fmt.Sprint("evil-", i), Event: badge.Event, Channel: badge.Channel}] = 2
	}
	p.run(48*time.Hour, 30*time.Second)
	for k := range p.rate {
		if k.Caller[0] == 'e' {
			p.rate[k] = 60
		}
	}
	p.run(2*time.Minute, time.Second)
	if len(p.opened()) == 0 {
		t.Fatal("nothing was noticed")
	}
	if h, ok := p.d.Contained(&badge); ok && h.Rate < 1.4*p.rate[badge] {
		t.Errorf("an innocent sender of the event is held to %v of its %v a second", h.Rate, p.rate[badge])
	}
	if _, ok := p.d.Contained(&orders); ok {
		t.Error("a caller of another event is held")
	}
}

// He makes up callers, events and channels by the million: memory is bounded,
// whoever was known before is told apart as before, and his sum is exact.
func TestInventedCallersAreBounded(t *testing.T) {
	p := week(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 300_000 {
		p.d.Observe(&detect.Key{Caller: fmt.Sprintf("caller%d", i), Event: fmt.Sprintf("event%d", i%999), Channel: fmt.Sprintf("x%c%c%c%c", 'g'+i%10, 'g'+i/10%10, 'g'+i/100%10, 'g'+i/1000%10)}, 1)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if mb := float64(after.HeapAlloc-before.HeapAlloc) / 1e6; mb > 64 {
		t.Errorf("%.0f MB for made-up callers", mb)
	}
	p.run(time.Second, time.Second)
	var sum uint64
	known := false
	for _, c := range p.d.Top(detect.ByCaller, time.Minute, 0) {
		sum += c.Count
		known = known || c.Key == "web"
	}
	if sum < 300_000 || !known {
		t.Errorf("counted %d of 300000; the caller that was there before is known: %v", sum, known)
	}
}

// He brings new events, one after another, each too small to be an incident:
// together they are one.
func TestManySmallNewEventsAreNoticed(t *testing.T) {
	p := week(t)
	for i := range 40 {
		p.rate[detect.Key{Caller: "ward", Event: "extra-" + string(rune('a'+i%26)) + string(rune('a'+i/26)), Channel: "ops"}] = 4
		p.run(5*time.Minute, time.Second)
		if len(p.opened()) > 0 {
			break
		}
	}
	ev := p.opened()
	if len(ev) == 0 || ev[0].Incident.Culprits[0].Caller != "ward" {
		t.Fatalf("opened %+v", ev)
	}
	var sum float64
	for k, r := range p.rate {
		if k.Caller == "ward" {
			sum += r
		}
	}
	// The account sends 103 a second; he had 3 of them.
	if sum > 45 {
		t.Errorf("noticed at %.0f a second", sum)
	}
}

// He doubles slowly. What he gets unseen is what growth may be: how fast he
// has to be, to be named, is the detector's limit, and the quota's business
// beyond it.
func TestSlowRamp(t *testing.T) {
	for _, tc := range []struct {
		double time.Duration
		named  bool
	}{{6 * time.Hour, true}, {24 * time.Hour, true}, {60 * 24 * time.Hour, false}} {
		p := week(t)
		from := p.rate[orders]
		length := min(4*tc.double, 10*24*time.Hour)
		for passed := time.Duration(0); passed < length && len(p.opened()) == 0; passed += 10 * time.Minute {
			p.rate[orders] = from * math.Exp2(passed.Hours()/tc.double.Hours())
			p.run(10*time.Minute, 30*time.Second)
		}
		f := p.rate[orders] / from
		t.Logf("doubling in %v: named %v at ×%.2f", tc.double, len(p.opened()) > 0, f)
		if got := len(p.opened()) > 0; got != tc.named || tc.named && f > 3 {
			t.Errorf("doubling in %v: named %v, at ×%.2f", tc.double, got, f)
		}
	}
}

// He begins with pulses of five seconds in twenty, so that no short window is
// high for long, before anything is known of him: that is not what he usually
// sends.
func TestPulsesOfANewCallerAreNotLearned(t *testing.T) {
	p := week(t)
	evil := detect.Key{Caller: "evil", Event: "x", Channel: "y"}
	for range 12 {
		p.rate[evil] = 1200
		p.run(5*time.Second, time.Second)
		p.rate[evil] = 0
		p.run(15*time.Second, time.Second)
	}
	ev := p.opened()
	if len(ev) == 0 || ev[0].Incident.Culprits[0].Caller != "evil" {
		t.Fatalf("pulses of 1200 a second beside an account of 103: %+v", p.log)
	}
}
