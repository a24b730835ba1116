package detect

import (
	"cmp"
	"math"
	"slices"
)

// blame says which combinations make the excess of the windows of scale k.
//
// It asks each caller by itself: a fault is in one program nearly always, and
// two that fail together are two to call; beside its own baseline a small
// culprit is seen next to a great one, and one caller's weather is not taken
// for another's. Within a caller, Attribute finds the shortest combinations.
// Only when more than fewCallers have the same event or channel for their
// cause is that the answer; and when nearly all callers rise, it is everybody.
func (d *Detector) blame(list []*series, k int) (culprits []Culprit, confidence, excess float64) {
	seconds := float64(parts * partSeconds[k])
	if d.manyRise(k) {
		x, e := float64(d.total.window[k].sum), d.expectAll(k)
		return []Culprit{{Caller: Any, Event: Any, Channel: Any, Share: 1, Rate: x / seconds, Usual: e / seconds}}, 1, x - e
	}
	least := d.config.MinShare / 2 * d.usual() * seconds
	heavy := d.heavyPayloads()
	by := map[string][]*series{}
	for _, s := range list {
		if s.whole != nil || s.crowd.Load() > 0 {
			by[s.caller] = append(by[s.caller], s)
		}
	}
	price := math.Log(float64(len(d.callers))) + surePrice
	confidence = 1
	var total float64
	for _, c := range d.callers {
		if c.learned < 3 && float64(c.window[k].sum)-d.lacking(list, c, k, nil) < newCallerShare*d.usual()*seconds {
			continue // a new caller of modest size is none, nor is one that took another's place
		}
		for _, b := range d.blameCaller(c, by[c.caller], k, least, price, heavy) {
			b.culprit.Share = b.deviation
			culprits = append(culprits, b.culprit)
			total += b.deviation
			confidence *= b.confidence
		}
	}
	if more := d.crowd(culprits, list, k); len(more) > 0 {
		for _, c := range more {
			total += c.Share
		}
		culprits = append(culprits, more...)
	}
	excess = total
	if c, ok := common(culprits); ok {
		culprits = []Culprit{c}
	}
	all := max(total, float64(d.total.window[k].sum)-d.expectAll(k)*d.tide[k])
	for i := range culprits {
		culprits[i].Share = min(1, max(0, culprits[i].Share/all))
		for _, s := range list {
			if s.whole != nil && culprits[i].covers(s) {
				culprits[i].Rate += float64(s.window[k].sum) / seconds
				culprits[i].Usual += d.expect(s, k) * d.tide[k] / seconds
			}
		}
	}
	slices.SortStableFunc(culprits, func(a, b Culprit) int { return cmp.Compare(b.Share, a.Share) })
	return culprits, confidence, excess
}

// crowd finds who takes part in a rise of many: once some are named, or the account
// has risen as a whole, another one needs less to be taken for one of them. It is named as a
// whole.
func (d *Detector) crowd(named []Culprit, list []*series, k int) (more []Culprit) {
	known := map[string]bool{}
	for _, c := range named {
		known[c.Caller] = true
	}
	var x, e float64
	for _, c := range d.callers {
		if known[c.caller] {
			x, e = x+float64(c.window[k].sum), e+d.expect(c, k)*d.tide[k]
		}
	}
	if len(known) < fewCallers { // nobody stands out
		x, e = float64(d.total.window[k].sum), d.expectAll(k)*d.tide[k]
		if x < crowdRatio*e {
			return nil
		}
	}
	f := x / max(e, fewest)
	for _, c := range d.callers {
		real, expected := float64(c.window[k].sum), d.expect(c, k)*d.tide[k]
		if known[c.caller] || f < 1.5 || real < expected*(1+(min(f, 4)-1)/2) || real-expected < 2*math.Sqrt(c.dispersion(min(k, learnScale))*max(expected, 1)) {
			continue
		}
		cu := Culprit{Caller: c.caller, Event: Any, Channel: Any, Share: real - expected}
		// Where all it sends is of one event or on one channel, that is known, too.
		first := true
		for _, s := range list {
			if s.whole != c || s.window[k].sum == 0 {
				continue
			}
			if first {
				cu.Event, cu.Channel, first = s.event, s.channel, false
			}
			if s.event != cu.Event {
				cu.Event = Any
			}
			if s.channel != cu.Channel {
				cu.Channel = Any
			}
		}
		more = append(more, cu)
	}
	if len(named)+len(more) <= fewCallers {
		return nil
	}
	return more
}

// surePrice is how many nats more than by chance among the callers a caller's
// cause must be worth.
const surePrice = 5

// blamed is a cause within one caller.
type blamed struct {
	culprit               Culprit
	deviation, confidence float64
}

func (d *Detector) blameCaller(c *series, list []*series, k int, least, price float64, heavy map[int32][]heavyPart) []blamed {
	t := Table{Columns: make([][]int32, 3)}
	var names [2][]string
	code := func(a int, v string) int32 {
		i := slices.Index(names[a], v)
		if i < 0 {
			i = len(names[a])
			names[a] = append(names[a], v)
		}
		return int32(i)
	}
	digests := []uint64{0}
	planned := d.tide[k] * d.plannedFactor(c.caller, parts*partSeconds[k])
	lacking := d.lacking(list, nil, k, c) // what new combinations may have taken over
	rise := 0.0
	for _, s := range list {
		x, e := float64(s.window[k].sum), d.expect(s, k)*planned
		if s.whole == nil {
			x, e = d.rest(list, s, k, x, e, planned)
		}
		if x == 0 && e < 1 {
			continue
		}
		if s.whole != nil && s.learned < fewKnown && x > e && lacking > 0 {
			took := min(x-e, lacking)
			e, lacking = e+took, lacking-took
		}
		rise += max(0, x-e)
		row := func(payload int32, x, e float64) {
			t.Columns[0] = append(t.Columns[0], code(0, s.event))
			t.Columns[1] = append(t.Columns[1], code(1, s.channel))
			t.Columns[2] = append(t.Columns[2], payload)
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
	if rise < least {
		return nil
	}
	causes := Attribute(t, Options{
		Counts: true, Dispersion: float64(c.window[k].dispersion) * 1.5, Variation: 0.15, MinDeviation: 0.25, MaxCauses: 8, MinExcess: least, Price: price,
	})
	var out []blamed
	for _, cause := range causes {
		b := blamed{Culprit{Caller: c.caller, Event: Any, Channel: Any}, cause.Deviation, cause.Confidence}
		for a, dst := range []*string{&b.culprit.Event, &b.culprit.Channel} {
			if v := cause.Typical[a]; v >= 0 {
				*dst = names[a][v]
			}
		}
		if v := cause.Typical[2]; v > 0 {
			b.culprit.Payloads = []uint64{digests[v]}
		}
		if k < learnScale && !d.lasts(&b.culprit, list, cause.Deviation) {
			continue
		}
		if len(b.culprit.Payloads) == 0 {
			d.widen(&b.culprit, list)
		}
		if i := slices.IndexFunc(out, func(o blamed) bool { return o.culprit.same(b.culprit) }); i >= 0 {
			out[i].deviation += b.deviation
			out[i].culprit.Payloads = append(out[i].culprit.Payloads, b.culprit.Payloads...)
		} else {
			out = append(out, b)
		}
	}
	if len(out) > fewCallers {
		all := blamed{confidence: 1}
		var list []Culprit
		for _, b := range out {
			list = append(list, b.culprit)
			all.deviation += b.deviation
			all.confidence = min(all.confidence, b.confidence)
		}
		all.culprit = shared(list)
		out = []blamed{all}
	}
	return out
}

// wideSure is how many nats the traffic beside a combination must speak for a
// wider name.
const wideSure = 1.5

// widen gives a culprit the wider name, if the longest windows say that what
// the wider one covers beside it has risen just as much. A small rise of a whole
// caller passes the mark first where a burst comes on top of it, and in a short
// window the rest is not yet surer than chance.
func (d *Detector) widen(c *Culprit, list []*series) {
	for _, wide := range [...]Culprit{{Caller: c.Caller, Event: Any, Channel: Any}, {Caller: c.Caller, Event: c.Event, Channel: Any}, {Caller: c.Caller, Event: Any, Channel: c.Channel}} {
		if wide.same(*c) || c.Event == Any && wide.Event != Any || c.Channel == Any && wide.Channel != Any {
			continue
		}
		most, from := 0.0, learnScale
		if d.total.level > 0 {
			from++ // what it did in the last minutes may be in what is expected of the shorter
		}
		for k := from; k < scales; k++ {
			if g := d.speaksFor(&wide, c, list, k); math.Abs(g) > math.Abs(most) {
				most = g
			}
		}
		if most >= wideSure {
			c.Event, c.Channel = wide.Event, wide.Channel
			return
		}
	}
}

// speaksFor is the log likelihood ratio, in nats, of what the wider name covers
// beside the narrower one having risen by the same factor as that has, over its
// not having risen, in the windows of scale k; 0 where the narrower has
// not risen itself.
func (d *Detector) speaksFor(wide, narrow *Culprit, list []*series, k int) float64 {
	var x, e, restX, restE, squares float64
	for _, s := range list {
		if s.whole == nil || !wide.covers(s) {
			continue
		}
		real, expected := float64(s.window[k].sum), d.expect(s, k)*d.tide[k]
		if narrow.covers(s) {
			x, e = x+real, e+expected
		} else {
			restX, restE = restX+real, restE+expected
			squares += expected * expected
		}
	}
	f := x / max(e, fewest)
	if f < 1.2 || x-e < 3*math.Sqrt(e) || restE < 8 {
		return 0
	}
	f = min(f, 3) // of what is far above, three times is enough to tell
	width := priorDispersion + 0.015*squares/restE
	return (restX*math.Log(f) - (f-1)*restE) / width
}

// lasts reports whether a short window's excess is more than what a pause held
// back.
func (d *Detector) lasts(c *Culprit, list []*series, excess float64) bool {
	return d.sinceAPause(list, func(s *series) bool { return s.whole != nil && c.covers(s) }) >= 0.6*excess
}

// fewCallers is how many callers that fail alike are named one by one, and of
// one caller how many combinations.
const fewCallers = 3

// common is the event, channel pattern or both that all culprits share, if
// they are of many callers.
func common(list []Culprit) (Culprit, bool) {
	callers := map[string]bool{}
	for _, c := range list {
		callers[c.Caller] = true
	}
	if len(callers) <= fewCallers {
		return Culprit{}, false
	}
	c := shared(list)
	return c, c.Event != Any || c.Channel != Any
}

// shared is what all of them have in common.
func shared(list []Culprit) Culprit {
	c := list[0]
	c.Payloads, c.Callers, c.Share = nil, nil, 0
	for _, o := range list {
		if o.Caller != c.Caller {
			c.Caller = Any
		}
		if o.Event != c.Event {
			c.Event = Any
		}
		if o.Channel != c.Channel {
			c.Channel = Any
		}
		c.Share += o.Share
		if !slices.Contains(c.Callers, o.Caller) {
			c.Callers = append(c.Callers, o.Caller)
		}
	}
	if c.Caller != Any {
		c.Callers = nil
	}
	return c
}

// manyRise reports whether nearly all callers send clearly more than usual.
func (d *Detector) manyRise(k int) bool {
	measured, rise := 0, 0
	for _, c := range d.callers {
		if e := d.expect(c, k); e >= 10 {
			measured++
			if float64(c.window[k].sum) > 1.25*e {
				rise++
			}
		}
	}
	return measured >= 3 && float64(rise) >= 0.85*float64(measured) && float64(d.total.window[k].sum) > 1.8*d.expectAll(k)
}

// rest is what a caller's whole has beyond its series.
func (d *Detector) rest(list []*series, whole *series, k int, x, e, planned float64) (float64, float64) {
	for _, s := range list {
		if s.whole == whole {
			x -= float64(s.window[k].sum)
			e -= d.expect(s, k) * planned
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
	payloads, shared := d.allPayloads()
	for _, h := range payloads {
		if h.count-h.error < 16 || int(h.series) >= len(list) {
			continue
		}
		sure := float64(h.count - h.error)
		all := float64(sum32(list[h.series].recent[:]))
		if !shared { // the other replicas' payloads are not known, their other counts may be
			all *= list[h.series].partHere()
		}
		if all > 0 && sure >= all/5 {
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
