package forecast

import (
	"math"
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 11, 12, 0, 0, 0, time.UTC)

func TestForecastStories(t *testing.T) {
	dawn := dayStart(noon)
	f := New()
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
	now = feed(now, dayStart(now).Add(24*time.Hour).Sub(now)-time.Minute, 600)
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
	g := New()
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

// The band is a guess at first, and after two weeks as wide as the account is hard to foretell: narrow for one that does
// the same each day. It survives Save and Load.
func TestBandIsLearned(t *testing.T) {
	f := New()
	dawn := dayStart(noon)
	var used int64
	width := func(f *Model, now time.Time) float64 {
		got := f.At(now, used, 1<<40)
		if got.Low > got.UsedAtReset || got.High < got.UsedAtReset {
			t.Fatalf("%+v: the expected value lies outside its band", got)
		}
		return float64(got.High-got.Low) / float64(got.UsedAtReset)
	}
	var first, last float64
	for d := range 21 {
		used = 0
		for m := range 1440 {
			now := dawn.Add(time.Duration(d*1440+m) * time.Minute)
			f.Observe(now, used)
			if m == 720 {
				last = width(f, now)
				if d == 0 {
					first = last
				}
			}
			used += 60
		}
	}
	if first < 0.3 || last > 0.1 {
		t.Errorf("the band was %.0f %% wide on the first day, %.0f %% after three equal weeks", first*100, last*100)
	}
	g := New()
	if err := g.Load(f.Save()); err != nil {
		t.Fatal(err)
	}
	now := dawn.Add(21*24*time.Hour + 12*time.Hour)
	used = 43_200
	g.Observe(now, used)
	if w := width(g, now); w > 0.1 {
		t.Errorf("a new process does not know the band: %.0f %%", w*100)
	}
}
