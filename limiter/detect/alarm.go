package detect

import (
	"cmp"
	"slices"
)

// test runs the tests of all windows whose part ends at this tick.
func (d *Detector) test(list []*series, from, to int64) []verdictOn {
	var alarms []verdictOn
	usual := d.usual()
	for k := range scales {
		p := partSeconds[k]
		if to/p == from/p || to-from > p {
			continue
		}
		if k >= learnScale {
			d.turnTide(k)
		}
		least := d.config.MinShare * usual * float64(parts*p)
		for _, s := range list {
			if float64(s.window[k].sum) < least {
				continue
			}
			e := d.expectSoon(s, k)
			if len(d.planned) > 0 {
				e *= d.plannedFactor(s.caller)
			}
			if v, ok := d.testSeries(s, k, e, least); ok {
				alarms = append(alarms, v)
			}
		}
		if k >= learnScale+1 && d.total.shape.seen(d.now) > 0 {
			v := d.total.excessTest(d.now, k, d.expectAll(k)*d.plannedFactor(Any), 2.5)
			if v.alarm {
				alarms = append(alarms, v)
			}
		}
	}
	return alarms
}

// The ratio needed while a series, or the account, is not known well.
const (
	needFirstHour = 3.0
	needFirstDay  = 2.5
	newShare      = 0.5  // of the account's rate: what a new caller may take
	newEvents     = 0.15 // of it: what new events of a known caller may take, a day
)

// allowed is what a known caller's new combinations may have added to its
// window: new features are no incident.
func (d *Detector) allowed(s *series, k int) (n float64) {
	if s.whole != nil {
		return 0
	}
	for _, y := range d.young {
		if y.whole == s {
			n += float64(y.window[k].sum)
		}
	}
	return min(n, d.room(s)*float64(parts*partSeconds[k]))
}

// room is the rate that new combinations of a caller may still add today. On
// its first day everything is new.
func (d *Detector) room(s *series) float64 {
	if s.learned < 720 {
		return newEvents * d.usual()
	}
	return max(0, newEvents*d.usual()-s.fresh)
}

func (d *Detector) testSeries(s *series, k int, e, least float64) (verdictOn, bool) {
	if d.total.learned < 5 {
		return verdictOn{}, false // the first ten minutes of an account
	}
	need := 0.0
	switch {
	case s.learned < 1:
		// A new series has no usual rate. A new caller may take half of what
		// the account sends; a new event of a known caller is judged with
		// the caller.
		if s.whole != nil || k > learnScale {
			return verdictOn{}, false
		}
		e = max(e, newShare*d.expectAll(k))
	case s.learned < 30 || d.total.learned < 30:
		need = needFirstHour
		if k > learnScale {
			return verdictOn{}, false
		}
	case s.learned < 720 || !s.shape.known():
		need = needFirstDay
		if k > learnScale+1 {
			return verdictOn{}, false
		}
	}
	v := s.excessTest(d.now, k, e+d.allowed(s, k), need)
	if k == learnScale+1 && !v.alarm {
		if n := d.newRise(s, e+d.allowed(s, k)); n.alarm {
			v = n
		}
	}
	v.series = s
	if !v.alarm || v.real-v.expected < least {
		return v, false
	}
	if k < learnScale && s.learned > 0 {
		// What a pause held back may come at once.
		one := [1]*series{s}
		if d.sinceAPause(one[:], func(*series) bool { return true }) < 0.6*(v.real-v.expected) {
			return v, false
		}
	}
	return v, true
}

// turnTide measures how much more than usual everybody sends: the ratio that
// two thirds of the callers pass. It stands in for a shape of the day not yet
// known, and for days that no shape knows.
func (d *Detector) turnTide(k int) {
	var ratios []float64
	for _, c := range d.callers {
		if e := d.expect(c, k); c.learned > 0 && e >= 10 {
			ratios = append(ratios, float64(c.window[k].sum)/e)
		}
	}
	d.tide[k] = 1
	if len(ratios) >= 3 {
		slices.Sort(ratios)
		d.tide[k] = max(1, ratios[len(ratios)/3])
	}
	if k == learnScale {
		d.tide[0], d.tide[1] = d.tide[k], d.tide[k]
	}
}

// sortAlarms puts the greatest excess a second first.
func sortAlarms(a []verdictOn) {
	slices.SortFunc(a, func(a, b verdictOn) int {
		return cmp.Compare((b.real-b.expected)/float64(partSeconds[b.scale]), (a.real-a.expected)/float64(partSeconds[a.scale]))
	})
}
