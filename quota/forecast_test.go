package quota

import (
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// week is a generated account: day and night, a quiet weekend, days that differ, noise, and bursts.
type week struct {
	rng      *rand.Rand
	peakHour float64
	weekend  float64
	perDay   float64
}

func (w *week) day(start time.Time) (perMinute [1440]int64) {
	level := math.Exp(w.rng.NormFloat64() * 0.12)
	if d := start.Weekday(); d == time.Saturday || d == time.Sunday {
		level *= w.weekend
	}
	noise := 0.0
	for m := range perMinute {
		noise = noise*0.98 + w.rng.NormFloat64()*0.04
		h := float64(m) / 60
		shape := 0.15 + math.Pow(math.Max(0, math.Cos((h-w.peakHour)/24*2*math.Pi)), 2)
		perMinute[m] = int64(w.perDay / 1440 * 1.7 * level * shape * math.Exp(noise))
	}
	if w.rng.Float64() < 0.3 { // a burst of some minutes
		at := w.rng.IntN(1430)
		for m := at; m < at+10; m++ {
			perMinute[m] *= 6
		}
	}
	return perMinute
}

// The median error of the use at reset, forecast at midday, on generated weeks: below 10 %, and far below a straight line's.
func TestForecastError(t *testing.T) {
	var errs, straight, firstWeek []float64
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 7))
		w := &week{rng: rng, peakHour: 8 + rng.Float64()*10, weekend: 0.2 + rng.Float64()*0.8, perDay: 1e5 * math.Pow(10, rng.Float64()*2)}
		f := NewForecaster()
		for d := range 35 {
			start := noon.Add(time.Duration(d)*24*time.Hour - 12*time.Hour)
			minutes := w.day(start)
			var used, total, atNoon int64
			for _, n := range minutes {
				total += n
			}
			var got Forecast
			for m, n := range minutes {
				now := start.Add(time.Duration(m) * time.Minute)
				f.Observe(now, used)
				if m == 720 {
					atNoon, got = used, f.At(now, used, 1<<40)
				}
				used += n
			}
			err := math.Abs(float64(got.UsedAtReset-total)) / float64(total)
			switch {
			case d >= 14:
				errs = append(errs, err)
				straight = append(straight, math.Abs(float64(2*atNoon-total))/float64(total))
			case d >= 1 && d < 7:
				firstWeek = append(firstWeek, err)
			}
		}
	}
	median := func(x []float64) float64 { slices.Sort(x); return x[len(x)/2] }
	m, s, c := median(errs), median(straight), median(firstWeek)
	t.Logf("median error of use at reset from midday: %.1f %% with a profile (90th percentile %.1f %%), %.1f %% in the first week, %.1f %% by a straight line",
		m*100, errs[len(errs)*9/10]*100, c*100, s*100)
	if m > 0.10 || m > s/2 {
		t.Fatal("too far off")
	}
}

func TestForecastStories(t *testing.T) {
	dawn := DayOf(noon).Start()
	f := NewForecaster()
	var used int64
	feed := func(from time.Time, d time.Duration, perMinute int64) time.Time {
		for end := from.Add(d); from.Before(end); from = from.Add(time.Minute) {
			f.Observe(from, used)
			used += perMinute
		}
		f.Observe(from, used)
		return from
	}
	// The first day, steady: a straight line.
	now := feed(dawn, 12*time.Hour, 600)
	got := f.At(now, used, 1_000_000)
	if math.Abs(float64(got.UsedAtReset)-864_000) > 10_000 || !got.ExhaustedAt.IsZero() || math.Abs(got.Rate-10) > 0.2 {
		t.Fatalf("%+v", got)
	}
	got = f.At(now, used, 500_000)
	if want := dawn.Add(833 * time.Minute); got.ExhaustedAt.Sub(want).Abs() > 10*time.Minute {
		t.Fatalf("used up at %v, want about %v", got.ExhaustedAt, want)
	}
	if got := f.At(now, 500_000, 500_000); !got.ExhaustedAt.Equal(now) {
		t.Fatalf("%+v", got)
	}
	// A runaway: ten times the rate for half an hour. The plan would have lasted.
	now = feed(now, 30*time.Minute, 6000)
	got = f.At(now, used, 1_000_000)
	if got.ExhaustedAt.IsZero() || got.ExhaustedAt.After(now.Add(6*time.Hour)) {
		t.Fatalf("a runaway is not seen: %+v", got)
	}
	// Midnight: the count begins anew, the rate goes on.
	now = feed(now, DayOf(now).End().Sub(now)-time.Minute, 600)
	f.Observe(now, used)
	used = 0
	now = feed(now.Add(time.Minute), time.Hour, 600)
	got = f.At(now, used, 1_000_000)
	if got.Hours < 20 || got.UsedAtReset < 700_000 || got.UsedAtReset > 1_100_000 {
		t.Fatalf("%+v", got)
	}
	// Kept and loaded: the profile is the same.
	saved := f.Save()
	if saved == nil || f.Save() != nil {
		t.Fatal("saved when it should not be, or not when it should")
	}
	g := NewForecaster()
	if err := g.Load(saved); err != nil || g.hours != f.hours {
		t.Fatal(err)
	}
	if g.Load([]byte("{")) == nil || g.Load([]byte("{}")) == nil {
		t.Fatal("nonsense was loaded")
	}
	// Clocks that jump and counts that are set back make no negative rates.
	f.Observe(now.Add(-time.Hour), 5)
	f.Observe(now.Add(-59*time.Minute), 2)
	if got := f.At(now, 0, 1000); got.Rate < 0 || got.UsedAtReset < 0 {
		t.Fatalf("%+v", got)
	}
}

// The ledger learns the profile from its heartbeats, keeps it in the store, and a correction by hand is no traffic.
func TestLedgerForecast(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	l := join(t, st, DayOf(noon).Start(), "a", plan(100_000))
	now := DayOf(noon).Start()
	for now.Before(noon) {
		if n, why := spend(l, now, nil, Normal, 50); n != 50 {
			t.Fatal(n, why)
		}
		now = now.Add(10 * time.Minute)
		beat(t, now, l)
	}
	if err := l.SetUsage(ctx, now, 50_000, "ann", ""); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	beat(t, now, l)
	got := l.Forecast(now)
	if got.UsedAtReset < 52_500 || got.UsedAtReset > 54_500 || !got.ExhaustedAt.IsZero() || got.Hours < 11 {
		t.Fatalf("%+v, want about 53600 and no end", got)
	}
	l.keepProfile(ctx)
	if m := join(t, st, now, "b", plan(100_000)); m.Forecast(now).Hours != got.Hours {
		t.Fatal("the profile was not kept")
	}
	if err := st.PutBlob(ctx, "care", profileBlob, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if m := join(t, st, now, "c", plan(100_000)); m.Forecast(now).Hours != 0 {
		t.Fatal("nonsense was believed")
	}
	srv.Kill()
	l.forecaster.unsaved()
	l.keepProfile(ctx)
	if l.forecaster.Save() == nil {
		t.Fatal("what could not be kept must be kept later")
	}
}
