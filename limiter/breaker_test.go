package limiter

import (
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pushguard/pushguard/quota"
)

func TestBreakerLevels(t *testing.T) {
	const plan = 1000
	for _, c := range []struct {
		used  int64
		level Level
		why   [quota.Priorities]Reason // NoReason: allowed
	}{
		{0, Closed, [3]Reason{}},
		{799, Closed, [3]Reason{}},
		{800, ShedBulk, [3]Reason{quota.Bulk: SheddingBulk}},
		{949, ShedBulk, [3]Reason{quota.Bulk: SheddingBulk}},
		{950, ShedNormal, [3]Reason{SheddingNormal, SheddingNormal, NoReason}},
		{980, OnlyCritical, [3]Reason{CriticalOnly, CriticalOnly, NoReason}},
		{999, OnlyCritical, [3]Reason{CriticalOnly, CriticalOnly, NoReason}},
		{1000, Open, [3]Reason{PlanSpent, PlanSpent, PlanSpent}},
		{1500, Open, [3]Reason{PlanSpent, PlanSpent, PlanSpent}},
	} {
		b := newBreaker(t, BreakerConfig{}, nil)
		for p := quota.Bulk; p < quota.Priorities; p++ {
			ok, why := b.Allow(t0, p, c.used, plan)
			if ok != (c.why[p] == NoReason) || why != c.why[p] {
				t.Errorf("%d used, %v: %v, %v; want %v", c.used, p, ok, why, c.why[p])
			}
		}
		if s := b.State(t0); s.State != c.level {
			t.Errorf("%d used: %v, want %v", c.used, s.State, c.level)
		}
	}
}

// The story of two days, as it is told to people.
func TestBreakerStory(t *testing.T) {
	var told []Transition
	b := newBreaker(t, BreakerConfig{Hysteresis: 0.02}, func(tr Transition) { told = append(told, tr) })
	for _, step := range []struct {
		at         time.Duration
		used, plan int64
		level      Level
		told       string // "": nothing
	}{
		{0, 100_000, 1_000_000, Closed, ""},
		{time.Hour, 812_345, 1_000_000, ShedBulk, "81.2 % of the plan used (812,345 of 1,000,000 messages), at or over the 80 % at which refusing bulk begins"},
		{2 * time.Hour, 790_000, 1_000_000, ShedBulk, ""},
		{3 * time.Hour, 779_999, 1_000_000, Closed, "77.9 % of the plan used (779,999 of 1,000,000 messages), 2 % below the 80 % at which refusing bulk begins"},
		{4 * time.Hour, 999_999, 1_000_000, OnlyCritical, "99.9 % of the plan used (999,999 of 1,000,000 messages), at or over the 98 % at which letting only critical pass begins"},
		{5 * time.Hour, 1_000_000, 1_000_000, Open, "100 % of the plan used (1,000,000 of 1,000,000 messages), at or over the 100 % at which refusing everything begins"},
		{6 * time.Hour, 1_000_000, 4_000_000, Closed, "25 % of the plan used (1,000,000 of 4,000,000 messages), 55 % below the 80 % at which refusing bulk begins"},
		{7 * time.Hour, 3_900_000, 4_000_000, ShedNormal, "97.5 % of the plan used (3,900,000 of 4,000,000 messages), at or over the 95 % at which refusing bulk and normal begins"},
		{15 * time.Hour, 0, 4_000_000, Closed, "a new day began at 00:00 UTC: the plan is whole again"},
		{14*time.Hour + 59*time.Minute, 3_900_000, 4_000_000, ShedNormal, "97.5 %"}, // an old clock: judged by use, not sent back to yesterday
		{16 * time.Hour, 5, 0, Closed, "the account has no plan any more"},
	} {
		told = nil
		level := b.Update(at(step.at), step.used, step.plan)
		if level != step.level || level != b.State(at(step.at)).State {
			t.Fatalf("at %v: %v, want %v", step.at, level, step.level)
		}
		switch {
		case step.told == "" && len(told) == 0:
		case len(told) != 1, step.told == "", !strings.HasPrefix(told[0].Reason, step.told), told[0].To != level, !told[0].At.Equal(at(step.at)):
			t.Fatalf("at %v: told %+v, want %q", step.at, told, step.told)
		default:
			if s := b.State(at(step.at)); s.Reason != told[0].Reason || !s.Since.Equal(told[0].At) {
				t.Fatalf("at %v: state %+v", step.at, s)
			}
		}
	}
}

func TestBreakerShowsTheNewDayWithoutTraffic(t *testing.T) {
	b := newBreaker(t, BreakerConfig{}, nil)
	b.Update(t0, 990, 1000)
	midnight := quota.DayOf(t0).End()
	if s := b.State(midnight.Add(-1)); s.State != OnlyCritical {
		t.Fatal(s)
	}
	if s := b.State(midnight.Add(time.Hour)); s.State != Closed || !s.Since.Equal(midnight) {
		t.Fatal(s)
	}
}

func TestBreakerByPushersWord(t *testing.T) {
	var told []Level
	b := newBreaker(t, BreakerConfig{Probe: time.Minute}, func(tr Transition) { told = append(told, tr.To) })
	b.Trip(at(0), "quota exceeded")
	b.Trip(at(time.Second), "again")
	if ok, why := b.Allow(at(time.Second), quota.Critical, 10, 1000); ok || why != BreakerOpen {
		t.Fatal(ok, why)
	}
	if s := b.State(at(time.Second)); s.State != Open || !strings.Contains(s.Reason, "quota exceeded") || !s.Since.Equal(t0) {
		t.Fatal(s)
	}
	if d := b.retryAfter(at(45 * time.Second)); d != 15*time.Second {
		t.Fatal(d)
	}
	if b.tryProbe(at(59 * time.Second)) {
		t.Fatal("probed too early")
	}
	if !b.tryProbe(at(60*time.Second)) || b.tryProbe(at(60*time.Second)) {
		t.Fatal("one probe and no more")
	}
	b.probed(at(61*time.Second), false)
	if b.State(at(61*time.Second)).State != Open || b.tryProbe(at(120*time.Second)) {
		t.Fatal("not open for another interval")
	}
	if !b.tryProbe(at(121*time.Second)) || b.tryProbe(at(180*time.Second)) || !b.tryProbe(at(181*time.Second)) {
		t.Fatal("a probe whose end is not told is not given up")
	}
	b.probed(at(182*time.Second), true)
	if ok, _ := b.Allow(at(182*time.Second), quota.Bulk, 850, 1000); ok {
		t.Fatal("the level by threshold does not hold again")
	}
	want := []Level{Open, HalfOpen, Open, HalfOpen, Closed, ShedBulk}
	if len(told) != len(want) {
		t.Fatal(told)
	}
	for i := range want {
		if told[i] != want[i] {
			t.Fatal(told)
		}
	}
	b.probed(at(183*time.Second), false) // a late one changes nothing
	if b.State(at(183*time.Second)).State != ShedBulk {
		t.Fatal("a late probe changed the level")
	}
}

func TestPushersWordEndsWithTheDay(t *testing.T) {
	b := newBreaker(t, BreakerConfig{}, nil)
	b.Trip(t0, "x")
	tomorrow := quota.DayOf(t0).End()
	if ok, _ := b.Allow(tomorrow, quota.Bulk, 0, 1000); !ok {
		t.Fatal("still open on the new day")
	}
	b.Trip(tomorrow, "y")
	if open, _ := b.openByWord(tomorrow); !open {
		t.Fatal("does not trip again")
	}
}

// A callback may call the breaker, and hears of every change once, in order.
func TestTransitionsAreToldOutsideOfAnyLock(t *testing.T) {
	var b *Breaker
	var told []Level
	b = newBreaker(t, BreakerConfig{}, func(tr Transition) {
		told = append(told, tr.To)
		if tr.To == ShedBulk {
			b.Update(t0, 1000, 1000)
			b.State(t0)
		}
	})
	b.Update(t0, 800, 1000)
	if len(told) != 2 || told[0] != ShedBulk || told[1] != Open {
		t.Fatal(told)
	}
}

func TestTransitionsUnderContention(t *testing.T) {
	var from = Closed
	var bad bool
	b := newBreaker(t, BreakerConfig{}, func(tr Transition) {
		bad = bad || tr.From != from // one goroutine at a time: no lock needed, or the race detector says so
		from = tr.To
	})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				b.Allow(t0, quota.Normal, int64((g*331+i*7)%1100), 1000)
			}
		})
	}
	wg.Wait()
	if bad {
		t.Fatal("told out of order")
	}
}

func TestBreakerConfigIsChecked(t *testing.T) {
	for _, c := range []BreakerConfig{
		{ShedBulkAt: -0.1}, {ShedBulkAt: 0.96}, {ShedNormalAt: 0.99}, {CriticalOnlyAt: 1.1},
		{Hysteresis: -1}, {Hysteresis: 0.9}, {Probe: time.Millisecond},
	} {
		if b, err := NewBreaker(t0, c, nil); err == nil || b != nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	b := newBreaker(t, BreakerConfig{}, nil)
	b.Update(t0, 700, 1000)
	if err := b.Configure(BreakerConfig{ShedBulkAt: 2}); err == nil || b.Update(t0, 700, 1000) != Closed {
		t.Fatal("a bad config changed something", err)
	}
	if err := b.Configure(BreakerConfig{ShedBulkAt: 0.6}); err != nil || b.Update(t0, 700, 1000) != ShedBulk {
		t.Fatal("a good config did not", err)
	}
}

// A use that swings by less than the hysteresis changes the level once at most; and the level is
// never milder than the thresholds say.
func TestBreakerDoesNotFlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		changes := 0
		b, err := NewBreaker(t0, BreakerConfig{Hysteresis: 0.02}, func(Transition) { changes++ })
		if err != nil {
			t.Fatal(err)
		}
		base := rapid.Int64Range(0, 10_500).Draw(t, "base")
		for range 100 {
			used := base + rapid.Int64Range(0, 199).Draw(t, "swing")
			level := b.Update(t0, used, 10_000)
			m := b.marks(10_000)
			if by := m.level(float64(used)/10_000, Closed); level < by {
				t.Fatalf("%d of 10,000 used: %v, by threshold %v", used, level, by)
			}
		}
		// The swing can cross two thresholds at most, and each of them upwards only.
		if changes > 2 {
			t.Fatalf("%d changes around %d", changes, base)
		}
	})
}
