package detect

// habit is how a series goes through the hour: a job on the hour, or every
// quarter of one, sends in seconds what its mean rate would take the hour
// for. It is the third factor beside level and shape of the week, and is used
// only for a series that has shown it: most traffic knows no minute of the
// hour, and a profile learned from its noise would be worse than none.
type habit struct {
	part  [habitBins]float32 // the last hours' mean share of the hour, times the bins: 1 is flat
	now   [habitBins]uint32  // this hour
	hours int32              // learned from so many
	used  bool               // the series is periodic: its expectation is by the minute
	miss  int32              // hours in a row that did not keep to it
	young bool               // this hour is not whole
	spoil bool               // this hour had an incident of the series

	unitAt [scales]int64 // for which second unitOf is worked out
	unitOf [scales]float64
}

const (
	habitSeconds = 10
	habitBins    = secondsHour / habitSeconds
	// maxHabits bounds the series that are looked at: the greatest by rate
	// are enough, as nobody else's burst is worth an incident.
	maxHabits = 256
)

func habitBin(second int64) int { return int(second % secondsHour / habitSeconds) }

// count adds n messages of the seconds (from, to].
func (h *habit) count(n, from, to int64) {
	first, last := from/habitSeconds, (to-1)/habitSeconds
	m := min(last-first+1, habitBins)
	if m <= 1 {
		h.now[habitBin(to-1)] += uint32(n)
		return
	}
	for i := range m {
		share := uint32((i+1)*n/m - i*n/m)
		h.now[int((last-i)%habitBins)] += share
	}
}

// wide is the share of the hour at a bin or its neighbours, whichever is
// highest: a job does not start to the second.
func (h *habit) wide(bin int) float64 {
	return float64(max(h.part[bin], h.part[(bin+1)%habitBins], h.part[(bin+habitBins-1)%habitBins]))
}

// A series is periodic when bins that had several times their share before,
// a small part of the hour, have much of the present hour's messages.
const (
	habitPeak  = 4.0
	habitShare = 0.3
	habitMost  = 0.2 // of the hour: how much such bins may be
)

// endHour ends the hour and learns from it, unless it was spoiled by an
// incident. It returns the hour's messages, and whether they are to be taken
// into the level.
func (h *habit) endHour() (sum float64, whole bool) {
	hits, mask := 0.0, 0.0
	for b, n := range h.now {
		sum += float64(n)
		if h.wide(b) >= habitPeak {
			hits += float64(n)
			mask++
		}
	}
	defer func() { clear(h.now[:]); h.young, h.spoil = false, false }()
	if h.spoil || h.young || sum < 8 {
		return sum, false
	}
	mask /= habitBins
	if h.hours >= 1 {
		more := hits - mask*sum
		fits := mask > 0 && mask <= habitMost && hits >= habitShare*sum && more*more > 25*mask*sum
		switch {
		case fits:
			h.used, h.miss = true, 0
		case h.used:
			if h.miss++; h.miss > 24 {
				h.used = false
			}
		}
	}
	h.hours++
	gain := max(1/float32(h.hours), 0.15)
	for b, n := range h.now {
		h.part[b] += (float32(float64(n)/sum*habitBins) - h.part[b]) * gain
	}
	return sum, true
}

// unit is what the seconds (from, to] hold at level 1: the shape of the week
// times that of the hour, each bin with its neighbours' highest if wide.
func (h *habit) unit(s *shape, from, to int64, wide bool) (sum float64) {
	for at := from; at < to; {
		end := min(to, (at/habitSeconds+1)*habitSeconds)
		b := habitBin(at)
		v := float64(h.part[b])
		if wide {
			v = h.wide(b)
		}
		if v > 0 {
			sum += v * s.at(at) * float64(end-at)
		}
		at = end
	}
	return sum
}

// habitual reports whether the series is periodic.
func (s *series) habitual() bool { return s.habit != nil && s.habit.used }

// endHabits ends the hour of all that have a habit, or may have one.
func (d *Detector) endHabits(to int64) {
	d.habits = d.habits[:0]
	for _, s := range d.watched {
		before := s.habit.used
		sum, learn := s.habit.endHour()
		sh := d.habitShape(s)
		mean := sum / secondsHour / max(sh.at(to-secondsHour/2), 0.02)
		switch after := s.habit.used; {
		case after && !before:
			s.whole.leave(s.level, sum/secondsHour)
			d.total.leave(s.level, sum/secondsHour)
			s.level = mean
			s.afresh()
			s.whole.afresh()
		case before && !after:
			s.whole.level += s.level
			d.total.level += s.level
		case after && learn:
			s.level *= 1 + 0.1*(min(max(mean/max(s.level, 1e-9), 0.5), 1.5)-1)
		}
		if s.habit.used {
			d.habits = append(d.habits, s)
		}
	}
	for _, c := range d.callers {
		c.jobs = c.jobs[:0]
	}
	for _, s := range d.habits {
		s.whole.jobs = append(s.whole.jobs, s)
	}
}

// leave takes a part that turned out to be periodic out of what is learned of
// the whole: so much of the level, and that rate of each hour.
func (w *watch) leave(level, rate float64) {
	w.level = max(0, w.level-level)
	clear(w.shape.recent[:])
	if !w.shape.known() { // its hours are rates still
		for h, v := range w.shape.kind[0] {
			if v > 0 {
				w.shape.kind[0][h] = max(v-float32(rate), 1e-6)
			}
		}
	}
}

// habitShape is the caller's shape of the week, or the account's: a caller
// that has nothing but jobs shows none of its own.
func (d *Detector) habitShape(s *series) *shape {
	if s.shape.known() || !d.total.shape.known() {
		return s.shape
	}
	return d.total.shape
}

// habitUnit is what a window of scale k that ends now holds at level 1 of a
// periodic series.
func (d *Detector) habitUnit(s *series, k int) float64 {
	h := s.habit
	if h.unitAt[k] != d.now {
		h.unitAt[k] = d.now
		h.unitOf[k] = h.unit(d.habitShape(s), d.now-parts*partSeconds[k], d.now, k <= learnScale)
	}
	return h.unitOf[k]
}

// watchHabit begins to look for a habit in the series, if there is room.
func (d *Detector) watchHabit(s *series) {
	if s.whole == nil || s.habit != nil {
		return
	}
	if len(d.watched) >= maxHabits {
		// The one that sends least makes room, if it sends less.
		least := 0
		for i, o := range d.watched {
			if o.level < d.watched[least].level {
				least = i
			}
		}
		o := d.watched[least]
		if o.habitual() || o.level >= s.level {
			return
		}
		o.habit = nil
		d.watched[least] = s
	} else {
		d.watched = append(d.watched, s)
	}
	s.habit = &habit{young: (d.now-1)%secondsHour > 2*60}
}
