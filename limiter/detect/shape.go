package detect

import (
	"math"
	"slices"
)

// shape is how a caller's rate goes through the week, by hour, around 1: for each
// hour of the day the median of the last days of its kind, weekdays or weekends. A
// median needs no verdict on what was wrong: an incident of one day is outvoted by
// the others, and what comes every day at that hour is usual from the second one on.
type shape struct {
	// ring holds the hours of the last days over the level of then; before a whole
	// day was seen they are rates. 0: not seen.
	ring [shapeDays][24]float32
	week [shapeDays]bool // whether that day was one of Monday to Friday
	next int             // the day that is being written
	kind [2][24]float32  // weekdays, weekends: what follows from the ring; 0: not known
	days [2]int32        // days seen, of each kind
	hour int64           // the hour of the last entry, since 1970

	sum     float64 // this hour's publishes
	seconds float64
	unit    float64 // what today's seconds so far hold at level 1

	unitAt [scales]int64 // for which second unitOf is worked out
	unitOf [scales]float64
}

// shapeDays is how many days a shape remembers: five weekdays and two weekends.
const shapeDays = 9

const (
	secondsHour = 3600
	secondsDay  = 24 * secondsHour
	secondsWeek = 7 * secondsDay
)

// mondayOffset makes hour 0 of the week Monday 00:00 UTC; 1970-01-01 was a
// Thursday.
const mondayOffset = 3 * secondsDay

func isWeekday(second int64) bool { return (second+mondayOffset)/secondsDay%7 < 5 }

// at is the shape at a second since 1970, linear between the middles of hours.
func (s *shape) at(second int64) float64 {
	if !s.known() {
		return 1
	}
	t := second - secondsHour/2
	part := float64(t%secondsHour) / secondsHour
	a, b := s.of(t), s.of(t+secondsHour)
	return a + (b-a)*part
}

// of is the value of the hour that the second is in: of its kind of day, or of the
// other kind while its own is not known.
func (s *shape) of(second int64) float64 {
	k := 0
	if !isWeekday(second) {
		k = 1
	}
	h := second / secondsHour % 24
	v := s.kind[k][h]
	if v == 0 {
		v = s.kind[1-k][h]
	}
	return max(float64(v), 0.02)
}

// seen is how many days of the kind of this one are known.
func (s *shape) seen(second int64) int32 {
	if isWeekday(second) {
		return s.days[0]
	}
	return s.days[1]
}

// known reports whether a whole day has been seen.
func (s *shape) known() bool { return s.days[0]+s.days[1] > 0 }

// turn goes on by so many seconds.
func (s *shape) turn(now int64, seconds float64) {
	s.seconds += seconds
	s.unit += s.at(now) * seconds
}

// endHour learns the hour that ends at second, for a caller of that level. It
// returns the mean rate of the first day when that is whole, else 0.
func (s *shape) endHour(second int64, level float64) (first float64) {
	rate, seconds := s.sum/max(s.seconds, 1), s.seconds
	s.sum, s.seconds = 0, 0
	at := second - 1
	h := at / secondsHour % 24
	if seconds < secondsHour/2 {
		return 0
	}
	s.hour = at / secondsHour
	day := &s.ring[s.next]
	if !s.known() {
		day[h] = max(float32(rate), 1e-6)
		if slices.Contains(day[:], 0) {
			return 0
		}
		// On whichever days its hours fell, they make one.
		s.week[s.next] = isWeekday(at)
		mean := 0.0
		for _, v := range day {
			mean += float64(v) / 24
		}
		mean = max(mean, 1e-6)
		for i := range day {
			day[i] /= float32(mean)
		}
		s.turnDay()
		return mean
	}
	if level > 0 {
		day[h] = max(float32(rate/level), 1e-6)
	}
	if h == 23 {
		s.week[s.next] = isWeekday(at)
		s.turnDay()
	}
	return 0
}

// turnDay takes a day up and begins the next one.
func (s *shape) turnDay() {
	s.next = (s.next + 1) % shapeDays
	s.ring[s.next] = [24]float32{}
	s.settle()
}

// settle works out the shape.
func (s *shape) settle() {
	s.days = [2]int32{}
	for d := range s.ring {
		if d != s.next && slices.ContainsFunc(s.ring[d][:], func(v float32) bool { return v > 0 }) {
			if s.week[d] {
				s.days[0]++
			} else {
				s.days[1]++
			}
		}
	}
	var v []float32
	for k := range s.kind {
		for h := range 24 {
			v = v[:0]
			for d := range s.ring {
				if d != s.next && s.week[d] == (k == 0) && s.ring[d][h] > 0 {
					v = append(v, s.ring[d][h])
				}
			}
			s.kind[k][h] = 0
			if len(v) > 0 {
				slices.Sort(v)
				s.kind[k][h] = v[len(v)/2] // of two the higher: what was seen may come again
			}
		}
	}
}

// spread is how far the same hour of other days of the kind was from the shape,
// relative to it, at its most usual: 1.5 times the median distance.
func (s *shape) spread(second int64) float64 {
	k, h := isWeekday(second), second/secondsHour%24
	of := s.of(second)
	var far []float64
	for d := range s.ring {
		if d != s.next && s.week[d] == k && s.ring[d][h] > 0 {
			far = append(far, math.Abs(float64(s.ring[d][h])/of-1))
		}
	}
	if len(far) < 2 {
		return unknownSpread
	}
	slices.Sort(far)
	return max(1.5*far[len(far)/2], unknownSpread/float64(len(far)))
}

// unknownSpread is taken for the relative spread of a day that was seen once.
const unknownSpread = 0.3
