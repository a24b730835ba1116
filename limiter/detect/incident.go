package detect

import (
	"cmp"
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
	// Excess counts the messages offered beyond the usual since StartedAt.
	Excess float64
	// Confidence that the culprits named explain the excess, 0 to 1.
	Confidence float64
	Culprits   []Culprit
}

// Culprit is a combination that makes a part of an excess. What does not
// matter, or is not one, is Any.
type Culprit struct {
	Caller, Event, Channel string
	// Payloads are the digests that are sent over and over, if any.
	Payloads []uint64
	// Share is the culprit's part of the excess, 0 to 1.
	Share float64
	// Rate and Usual are in messages a second.
	Rate, Usual float64
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
	calm     int64   // since when all culprits are calm, 0: they are not
	scale    int     // of the alarm
	reviewed int     // how many reviews of the culprits there were
	measured int64   // when the excess was last added to
	seen     float64 // the factor at the last review
	high     float64 // the highest excess a second
	excess   float64 // the present one
	released bool
	slack    float64
}

// How an incident ends, and when its culprits are looked at again, in seconds
// after it opened.
const (
	calmRatio   = 1.25
	calmSeconds = 300
	soonSeconds = 900 // a shorter incident was a burst
)

var reviews = []int64{8, 24, 60, 120, 300, 900}

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
		d.mark(list, false)
		return []Event{d.event(Opened)}
	}
	// A review is due when more of the incident has been seen, and when
	// somebody not yet named is alarming.
	age := d.now - in.DetectedAt.Unix()
	due := in.reviewed < len(reviews) && age >= reviews[in.reviewed]
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
		if due {
			in.reviewed++
		}
		if d.review(list, in, fresh, age) {
			d.mark(list, false)
			events = append(events, d.event(Updated))
		}
	}
	if done := d.measure(list, in); done {
		in.ResolvedAt = time.Unix(d.now, 0).UTC()
		events = append(events, d.event(Resolved))
		d.open = nil
		d.mark(list, in.calm-in.DetectedAt.Unix() < soonSeconds)
	} else {
		d.hold(list, in)
	}
	return events
}

func (d *Detector) event(p Phase) Event {
	in := d.open.Incident
	in.Culprits = slices.Clone(in.Culprits)
	return Event{p, time.Unix(d.now, 0).UTC(), in}
}

func (d *Detector) start(list []*series, a verdictOn) *incident {
	culprits, confidence, excess := d.blame(list, a.scale)
	if a.series != nil && !slices.ContainsFunc(culprits, func(c Culprit) bool { return c.covers(a.series) || c.Caller == a.series.caller || c.Caller == Any }) {
		// The table does not single it out; the alarm itself does.
		culprits = append(culprits, d.itself(list, a))
		confidence = 1 - math.Exp(-a.surprise)
		excess = max(excess, a.real-a.expected)
	}
	if len(culprits) == 0 {
		culprits = []Culprit{{Caller: Any, Event: Any, Channel: Any, Share: 1}}
	}
	d.next++
	window := parts * partSeconds[a.scale]
	in := &incident{measured: d.now, seen: a.ratio, scale: min(a.scale, learnScale), Incident: Incident{
		ID: d.next, Kind: kindOf(culprits), StartedAt: time.Unix(d.onset(a, window), 0).UTC(), DetectedAt: time.Unix(d.now, 0).UTC(),
		Factor: a.ratio, Excess: excess, Confidence: confidence, Culprits: culprits,
	}, slack: d.config.Slack}
	return in
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
		e := part.level * d.unit(part.shape, a.scale) * d.tide
		if float64(part.window[a.scale].sum)-e > 0.9*(a.real-a.expected) {
			s = part
		}
	}
	seconds := float64(parts * partSeconds[a.scale])
	return Culprit{Caller: s.caller, Event: s.event, Channel: s.channel, Share: 1, Rate: a.real / seconds, Usual: a.expected / seconds}
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

// blame asks Attribute which combinations explain the window's excess.
func (d *Detector) blame(list []*series, k int) ([]Culprit, float64, float64) {
	seconds := float64(parts * partSeconds[k])
	var names [3][]string
	codes := [3]map[string]int32{{}, {}, {}}
	code := func(a int, v string) int32 {
		c, ok := codes[a][v]
		if !ok {
			c = int32(len(names[a]))
			codes[a][v] = c
			names[a] = append(names[a], v)
		}
		return c
	}
	t := Table{Columns: make([][]int32, 4)}
	digests := []uint64{0}
	units := map[*shape]float64{}
	heavy := d.heavyPayloads()
	for _, s := range list {
		if s.whole == nil && s.window[k].sum == 0 {
			continue
		}
		u, ok := units[s.shape]
		if !ok {
			u = d.unit(s.shape, k) * d.tide * d.plannedFactor(s.caller)
			units[s.shape] = u
		}
		x, e := float64(s.window[k].sum), s.level*u
		if s.whole == nil {
			// A caller whose events are told apart is in the table by them.
			if s.crowd.Load() == 0 {
				continue
			}
			x, e = d.rest(list, s, k, x, e)
		}
		if x == 0 && e < 1 {
			continue
		}
		row := func(payload int32, x, e float64) {
			for a, v := range []string{s.caller, s.event, s.channel} {
				t.Columns[a] = append(t.Columns[a], code(a, v))
			}
			t.Columns[3] = append(t.Columns[3], payload)
			t.Real, t.Predicted = append(t.Real, x), append(t.Predicted, e)
		}
		for _, h := range heavy[s.id] {
			// Its part of the last minute is taken as its part of the window.
			n := x * h.part
			digests = append(digests, h.digest)
			row(int32(len(digests)-1), n, 0)
			x -= n
		}
		row(0, x, e)
	}
	causes := Attribute(t, Options{
		Counts: true, Dispersion: dispersion * 1.5, Variation: 0.15, MinDeviation: 0.25, MaxCauses: 8,
		MinExcess:    d.config.MinShare / 2 * d.total.level * seconds,
		NotEverybody: !d.manyRise(k),
	})
	var out []Culprit
	confidence, excess := 1.0, 0.0
	for _, c := range causes {
		for _, part := range byCaller(&t, &c) {
			cu := Culprit{Caller: Any, Event: Any, Channel: Any, Share: part.share}
			for a, dst := range []*string{&cu.Caller, &cu.Event, &cu.Channel} {
				if v := part.typical[a]; v >= 0 {
					*dst = names[a][v]
				}
			}
			if v := part.typical[3]; v > 0 {
				cu.Payloads = []uint64{digests[v]}
			}
			if i := slices.IndexFunc(out, cu.same); i >= 0 {
				out[i].Share += cu.Share
				out[i].Payloads = append(out[i].Payloads, cu.Payloads...)
			} else {
				out = append(out, cu)
			}
		}
		confidence *= c.Confidence
		excess += c.Deviation
	}
	for i := range out {
		for _, s := range list {
			if s.whole != nil && out[i].covers(s) {
				out[i].Rate += float64(s.window[k].sum) / seconds
				out[i].Usual += s.level * units[s.shape] / seconds
			}
		}
	}
	return out, confidence, excess
}

// manyRise reports whether most callers send clearly more than usual.
func (d *Detector) manyRise(k int) bool {
	measured, rise := 0, 0
	for _, c := range d.callers {
		if e := c.level * d.unit(c.shape, k) * d.tide; e >= 10 {
			measured++
			if float64(c.window[k].sum) > 1.4*e {
				rise++
			}
		}
	}
	all := d.total.level * d.unit(d.total.shape, k)
	return measured >= 3 && 3*rise >= 2*measured && float64(d.total.window[k].sum) > 1.8*all
}

// blamed is a cause, or the part of it that one caller has.
type blamed struct {
	typical []int32
	share   float64
}

// fewCallers is how many callers a cause that leaves the caller open is told
// apart by: a fault usually is in one program, and two that fail together are
// two to call.
const fewCallers = 3

func byCaller(t *Table, c *Cause) []blamed {
	whole := []blamed{{c.Typical, c.Share}}
	if c.Typical[0] >= 0 || !slices.ContainsFunc(c.Values, func(v int32) bool { return v >= 0 }) {
		return whole
	}
	per := map[int32]float64{}
	covered := func(i int) bool {
		for a, v := range c.Values {
			if v >= 0 && t.Columns[a][i] != v {
				return false
			}
		}
		return true
	}
	for i := range t.Real {
		if covered(i) {
			per[t.Columns[0][i]] += t.Real[i] - t.Predicted[i]
		}
	}
	var parts []blamed
	for caller, dev := range per {
		if dev < 0.02*c.Deviation {
			continue
		}
		one := Cause{Values: slices.Clone(c.Values)}
		one.Values[0] = caller
		var rows []int32
		for i := range t.Real {
			if covered(i) && t.Columns[0][i] == caller {
				rows = append(rows, int32(i))
			}
		}
		one.measure(*t, rows)
		parts = append(parts, blamed{one.Typical, c.Share * dev / c.Deviation})
	}
	if len(parts) > fewCallers {
		return whole
	}
	slices.SortFunc(parts, func(a, b blamed) int { return cmp.Compare(b.share, a.share) })
	return parts
}

// rest is what a caller's whole has beyond its series.
func (d *Detector) rest(list []*series, whole *series, k int, x, e float64) (float64, float64) {
	for _, s := range list {
		if s.whole == whole {
			x -= float64(s.window[k].sum)
			e -= s.level * d.unit(s.shape, k) * d.tide
		}
	}
	return max(0, x), max(0, e)
}

type heavyPart struct {
	digest uint64
	part   float64
}

// heavyPayloads are the payloads that make a fifth or more of their series'
// last minute.
func (d *Detector) heavyPayloads() map[int32][]heavyPart {
	list := d.rates.all()
	out := map[int32][]heavyPart{}
	for _, h := range d.payloads.list(16, 1-float64(d.now%60)/60) {
		if int(h.series) >= len(list) {
			continue
		}
		sure := float64(h.count - h.error)
		if all := float64(sum32(list[h.series].recent[:])); all > 0 && sure >= all/5 {
			out[h.series] = append(out[h.series], heavyPart{h.digest, min(sure/all, 1)})
		}
	}
	for id, hs := range out {
		all := 0.0
		for _, h := range hs {
			all += h.part
		}
		for i := range hs {
			hs[i].part /= max(all, 1)
		}
		slices.SortFunc(hs, func(a, b heavyPart) int { return cmp.Compare(b.part, a.part) })
		out[id] = hs
	}
	return out
}

func sum32(v []uint32) (sum uint64) {
	for _, n := range v {
		sum += uint64(n)
	}
	return sum
}

// review names the culprits again from a longer window, and keeps those named
// before that are still high.
func (d *Detector) review(list []*series, in *incident, fresh *verdictOn, age int64) bool {
	in.seen = in.Factor
	k := in.scale
	for k+1 < scales && parts*partSeconds[k+1] <= age+8 && k < learnScale {
		k++
	}
	if fresh != nil {
		k = fresh.scale
	}
	culprits, confidence, _ := d.blame(list, k)
	if fresh != nil && !slices.ContainsFunc(culprits, func(c Culprit) bool {
		return c.covers(fresh.series) || c.Caller == fresh.series.caller || c.Caller == Any
	}) {
		culprits = append(culprits, d.itself(list, *fresh))
	}
	if len(culprits) == 0 {
		return false
	}
	if in.excess < in.high/2 {
		// It is getting less: who calmed down is guilty all the same.
		known := len(in.Culprits)
		for _, c := range culprits {
			if !slices.ContainsFunc(in.Culprits, func(o Culprit) bool { return o.overlaps(&c) }) {
				in.Culprits = append(in.Culprits, c)
			}
		}
		if len(in.Culprits) == known {
			return false
		}
	} else {
		same := len(culprits) == len(in.Culprits)
		for i := range culprits {
			same = same && slices.ContainsFunc(in.Culprits, func(o Culprit) bool { return o.same(culprits[i]) })
		}
		in.Culprits, in.Confidence = culprits, confidence
		if same {
			return false
		}
	}
	in.Kind = kindOf(in.Culprits)
	return true
}

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
	before := in.Excess
	seconds := float64(parts * partSeconds[k])
	everybody := in.Kind == Everybody
	if everybody {
		k = learnScale
		e := d.total.level * d.unit(d.total.shape, k)
		x := float64(d.total.window[k].sum)
		in.Factor = max(in.Factor, x/max(e, fewest))
		calm = x < e*1.5
		in.Excess += max(0, x-e) / float64(parts*partSeconds[k]) * elapsed
	} else {
		units := map[*shape]float64{}
		for i := range in.Culprits {
			c := &in.Culprits[i]
			var x, e float64
			for _, s := range list {
				// A whole is its series' sum, except for what is not told apart.
				if s.whole == nil && s.crowd.Load() < 2 || !c.covers(s) {
					continue
				}
				u, ok := units[s.shape]
				if !ok {
					u = d.unit(s.shape, k)
					units[s.shape] = u
				}
				x += float64(s.window[k].sum)
				e += s.level * u
			}
			c.Rate, c.Usual = x/seconds, e/seconds
			e = max(e*d.tide, fewest)
			in.Factor = max(in.Factor, x/e)
			// New combinations have no usual rate; theirs is what is too
			// little to matter.
			least := d.config.MinShare * d.total.level * seconds
			if x > e*calmRatio && x-e > least/2 {
				calm = false
			}
			in.Excess += max(0, x-e) / seconds * elapsed
		}
	}
	in.excess = (in.Excess - before) / elapsed
	in.high = max(in.high, in.excess)
	if !calm {
		in.calm = 0
		return false
	}
	if in.calm == 0 {
		in.calm = d.now
	}
	return d.now-in.calm >= calmSeconds
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
			s.thaw(soon)
			if soon {
				s.shape.clean = true // it was part of the usual
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
	if in.released || in.Kind == Everybody {
		for _, s := range list {
			s.held.Store(0)
		}
		return
	}
	slack := in.slack
	if in.calm > 0 {
		slack *= math.Exp2(float64(d.now-in.calm) / 60)
	}
	// Even what was never seen before may show that it is alive.
	floor := max(0.1, d.config.MinShare*d.total.level/4)
	for _, s := range list {
		rate := 0.0
		for i := range in.Culprits {
			c := &in.Culprits[i]
			if !c.covers(s) {
				continue
			}
			u := s.shape.at(d.now)
			rate = max(rate, slack*max(s.level*u*d.tide, floor))
		}
		s.held.Store(math.Float64bits(rate))
	}
}

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
// again. They report whether that incident is open.
func (d *Detector) Release(id int) bool { return d.setReleased(id, true) }

// Contain undoes Release.
func (d *Detector) Contain(id int) bool { return d.setReleased(id, false) }

func (d *Detector) setReleased(id int, released bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil || d.open.ID != id {
		return false
	}
	d.open.released = released
	d.hold(d.rates.all(), d.open)
	return true
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
	for _, s := range list {
		if s.frozen && s.shape != nil {
			s.adopt(d.unit(s.shape, learnScale) * d.tide)
		}
	}
	d.total.adopt(d.unit(d.total.shape, learnScale))
	d.open = nil
	d.mark(list, false)
	return true
}
