// Package forecast says where an account's day is heading: what will be used by the reset at 00:00 UTC, and when the
// plan ends, from a learned profile of the week's 168 hours.
package forecast

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Forecast says where the day is heading.
type Forecast struct {
	UsedAtReset int64     // messages used by 00:00 UTC, as expected
	Low, High   int64     // the band: one day in ten ends below Low, one in ten above High
	ExhaustedAt time.Time // when the plan is used up; zero: not today
	Rate        float64   // messages a second now (5 minutes' window)
	Hours       int       // how many of the week's 168 hours the profile knows; 0: a straight line
}

const weekHours = 7 * 24

// Windows of the rates, and how long an excess over the profile is taken to last: what has just begun may be a burst,
// what has lasted for hours will last for more.
const (
	shortWindow = 5 * time.Minute
	longWindow  = time.Hour
	shortLasts  = 30 * time.Minute
	longLasts   = 6 * time.Hour
	levelWindow = 3 * time.Hour
)

// Model learns what an account's week looks like, hour by hour, and extrapolates today from that: the profile of
// the hours that remain, scaled to how today compares so far, plus the present excess, which fades. An hour without
// history counts as that hour on other days, else as today's mean so far; so the first day is a straight line, the
// second follows the first one's shape, and after a week weekends are known.
//
// Safe for concurrent use. Observations closer than ten seconds are passed over.
type Model struct {
	mu      sync.Mutex
	hours   [weekHours]float64 // messages in that hour of the week
	seen    [weekHours]int     // weeks it was seen
	last    time.Time
	count   int64 // at last
	first   bool
	short   fading // messages a second
	long    fading
	base5   fading // what the profile said, faded as short and long are, so that each is compared with its own like
	base60  fading
	actual  float64 // fading sums of what was, and what the profile said
	typical float64
	hour    int64   // Unix hour being summed up
	sum     float64 // messages in it
	covered float64 // seconds of it
	dirty   bool
	errs    errors // how far off forecasts of this account were
}

// fading is a mean in which the past fades. It is true from its first value on: what it has not seen is no zero.
type fading struct{ sum, seen float64 }

func (f *fading) add(rate, dt float64, window time.Duration) {
	w := 1 - math.Exp(-dt/window.Seconds())
	f.sum += (rate - f.sum) * w
	f.seen += (1 - f.seen) * w
}

func (f *fading) mean() float64 {
	if f.seen <= 0 {
		return 0
	}
	return f.sum / f.seen
}

// New knows nothing yet.
func New() *Model { return &Model{first: true} }

// dayStart is 00:00 UTC of now's day, when Pusher's counters restart.
func dayStart(now time.Time) time.Time { return now.UTC().Truncate(24 * time.Hour) }

// hourOfWeek counts from Thursday 00:00 UTC, as the epoch began.
func hourOfWeek(hour int64) int { return int(((hour % weekHours) + weekHours) % weekHours) }

// Observe tells how many messages the account has sent today, corrections by hand left out. Going backwards in time
// or count is a new beginning, not a negative rate.
func (f *Model) Observe(now time.Time, today int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dt := now.Sub(f.last).Seconds()
	if f.first || dt < 0 || dt > 2*longWindow.Seconds() {
		if dt < 0 || f.first {
			f.sum, f.covered = 0, 0
		}
		f.first, f.last, f.count = false, now, today
		f.hour = now.Unix() / 3600
		return
	}
	if dt < 10 {
		return
	}
	n := today - f.count
	if !dayStart(now).Equal(dayStart(f.last)) {
		n = today
	}
	sent := float64(max(n, 0))
	if h := now.Unix() / 3600; h != f.hour {
		f.learn()
		f.hour = h
		expected := 0.0 // what was foretold without a profile says nothing of forecasts with one
		if f.known() >= errorsKnown {
			expected = f.extrapolate(now, today, math.MaxInt64).more
		}
		f.errs.hour(now, f.count, expected)
	}
	f.sum, f.covered = f.sum+sent, f.covered+dt
	rate := sent / dt
	f.short.add(rate, dt, shortWindow)
	f.long.add(rate, dt, longWindow)
	if base, ok := f.base(now.Unix() / 3600); ok {
		keep := math.Exp(-dt / levelWindow.Seconds())
		f.actual = f.actual*keep + sent
		f.typical = f.typical*keep + base/3600*dt
		f.base5.add(base/3600, dt, shortWindow)
		f.base60.add(base/3600, dt, longWindow)
	}
	f.last, f.count = now, today
}

// learn takes the hour that ended into the profile, slowly, and capped, so that an incident does not become the norm.
func (f *Model) learn() {
	if f.covered > 3000 {
		i := hourOfWeek(f.hour)
		n := f.sum * 3600 / f.covered
		if f.seen[i] == 0 {
			f.hours[i] = n
		} else {
			f.hours[i] += 0.3 * (min(n, 3*f.hours[i]+1000) - f.hours[i])
		}
		f.seen[i]++
		f.dirty = true
	}
	f.sum, f.covered = 0, 0
}

// base is what the profile says of an hour; false if it says nothing.
func (f *Model) base(hour int64) (float64, bool) {
	i := hourOfWeek(hour)
	if f.seen[i] > 0 {
		return f.hours[i], true
	}
	sum, n := 0.0, 0
	for d := i % 24; d < weekHours; d += 24 {
		if f.seen[d] > 0 {
			sum += f.hours[d]
			n++
		}
	}
	if n == 0 {
		return 0, false
	}
	return sum / float64(n), true
}

// At extrapolates from now, when used messages of plan are gone. It is the one function that says where the day is
// heading: whoever shows or acts on a forecast asks it, and so all of the same moment agree.
func (f *Model) At(now time.Time, used, plan int64) Forecast {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.extrapolate(now, used, plan)
	low, high := f.errs.band(now)
	out := Forecast{Rate: f.short.mean(), ExhaustedAt: x.exhausted, UsedAtReset: used + int64(x.more), Low: used + int64(x.more*low), High: used + int64(x.more*high)}
	for _, n := range f.seen {
		if n > 0 {
			out.Hours++
		}
	}
	return out
}

// Known is how many of the week's hours the profile knows.
func (f *Model) Known() (hours int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known()
}

func (f *Model) known() (hours int) {
	for _, n := range f.seen {
		if n > 0 {
			hours++
		}
	}
	return hours
}

// extrapolation is what At makes of the profile: the messages still to come today, and when the plan is used up.
type extrapolation struct {
	more      float64
	exhausted time.Time
}

func (f *Model) extrapolate(now time.Time, used, plan int64) (out extrapolation) {
	known := false
	for _, n := range f.seen {
		known = known || n > 0
	}
	dawn := dayStart(now)
	end := dawn.Add(24 * time.Hour)
	mean := f.long.mean() // an hour that nobody knows
	if passed := now.Sub(dawn).Seconds(); passed > 3600 {
		mean = (mean + float64(f.count)/passed) / 2 // not used: that may have been corrected by hand
	}
	level := 1.0
	if f.typical > 0 {
		// An hour of the profile as a prior, so that a quiet minute after midnight decides nothing.
		prior := f.typical / levelWindow.Seconds() * longWindow.Seconds()
		level = (f.actual + prior) / (f.typical + prior)
	}
	expected := func(t time.Time) float64 {
		if b, ok := f.base(t.Unix() / 3600); ok {
			return b / 3600 * level
		}
		return mean
	}
	lately, before := expected(now), expected(now)
	if known && f.base60.seen > 0 {
		lately, before = f.base5.mean()*level, f.base60.mean()*level
	}
	longExcess := f.long.mean() - before
	if longExcess < 0 || !known {
		longExcess = min(longExcess, 0) / 4 // the level has most of it
	}
	shortExcess := f.short.mean() - lately - longExcess
	if used >= plan {
		out.exhausted = now
	}
	const step = time.Minute
	for t := now; t.Before(end); t = t.Add(step) {
		dt := min(step, end.Sub(t)).Seconds()
		ahead := t.Sub(now).Seconds() + dt/2
		rate := expected(t) + longExcess*math.Exp(-ahead/longLasts.Seconds()) + shortExcess*math.Exp(-ahead/shortLasts.Seconds())
		add := max(rate, 0) * dt
		if total := float64(used) + out.more; out.exhausted.IsZero() && total+add >= float64(plan) {
			out.exhausted = t.Add(time.Duration((float64(plan) - total) / add * dt * float64(time.Second))).UTC()
		}
		out.more += add
	}
	return out
}

type forecastState struct {
	Format int
	Hours  [weekHours]float64
	Seen   [weekHours]int
	Errors *errors `json:",omitempty"` // a release before this one has none
}

// Save returns the learned profile for the store when it changed since the last Save, else nil.
func (f *Model) Save() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dirty {
		return nil
	}
	f.dirty = false
	data, err := store.Pack(forecastState{1, f.hours, f.seen, &f.errs})
	if err != nil {
		return nil // a NaN; nothing worth keeping
	}
	return data
}

// Load takes a profile that Save returned.
func (f *Model) Load(data []byte) error {
	var s forecastState
	if err := store.Unpack(data, &s); err != nil {
		return fmt.Errorf("the stored profile of the week: %w", err)
	}
	if s.Format != 1 {
		return fmt.Errorf("the stored profile of the week has format %d", s.Format)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hours, f.seen = s.Hours, s.Seen
	if s.Errors != nil && s.Errors.sound() {
		f.errs = *s.Errors
	}
	return nil
}

// Unsaved takes back a Save that came to nothing.
func (f *Model) Unsaved() {
	f.mu.Lock()
	f.dirty = true
	f.mu.Unlock()
}
