package limiter

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/forecast"
)

// course drives a breaker through a day of offered loads, second by second, and counts what passes.
type course struct {
	b        *Breaker
	f        *forecast.Model
	now      time.Time
	used     int64
	plan     int64
	fraction float64
	told     []Transition
}

func newCourse(t testing.TB, cfg BreakerConfig, plan int64) *course {
	c := &course{f: forecast.New(), now: quota.DayOf(t0).Start(), plan: plan}
	c.b = newBreakerAt(t, c.now, cfg, func(tr Transition) { c.told = append(c.told, tr) })
	return c
}

func newBreakerAt(t testing.TB, now time.Time, cfg BreakerConfig, tell func(Transition)) *Breaker {
	t.Helper()
	b, err := NewBreaker(now, cfg, tell)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *course) forecast() forecast.Forecast { return c.f.At(c.now, c.used, c.plan) }

// step offers messages of each priority a second, for one step.
func (c *course) step(step time.Duration, offered [quota.Priorities]float64) (changed bool) {
	next := c.now.Add(step)
	if quota.DayOf(next) != quota.DayOf(c.now) {
		c.used = 0
	}
	c.now = next
	for p, rate := range offered {
		if ok, _ := c.b.Allow(c.now, quota.Priority(p), c.used, c.plan); ok {
			n := rate*step.Seconds() + c.fraction
			c.used += int64(n)
			c.fraction = n - math.Floor(n)
		}
	}
	c.f.Observe(c.now, c.used)
	_, changed = c.b.ObserveBurn(c.now, c.used, c.used, c.plan, c.forecast)
	return changed
}

func (c *course) until(at time.Duration, offered [quota.Priorities]float64) {
	for end := quota.DayOf(c.now).Start().Add(at); c.now.Before(end); {
		c.step(time.Second, offered)
	}
}

// A bulk runaway in the small hours: shed within a minute although 3 % of the plan is used, tried again, shed again for
// twice as long, and let go of when it is over. Normal traffic never notices.
func TestBurnStory(t *testing.T) {
	c := newCourse(t, BreakerConfig{}, 8_640_000) // even: 100 a second
	quiet := [3]float64{quota.Bulk: 5, quota.Normal: 50, quota.Critical: 5}
	mad := quiet
	mad[quota.Bulk] = 5000
	c.until(2*time.Hour, quiet)
	if len(c.told) != 0 {
		t.Fatal(c.told)
	}
	c.until(2*time.Hour+12*time.Minute, mad)
	c.until(3*time.Hour, quiet)
	var levels []string
	for _, tr := range c.told {
		levels = append(levels, tr.To.String())
	}
	if got := strings.Join(levels, " "); got != "shed_bulk half_open shed_bulk half_open closed" {
		for _, tr := range c.told {
			t.Log(tr.At.Format("15:04:05"), tr.To, tr.Reason)
		}
		t.Fatal(got)
	}
	first := c.told[0]
	if after := first.At.Sub(quota.DayOf(t0).Start().Add(2 * time.Hour)); after > time.Minute {
		t.Fatalf("shed after %v", after)
	}
	for i, want := range []string{
		"the plan burns at 14.8 times its even rate over 2 min and 50.5 over 10 s (the mark is 14.4); the forecast is ",
		"after 5 min of refusing bulk everything passes again on trial, for 1 min or until that costs 1 % of the plan: the plan burns at 0.6",
		"the plan burns at ",
		"after 10 min of refusing bulk everything passes again on trial",
		"everything passed for 1 min and the plan burnt at 0.6 times its even rate",
	} {
		if !strings.HasPrefix(c.told[i].Reason, want) {
			t.Errorf("%d: %q, want %q…", i, c.told[i].Reason, want)
		}
	}
	if !strings.Contains(first.Reason, "used up at 22:14 UTC") || !strings.HasSuffix(first.Reason, ": refusing bulk; tried again in 5 min") {
		t.Error(first.Reason)
	}
	if retried := c.told[2].At.Sub(c.told[1].At); retried > 25*time.Second {
		t.Errorf("a trial of %v although it goes on", retried)
	}
	if used := float64(c.used) / float64(c.plan); used > 0.13 {
		t.Errorf("%.1f %% of the plan went", 100*used)
	}
}

// Normal traffic that would use up all that is left within a quarter of an hour: critical keeps what it needs.
func TestBurnShedsNormalWhenTheEndIsNear(t *testing.T) {
	c := newCourse(t, BreakerConfig{}, 8_640_000)
	c.until(10*time.Hour, [3]float64{0, 100, 5})
	c.until(10*time.Hour+5*time.Minute, [3]float64{0, 15_000, 5})
	strictest := Closed
	for _, tr := range c.told {
		if tr.To <= Open {
			strictest = max(strictest, tr.To)
		}
	}
	if len(c.told) < 2 || strictest != ShedNormal || !strings.Contains(c.told[1].Reason, "the rest is gone in less than 15 min: refusing bulk and normal") {
		t.Fatal(c.told)
	}
	if use := float64(c.used) / float64(c.plan); use > 0.80 {
		t.Fatalf("shed at %.0f %% used", use*100)
	}
	if ok, _ := c.b.Allow(c.now, quota.Critical, c.used, c.plan); !ok {
		t.Fatal("critical is refused")
	}
}

// Two weeks of healthy days: day and night, weekends, a job each hour, a busy evening; nine tenths of the plan are used
// on the busiest. Nothing is ever shed before the thresholds say so.
func TestBurnLeavesHealthyTrafficAlone(t *testing.T) {
	const plan = 8_640_000
	c := newCourse(t, BreakerConfig{ShedBulkAt: 0.97, ShedNormalAt: 0.98, CriticalOnlyAt: 0.99}, plan)
	start := c.now
	days := map[quota.Day]int64{}
	for c.now.Before(start.Add(14 * 24 * time.Hour)) {
		h := c.now.Sub(quota.DayOf(c.now).Start()).Hours()
		rate := 77 * (1 - 0.75*math.Cos((h-1)/24*2*math.Pi)) // a night of a seventh of the peak
		if d := c.now.Weekday(); d == time.Saturday || d == time.Sunday {
			rate *= 0.5
		}
		switch {
		case h-math.Floor(h) < 1.0/60: // at each full hour, for a minute
			rate += 400
		case c.now.Weekday() == time.Wednesday && h > 18 && h < 20:
			rate *= 1.7
		}
		c.step(5*time.Second, [3]float64{rate / 2, rate / 2, 1})
		days[quota.DayOf(c.now)] = c.used
	}
	for _, tr := range c.told {
		t.Errorf("%v: %v, %s", tr.At, tr.To, tr.Reason)
	}
	busiest := int64(0)
	for _, n := range days {
		busiest = max(busiest, n)
	}
	if busiest < plan*85/100 || busiest > plan*96/100 {
		t.Fatalf("the busiest day uses %d %% of the plan: not the test that is meant", busiest*100/plan)
	}
}

// Whatever the load does, also one that watches the breaker to make it flap: it sheds at most BurnTripsPerDay times a
// day, five minutes at least, and never lets more pass than the thresholds do.
func TestBurnNeverFlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const plan = 8_640_000
		type edge struct {
			at    time.Time
			level Level
		}
		var edges []edge
		now := quota.DayOf(t0).Start()
		b, err := NewBreaker(now, BreakerConfig{}, func(tr Transition) { edges = append(edges, edge{tr.At, tr.To}) })
		if err != nil {
			t.Fatal(err)
		}
		// The worst that a forecast can say, so that only rates and holds decide.
		forecast := func() forecast.Forecast {
			return forecast.Forecast{UsedAtReset: 2 * plan, ExhaustedAt: now.Add(time.Hour), Hours: 168}
		}
		var used int64
		var rate float64
		spiteful := rapid.Bool().Draw(t, "spiteful") // sends nothing while shed, all it can otherwise
		top := rapid.Float64Range(1, 40).Draw(t, "top")
		left := time.Duration(0)
		const step = 2 * time.Second
		for range int(24 * time.Hour / step) {
			now = now.Add(step)
			if left -= step; left <= 0 {
				left = time.Duration(rapid.IntRange(10, 7200).Draw(t, "for")) * time.Second
				rate = 100 * rapid.Float64Range(0, top).Draw(t, "rate")
			}
			r := rate
			if spiteful {
				r = 100 * top
				if s := b.State(now).State; s != Closed && s != HalfOpen {
					r = 0
				}
			}
			// What is used is kept below the thresholds: a corrected count.
			used += int64(r * step.Seconds())
			b.burn.figures = figures{plan, min(used, plan/2) - used} // by nobody: what a lever ends is another test
			b.ObserveBurn(now, used, min(used, plan/2), plan, forecast)
			if by := markOf(b, plan).level(use(min(used, plan/2), plan), Closed); b.State(now).State < by {
				t.Fatal("milder than the thresholds")
			}
		}
		trips := 0
		var tripped time.Time
		for _, e := range edges {
			switch {
			case e.level == HalfOpen:
				if d := e.at.Sub(tripped); d < burnHold {
					t.Fatalf("tried again after %v", d)
				}
			case e.level > Closed && e.level < Open && (tripped.IsZero()):
				trips++
				tripped = e.at
			}
			if e.level == HalfOpen || e.level == Closed {
				tripped = time.Time{}
			}
		}
		if trips > BurnTripsPerDay || len(edges) > 5*BurnTripsPerDay {
			t.Fatalf("%d trips, %d changes in a day", trips, len(edges))
		}
	})
}

// What one replica decides holds on another that saw nothing of it, with the same words, until the day ends.
func TestBurnIsAdopted(t *testing.T) {
	b := newBreaker(t, BreakerConfig{}, nil)
	s := quota.Burn{Seq: 7, Day: quota.DayOf(t0), Level: uint8(ShedBulk), Since: t0, Until: t0.Add(burnHold), Reason: "the plan burns", By: "other"}
	b.AdoptBurn(t0, s, 10, 1000)
	if st := b.State(t0); st.State != ShedBulk || st.Reason != "the plan burns" {
		t.Fatal(st)
	}
	old := s
	old.Seq, old.Level = 6, uint8(Closed)
	if b.AdoptBurn(t0, old, 10, 1000); b.State(t0).State != ShedBulk {
		t.Fatal("an older state was adopted")
	}
	if ok, why := b.Allow(t0, quota.Bulk, 10, 1000); ok || why != SheddingBulk {
		t.Fatal(ok, why)
	}
	trial := s
	trial.Seq, trial.Trial, trial.Reason = 8, true, "on trial"
	b.AdoptBurn(t0, trial, 10, 1000)
	if st := b.State(t0); st.State != HalfOpen || st.Reason != "on trial" {
		t.Fatal(st)
	}
	if ok, _ := b.Allow(t0, quota.Bulk, 10, 1000); !ok {
		t.Fatal("a trial lets everything pass")
	}
	if ok, why := b.Allow(t0, quota.Bulk, 801, 1000); ok || why != SheddingBulk {
		t.Fatal("the thresholds hold in a trial too", ok, why)
	}
	b.AdoptBurn(t0, s, 10, 1000)
	s.Seq, s.Level = 9, uint8(ShedNormal)
	b.AdoptBurn(t0, s, 10, 1000)
	if ok, _ := b.Allow(t0, quota.Normal, 10, 1000); ok {
		t.Fatal("not shed")
	}
	tomorrow := quota.DayOf(t0).End()
	if ok, _ := b.Allow(tomorrow, quota.Bulk, 10, 1000); !ok {
		t.Fatal("still shed on the new day")
	}
}

func TestBurnModes(t *testing.T) {
	s := quota.Burn{Seq: 1, Day: quota.DayOf(t0), Level: uint8(ShedNormal), Reason: "x"}
	b := newBreaker(t, BreakerConfig{Burn: BurnObserve}, nil)
	b.AdoptBurn(t0, s, 10, 1000)
	if ok, _ := b.Allow(t0, quota.Bulk, 10, 1000); !ok || b.BurnState().Level != uint8(ShedNormal) {
		t.Fatal("observing must shed nothing, and say what it would")
	}
	if err := b.Configure(BreakerConfig{}); err != nil {
		t.Fatal(err)
	}
	if ok, _ := b.Allow(t0, quota.Bulk, 10, 1000); ok {
		t.Fatal("switched on, it does not shed")
	}
	if err := b.Configure(BreakerConfig{Burn: BurnOff}); err != nil {
		t.Fatal(err)
	}
	n, changed := b.ObserveBurn(t0, 10, 10, 1000, nil)
	if ok, _ := b.Allow(t0, quota.Bulk, 10, 1000); !ok || !changed || n.Seq != 2 || n.Level != 0 {
		t.Fatal("switched off, it sheds", n)
	}
}

func TestBurnAllocatesNothing(t *testing.T) {
	b := newBreaker(t, BreakerConfig{}, nil)
	now := t0
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Second)
		b.ObserveBurn(now, 10, 10, 1000, nil)
		b.Allow(now, quota.Bulk, 10, 1000)
	}); n != 0 {
		t.Fatal(n)
	}
}

func TestPace(t *testing.T) {
	b := newBreakerAt(t, t0, BreakerConfig{}, nil)
	calm := func() forecast.Forecast { return forecast.Forecast{} }
	if pace, known := b.Pace(t0); known {
		t.Errorf("nothing was observed, and it is %v", pace)
	}
	var sent int64
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	for s := range 60 {
		if s > 0 {
			sent += 50
		}
		if s > 40 {
			sent += 250
		}
		b.ObserveBurn(at(s), sent, sent, 1e9, calm)
		pace, known := b.Pace(at(s))
		switch {
		case s < 2 && known:
			t.Errorf("known after %d s: %v", s, pace)
		case s >= 3 && s <= 40 && (!known || math.Abs(pace-50) > 1), s > 49 && math.Abs(pace-300) > 1:
			t.Errorf("after %d s: %v, %v", s, pace, known)
		}
	}
}

func markOf(b *Breaker, plan int64) *marks {
	m := b.marks(plan)
	return &m
}

// A person's order beats what the machine decided: raised a hundredfold, the plan is not burnt too fast, and what was
// shed passes at once, here and on the replica that hears of it. A correction that changes nothing ends nothing, and a
// preview says before what happens then.
func TestALeverJudgesAnew(t *testing.T) {
	const plan, rate = 200_000, 100 // 43 times the even rate
	b, other := newBreakerAt(t, t0, BreakerConfig{}, nil), newBreakerAt(t, t0, BreakerConfig{}, nil)
	now, sent := t0, int64(0)
	soon := func() forecast.Forecast {
		return forecast.Forecast{UsedAtReset: 10 * plan, ExhaustedAt: now.Add(time.Hour)}
	}
	step := func(n, corrected, plan int64) (quota.Burn, bool) {
		now, sent = now.Add(time.Second), sent+n
		return b.ObserveBurn(now, sent, sent+corrected, plan, soon)
	}
	for range 150 {
		step(rate, 0, plan)
	}
	if ok, why := b.Allow(now, quota.Bulk, sent, plan); ok || why != SheddingBulk {
		t.Fatal("it does not shed", ok, why)
	}
	other.AdoptBurn(now, b.BurnState(), sent, plan)
	for range 5 {
		step(2, 0, plan) // bulk is refused now
	}
	if _, changed := step(2, 3000, plan); changed || b.State(now).State != ShedBulk {
		t.Error("a small correction ended it:", b.State(now))
	}
	if level, why := b.Preview(now, sent+3000, plan); level != ShedBulk {
		t.Error("preview of no change:", level, why)
	}
	if level, why := b.Preview(now, sent+3000, 100*plan); level != Closed {
		t.Error("preview of a raised plan:", level, why)
	}
	if level, _ := b.Preview(now, plan*9/10, plan); level < ShedBulk {
		t.Error("preview of a higher count:", level)
	}
	next, changed := step(2, 3000, 100*plan)
	if !changed || next.Level != 0 || b.State(now).State != Closed {
		t.Fatalf("the raised plan is not obeyed: %+v, %+v", next, b.State(now))
	}
	other.AdoptBurn(now, next, sent, 100*plan)
	if s := other.State(now); s.State != Closed {
		t.Errorf("the other replica goes on: %+v", s)
	}
}

// A trial lasts as long as it says, unless it costs a hundredth of the plan.
func TestATrialLasts(t *testing.T) {
	for _, c := range []struct {
		rate int64 // in the trial
		want time.Duration
	}{{30, time.Minute}, {400, 5 * time.Second}} {
		const plan = 200_000
		b := newBreakerAt(t, t0, BreakerConfig{}, nil)
		now, sent := t0, int64(0)
		soon := func() forecast.Forecast {
			return forecast.Forecast{UsedAtReset: 10 * plan, ExhaustedAt: now.Add(time.Hour)}
		}
		var began, ended time.Time
		for range 600 {
			n := int64(100)
			switch b.State(now).State {
			case ShedBulk, ShedNormal:
				n = 45 // normal publishes alone burn fast enough to fire
			case HalfOpen:
				n = c.rate
			}
			now, sent = now.Add(time.Second), sent+n
			b.ObserveBurn(now, sent, sent, plan, soon)
			if st := b.State(now).State; st == HalfOpen && began.IsZero() {
				began = now
			} else if st != HalfOpen && !began.IsZero() && ended.IsZero() {
				ended = now
			}
		}
		if d := ended.Sub(began); began.IsZero() || ended.IsZero() || (d-c.want).Abs() > time.Second {
			t.Errorf("at %d a second the trial lasted %v, %v wanted", c.rate, d, c.want)
		}
	}
}

// Bulk is refused from where what the others will still need would not fit, and not before; the day's end frees the rest.
func TestProtectionByForecast(t *testing.T) {
	b := newBreakerAt(t, t0, BreakerConfig{}, nil)
	const plan = 200_000
	b.Protect(&Needs{AboveBulk: 12_000, AboveNormal: 3_000})
	for _, c := range []struct {
		used int64
		want Level
		says string
	}{
		{187_000, Closed, ""},
		{188_001, ShedBulk, "normal and critical will still need 12,000 today, by the forecast"},
		{187_900, ShedBulk, ""},
		{187_200, Closed, "fits beside it again"},
		{197_001, ShedNormal, "critical will still need 3,000 today"},
		{200_000, Open, ""},
	} {
		if got := b.Update(t0, c.used, plan); got != c.want || !strings.Contains(b.State(t0).Reason, c.says) {
			t.Errorf("%d used: %v (%s), want %v (%s)", c.used, got, b.State(t0).Reason, c.want, c.says)
		}
	}
	b.Protect(&Needs{})
	if got := b.Update(t0, 199_000, plan); got != Closed {
		t.Error("nothing is needed any more, and it is", got)
	}
	b.Protect(nil)
	if got := b.Update(t0, 199_000, plan); got != OnlyCritical {
		t.Error("without a forecast the thresholds hold:", got)
	}
	if err := b.Configure(BreakerConfig{ByMarks: true}); err != nil {
		t.Fatal(err)
	}
	b.Protect(&Needs{AboveBulk: 12_000})
	if got := b.Update(t0, 170_000, plan); got != ShedBulk {
		t.Error("by thresholds, as configured:", got)
	}
}
