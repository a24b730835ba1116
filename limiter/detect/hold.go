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
	dear := in.publishes >= holdShare*secondsDay*d.usual()
	if age < d.patience && !dear || !d.goesOn(list, in) {
		return false
	}
	in.Held = true
	in.Pressed = age < fullPatience && !dear
	return true
}

// mark fixes what the open incident's culprits are measured by, and releases all
// others.
func (d *Detector) mark(list []*series) {
	for _, s := range list {
		frozen := false
		if in := d.open; in != nil {
			frozen = in.Kind == Everybody
			for i := range in.Culprits {
				c := &in.Culprits[i]
				frozen = frozen || c.covers(s) || s.whole == nil && (c.Caller == s.caller || c.Caller == Any)
			}
		}
		switch {
		case s.frozen && !frozen:
			s.held.Store(0)
			s.frozen, s.base, s.top = false, 0, 0
			s.mute(d.now)
		case frozen && !s.frozen:
			base := d.rate(&s.watch)
			if d.open.scale > learnScale && s.level > 0 && s.shape.known() {
				// What it did in the last hours is a part of the rise.
				profile := s.level * s.shape.at(d.now)
				if d.open.Kind != Everybody {
					profile *= d.tide[d.open.scale]
				}
				base = min(base, profile)
			}
			s.base, s.frozen = base, true
		}
	}
	if d.open == nil {
		d.total.mute(d.now)
	}
	if in := d.open; in != nil {
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
			if !c.covers(s) || in.petty(c) || d.strict && !in.ordered && s.own().learned < fewKnown {
				continue
			}
			usual := max(d.rate(&s.watch), s.due*dueSlack)
			most := slack * max(usual, floor)
			cost := max(s.price.mean(), 1)
			most *= cost
			if all > 0 {
				most = max(most, usual*cost+room*excess[i]/all)
			}
			rate = max(rate, most*s.partHere())
			deep = max(deep, usual*cost*deepSeconds*s.partHere())
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

// SetStrict says whether culprits are held whatever is left of the plan. Those that are
// known for less than a day are not: of them too little is known to refuse them anything while
// nothing is at stake.
func (d *Detector) SetStrict(strict bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.strict = strict
}

// SetCostly says whether the plan would not bear the open incident's excess from day to
// day: then it is never taken for a new usual rate.
func (d *Detector) SetCostly(costly bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.costly = costly
}

// SetAllowance says how many messages the culprits of an incident may cost beyond their
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

// excesses are the messages that each series a culprit covers costs beyond its usual
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
		by[i] = max(0, over) / windowSeconds(k) * max(s.price.mean(), 1)
		if in.Kind == FanOut {
			extra, _ := s.price.expensive()
			by[i] += extra
		}
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

// Excess is how many messages the open incident's culprits cost at present beyond
// their usual rates, a second.
func (d *Detector) Excess() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		return 0
	}
	_, all := d.excesses(d.rates.all(), d.open, math.Inf(1))
	return all
}

// Rest is how many messages the account needs until then when all send as usual, and
// whether that is known: a day must have been seen. Who is in no incident is
// taken to go on as in the last two hours where that is more.
func (d *Detector) Rest(until time.Time) (messages float64, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sh := d.total.shape
	if !sh.known() || d.now == 0 {
		return 0, false
	}
	const step = 600
	for at := d.now; at < until.Unix(); at += step {
		messages += sh.at(at+step/2) * float64(min(step, until.Unix()-at))
	}
	const k = scales - 1
	var level, real, expected float64
	for _, s := range d.rates.all() {
		switch {
		case s.shape == nil:
		case s.whole != nil:
			level += s.level * max(s.price.mean(), 1)
		case !s.frozen && s.level > 0 && s.window[k].torn == 0:
			real += float64(s.window[k].sum)
			expected += d.expect(s, k)
		}
	}
	messages *= level
	if expected > 0 {
		messages *= min(max(real/expected, 1), mostGrown)
	}
	return messages, true
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
		if !s.frozen {
			continue
		}
		now := float64(s.window[1].sum) / windowSeconds(1)
		s.adopted, s.adoptedUntil = now, d.now+parts*partSeconds[scales-1]
		if s.level == 0 || !s.shape.known() {
			continue // what it does now is all that is known
		}
		if by := now / (s.level * s.shape.at(d.now)); by > 1 {
			s.scale(by)
		}
	}
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
	d.mark(list)
	return true
}
