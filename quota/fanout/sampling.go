package fanout

import (
	"math"
	"sync"
	"time"
)

// SamplingValue is what is known of how many subscribe to a channel, and how much would be published to it on the strength of
// that.
type SamplingValue struct {
	// Publishes to the channel that are expected while an answer would be believed, WorthFor.
	Publishes float64
	// Subscribers is the estimate, from Source, Age old.
	Subscribers int64
	Source      Source
	Age         time.Duration
	// Off is by how much an estimate from Source turned out wrong, as a part of it; see EstimatorError.
	Off float64
}

// WorthFor is for how long an answer is taken to be right when a question is weighed: a sixth of the time in which half
// of it is forgotten.
const WorthFor = 5 * time.Minute

// ExpectedError is by how many messages the count of those publishes would be off, in either direction, if nobody
// asks: too low, and the plan is overspent without anybody knowing; too high, and a part of it is never used. An
// estimate that was learned is as good as new at first and, with the half-life of its source, becomes as doubtful as
// one that nobody ever checked.
func (d SamplingValue) ExpectedError() float64 {
	if !(d.Publishes > 0) || !(d.Off > 0) {
		return 0
	}
	stale := 1.0
	if d.Source != FromDefault && int(d.Source) < len(halfLife) {
		stale = 1 - math.Exp2(-max(d.Age.Seconds(), 0)/halfLife[d.Source])
	}
	return d.Publishes * float64(max(d.Subscribers, 1)) * d.Off * stale
}

// Worth says whether to ask Pusher for one channel's count: the messages that would be miscounted without, at
// what a message of the plan is worth, are more than the question costs. Price is of one message, in whatever money;
// where messages cost nothing nothing is worth asking, since there is nothing to save.
func (d SamplingValue) Worth(price float64, ask int64) bool {
	return d.ExpectedError()*price > float64(max(ask, 1))*price
}

// EstimatorError learns how far estimates are off, by their source, from the answers to questions that were asked. It is
// what SamplingValue.Off is made of. The zero value has seen nothing and takes every source to be off by as much as it says.
// Safe for concurrent use.
type EstimatorError struct {
	mu  sync.Mutex
	off [len(halfLife)]float64
	n   [len(halfLife)]int64
}

const (
	surpriseWeight = 0.05 // of the newest answer
	// surpriseLeast keeps what was never wrong from never being asked again.
	surpriseLeast = 0.01
	surpriseMost  = 1000 // one channel that counted as one and had thousands must not make all others doubtful
)

// Note takes an answer to the question how many subscribe to a channel that was thought to have estimate.
func (s *EstimatorError) Note(source Source, estimate, answer int64) {
	if int(source) >= len(halfLife) {
		return
	}
	off := min(math.Abs(float64(answer-estimate))/float64(max(estimate, 1)), surpriseMost)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n[source] == 0 {
		s.off[source] = 1
	}
	// The first answers count for more, so that the guess of the beginning is soon forgotten.
	w := max(surpriseWeight, 1/float64(s.n[source]+2))
	s.off[source] += w * (off - s.off[source])
	s.n[source]++
}

// Off is by how much an estimate from source is off, as a part of it; checked is false while that is a guess.
func (s *EstimatorError) Off(source Source) (off float64, checked bool) {
	if int(source) >= len(halfLife) {
		return 1, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n[source] == 0 {
		return 1, false
	}
	return max(s.off[source], surpriseLeast), true
}
