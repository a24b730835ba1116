package main

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pushguard/pushguard/quota/forecast"
)

// traffic is a generated account: day and night, a quiet weekend, days that
// differ, noise, and bursts of ten minutes on every third day.
type traffic struct {
	rng                       *rand.Rand
	peakHour, weekend, perDay float64
}

func newTraffic(seed uint64) *traffic {
	rng := rand.New(rand.NewPCG(seed, 7))
	return &traffic{rng, 8 + rng.Float64()*10, 0.2 + rng.Float64()*0.8, 1e5 * math.Pow(10, rng.Float64()*2)}
}

func (t *traffic) day(start time.Time) (perMinute [1440]int64) {
	level := math.Exp(t.rng.NormFloat64() * 0.12)
	if d := start.Weekday(); d == time.Saturday || d == time.Sunday {
		level *= t.weekend
	}
	noise := 0.0
	for m := range perMinute {
		noise = noise*0.98 + t.rng.NormFloat64()*0.04
		h := float64(m) / 60
		shape := 0.15 + math.Pow(math.Max(0, math.Cos((h-t.peakHour)/24*2*math.Pi)), 2)
		perMinute[m] = int64(t.perDay / 1440 * 1.7 * level * shape * math.Exp(noise))
	}
	if t.rng.Float64() < 0.3 {
		at := t.rng.IntN(1430)
		for m := at; m < at+10; m++ {
			perMinute[m] *= 6
		}
	}
	return perMinute
}

// misses are how far off, as a part of the day's total, a forecast was.
type misses struct {
	learned, straight, last []float64
	inside, beside          int // of the band
}

// forecastErrors prints how far the use at reset, forecast at midday, is off on
// generated weeks, beside what is done without a profile.
func forecastErrors(out io.Writer, accounts int) error {
	const days, known, target = 35, 14, 0.10
	first := time.Date(2026, 5, 11, 0, 0, 0, 0, time.UTC)
	var week, later misses
	for seed := range uint64(accounts) {
		t, f := newTraffic(seed), forecast.New()
		var yesterday int64
		for d := range days {
			start := first.AddDate(0, 0, d)
			minutes := t.day(start)
			var used, total, noon int64
			for _, n := range minutes {
				total += n
			}
			var got forecast.Forecast
			for m, n := range minutes {
				now := start.Add(time.Duration(m) * time.Minute)
				f.Observe(now, used)
				if m == 720 {
					noon, got = used, f.At(now, used, 1<<40)
				}
				used += n
			}
			into := &later
			if d < 7 {
				into = &week
			}
			if d > 0 && (d < 7 || d >= known) {
				off := func(n int64) float64 { return math.Abs(float64(n-total)) / float64(total) }
				into.learned = append(into.learned, off(got.UsedAtReset))
				if got.Low <= total && total <= got.High {
					into.inside++
				} else {
					into.beside++
				}
				into.straight = append(into.straight, off(2*noon))
				into.last = append(into.last, off(yesterday))
			}
			yesterday = total
		}
	}
	fmt.Fprintf(out, "use at reset, forecast at midday: how far off, %d generated accounts of %d days\n", accounts, days)
	fmt.Fprintf(out, "  %-38s %10s %10s\n", "", "median", "90 %")
	row := func(name string, all []float64) float64 {
		slices.Sort(all)
		m := all[len(all)/2]
		fmt.Fprintf(out, "  %-38s %8.1f %% %8.1f %%\n", name, m*100, all[len(all)*9/10]*100)
		return m
	}
	m := row("learned profile, from the third week", later.learned)
	row("learned profile, in the first week", week.learned)
	s := row("straight line (twice what is used)", later.straight)
	row("as much as yesterday", later.last)
	covered := float64(later.inside) / float64(later.inside+later.beside)
	fmt.Fprintf(out, "  days inside the band, from the third week: %.1f %% (wanted: 75 to 85 %%)\n", covered*100)
	if covered < 0.75 || covered > 0.85 {
		return fmt.Errorf("the band holds %.1f %% of the days, 75 to 85 %% wanted", covered*100)
	}
	if m >= target {
		return fmt.Errorf("the median error is %.1f %%, less than %.0f %% wanted", m*100, target*100)
	}
	if m > s/2 {
		return fmt.Errorf("the median error is %.1f %%, more than half of a straight line's, %.1f %%", m*100, s*100)
	}
	return nil
}
