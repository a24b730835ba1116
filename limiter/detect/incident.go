package detect

import (
	"math"
	"slices"
	"time"
)

// Kind says what sort of excess an incident is.
type Kind string

const (
	// Runaway is one or a few combinations that send too much.
	Runaway Kind = "runaway"
	// Everybody is a rise of all callers alike: nobody is to blame.
	Everybody Kind = "everybody"
	// Duplicates is the same payload over and over.
	Duplicates Kind = "duplicates"
	// FanOut is publishes that cost several times as many messages as before.
	FanOut Kind = "fanout"
)

// Phase is what happened to an incident.
type Phase string

const (
	Opened   Phase = "opened"
	Updated  Phase = "updated"
	Resolved Phase = "resolved"
)

// Event is one step of an incident, with the incident as it stands then.
type Event struct {
	Phase    Phase
	At       time.Time
	Incident Incident
}

// Incident is a rise that was noticed.
type Incident struct {
	ID   int
	Kind Kind
	// StartedAt is when the excess began, as far as the windows tell;
	// DetectedAt is when it was noticed; ResolvedAt is zero while open.
	StartedAt, DetectedAt, ResolvedAt time.Time
	// Factor is the culprits' rate over their usual one, at its highest.
	Factor float64
	// Excess counts the messages offered beyond the usual since it was noticed.
	Excess float64
	// Confidence that the culprits named explain the excess, 0 to 1.
	Confidence float64
	Culprits   []Culprit
	// Held says that the culprits are to be held: the excess has lasted, or
	// has cost enough.
	Held bool
	// Pressed says that they are held before the excess had lasted, because the
	// plan would not have lasted.
	Pressed bool
	// Adopted says that it ended because it went on: what was a rise is usual from then on.
	Adopted bool
}

// Culprit is a combination that makes a part of an excess. What does not
// matter, or is not one, is Any.
type Culprit struct {
	Caller, Event, Channel string
	// Callers are those who take part, where they are many and the name says what
	// they have in common.
	Callers []string
	// Payloads are the digests that are sent over and over, if any.
	Payloads []uint64
	// Share is the culprit's part of the excess, 0 to 1.
	Share float64
	// Rate and Usual are in publishes a second.
	Rate, Usual float64

	excess float64 // since it was named
}

func (c *Culprit) covers(s *series) bool {
	return (c.Caller == Any || c.Caller == s.caller) &&
		(c.Event == Any || c.Event == s.event) &&
		(c.Channel == Any || c.Channel == s.channel)
}

func (c *Culprit) everybody() bool { return c.Caller == Any && c.Event == Any && c.Channel == Any }

// incident is an open incident.
type incident struct {
	Incident
	calm      int64   // since when all culprits are calm, 0: they are not
	scale     int     // of the alarm
	publishes float64 // of the excess
	reviewed  int64   // when the culprits were reviewed last
	measured  int64   // when the excess was last added to
	seen      float64 // the factor at the last review
	released  bool
	ordered   bool // a person said that they are to be held
	slack     float64
}

// How an incident ends, and when its culprits are looked at again, in seconds
// after it opened.
const (
	calmRatio   = 1.25
	calmSeconds = 300
)

// adoptSeconds is when a rise that stays where it is and is not held is taken for
// growth: it was told, and what the plan bears is the quota's to say.
const adoptSeconds = 3 * secondsHour

// holds reports whether the culprits are held now.
func (d *Detector) holds(in *incident) bool {
	return in.Held && !in.released && in.Kind != Everybody && (in.ordered || !math.IsInf(d.allowance, 1))
}

// steady reports whether the culprits' rate has neither risen nor fallen much for an
// hour and three quarters.
func (d *Detector) steady(in *incident) bool {
	if d.now%partSeconds[scales-1] >= 4 { // the part is new: it holds nothing yet
		return false
	}
	var part [parts - 1]float64
	for _, s := range d.rates.all() {
		if s.whole != nil && s.frozen {
			for i := range part {
				part[i] += s.window[scales-1].ago(i + 1)
			}
		}
	}
	return slices.Max(part[:]) <= steadyRatio*slices.Min(part[:])
}

// steadyRatio bounds how much a rate differs within two hours that is taken for a new usual one.
const steadyRatio = 1.15

// rememberAll keeps what the culprits did as episodes.
func (d *Detector) rememberAll(list []*series, in *incident) {
	if in.Kind == Everybody || in.Kind == FanOut {
		return
	}
	end := d.now
	if in.calm > 0 {
		end = in.calm
	}
	for _, s := range list {
		if s.whole != nil && s.frozen && s.top > 1.5*s.base && s.top-s.base > d.config.MinShare*d.usual()/4 {
			d.remember(s, in.StartedAt.Unix(), end, s.top)
		}
	}
}

// petty reports whether the culprit matters little beside another.
func (in *incident) petty(c *Culprit) bool {
	return c.Share < pettyPart && slices.ContainsFunc(in.Culprits, func(o Culprit) bool { return o.Share > 0.5 })
}

// reviewAfter is how long after the last review of an incident of that age the
// next one is due, in seconds: soon at first, as each second tells more.
func reviewAfter(age int64) int64 {
	switch {
	case age < 32:
		return 8
	case age < 180:
		return 30
	case age < 1800:
		return 120
	}
	return 600
}

// A culprit is held when its excess has lasted as long as Patience has it, or has
// cost holdShare of what the account sends in a day: a burst ends before, and
// what it costs until then is little.
const holdShare = 0.001

// follow turns alarms into incidents.
func (d *Detector) follow(list []*series, alarms []verdictOn) []Event {
	var events []Event
	sortAlarms(alarms)
	in := d.open
	if in == nil {
		if len(alarms) == 0 {
			return nil
		}
		if in = d.start(list, alarms[0]); in == nil {
			return nil
		}
		d.open = in
		d.toHold(list, in) // it may not be affordable to wait at all
		d.mark(list)
		return []Event{d.event(Opened)}
	}
	// A review is due when more of the incident has been seen, and when
	// somebody not yet named is alarming.
	age := d.now - in.DetectedAt.Unix()
	due := d.now-in.reviewed >= reviewAfter(age)
	grown := in.Factor > 1.4*in.seen && d.now%partSeconds[1] == 0
	var fresh *verdictOn
	for i := range alarms {
		a := &alarms[i]
		if a.series != nil && !a.series.frozen && !slices.ContainsFunc(in.Culprits, func(c Culprit) bool { return c.Caller == a.series.caller }) {
			fresh = a
			break
		}
	}
	if due || grown || fresh != nil {
		in.reviewed = d.now
		if d.review(list, in, fresh, age) {
			d.mark(list)
			events = append(events, d.event(Updated))
		}
	}
	done := d.measure(list, in)
	if d.toHold(list, in) {
		events = append(events, d.event(Updated))
	}
	if !done && age >= adoptSeconds && !d.costly && !d.holds(in) && d.steady(in) {
		d.adopt(list)
		in.Adopted, done = true, true
	}
	if done {
		if !in.Adopted {
			d.rememberAll(list, in)
		}
		in.ResolvedAt = time.Unix(d.now, 0).UTC()
		events = append(events, d.event(Resolved))
		d.open = nil
		d.mark(list)
	} else {
		d.hold(list, in)
	}
	return events
}

// goesOn reports whether a culprit's last seconds are still high.
func (d *Detector) goesOn(list []*series, in *incident) bool {
	return slices.ContainsFunc(in.Culprits, func(c Culprit) bool {
		x, e := d.sums(list, &c, 0)
		return x > e*calmRatio+2*math.Sqrt(e)
	})
}

// sums are what the culprit's windows of scale k hold, and are expected to.
func (d *Detector) sums(list []*series, c *Culprit, k int) (x, e float64) {
	for _, s := range list {
		// A whole is its series' sum, except for what is not told apart.
		if s.whole == nil && s.crowd.Load() < 2 || !c.covers(s) {
			continue
		}
		x += float64(s.window[k].sum)
		e += d.expect(s, k)
	}
	return x, e * d.tide[k]
}

func (d *Detector) event(p Phase) Event {
	in := d.open.Incident
	in.Culprits = slices.Clone(in.Culprits)
	return Event{p, time.Unix(d.now, 0).UTC(), in}
}

func (d *Detector) start(list []*series, a verdictOn) *incident {
	culprits, confidence, excess := d.blame(list, a.scale)
	excess *= d.cost(list, nil)
	if a.fanout {
		culprits, confidence, excess = []Culprit{fanoutOf(a)}, 1, 0
	}
	if a.series != nil && !slices.ContainsFunc(culprits, func(c Culprit) bool { return c.covers(a.series) || c.Caller == a.series.caller || c.Caller == Any }) {
		// The table does not single it out; the alarm itself does.
		culprits = append(culprits, d.itself(list, a))
		confidence = 1 - math.Exp(-a.surprise)
		excess = max(excess, a.real-a.expected)
	}
	if len(culprits) == 0 || culprits[0].everybody() && (!d.total.shape.known() || a.scale > learnScale && d.total.shape.seen(d.now) == 0) {
		return nil // the first morning, the first Monday
	}
	d.next++
	window := parts * partSeconds[a.scale]
	in := &incident{measured: d.now, reviewed: d.now, seen: a.ratio, scale: a.scale, Incident: Incident{
		ID: d.next, Kind: kindOf(culprits), StartedAt: time.Unix(d.onset(a, window), 0).UTC(), DetectedAt: time.Unix(d.now, 0).UTC(),
		Factor: a.ratio, Excess: excess, Confidence: confidence, Culprits: culprits,
	}, slack: d.config.Slack}
	if a.fanout {
		in.Kind = FanOut
	}
	return in
}

func fanoutOf(a verdictOn) Culprit {
	s := a.series
	rate := float64(s.window[learnScale].sum) / windowSeconds(learnScale)
	return Culprit{Caller: s.caller, Event: s.event, Channel: s.channel, Share: 1, Rate: rate, Usual: rate}
}

// onset is the beginning of the first part of the window that is high.
func (d *Detector) onset(a verdictOn, window int64) int64 {
	w := &d.total
	if a.series != nil {
		w = &a.series.watch
	}
	win := &w.window[a.scale]
	start := d.now - window
	for i := range parts {
		n := win.part[(int(win.at)+1+i)%parts]
		if float64(n) > a.expected/parts*(1+(a.ratio-1)/2) {
			break
		}
		start += partSeconds[a.scale]
	}
	return min(start, d.now)
}

// itself blames the series that alarmed; for a caller as a whole, the one of
// its combinations that carries the excess, if there is one.
func (d *Detector) itself(list []*series, a verdictOn) Culprit {
	s := a.series
	for _, part := range list {
		if part.whole != a.series {
			continue
		}
		e := d.expect(part, a.scale) * d.tide[a.scale]
		if float64(part.window[a.scale].sum)-e > 0.9*(a.real-a.expected) {
			s = part
		}
	}
	seconds := float64(parts * partSeconds[a.scale])
	c := Culprit{Caller: s.caller, Event: s.event, Channel: s.channel, Share: 1, Rate: a.real / seconds, Usual: a.expected / seconds}
	if s.whole != nil {
		for _, wider := range []Culprit{{Event: Any, Channel: Any}, {Event: s.event, Channel: Any}, {Event: Any, Channel: s.channel}} {
			if wider.Caller = s.caller; d.alike(list, &wider, s, a) {
				c.Event, c.Channel = wider.Event, wider.Channel
				break
			}
		}
		d.widen(&c, list)
	}
	return c
}

// alike reports whether all that the wider name covers beside s has risen about
// as much, so that s is only the one that shows it best.
func (d *Detector) alike(list []*series, wider *Culprit, s *series, a verdictOn) bool {
	var x, e float64
	for _, o := range list {
		if o == s || o.whole == nil || !wider.covers(o) {
			continue
		}
		real, expected := float64(o.window[a.scale].sum), d.expect(o, a.scale)*d.tide[a.scale]
		if expected >= 50 && real < expected*(1+(a.ratio-1)/3) {
			return false
		}
		x, e = x+real, e+expected
	}
	return e >= 50 && x >= e*(1+(a.ratio-1)/2)
}

func kindOf(c []Culprit) Kind {
	if len(c) == 1 && c[0].everybody() {
		return Everybody
	}
	for _, c := range c {
		if len(c.Payloads) == 0 {
			return Runaway
		}
	}
	return Duplicates
}

// review names the culprits again from a longer window, and keeps those named
// before that are still high or did much of it.
func (d *Detector) review(list []*series, in *incident, fresh *verdictOn, age int64) bool {
	in.seen = in.Factor
	if in.Kind == FanOut {
		return false
	}
	k := min(in.scale, 1)
	for k < learnScale && parts*partSeconds[k+1] <= age+8 {
		k++
	}
	if fresh != nil {
		k = max(k, fresh.scale)
	}
	culprits, confidence, _ := d.blame(list, k)
	if in.scale > k {
		// What is slow shows in long windows only.
		more, sure, _ := d.blame(list, in.scale)
		for _, c := range more {
			if !slices.ContainsFunc(culprits, func(o Culprit) bool { return o.Caller == c.Caller || o.Caller == Any }) {
				culprits = append(culprits, c)
				confidence = min(confidence, sure)
			}
		}
	}
	if fresh != nil && !slices.ContainsFunc(culprits, func(c Culprit) bool {
		return c.covers(fresh.series) || c.Caller == fresh.series.caller || c.Caller == Any
	}) {
		culprits = append(culprits, d.itself(list, *fresh))
	}
	if len(culprits) == 0 {
		return false
	}
	var all float64
	for i := range in.Culprits {
		all += in.Culprits[i].excess
	}
	for _, o := range in.Culprits {
		if i := slices.IndexFunc(culprits, o.same); i >= 0 {
			culprits[i].excess = o.excess
			continue
		}
		// It has a better name now, or has calmed down. Who calmed down is
		// guilty all the same, unless it did next to nothing.
		if !slices.ContainsFunc(culprits, func(c Culprit) bool { return c.overlaps(&o) }) && o.excess > pettyPart*all && age >= int64(fullPatience/time.Second) {
			o.Share = min(o.Share, pettyPart)
			culprits = append(culprits, o)
		}
	}
	same := len(culprits) == len(in.Culprits)
	for i := range culprits {
		same = same && slices.ContainsFunc(in.Culprits, func(o Culprit) bool { return o.same(culprits[i]) })
	}
	in.Culprits, in.Confidence = culprits, confidence
	in.Kind = kindOf(in.Culprits)
	return !same
}

// pettyPart is the part of an incident's excess below which a culprit that has
// calmed down is forgotten.
const pettyPart = 0.05

func (c *Culprit) same(o Culprit) bool {
	return c.Caller == o.Caller && c.Event == o.Event && c.Channel == o.Channel
}

func (c *Culprit) overlaps(o *Culprit) bool {
	meet := func(a, b string) bool { return a == b || a == Any || b == Any }
	return meet(c.Caller, o.Caller) && meet(c.Event, o.Event) && meet(c.Channel, o.Channel)
}

// measure follows rate, factor and excess, and reports whether it is over.
func (d *Detector) measure(list []*series, in *incident) bool {
	calm, elapsed := true, float64(d.now-in.measured)
	if d.now-in.measured < partSeconds[1] {
		return false
	}
	in.measured = d.now
	k := 1
	seconds := float64(parts * partSeconds[k])
	everybody := in.Kind == Everybody
	if in.Kind == FanOut {
		return d.measurePrice(list, in, elapsed)
	}
	for _, s := range list {
		if s.frozen {
			s.top = max(s.top, float64(s.window[k].sum)/seconds)
		}
	}
	if everybody {
		k = learnScale
		e := d.expectAll(k)
		x := float64(d.total.window[k].sum)
		in.Factor = max(in.Factor, x/max(e, fewest))
		calm = x < e*1.5
		over := max(0, x-e) / windowSeconds(k) * elapsed
		in.publishes += over
		in.Excess += over * d.cost(list, nil)
	} else {
		for i := range in.Culprits {
			c := &in.Culprits[i]
			x, e := d.sums(list, c, k)
			c.Rate, c.Usual = x/seconds, e/seconds
			// New combinations have no usual rate; theirs is what is too
			// little to matter, and how many times more is said of the caller.
			least := d.config.MinShare * d.usual() * seconds
			if f, of := x, e; of < least/2 && c.Caller != Any {
				f, of = d.sums(list, &Culprit{Caller: c.Caller, Event: Any, Channel: Any}, k)
				in.Factor = max(in.Factor, f/max(of, least))
			} else {
				in.Factor = max(in.Factor, f/max(of, fewest))
			}
			e = max(e, fewest)
			if x > e*calmRatio+2*math.Sqrt(e) && x-e > least/2 && !in.petty(c) {
				calm = false
			}
			c.excess += max(0, x-e) / seconds * elapsed
			in.publishes += max(0, x-e) / seconds * elapsed
			in.Excess += max(0, x-e) / seconds * elapsed * d.cost(list, c)
		}
	}
	return d.calmed(in, calm)
}

// cost is what a publish that the culprit covers costs on average; nil is everybody.
func (d *Detector) cost(list []*series, c *Culprit) float64 {
	var n, m float64
	for _, s := range list {
		if s.whole != nil && (c == nil || c.covers(s)) {
			x := float64(s.window[learnScale].sum)
			n, m = n+x, m+x*s.price.mean()
		}
	}
	if n == 0 || m == 0 {
		return 1
	}
	return m / n
}

// calmed reports whether the incident has been calm for long enough.
func (d *Detector) calmed(in *incident, calm bool) bool {
	if !calm {
		in.calm = 0
		return false
	}
	if in.calm == 0 {
		in.calm = d.now
	}
	return d.now-in.calm >= calmSeconds
}

// measurePrice follows what the culprits' publishes cost.
func (d *Detector) measurePrice(list []*series, in *incident, elapsed float64) bool {
	calm := true
	for _, s := range list {
		if s.whole == nil || !s.frozen {
			continue
		}
		usual := s.price.mean()
		n, m := s.price.last(4)
		if n == 0 || usual == 0 {
			continue
		}
		in.Factor = max(in.Factor, m/n/usual)
		in.Excess += max(0, m-n*usual) / 60 * elapsed
		calm = calm && m < n*usual*calmRatio
	}
	return d.calmed(in, calm)
}
