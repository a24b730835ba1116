package detect

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Config of a Detector. The zero value is usable.
type Config struct {
	// MaxSeries bounds the combinations of caller, event and channel pattern
	// that are told apart, 0 means 32768 (about 16 MB); MaxPerCaller those
	// of one caller, 0 means a quarter. What is beyond is counted with the
	// channel, then the event, as Any.
	MaxSeries, MaxPerCaller int
	// MaxPayloads bounds the payloads told apart, 0 means 16384 (about 1 MB).
	MaxPayloads int
	// MinShare is the smallest excess, as a part of the account's usual
	// rate, that is worth an incident; 0 means 0.01.
	MinShare float64
	// Slack is what a contained culprit is allowed: its usual rate times
	// this; 0 means 1.5.
	Slack float64
}

// Detector watches one account's publishes: who sends what where how often,
// since when that is more than usual, and which combination makes the excess.
//
// Observe and Contained are safe for concurrent use, take no lock and
// allocate nothing for a key that is known; Tick is to be called about once a
// second, by one goroutine. All other methods may be called at any time.
type Detector struct {
	config   Config
	rates    *rates
	payloads *payloads

	mu      sync.Mutex // of all that follows, and of the watch of every series
	now     int64      // the second up to which is counted
	total   watch
	callers []*series
	watched []*series // those with a habit, used or not
	habits  []*series // those whose habit is used
	young   []*series // those that have no level yet
	tide    [scales]float64
	planned []Planned
	open    *incident

	patience  time.Duration // see Patience
	allowance float64       // see SetAllowance
	elsewhere map[string]elsewhere

	next  int
	swept int64
}

// Planned is a rise that was announced: a load test, a campaign, a migration.
type Planned struct {
	From, To time.Time
	// Caller is the caller it concerns; Any is everybody.
	Caller string
	// Factor is up to how much more than usual is expected.
	Factor float64
}

// New makes a Detector that knows nothing yet.
func New(c Config) *Detector {
	if c.MaxSeries == 0 {
		c.MaxSeries = 32768
	}
	if c.MaxPerCaller == 0 {
		c.MaxPerCaller = c.MaxSeries / 4
	}
	if c.MaxPayloads == 0 {
		c.MaxPayloads = 16384
	}
	if c.MinShare == 0 {
		c.MinShare = 0.01
	}
	if c.Slack == 0 {
		c.Slack = 1.5
	}
	d := &Detector{config: c, rates: newRates(c.MaxSeries, c.MaxPerCaller), payloads: newPayloads(c.MaxPayloads), tide: [scales]float64{1, 1, 1, 1, 1}, patience: fullPatience}
	d.total.init()
	d.total.shape = &shape{clean: true}
	return d
}

// Place is where a key is counted. It is good for one publish: a place kept
// longer than that may be forgotten by the Detector.
type Place struct{ s *series }

// Locate finds where the key is counted, for a publish that is both to be
// observed and judged.
func (d *Detector) Locate(k *Key) Place { return Place{d.rates.find(k)} }

// Observe counts n messages offered under the key, whatever becomes of them.
func (d *Detector) Observe(k *Key, n uint32) { d.ObserveAt(d.Locate(k), k.Payload, n) }

// ObserveAt is Observe for a key already located.
func (d *Detector) ObserveAt(p Place, payload uint64, n uint32) {
	p.s.pending.Add(int64(n))
	if payload != 0 {
		d.payloads.add(p.s.id, payload, n)
	}
}

// Hold is what a contained culprit is allowed.
type Hold struct {
	// Series tells the held combination from others: a token bucket's name.
	Series int32
	// Rate is the messages a second it is allowed; Burst is how many it may send
	// at once.
	Rate, Burst float64
	// Ordinary is that of its ordinary traffic alone, where the excess is a few
	// payloads: this replica's part of the one may not be its part of the other.
	Ordinary float64
	// Named says that the key belongs to a culprit, held or not.
	Named bool
}

// Contained reports whether the key belongs to a culprit that should be held,
// and to what rate.
func (d *Detector) Contained(k *Key) (Hold, bool) { return d.Locate(k).Contained() }

// Contained is Detector.Contained for a key already located.
func (p Place) Contained() (Hold, bool) {
	s := p.s
	bits := s.held.Load()
	if bits == 0 && s.whole != nil {
		s = s.whole
		bits = s.held.Load()
	}
	switch bits {
	case 0:
		return Hold{}, false
	case namedOnly:
		return Hold{Named: true}, false
	}
	return s.allowance(bits), true
}

func (s *series) allowance(bits uint64) Hold {
	h := Hold{Series: s.id, Rate: math.Float64frombits(bits), Burst: math.Float64frombits(s.deep.Load()), Named: true}
	h.Ordinary = h.Rate * max(1, math.Float64frombits(s.own().ordinary.Load()))
	return h
}

// Plan announces rises; it replaces what was announced before.
func (d *Detector) Plan(p []Planned) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.planned = slices.Clone(p)
}

func (d *Detector) plannedFactor(caller string) float64 {
	f := 1.0
	for _, p := range d.planned {
		if (p.Caller == Any || p.Caller == caller) && d.now >= p.From.Unix() && d.now < p.To.Unix() {
			f = max(f, p.Factor)
		}
	}
	return f
}

// Tick takes what was observed since the last tick, learns, tests, and
// returns what happened to incidents. now should move by whole seconds; a
// longer pause than a second makes the shorter scales blind for as long as
// they are.
func (d *Detector) Tick(now time.Time) []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	to := now.Unix()
	if d.now == 0 {
		d.now = to - 1
	}
	from := d.now
	if to <= from {
		return nil
	}
	d.now = to
	list := d.rates.all()
	var sum, steady int64
	for _, s := range list {
		n := s.pending.Swap(0)
		s.delta += n
		here := n
		n += s.remote.Swap(0)
		if s.shape == nil {
			d.begin(s, from)
		}
		if n == 0 {
			continue
		}
		s.watch.count(n, from, to)
		sum += n
		o := s.own()
		o.here += float64(here)
		o.everywhere += float64(n)
		if !o.frozen {
			o.hereBefore += float64(here)
			o.everywhereBefore += float64(n)
		}
		if s.habit != nil {
			s.habit.count(n, from, to)
		}
		if s.whole != nil { // else its events are no longer told apart
			s.whole.count(n, from, to)
		}
		if !s.habitual() {
			s.shape.sum += float64(n)
			steady += n
		}
	}
	d.total.count(sum, from, to)
	d.total.shape.sum += float64(steady)
	seconds := float64(to - from)
	d.total.shape.seconds += seconds
	keep, keepLong := math.Exp2(-seconds/60), math.Exp2(-seconds/600)
	for _, c := range d.callers {
		c.shape.seconds += seconds
		c.here, c.everywhere = c.here*keep, c.everywhere*keep
		if !c.frozen {
			c.hereBefore, c.everywhereBefore = c.hereBefore*keepLong, c.everywhereBefore*keepLong
		}
	}
	d.clearOld(list, from, to)
	alarms := d.test(list, from, to)
	events := d.follow(list, alarms)
	d.turn(list, from, to)
	return events
}

// begin makes a series that was just seen ready.
func (d *Detector) begin(s *series, from int64) {
	s.init()
	s.born = from
	if s.whole == nil {
		s.shape = &shape{clean: true}
		d.callers = append(d.callers, s)
	} else {
		s.shape = s.whole.shape
		if len(d.watched) < maxHabits/2 {
			d.watchHabit(s)
		}
	}
	if d.total.learned > 0 {
		d.young = append(d.young, s)
	}
}

// unit is what a window of scale k that ends now holds at level 1.
func (d *Detector) unit(s *shape, k int) float64 {
	if s.unitAt[k] == d.now {
		return s.unitOf[k]
	}
	p := partSeconds[k]
	u := 0.0
	if k < scales-1 {
		u = s.at(d.now-parts*p/2) * float64(parts*p)
	} else {
		for i := range int64(parts) { // the rate may jump within hours
			u += s.at(d.now-p*i-p/2) * float64(p)
		}
	}
	s.unitAt[k], s.unitOf[k] = d.now, u
	return u
}

// expect is what the series' window of scale k is expected to hold, but for
// the tide and what is planned.
func (d *Detector) expect(s *series, k int) float64 {
	if s.habitual() {
		return s.level * d.habitUnit(s, k)
	}
	e := s.level * d.unit(s.shape, k)
	for _, j := range s.jobs {
		e += j.level * d.habitUnit(j, k)
	}
	return e
}

// expectAll is expect of the whole account.
func (d *Detector) expectAll(k int) float64 {
	e := d.total.level * d.unit(d.total.shape, k)
	for _, j := range d.habits {
		e += j.level * d.habitUnit(j, k)
	}
	return e
}

// usual is the account's mean rate, messages a second.
func (d *Detector) usual() float64 {
	u := d.total.level
	for _, j := range d.habits {
		u += j.level
	}
	return u
}

// steady is what a series' window holds beside periodic traffic.
func (s *series) steady(k int) float64 {
	x := float64(s.window[k].sum)
	for _, j := range s.jobs {
		x -= float64(j.window[k].sum)
	}
	return max(0, x)
}

func (d *Detector) steady(k int) float64 {
	x := float64(d.total.window[k].sum)
	for _, j := range d.habits {
		x -= float64(j.window[k].sum)
	}
	return max(0, x)
}

// turn ends parts, windows, hours and days, and learns from them.
func (d *Detector) turn(list []*series, from, to int64) {
	learn := to/partSeconds[learnScale]/parts != from/partSeconds[learnScale]/parts
	for k := range scales {
		p := partSeconds[k]
		if to/p == from/p {
			continue
		}
		whole := to-from <= p && to/(p*parts) != from/(p*parts)
		if whole && d.open == nil {
			if d.total.learned > 30 && d.total.shape.known() {
				d.total.window[k].learnScatter(d.expectAll(k))
			}
			for _, s := range list {
				if !s.frozen && s.learned > 30 && s.shape.known() {
					s.window[k].learnScatter(d.expect(s, k) * d.tide[k])
				}
			}
		}
		if k == learnScale && learn {
			d.learn(list)
		}
		for range min((to/p - from/p), parts) {
			for _, s := range list {
				s.window[k].turn()
			}
			d.total.window[k].turn()
		}
	}
	if d.open != nil {
		d.total.shape.clean = false
		for _, s := range list {
			if s.frozen {
				s.shape.clean = false
				if s.habit != nil {
					s.habit.spoil = true
				}
			}
		}
	}
	if to/secondsHour != from/secondsHour {
		d.total.level *= d.total.shape.endHour(to, d.total.level)
		for _, c := range d.callers {
			c.shape.scale = c.shape.endHour(to, c.level)
		}
		for _, s := range list {
			if s.shape.scale != 1 && !s.habitual() {
				s.level *= s.shape.scale
			}
		}
		d.endHabits(to)
	}
	if to/(24*secondsHour) != from/(24*secondsHour) {
		d.total.turnDay()
		for _, s := range list {
			s.turnDay()
			s.fresh = 0
		}
	}
}

// learn takes the windows of the learning scale into the levels.
func (d *Detector) learn(list []*series) {
	const k = learnScale
	for _, s := range list {
		u := d.unit(s.shape, k)
		switch {
		case s.frozen:
			s.missed += s.steady(k)
			s.missedUnit += u
		case s.learned == 0 && d.now-s.born < parts*partSeconds[k]:
			// Its first window is not whole.
		case s.learned == 0 && s.whole != nil && s.whole.learned >= 720 && float64(s.window[k].sum) > d.room(s.whole)*u:
			// One new combination after another is a rise, not news.
		case s.habitual():
			s.learned++
			s.total = s.total*0.999 + float64(s.window[k].sum)
		default:
			s.learnLevel(s.steady(k), u)
			if s.learned == 1 && s.whole != nil && s.whole.learned > 1 && !s.whole.frozen {
				s.whole.level += s.level // what is new is new for the whole, too
				s.whole.fresh += s.level
			}
		}
		if s.habit == nil && s.whole != nil && float64(s.window[k].sum) > 0.01*float64(d.total.window[k].sum) {
			d.watchHabit(s)
		}
	}
	if d.open == nil {
		d.total.learnLevel(d.steady(k), d.unit(d.total.shape, k))
	}
	d.young = slices.DeleteFunc(d.young, func(s *series) bool { return s.learned > 0 })
}

// clearOld empties the slots of Top's rings that come next, turns the
// payloads' generations, and forgets series idle for a week when room is
// short.
func (d *Detector) clearOld(list []*series, from, to int64) {
	for i := from / 5; i < to/5 && i < from/5+14; i++ {
		for _, s := range list {
			s.recent[(i+2)%int64(len(s.recent))] = 0
		}
	}
	if to/60 == from/60 {
		return
	}
	for i := from / 60; i < to/60 && i < from/60+12; i++ {
		for _, s := range list {
			s.longer[(i+2)%int64(len(s.longer))] = 0
		}
	}
	d.payloads.turn()
	if len(list) > d.config.MaxSeries*9/10 && to-d.swept > secondsHour {
		d.swept = to
		old := func(s *series) bool { return s.whole != nil && !s.frozen && to-s.active > secondsWeek }
		d.watched = slices.DeleteFunc(d.watched, old)
		d.habits = slices.DeleteFunc(d.habits, old)
		for _, c := range d.callers {
			c.jobs = slices.DeleteFunc(c.jobs, old)
		}
		d.rates.sweep(old)
	}
}
