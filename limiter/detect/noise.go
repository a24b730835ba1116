package detect

import (
	"math"
	"slices"
)

// model says how leaves scatter around their prediction when nothing is wrong
// with them, and how a set of leaves with one common cause looks.
type model interface {
	// leaf is one leaf's contribution to a set's statistic.
	leaf(real, predicted float64) stat
	// gain is the log Bayes factor of "these leaves share one deviation"
	// over "nothing is wrong with them", and the deviation fitted. It is
	// -Inf for a set that cannot be a cause, or whose gain is seen to be
	// below least without working it out.
	gain(s *stat, least float64) (float64, effect)
	// bound is not below the set's gain, and cheap.
	bound(s *stat) float64
	// under is the log likelihood ratio of the set under a deviation
	// fitted elsewhere, over nothing being wrong.
	under(*stat, *effect) float64
}

// effect is a fitted deviation.
type effect struct{ mean, spread, gone float64 }

// relative is the noise of forecasts of arbitrary positive measures: a leaf's
// real value and its prediction differ by a Gaussian relative error, on either
// side. A cause moves all of its leaves by one relative amount, with a small
// spread: the generalized ripple effect (Li et al., Squeeze, ISSRE 2019).
//
// The deviation of a leaf is u = (real-predicted)/max(real, predicted), with
// the sign of the change that is to be explained, so that the healthy
// deviations are symmetric around 0 and the side away from the change shows
// the noise alone, however much of the table is abnormal.
type relative struct {
	sign    float64
	noise   float64 // one standard deviation of the healthy relative error
	logGone float64 // log probability that a healthy leaf is entirely gone
	least   float64 // the smallest deviation that counts as a cause
}

// The places of a relative stat.
const (
	relLeaves = iota // leaves with 0 < |u| < 1
	relGone          // leaves with u = 1: nothing is left of the smaller side
	relSum           // of u
	relSquare        // of u²
	relNull          // of the log density of u when nothing is wrong
)

// densityFloor keeps one wild leaf from being worth more than about 20 nats:
// no forecast error is known to be Gaussian that far out.
const densityFloor = 1e-9

func newRelative(real, predicted []float64, sign, least float64) *relative {
	m := &relative{sign: sign}
	var other []float64
	for i := range real {
		if u := m.deviation(real[i], predicted[i]); u < 0 && u > -1 {
			other = append(other, -u)
		}
	}
	m.noise = max(medianNoise(other), 1e-4)
	m.logGone = math.Log(max(0.25*math.Erfc(1/m.noise/math.Sqrt2), densityFloor))
	m.least = max(least, m.noise*0.5)
	return m
}

func (m *relative) deviation(real, predicted float64) float64 {
	top := max(real, predicted)
	if top <= 0 {
		return math.NaN()
	}
	return m.sign * (real - predicted) / top
}

// medianNoise finds the standard deviation whose median |u| is that of the
// sample. |u| is |e| or |e|/(1+|e|), half of the time each, for a relative
// error e.
func medianNoise(u []float64) float64 {
	if len(u) == 0 {
		return 0
	}
	med := median(u)
	lo, hi := 0.0, 4.0
	for range 60 {
		s := (lo + hi) / 2
		cdf := 0.5*math.Erf(med/s/math.Sqrt2) + 0.5*math.Erf(med/(1-med)/s/math.Sqrt2)
		if cdf > 0.5 {
			lo = s
		} else {
			hi = s
		}
	}
	return lo
}

// median of values from 0 to 1: by counting first, so that only the values
// near it are sorted.
func median(u []float64) float64 {
	const bins = 1 << 12
	var count [bins]int32
	for _, x := range u {
		count[int(x*(bins-1))]++
	}
	rank, bin := len(u)/2, 0
	for ; rank >= int(count[bin]); bin++ {
		rank -= int(count[bin])
	}
	near := make([]float64, 0, count[bin])
	for _, x := range u {
		if int(x*(bins-1)) == bin {
			near = append(near, x)
		}
	}
	slices.Sort(near)
	return near[rank]
}

func (m *relative) leaf(real, predicted float64) stat {
	u := m.deviation(real, predicted)
	switch {
	case math.IsNaN(u) || math.Abs(u) > 1:
		return stat{}
	case u == 1:
		return stat{relGone: 1}
	}
	a := math.Abs(u)
	e := 1 / (1 - a)
	z1, z2 := a/m.noise, a*e/m.noise
	f := 0.5 * (math.Exp(-z1*z1/2) + math.Exp(-z2*z2/2)*e*e) / m.noise / math.Sqrt(2*math.Pi)
	return stat{relLeaves: 1, relSum: u, relSquare: u * u, relNull: math.Log(f + densityFloor)}
}

// spreads is the grid over which the spread within one cause is averaged.
var spreads = []float64{0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.14, 0.2, 0.3}

func (m *relative) gain(s *stat, least float64) (float64, effect) {
	n, gone := s[relLeaves], s[relGone]
	if n+gone == 0 {
		return math.Inf(-1), effect{}
	}
	if m.bound(s) < least {
		return math.Inf(-1), effect{}
	}
	null := s[relNull] + gone*m.logGone
	var mean, ss float64
	if n > 0 {
		mean = s[relSum] / n
		ss = max(0, s[relSquare]-n*mean*mean)
	}
	// How often a leaf is gone altogether: Beta(0.2, 0.8), nearly always or
	// nearly never.
	const alpha, beta = 0.2, 0.8
	ef := effect{mean: 1, spread: 0.1, gone: (gone + alpha) / (n + gone + 1)}
	g := lbeta(gone+alpha, n+beta) - lbeta(alpha, beta) - null
	if n == 0 {
		return g, ef
	}
	var sum, top float64
	top = math.Inf(-1)
	var lp [16]float64
	for i, sd := range spreads {
		lp[i] = -(n-1)/2*math.Log(2*math.Pi*sd*sd) - ss/(2*sd*sd)
		if lp[i] > top {
			top, ef.spread = lp[i], sd
		}
	}
	for i := range spreads {
		sum += math.Exp(lp[i] - top)
	}
	g += top + math.Log(sum/float64(len(spreads))) - 0.5*math.Log(n) - math.Log(1-m.least)
	ef.mean = mean
	ef.spread = math.Sqrt((ss + ef.spread*ef.spread) / n)
	return g, ef
}

// bound lets the mean and the spread be those that fit best, for nothing.
func (m *relative) bound(s *stat) float64 {
	n := s[relLeaves]
	b := -s[relNull] - s[relGone]*m.logGone
	if n == 0 {
		return b
	}
	if s[relSum] < n*m.least {
		return math.Inf(-1)
	}
	b++ // of the prior density of the mean
	if n == 1 {
		return b
	}
	mean := s[relSum] / n
	spread := max(s[relSquare]/n-mean*mean, spreads[0]*spreads[0])
	return b - (n-1)/2*(math.Log(2*math.Pi*spread)+1)
}

func (m *relative) under(s *stat, e *effect) float64 {
	n, gone := s[relLeaves], s[relGone]
	ll := -s[relNull] - gone*m.logGone
	if n > 0 {
		ll += n*math.Log1p(-e.gone) - n/2*math.Log(2*math.Pi*e.spread*e.spread)
		ll -= (s[relSquare] - 2*e.mean*s[relSum] + n*e.mean*e.mean) / (2 * e.spread * e.spread)
	}
	if gone > 0 {
		ll += gone * math.Log(e.gone)
	}
	return ll
}

func lbeta(a, b float64) float64 {
	x, _ := math.Lgamma(a)
	y, _ := math.Lgamma(b)
	z, _ := math.Lgamma(a + b)
	return x + y - z
}
