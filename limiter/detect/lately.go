package detect

import (
	"math"
	"slices"
)

// How far what a series did in the last minutes may correct what is expected of
// it in the next seconds.
const (
	leastLately = 0.6
	mostLately  = 1.15
	// latelySkips are the newest parts of the ten minutes that are left out, so
	// that no rise hides itself from the short windows that are to see it.
	latelySkips = 2
	latelyPrior = 50 // messages as expected that are added to those seen
)

// lately is by how much the series has sent more or less than expected in the
// last ten minutes, but for the newest two: noise that lasts hours, and a shape
// that is known of a day or two, are off by a third now and then, which for a
// short window is the difference between three times and twice as much. The highest
// and the lowest part count for nothing; and who was silent for longer is expected to do
// what it did before.
//
// The long windows know nothing of it: who rises slowly is measured by what he
// did last week.
func (d *Detector) lately(s *series) float64 {
	if s.latelyAt == d.now {
		return s.latelyOf
	}
	const k = learnScale + 1
	win := &s.window[k]
	f := 1.0
	if s.learned >= 30 && !s.frozen && win.torn == 0 && !s.habitual() && len(s.jobs) == 0 {
		var part [parts - latelySkips]float64
		for i := range part {
			part[i] = float64(win.part[(int(win.at)+1+i)%parts])
		}
		slices.Sort(part[:])
		middle := part[1 : len(part)-1]
		real := 0.0
		for _, x := range middle {
			real += x
		}
		e := d.expect(s, k) * d.tide[k] * float64(len(middle)) / parts
		f = min((real+latelyPrior)/(e+latelyPrior), mostLately)
		if f < 1 {
			// Where the hours differ, it may be at the lower one's rate still, or already.
			e *= s.shape.trough(d.now-parts/2*partSeconds[k]) / s.shape.at(d.now-parts/2*partSeconds[k])
			f = min(max((real+latelyPrior)/(e+latelyPrior), leastLately), 1)
			if middle[0] < e/float64(len(middle))/2 {
				f = 1
			}
		}
	}
	s.latelyAt, s.latelyOf = d.now, f
	return f
}

// expectSoon is what the series' window of scale k is expected to hold, the
// tide included, with what it did lately where the window is short.
func (d *Detector) expectSoon(s *series, k int) float64 {
	e := d.expect(s, k) * d.tide[k]
	if k < learnScale {
		e *= d.lately(s)
	}
	return e
}

// newRiseRatio is the least rise over the last hour that newRise looks for.
const newRiseRatio = 1.3

// newRise tests the window of ten minutes against what the series did in the
// three quarters of an hour that ended a quarter to a half before: they tell what
// comes better than last week does, so that a rise of a half shows that is lost in
// the noise of days. e is what the window is expected to hold by the week; the rise
// must be one over that as well.
func (d *Detector) newRise(s *series, e float64) (v verdictOn) {
	const k, before = learnScale + 1, learnScale + 2
	win, old := &s.window[k], &s.window[before]
	v.real, v.expected, v.scale = float64(win.sum), e, k
	if s.learned < 720 || s.shape.seen(d.now) == 0 || s.frozen || old.torn > 0 || s.habitual() || len(s.jobs) > 0 || e < 8 {
		return v
	}
	v.ratio = v.real / e
	if v.ratio < 1.1*float64(win.peak) {
		return v
	}
	now, usual := 0.0, 0.0
	p := partSeconds[before]
	for i := 3; i <= 5; i++ {
		now += float64(old.part[(int(old.at)+1+i)%parts])
		usual += s.level * s.shape.at((d.now-1)/p*p-p*int64(parts-1-i)+p/2) * float64(p)
	}
	f := min(max((now+latelyPrior)/(usual+latelyPrior), leastLately), 1/leastLately)
	e *= f
	r := v.real / e
	wide := dispersion + (leastScatter+2/(now+1))*e
	v.surprise = (v.real*math.Log(r) - (v.real - e)) / wide
	if r < newRiseRatio || v.surprise < surprising[k] || v.ratio < 1.3*float64(win.burst) {
		return v
	}
	v.alarm = win.lasts(e, r)
	return v
}
