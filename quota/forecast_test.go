package quota

import (
	"math"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

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
