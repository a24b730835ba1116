package detect

import (
	"math"
	"slices"
)

// Two things tell what a series should send now: what it did in the last two hours
// (local), and what it does at that hour of that kind of day (profile), once that is
// known. A sudden rise must be one over both, so that who comes back from a pause, or
// has an hour that it has every day, is as usual; a slow one is seen only by the profile.

// local is the rate of the last ten minutes but for the newest two and a half, or
// of the last two hours, whichever is higher; 0 where too little was seen. The first is a
// mean without the highest and the lowest part, the second a median, so that neither a
// pause nor a burst is taken for the usual.
func (w *watch) local(now int64) float64 {
	if w.localAt == now/localEvery {
		return w.localOf
	}
	const skip = 2
	win := &w.window[learnScale+1]
	whole := min(parts-int(win.torn), int((now-w.born)/partSeconds[learnScale+1]))
	rate := 0.0
	if n := whole - skip; n >= 2 {
		part := make([]float64, 0, parts)
		sum := 0.0
		for i := skip; i < whole; i++ {
			part = append(part, win.ago(i))
			sum += win.ago(i)
		}
		if n >= 5 {
			sum -= slices.Max(part) + slices.Min(part)
			n -= 2
		}
		rate = sum / float64(n) / float64(partSeconds[learnScale+1])
	}
	long := &w.window[scales-1]
	whole = min(parts-int(long.torn), int((now-w.born)/partSeconds[scales-1]))
	if n := whole - 1; n >= 3 {
		part := make([]float64, 0, parts)
		for i := 1; i < whole; i++ {
			part = append(part, long.ago(i))
		}
		slices.Sort(part)
		rate = max(rate, (part[(n-1)/2]+part[n/2])/2/float64(partSeconds[scales-1]))
	}
	w.localAt, w.localOf = now/localEvery, rate
	return rate
}

// localEvery is how often it is worked out, in seconds: its parts are longer.
const localEvery = 15

// rate is what the series should send a second, now.
func (d *Detector) rate(w *watch) float64 {
	r := w.base
	if !w.frozen {
		r = w.local(d.now)
		if d.now < w.adoptedUntil {
			r = max(r, w.adopted)
		}
	}
	if w.level > 0 && w.shape.known() {
		r = max(r, w.level*w.shape.at(d.now))
	}
	return r
}

// expect is what the series' window of scale k should hold: by its local rate and
// its profile in the short windows, by its profile alone in the long ones, but for the common
// mode. A known episode of the series is part of it.
func (d *Detector) expect(s *series, k int) float64 {
	e := 0.0
	if k <= learnScale {
		e = d.rate(&s.watch) * windowSeconds(k)
	} else if s.level > 0 && s.shape.known() {
		e = s.level * d.unit(s.shape, k)
	} else {
		e = d.rate(&s.watch) * windowSeconds(k)
	}
	return max(e, s.due*dueSlack*windowSeconds(k))
}

// expectAll is expect of the whole account.
func (d *Detector) expectAll(k int) (e float64) {
	for _, c := range d.callers {
		e += d.expect(c, k)
	}
	return e
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

// usual is the account's mean rate, publishes a second.
func (d *Detector) usual() float64 {
	if d.usualAt != d.now {
		d.usualAt = d.now
		d.usualOf = 0
		for _, c := range d.callers {
			if c.level > 0 {
				d.usualOf += c.level
			} else {
				d.usualOf += max(d.rate(&c.watch), c.total/max(float64(d.now-c.born), secondsHour))
			}
		}
	}
	return d.usualOf
}

// mode is by how much everybody sends more than by the profile, at a long scale: the
// median of the callers' ratios, weighed by what they are expected to send, where none
// has more than three tenths of the say. It stands in for days that no shape knows, and
// one who runs away cannot make it. Of two callers it is what both have risen by.
func (d *Detector) mode(k int) float64 {
	type voice struct{ ratio, weight float64 }
	var voices []voice
	all := 0.0
	for _, c := range d.callers {
		if e := d.expect(c, k); c.level > 0 && e >= 10 && c.window[k].torn == 0 {
			voices = append(voices, voice{float64(c.window[k].sum) / e, e})
			all += e
		}
	}
	switch len(voices) {
	case 0, 1:
		return 1
	case 2:
		return min(voices[0].ratio, voices[1].ratio)
	}
	slices.SortFunc(voices, func(a, b voice) int { return cmpFloat(a.ratio, b.ratio) })
	sum := 0.0
	for i := range voices {
		voices[i].weight = min(voices[i].weight, 0.3*all)
		sum += voices[i].weight
	}
	half := 0.0
	for _, v := range voices {
		if half += v.weight; half >= sum/2 {
			return v.ratio
		}
	}
	return 1
}

func cmpFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// turnMode measures the common mode of a long scale.
func (d *Detector) turnMode(k int) {
	m := d.mode(k)
	d.tide[k] = max(1, m)
}

// unsure is the relative variance of what is expected of the series at scale k.
func (d *Detector) unsure(s *series, k int) float64 {
	if k <= learnScale {
		// It is measured over some minutes of the series itself.
		return s.dispersion(k) / (d.rate(&s.watch)*localSeconds + 1)
	}
	if s.window[k].samples > manySamples {
		return 0 // its dispersion has that in it
	}
	f := s.shape.spread(d.now)
	return f * f
}

const (
	localSeconds = 400 // of which a local rate is the mean
	manySamples  = 64
)

// lacking is what the account's other series lack at scale k: what one of them sends
// more may be what was led there, or is called otherwise now.
func (d *Detector) lacking(list []*series, but *series, k int, within *series) (n float64) {
	for _, s := range list {
		if s.whole == nil != (within == nil) || within != nil && s.whole != within || s == but || s.due > 0 {
			continue
		}
		e := d.expect(s, k)
		if k > learnScale {
			e *= d.tide[k]
		}
		// What a series did a quarter of an hour ago it may have left since.
		if x := float64(s.window[k].sum); x < 0.75*e && e-x > 3*math.Sqrt(e) {
			n += e - x
		}
	}
	return n
}
