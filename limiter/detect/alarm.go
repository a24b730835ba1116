package detect

import (
	"cmp"
	"math"
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
		if k > learnScale {
			d.turnMode(k)
		}
		least := d.config.MinShare * usual * windowSeconds(k)
		for _, s := range list {
			if float64(s.window[k].sum) < least {
				continue
			}
			if v, ok := d.testSeries(s, k, least); ok {
				alarms = append(alarms, v)
			}
		}
		if k <= learnScale && k > 0 && d.total.learned >= fewKnown {
			alarms = d.testNew(list, k, usual, alarms)
		}
		if k == learnScale && d.total.learned >= fewKnown && d.open == nil {
			e := d.expectAll(k)
			if x := float64(d.total.window[k].sum); x > crowdRatio*e && d.total.window[k].halves(e) && (x*math.Log(x/e)-(x-e))/(d.total.dispersion(k)+4*leastScatter*e) > surprising[k] && d.plannedFactor(Any, parts*p) == 1 {
				alarms = append(alarms, verdictOn{alarm: true, real: x, expected: e, ratio: x / e, surprise: surprising[k], scale: k})
			}
		}
		if k > learnScale && d.total.shape.seen(d.now) > 0 && d.now >= d.total.muted {
			f := d.total.shape.spread(d.now)
			v := d.total.excessTest(k, d.expectAll(k)*d.plannedFactor(Any, parts*p), f*f, everybodyRatio)
			if v.alarm {
				alarms = append(alarms, v)
			}
		}
	}
	if d.now%partSeconds[1] == 0 {
		alarms = d.testPrices(list, usual, alarms)
	}
	return alarms
}

// everybodyRatio is how many times as much as usual the whole account must send to be
// told of, where nobody is to blame.
const everybodyRatio = 2.2

// crowdRatio is by how much the account must rise within minutes that it is asked who takes
// part, though none of them stands out.
const crowdRatio = 1.6

// The ratio needed while a series, or the account, is not known well.
const (
	needFirstHour = 3.0
	needFirstDay  = 2.5
	needFirstWeek = 1.6 // of the profile, while it is known from one or two days
)

func (d *Detector) testSeries(s *series, k int, least float64) (verdictOn, bool) {
	if d.total.learned < 5 || s.learned < 3 {
		return verdictOn{}, false // the first ten minutes of an account
	}
	need := 0.0
	switch {
	case k > learnScale && (s.level == 0 || s.shape.seen(d.now) == 0 || d.now < s.muted):
		return verdictOn{}, false
	case k > learnScale && s.shape.seen(d.now) < 3:
		need = needFirstWeek
	case s.learned < 30:
		need = needFirstHour
	case s.learned < fewKnown || s.own().learned < fewKnown:
		need = needFirstDay
	}
	planned := d.plannedFactor(s.caller, parts*partSeconds[k])
	e := d.expect(s, k) * d.tide[k] * planned
	v := s.excessTest(k, e, d.unsure(s, k), need)
	if k == learnScale+1 && !v.alarm && planned == 1 {
		if n := d.newRise(s, e); n.alarm {
			v = n
		}
	}
	v.series = s
	if !v.alarm || v.real-v.expected < least {
		return v, false
	}
	if k < learnScale {
		// What a pause held back may come at once.
		one := [1]*series{s}
		if d.sinceAPause(one[:], func(*series) bool { return true }) < 0.6*(v.real-v.expected) {
			return v, false
		}
	}
	return v, true
}

// newShare is what a new combination, or a new caller, adds to the account that is worth
// telling, as a part of its usual rate.
const newShare = 0.03

// testNew looks at what is not known for a day: it has no usual rate of its own, so what
// counts is by how much it makes its caller, or the account, send more than usual. What
// took another's place adds nothing.
func (d *Detector) testNew(list []*series, k int, usual float64, alarms []verdictOn) []verdictOn {
	seconds := windowSeconds(k)
	for _, s := range d.young {
		x := float64(s.window[k].sum)
		e := d.expect(s, k)
		if s.frozen || x-e < newShare*usual*seconds || s.learned > 30 {
			continue
		}
		whole := float64(s.whole.window[k].sum) - d.expect(s.whole, k)*d.plannedFactor(s.caller, parts*partSeconds[k])
		if k == learnScale {
			// Half a minute's worth of the lag between the end of the one and the beginning of the other.
			whole -= d.expect(s.whole, 0)
		}
		added := min(x-e, whole-d.lacking(list, s, k, s.whole)/2)
		if added < newShare*usual*seconds || !s.window[k].halves(e) {
			continue
		}
		we := max(d.expect(s.whole, k), fewest)
		wide := float64(s.whole.window[k].dispersion) + (leastScatter+d.unsure(s.whole, k))*we
		if r := float64(s.whole.window[k].sum); r <= we || (r*math.Log(r/we)-(r-we))/wide < newSurprise && added < we {
			continue
		}
		alarms = append(alarms, verdictOn{alarm: true, real: x, expected: e, ratio: 1 + added/max(e, least(usual, seconds)), surprise: surprising[k], scale: k, series: s})
	}
	for _, c := range d.callers {
		x := float64(c.window[k].sum)
		if c.frozen || c.learned > 30 || d.total.learned-c.learned < fewKnown || x < newCallerShare*usual*seconds || !c.window[k].halves(0) {
			continue
		}
		if added := x - d.expect(c, k) - d.lacking(list, c, k, nil); added >= newCallerShare*usual*seconds {
			alarms = append(alarms, verdictOn{alarm: true, real: x, expected: d.expect(c, k), ratio: 1 + added/(usual*seconds), surprise: surprising[k], scale: k, series: c})
		}
	}
	return alarms
}

const (
	newSurprise = 6
	// newCallerShare is what a caller that nobody knows may add.
	newCallerShare = 0.25
)

func least(usual, seconds float64) float64 { return max(newShare*usual*seconds, fewest) }

// testPrices looks for combinations whose publishes cost several times as much as
// before: a fan-out that exploded.
func (d *Detector) testPrices(list []*series, usual float64, alarms []verdictOn) []verdictOn {
	all := 0.0
	for _, s := range list {
		if s.level > 0 {
			all += s.level * s.price.mean()
		} else {
			all += d.rate(&s.watch) * s.price.mean()
		}
	}
	for _, s := range list {
		if s.whole == nil || s.learned < 30 {
			continue
		}
		extra, ratio := s.price.expensive()
		if extra == 0 || extra < fanoutShare*all {
			continue
		}
		x := float64(s.window[learnScale].sum)
		alarms = append(alarms, verdictOn{alarm: true, real: x * ratio, expected: x, ratio: ratio, surprise: surprising[learnScale], scale: learnScale, series: s, fanout: true})
	}
	return alarms
}

// fanoutShare is the least part of the account's messages that a higher price must add.
const fanoutShare = 0.03

// newRiseRatio is the least rise over the last hour that newRise looks for, and
// overProfile over what is usual at that hour.
const (
	newRiseRatio = 1.35
	overProfile  = 1.25
)

// newRise tests the last five and ten minutes against what the series did in the
// three quarters of an hour that ended a quarter to a half before, as the shape of the day
// takes it on: that tells what comes better than last week does, so that a rise of a
// half shows that is lost in the differences of days. The rise must be one over the profile, e,
// as well. Pulses show here: every part of the window has one.
func (d *Detector) newRise(s *series, e float64) (v verdictOn) {
	const k, before = learnScale + 1, learnScale + 2
	win, old := &s.window[k], &s.window[before]
	if s.learned < fewKnown || s.frozen || old.torn > 0 || e < 8 || s.due > 0 {
		return v
	}
	now, usual := 0.0, 0.0
	p := partSeconds[before]
	for i := 3; i <= 5; i++ {
		now += float64(old.part[(int(old.at)+1+i)%parts])
		usual += s.level * s.shape.at((d.now-1)/p*p-p*int64(parts-1-i)+p/2) * float64(p)
	}
	f := (now + latelyPrior) / (usual + latelyPrior)
	rate := e / windowSeconds(k)
	for _, many := range [...]int{4, parts} {
		real, high := 0.0, 0
		seconds := float64(int64(many-1)*partSeconds[k] + (d.now-1)%partSeconds[k] + 1)
		expected := rate * f * seconds
		for i := range many {
			real += win.ago(i)
		}
		r := real / max(expected, fewest)
		for i := 1; i < many; i++ {
			if win.ago(i) > expected/seconds*float64(partSeconds[k])*(1+(r-1)/3) {
				high++
			}
		}
		wide := 1.3*s.dispersion(learnScale) + (2*leastScatter+2/(now+1))*expected
		surprise := (real*math.Log(r) - (real - expected)) / wide
		if r < newRiseRatio || real < overProfile*rate*seconds || surprise < surprising[k] || high < many*5/8 {
			continue
		}
		return verdictOn{alarm: true, real: real * windowSeconds(k) / seconds, expected: expected * windowSeconds(k) / seconds, ratio: r, surprise: surprise, scale: k}
	}
	return v
}

// latelyPrior is how many publishes as expected are added to those seen.
const latelyPrior = 50

// sortAlarms puts the greatest excess a second first.
func sortAlarms(a []verdictOn) {
	slices.SortFunc(a, func(a, b verdictOn) int {
		return cmp.Compare((b.real-b.expected)/float64(partSeconds[b.scale]), (a.real-a.expected)/float64(partSeconds[a.scale]))
	})
}
