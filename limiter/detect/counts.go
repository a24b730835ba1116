package detect

import "math"

// counts is the noise of things that are counted: a healthy leaf scatters
// around its prediction with variance dispersion·mean + (variation·mean)², the
// negative binomial's shape, and a third of the variation is common to all
// leaves of a set; a cause multiplies the rate of all its leaves by one factor
// above 1. The likelihoods are Poisson's, divided by how much wider than
// Poisson the set scatters (quasi-likelihood; Wedderburn 1974).
type counts struct {
	dispersion, variation float64
	least                 float64 // smallest relative rise that is a cause
	leastExcess           float64 // smallest absolute rise that is a cause
}

// The places of a counts stat.
const (
	countLeaves = iota // leaves something was expected of
	countFresh         // leaves nothing was expected of
	countReal
	countPredicted
	countSquare // of predicted, summed
)

// fewest stands for the expectation of what was never seen.
const fewest = 0.5

// factorRange is the width of the flat prior of the log factor: up to 1,000.
var factorRange = math.Log(1000)

func (m *counts) leaf(real, predicted float64) stat {
	if real <= 0 && predicted <= 0 {
		return stat{}
	}
	s := stat{countReal: real, countPredicted: predicted, countSquare: predicted * predicted}
	if predicted > 0 {
		s[countLeaves] = 1
	} else {
		s[countFresh] = 1
	}
	return s
}

// width is the variance of the set's count over its mean.
func (m *counts) width(s *stat) float64 {
	p := max(s[countPredicted], fewest)
	return m.dispersion + m.variation*m.variation*(s[countSquare]/p+p/9)
}

func (m *counts) bound(s *stat) float64 {
	g, _ := m.gain(s, 0)
	return g
}

func (m *counts) gain(s *stat, _ float64) (float64, effect) {
	r, p := s[countReal], max(s[countPredicted], fewest)
	if r < p*(1+m.least) || r-p < m.leastExcess {
		return math.Inf(-1), effect{}
	}
	w := m.width(s)
	g := (r*math.Log(r/p) - (r - p)) / w
	// Laplace's approximation of the average over the prior of the factor.
	g -= 0.5*math.Log(max(r/(2*math.Pi*w), 1)) + math.Log(factorRange)
	return g, effect{mean: r / p}
}

func (m *counts) under(s *stat, e *effect) float64 {
	r, p := s[countReal], s[countPredicted]
	return (r*math.Log(e.mean) - (e.mean-1)*p) / m.width(s)
}
