package quota

import (
	"testing"
	"time"
)

// A replica that lacks tokens beats for publishes that have waited for half a second, with their times, beside its own
// heartbeats. Its demand is what it is all the same, or its next lease takes all that is left from the others.
func TestDemandIsNotInflatedByThoseWhoWaited(t *testing.T) {
	p := &pot{}
	now := noon
	const perSecond, horizon = 2000, 1500 * time.Millisecond
	p.measure(now, horizon)
	for i := range 200 { // ten seconds of a shortage, a flight every 50 ms
		now = now.Add(50 * time.Millisecond)
		p.waiting[Normal].Add(perSecond / 20)
		at := now
		if i%3 > 0 {
			at = now.Add(-time.Duration(i%7) * 100 * time.Millisecond)
		}
		p.measure(at, horizon)
		p.measure(at.Add(25*time.Millisecond), horizon)
		if r := p.rate[Normal]; i > 5 && r < perSecond*0.8 || r > perSecond*2.5 {
			t.Fatalf("a demand of %d a second was measured as %.0f", perSecond, r)
		}
	}
	// A clock that was set back by an hour is another matter: what was counted before says nothing.
	p.waiting[Normal].Add(100_000)
	now = now.Add(-time.Hour)
	p.measure(now, horizon)
	for range 40 {
		now = now.Add(50 * time.Millisecond)
		p.waiting[Normal].Add(perSecond / 20)
		p.measure(now, horizon)
	}
	if r := p.rate[Normal]; r < perSecond*0.8 || r > perSecond*2 {
		t.Errorf("after the clock was set back the demand is measured as %.0f", r)
	}
}
