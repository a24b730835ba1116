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

	mu       sync.Mutex // of all that follows, and of the watch of every series
	now      int64      // the second up to which is counted
	total    watch
	callers  []*series
	young    []*series // combinations that are not known for a day, of callers that are
	episodes []episode
	tide     [scales]float64 // by how much everybody sends more than the profile says; see mode
	planned  []Planned
	open     *incident
	dueAt    int64 // when the episodes' dues were worked out
	usualAt  int64
	usualOf  float64

	patience  time.Duration // see Patience
	allowance float64       // see SetAllowance
	strict    bool          // see SetStrict
	costly    bool          // see SetCostly
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
	d.total.shape = &shape{}
	return d
}

// Place is where a key is counted. It is good for one publish: a place kept
// longer than that may be forgotten by the Detector.
type Place struct{ s *series }

// Locate finds where the key is counted, for a publish that is both to be
// observed and judged.
func (d *Detector) Locate(k *Key) Place { return Place{d.rates.find(k)} }

// Observe counts n publishes offered under the key, whatever becomes of them, at
// one message each.
func (d *Detector) Observe(k *Key, n uint32) { d.ObserveAt(d.Locate(k), k.Payload, n, int64(n)) }

// ObserveAt is Observe for a key already located, and publishes that cost so many
// messages together.
func (d *Detector) ObserveAt(p Place, payload uint64, n uint32, messages int64) {
	p.s.pending.Add(int64(n))
	p.s.cost.Add(messages)
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

// plannedFactor is up to how much more than usual the caller's window of so many
// seconds may hold: a rise that was announced stays in it for as long as it is.
func (d *Detector) plannedFactor(caller string, seconds int64) float64 {
	f := 1.0
	for _, p := range d.planned {
		if (p.Caller == Any || p.Caller == caller) && d.now >= p.From.Unix() && d.now < p.To.Unix()+seconds+plannedSlip {
			f = max(f, p.Factor)
		}
	}
	return f
}

// plannedSlip is how long after its end an announced rise may fade, in seconds.
const plannedSlip = 60

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
	var sum int64
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
		s.price.count(here, s.cost.Swap(0))
		sum += n
		o := s.own()
		o.here += float64(here)
		o.everywhere += float64(n)
		if !o.frozen {
			o.hereBefore += float64(here)
			o.everywhereBefore += float64(n)
		}
		if s.whole != nil { // else its events are no longer told apart
			s.whole.watch.count(n, from, to)
		}
		s.shape.sum += float64(n)
	}
	d.total.count(sum, from, to)
	d.total.shape.sum += float64(sum)
	seconds := float64(to - from)
	d.total.shape.turn(to, seconds)
	keep, keepLong := math.Exp2(-seconds/60), math.Exp2(-seconds/600)
	for _, c := range d.callers {
		c.shape.turn(to, seconds)
		c.here, c.everywhere = c.here*keep, c.everywhere*keep
		if !c.frozen {
			c.hereBefore, c.everywhereBefore = c.hereBefore*keepLong, c.everywhereBefore*keepLong
		}
	}
	d.turnEpisodes(list)
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
	if d.total.born == 0 {
		d.total.born = from
	}
	if s.whole == nil {
		s.shape = &shape{}
		d.callers = append(d.callers, s)
		return
	}
	s.shape = s.whole.shape
	s.dayUnit = s.shape.unit
	if s.whole.learned >= fewKnown {
		d.young = append(d.young, s)
	}
}

// turn ends parts, windows, hours and days, and learns from them.
func (d *Detector) turn(list []*series, from, to int64) {
	for k := range scales {
		p := partSeconds[k]
		if to/p == from/p {
			continue
		}
		if to-from <= p && to/(p*parts) != from/(p*parts) {
			for _, s := range list {
				if !s.frozen && s.due == 0 && (k <= learnScale || d.now >= s.muted) {
					s.window[k].learnScatter(d.expect(s, k) * d.tide[k])
				}
			}
			if k <= learnScale || d.total.shape.known() {
				d.total.window[k].learnScatter(d.expectAll(k))
			}
		}
		if k == learnScale && to/p/parts != from/p/parts {
			d.learn(list)
		}
		for range min((to/p - from/p), parts) {
			for _, s := range list {
				s.window[k].turn()
			}
			d.total.window[k].turn()
		}
		if k == learnScale {
			for _, s := range list {
				s.price.turn()
			}
		}
	}
	if to/secondsHour != from/secondsHour {
		d.endHour(list, to)
	}
	if to/secondsDay != from/secondsDay {
		d.total.turnDay()
		for _, s := range list {
			s.turnDay()
		}
		d.total.shape.unit = 0
		for _, c := range d.callers {
			c.shape.unit = 0
		}
	}
}

// endHour takes the hour into the shapes. When a caller's first day is whole, its
// combinations have their levels from that.
func (d *Detector) endHour(list []*series, to int64) {
	if first := d.total.shape.endHour(to, d.total.level); first > 0 {
		d.total.levels[0] = float32(first)
		d.total.settle()
	}
	rates := map[*series]float64{}
	for _, c := range d.callers {
		if first := c.shape.endHour(to, c.level); first > 0 {
			rates[c] = first
		}
	}
	if len(rates) == 0 {
		return
	}
	for _, s := range list {
		if first := rates[s.own()]; first > 0 && s.own().total > 0 {
			s.levels[0] = max(float32(first*s.total/s.own().total), 1e-7)
			s.settle()
			s.day, s.dayUnit = 0, s.shape.unit
		}
	}
}

// learn counts what was seen of each.
func (d *Detector) learn(list []*series) {
	for _, s := range list {
		s.learned++
		if !s.shape.known() {
			s.total += float64(s.window[learnScale].sum)
		}
		if !s.frozen {
			s.price.learn()
		}
	}
	d.total.learned++
	d.young = slices.DeleteFunc(d.young, func(s *series) bool { return s.learned >= fewKnown })
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
		d.young = slices.DeleteFunc(d.young, old)
		d.rates.sweep(old)
	}
}
