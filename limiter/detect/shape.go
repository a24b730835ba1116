package detect

import (
	"math"
	"slices"
)

// shape is how a caller's rate goes through the week, by hour, around 1:
// yesterday's shape from the second day on, then one shape for weekdays and
// one for weekends, and a part of each hour of the week's own. Together with
// the levels it is a multiplicative Holt-Winters model (Winters 1960), its
// seasons pooled: an hour seen once a week would be known too badly to tell
// half more from noise.
type shape struct {
	kind [2][24]float32 // weekdays, weekends; 0: not yet seen
	week [168]float32   // 0: not yet seen
	days [2]int32       // whole days seen, of each kind
	// The last hours' rates, learned only when they are lag hours old: by
	// then it is known whether they belonged to an incident, and no window
	// is judged by what it contains itself.
	recent  [24]float32 // 0: none
	sum     float64     // this hour's messages
	seconds float64
	clean   bool // no incident in this hour

	scale  float64       // what the last hour's end multiplied levels by
	unitAt [scales]int64 // for which second unitOf is worked out
	unitOf [scales]float64
}

// lag is how many hours after its end an hour is learned.
const lag = 20

// ownPart is the weight of an hour's own history beside its kind's.
const ownPart = 0.35

const (
	secondsHour = 3600
	secondsWeek = 168 * secondsHour
)

// mondayOffset makes hour 0 of the week Monday 00:00 UTC; 1970-01-01 was a
// Thursday.
const mondayOffset = 3 * 24 * secondsHour

// at is the shape at a second since 1970, linear between the middles of hours.
func (s *shape) at(second int64) float64 {
	t := second + mondayOffset - secondsHour/2
	hour := int((t/secondsHour)%168+168) % 168
	part := float64(t%secondsHour) / secondsHour
	a, b := s.hour(hour), s.hour((hour+1)%168)
	return a + (b-a)*part
}

// trough is the lower one of the two hours between whose middles the second is.
func (s *shape) trough(second int64) float64 {
	hour := int(((second+mondayOffset-secondsHour/2)/secondsHour%168 + 168) % 168)
	return min(s.hour(hour), s.hour((hour+1)%168))
}

func (s *shape) hour(h int) float64 {
	if !s.known() {
		return 1
	}
	v := s.ofKind(h)
	if w := s.week[h]; w > 0 {
		v = math.Pow(float64(w), ownPart) * math.Pow(v, 1-ownPart)
	}
	return max(v, 0.02)
}

// ofKind is the hour's value by its kind of day, or by the other kind while
// its own is not known.
func (s *shape) ofKind(h int) float64 {
	k := kindOfDay(h)
	if s.kind[k][h%24] == 0 {
		k = 1 - k
	}
	return float64(s.kind[k][h%24])
}

// kindOfDay is 0 for hours of Monday to Friday, 1 for the others.
func kindOfDay(h int) int {
	if h >= 5*24 {
		return 1
	}
	return 0
}

// seen is how many days of the kind of this one are known.
func (s *shape) seen(second int64) int32 {
	return s.days[kindOfDay(int((second+mondayOffset)/secondsHour%168))]
}

// known reports whether a whole day has been seen.
func (s *shape) known() bool { return s.days[0]+s.days[1] > 0 }

// endHour learns the hour that ends at second, for a caller of that level. It
// returns by what the levels of all that has this shape are to be multiplied.
func (s *shape) endHour(second int64, level float64) float64 {
	rate, seconds := s.sum/max(s.seconds, 1), s.seconds
	if !s.clean {
		rate = min(rate, level*s.at(second-secondsHour/2)) // the excess is not learned
	}
	s.sum, s.seconds, s.clean = 0, 0, true
	h := int((second+mondayOffset-1)/secondsHour%168+168) % 168
	if !s.known() {
		if seconds < secondsHour/2 || level <= 0 {
			return 1
		}
		// The first day's hours are rates until it is whole; on whichever
		// days they fell, they make one kind.
		s.kind[0][h%24] = max(float32(rate), 1e-6)
		if slices.Contains(s.kind[0][:], 0) {
			return 1
		}
		k := kindOfDay(h)
		if k == 1 {
			s.kind[0], s.kind[1] = s.kind[1], s.kind[0]
		}
		s.days[k] = 1
		return s.normalize() / level
	}
	s.recent[h%24] = 0
	if seconds >= secondsHour/2 && level > 0 {
		s.recent[h%24] = max(float32(rate/level), 1e-6)
	}
	return s.learn((h + 168 - lag) % 168)
}

// learn takes up hour h of the week, which is lag hours old.
func (s *shape) learn(h int) float64 {
	k := kindOfDay(h)
	old := &s.kind[k][h%24]
	v := s.recent[h%24]
	s.recent[h%24] = 0
	if v > 0 {
		s.learnOne(h, old, v)
	}
	if h%24 < 23 {
		return 1
	}
	s.days[k]++
	mean := s.normalize()
	for i := range s.recent {
		s.recent[i] /= float32(mean)
	}
	return mean
}

func (s *shape) learnOne(h int, old *float32, v float32) {
	k := kindOfDay(h)
	if *old == 0 {
		*old = max(v, float32(s.ofKind(h))/3)
	} else {
		*old = learnHour(*old, v, max(0.15, 1/float32(s.days[k]+1)))
	}
	if s.week[h] == 0 {
		s.week[h] = max(v, *old/2)
	} else {
		s.week[h] = learnHour(s.week[h], v, 0.4)
	}
}

// learnHour moves an hour's value towards the last one seen. An outage is not
// a habit: what is missing is believed slowly.
func learnHour(old, v, gain float32) float32 {
	if v < old/2 {
		gain /= 4
	}
	return old + (v-old)*gain
}

// normalize makes the mean of a weekday 1 and returns what it was.
func (s *shape) normalize() float64 {
	k := 0
	if s.days[0] == 0 {
		k = 1
	}
	var sum float32
	for _, v := range s.kind[k] {
		sum += v
	}
	mean := sum / 24
	for k := range s.kind {
		for h := range s.kind[k] {
			s.kind[k][h] /= mean
		}
	}
	for h := range s.week {
		s.week[h] /= mean
	}
	return float64(mean)
}
