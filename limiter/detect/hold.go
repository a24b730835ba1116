package detect

import (
	"math"
	"slices"
	"time"
)

// A named culprit is let go on for fullPatience before it is held, because a
// burst of seconds ends by itself; but no longer than costs restPart of what is
// left of the plan at the present pace.
const (
	fullPatience = 30 * time.Second
	restPart     = 100
)

// Patience is how long a culprit that was named is let go on before it is held.
// left is what is left of the plan and pace what is spent of it a second, by
// everybody; reset is how far off the next plan is.
//
// It is a hundredth of the time that the rest lasts, in whole seconds, so that
// waiting costs at most a hundredth of the rest; never more than 30 s, and 30 s when the rest
// lasts until the reset or nothing is spent. So with the rest gone in 50 min or
// later nothing is at stake, in 5 min there are 3 s, and in less than 100 s it
// is held at once.
func Patience(left, pace float64, reset time.Duration) time.Duration {
	switch {
	case !(pace > 0): // NaN, too
		return fullPatience
	case !(left > 0):
		return 0
	}
	rest := left / pace
	if rest >= reset.Seconds() || rest >= restPart*fullPatience.Seconds() {
		return fullPatience
	}
	return time.Duration(rest/restPart) * time.Second
}

// SetPatience says how long culprits named from now on, or waiting to be held
// already, are let go on; until it is called it is 30 s. See [Patience].
func (d *Detector) SetPatience(p time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.patience = min(max(p, 0), fullPatience)
}

// toHold holds the open incident's culprits if it is time, and reports whether
// that is new.
func (d *Detector) toHold(list []*series, in *incident) bool {
	if in.Held || in.calm > 0 || in.Kind == Everybody {
		return false
	}
	age := time.Duration(d.now-in.DetectedAt.Unix()) * time.Second
	dear := in.Excess >= holdShare*86400*d.usual()
	if age < d.patience && !dear || !d.goesOn(list, in) {
		return false
	}
	in.Held = true
	in.Pressed = age < fullPatience && !dear
	return true
}

// mark freezes the learning of the open incident's culprits, and releases all
// others; soon says that it was over quickly.
func (d *Detector) mark(list []*series, soon bool) {
	for _, s := range list {
		frozen := false
		if in := d.open; in != nil {
			frozen = in.Kind == Everybody
			for i := range in.Culprits {
				c := &in.Culprits[i]
				frozen = frozen || c.covers(s) || s.whole == nil && (c.Caller == s.caller || c.Caller == Any)
			}
		}
		if s.frozen && !frozen {
			if s.habitual() {
				s.missed, s.missedUnit = 0, 0 // its level is learned by the hour
			}
			s.thaw(soon)
			if soon {
				s.shape.clean = true // it was part of the usual
				if s.habit != nil {
					s.habit.spoil = false
				}
			} else if s.whole == nil {
				clear(s.shape.recent[:]) // how long it grew unseen, nobody knows
			}
			s.held.Store(0)
		}
		if s.frozen = frozen; frozen {
			s.spoiled = true
		}
	}
	everybody := d.open != nil && d.open.Kind == Everybody
	if d.total.frozen && !everybody {
		d.total.thaw(soon)
	}
	if d.open == nil && !d.total.frozen {
		d.total.forget(false)
	}
	d.total.frozen = everybody
	if in := d.open; in != nil {
		d.total.spoiled = true
		d.hold(list, in)
	}
}

// hold tells the hot path what the culprits are allowed: their usual rate
// times the slack; more and more when they are calm, so that nothing jumps
// when the incident ends.
func (d *Detector) hold(list []*series, in *incident) {
	room := d.allowance
	if in.ordered {
		room = 0
	}
	if in.released || in.Kind == Everybody || !in.Held || math.IsInf(room, 1) {
		for _, s := range list {
			bits := uint64(0)
			if in.Kind != Everybody && slices.ContainsFunc(in.Culprits, func(c Culprit) bool { return c.covers(s) }) {
				bits = namedOnly
			}
			s.held.Store(bits)
		}
		return
	}
	excess, all := d.excesses(list, in, room)
	slack := in.slack
	if in.calm > 0 {
		slack *= math.Exp2(float64(d.now-in.calm) / 60)
	}
	// Even what was never seen before may show that it is alive.
	floor := max(0.1, d.config.MinShare*d.usual()/4)
	for i, s := range list {
		rate, deep := 0.0, 0.0
		for j := range in.Culprits {
			c := &in.Culprits[j]
			if !c.covers(s) {
				continue
			}
			u := s.shape.at(d.now)
			if s.habitual() {
				u = d.habitShape(s).at(d.now) * s.habit.wide(habitBin(d.now))
			}
			usual := s.level * u
			for _, j := range s.jobs {
				usual += j.level * d.habitShape(j).at(d.now) * j.habit.wide(habitBin(d.now))
			}
			usual *= d.tide[learnScale]
			most := slack * max(usual, floor)
			if all > 0 {
				most = max(most, usual+room*excess[i]/all)
			}
			rate = max(rate, most*s.partHere())
			deep = max(deep, usual*deepSeconds*s.partHere())
		}
		if rate > 0 {
			s.own().ordinary.Store(math.Float64bits(s.ordinaryHere() / s.partHere()))
		}
		s.deep.Store(math.Float64bits(deep))
		s.held.Store(math.Float64bits(rate))
	}
}

// deepSeconds is how much of its usual rate a culprit may send at once: traffic
// that comes by the minute is as usual as any.
const deepSeconds = 120

// namedOnly marks a culprit that is not held: no allowed rate is infinite.
var namedOnly = math.Float64bits(math.Inf(1))

// SetAllowance says how much the culprits of an incident may send beyond their
// usual rates, all together, a second: each gets a part of it by its excess, and
// never less than its usual rate times Config.Slack. Zero, as it is until this
// is called, holds them to that; +Inf holds nobody. What a person orders with
// Contain is held to the least whatever the allowance is.
func (d *Detector) SetAllowance(perSecond float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.allowance = max(perSecond, 0); d.open != nil {
		d.hold(d.rates.all(), d.open)
	}
}

// excesses are what each series that a culprit covers sends beyond its usual
// rate, a second, and their sum; nil where nothing is to be divided.
func (d *Detector) excesses(list []*series, in *incident, room float64) (by []float64, all float64) {
	if room == 0 {
		return nil, 0
	}
	k := in.window(d.now)
	by = make([]float64, len(list))
	for i, s := range list {
		if s.whole == nil && s.crowd.Load() < 2 || !slices.ContainsFunc(in.Culprits, func(c Culprit) bool { return c.covers(s) }) {
			continue
		}
		over := float64(s.window[k].sum) - d.expect(s, k)*d.tide[k]
		by[i] = max(0, over) / float64(parts*partSeconds[k])
		all += by[i]
	}
	return by, all
}

// window is the scale that shows how much an open incident's culprits send now:
// two minutes once it has lasted so long, so that a pulse is no change.
func (in *incident) window(now int64) int {
	if now-in.DetectedAt.Unix() >= parts*partSeconds[learnScale] {
		return learnScale
	}
	return 1
}

// Excess is what the open incident's culprits send at present beyond their
// usual rates, a second.
func (d *Detector) Excess() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		return 0
	}
	_, all := d.excesses(d.rates.all(), d.open, math.Inf(1))
	return all
}

// Rest is how many publishes the account sends until then when all send as usual, and
// whether that is known: a day must have been seen. Who is in no incident is
// taken to go on as in the last two hours where that is more.
func (d *Detector) Rest(until time.Time) (publishes float64, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sh := d.total.shape
	if !sh.known() || d.now == 0 {
		return 0, false
	}
	const step = 600
	level := d.usual()
	for at := d.now; at < until.Unix(); at += step {
		publishes += level * sh.at(at+step/2) * float64(min(step, until.Unix()-at))
	}
	const k = scales - 1
	var real, expected float64
	for _, c := range d.callers {
		if !c.frozen && c.learned > 0 {
			real += float64(c.window[k].sum)
			expected += d.expect(c, k)
		}
	}
	if expected > 0 && d.total.window[k].torn == 0 {
		publishes *= min(max(real/expected, 1), mostGrown)
	}
	return publishes, true
}

// mostGrown bounds how much more than usual the rest of a day is taken to bring
// because the last two hours did.
const mostGrown = 2

// Incident returns the open incident, if there is one.
func (d *Detector) Incident() (Incident, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		return Incident{}, false
	}
	in := d.open.Incident
	in.Culprits = slices.Clone(in.Culprits)
	return in, true
}

// Release stops holding the open incident's culprits; Contain holds them
// at once. They report whether that incident is open.
func (d *Detector) Release(id int) bool { return d.setReleased(id, true) }

// Contain undoes Release.
func (d *Detector) Contain(id int) bool { return d.setReleased(id, false) }

func (d *Detector) setReleased(id int, released bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil || d.open.ID != id {
		return false
	}
	d.open.released, d.open.ordered = released, !released
	d.open.Held = d.open.Held || !released // a person knows enough
	d.hold(d.rates.all(), d.open)
	return true
}

// adopt makes the present rates of all that is in the open incident the usual
// ones.
func (d *Detector) adopt(list []*series) {
	for _, s := range list {
		if s.frozen && s.shape != nil && !s.habitual() {
			s.adopt(s.steady(learnScale), d.unit(s.shape, learnScale)*d.tide[learnScale])
		}
	}
	d.total.adopt(d.steady(learnScale), d.unit(d.total.shape, learnScale))
}

// Accept ends the open incident as something that is normal from now on: the
// culprits' present rates become their usual ones. It reports whether that
// incident was open.
func (d *Detector) Accept(id int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.open
	if in == nil || in.ID != id {
		return false
	}
	list := d.rates.all()
	d.adopt(list)
	d.open = nil
	d.mark(list, false)
	return true
}
