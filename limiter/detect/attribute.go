package detect

import (
	"container/heap"
	"math"
	"slices"
)

// Table is one moment: what happened and what was expected, per leaf. A leaf
// is one combination of attribute values.
type Table struct {
	// Columns holds one column per attribute, each with one value code per
	// leaf; codes count from 0.
	Columns [][]int32
	// Real and Predicted hold what happened and what was expected.
	Real, Predicted []float64
}

// Options of Attribute.
type Options struct {
	// Counts says that the measure counts things, so that a healthy leaf
	// scatters about as Poisson does, and that only more than expected is to
	// be explained. Otherwise leaves scatter by a relative error that is
	// learned from the table, and the direction explained is the total's.
	Counts bool
	// Dispersion is the variance of small healthy counts over their mean
	// (1 is Poisson's; 0 means 1). Variation is the relative standard
	// deviation of large ones. Both are for Counts.
	Dispersion, Variation float64
	// MinDeviation is the smallest relative deviation worth a name; 0 means 0.1.
	MinDeviation float64
	// MinExcess is the smallest excess worth a name, in the table's unit. It
	// is for Counts.
	MinExcess float64
	// Price is added to the price of each name, in nats: for a table that is
	// one of many in which a cause could show.
	Price float64
	// MaxCauses bounds the answer; 0 means 16.
	MaxCauses int
}

// Cause is one attribute combination which explains a part of the deviation.
type Cause struct {
	// Values has one value code per attribute, -1 where any value is meant.
	// All of them -1: it is everybody.
	Values []int32
	// Typical is Values with every attribute filled in of which one value
	// carries nearly all (97 %) of the deviation; with Counts only if the
	// others are more like healthy ones than like the cause.
	Typical []int32
	// Factor is what happened over what was expected, in all its leaves.
	Factor float64
	// Deviation is what happened less what was expected, in the table's unit.
	Deviation float64
	// Share is the cause's part, 0 to 1, of the table's whole deviation, or of
	// all causes' if that is more.
	Share float64
	// Confidence is the posterior probability that naming this cause is
	// right rather than explaining its leaves by noise, 0 to 1.
	Confidence float64
}

type candidate struct {
	c      *cuboid
	j      int32
	leaves float32 // in the statistic for which gain holds
	gain   float64 // log Bayes factor less the price of the name, or a bound of it
}

// Attribute finds the smallest set of attribute combinations which explains
// why Real differs from Predicted, most telling first.
//
// Each combination is scored by the log Bayes factor of "its leaves share one
// deviation" over "its leaves are noise", less the price of its name in nats
// (minimum description length; Rissanen 1978): a level of the lattice, a
// choice of attributes, a choice of values. A finer combination thus has to
// earn its longer name, and a coarser one is refused when a part of it looks
// healthy. The best is taken, its leaves are set aside, and the search goes
// on until nothing pays for its name. It holds no state and is safe for
// concurrent use.
func Attribute(t Table, o Options) []Cause {
	n := len(t.Real)
	if n == 0 || len(t.Columns) == 0 {
		return nil
	}
	if o.MaxCauses == 0 {
		o.MaxCauses = 16
	}
	if o.MinDeviation == 0 {
		o.MinDeviation = 0.1
	}
	var total float64
	for i := range n {
		total += t.Real[i] - t.Predicted[i]
	}
	sign := 1.0
	if total < 0 && !o.Counts {
		sign = -1
	}
	var m model
	if o.Counts {
		m = &counts{max(o.Dispersion, 1), o.Variation, o.MinDeviation, o.MinExcess}
	} else {
		m = newRelative(t.Real, t.Predicted, sign, o.MinDeviation)
	}
	l := newLattice(t.Columns, n)
	for i := range n {
		l.leaf[i] = m.leaf(t.Real[i], t.Predicted[i])
	}
	l.sum()
	s := search{lattice: l, model: m, extra: o.Price}
	s.collect()

	var causes []Cause
	for len(causes) < o.MaxCauses {
		c, ok := s.next()
		if !ok {
			break
		}
		if o.Counts {
			c = s.coarser(c)
		}
		c.c, c.j = l.shorten(c.c, c.j)
		cause := Cause{Values: l.values(c.c, c.j), Confidence: 1 / (1 + math.Exp(-c.gain))}
		cause.measure(t, l.take(c.c, c.j), o.Counts)
		causes = append(causes, cause)
	}
	var named float64
	for _, c := range causes {
		named += c.Deviation
	}
	for i := range causes {
		causes[i].Share = max(0, sign*causes[i].Deviation/max(sign*total, sign*named))
	}
	return causes
}

// measure fills in what follows from the leaves the cause explains.
func (c *Cause) measure(t Table, leaves []int32, counts bool) {
	var r, p float64
	for _, i := range leaves {
		r += t.Real[i]
		p += t.Predicted[i]
	}
	c.Deviation, c.Factor = r-p, r/max(p, fewest)
	c.Typical = slices.Clone(c.Values)
	type part struct{ real, predicted float64 }
	by := map[int32]part{}
	for a, v := range c.Values {
		if v >= 0 {
			continue
		}
		clear(by)
		for _, i := range leaves {
			p := by[t.Columns[a][i]]
			by[t.Columns[a][i]] = part{p.real + t.Real[i], p.predicted + t.Predicted[i]}
		}
		for v, x := range by {
			if (x.real-x.predicted)/c.Deviation < 0.97 {
				continue
			}
			// The rest is little. Where things are counted it still can tell
			// whether it has risen like the whole.
			if rest := (part{r - x.real, p - x.predicted}); !counts || rest.real == 0 && rest.predicted == 0 ||
				rest.real*math.Log(c.Factor) < (c.Factor-1)*rest.predicted {
				c.Typical[a] = v
			}
			break
		}
	}
}

// values spells a combination out.
func (l *lattice) values(c *cuboid, j int32) []int32 {
	v := slices.Repeat([]int32{-1}, len(l.cols))
	for _, a := range c.attrs {
		v[a] = l.cols[a][c.leaf[j]]
	}
	return v
}

type search struct {
	*lattice
	model model
	extra float64
	heap  []candidate // by gain, best first
	aside []candidate // too coarse so far
}

// expectedCauses is the prior number of causes in a moment.
const expectedCauses = 4

// price is what naming a combination of the cuboid costs, in nats.
func (s *search) price(c *cuboid) float64 {
	k, level := len(s.cols), len(c.attrs)
	siblings := 1.0
	for i := range level {
		siblings *= float64(k-i) / float64(i+1)
	}
	const tie = 1e-6 // between names of one price, the shorter
	return math.Log(float64(k)*siblings*float64(len(c.leaf))/expectedCauses) + tie*float64(level) + s.extra
}

// collect lists the combinations that may be worth their name, with a bound of
// their gain: most of them are parts of a cause, and need never be worked out.
func (s *search) collect() {
	s.heap = make([]candidate, 0, len(s.leaf))
	for _, c := range s.all {
		price := s.price(c)
		for j := range c.stat {
			if g := s.model.bound(&c.stat[j]); g > price {
				s.heap = append(s.heap, candidate{c, int32(j), -1, g - price})
			}
		}
	}
}

// next finds the best candidate that is still worth its name. Taking a cause
// away lowers the gain of what overlaps it, so gains are brought up to date
// only when they come to the top.
func (s *search) next() (candidate, bool) {
	s.heap = append(s.heap, s.aside...)
	s.aside = s.aside[:0]
	s.heap = slices.DeleteFunc(s.heap, func(c candidate) bool { return c.c.stat[c.j].leaves() == 0 })
	heap.Init(s)
	for len(s.heap) > 0 {
		c := &s.heap[0]
		st := &c.c.stat[c.j]
		if now := float32(st.leaves()); now != c.leaves {
			price := s.price(c.c)
			g, _ := s.model.gain(st, price)
			c.leaves, c.gain = now, g-price
			if c.gain > 0 {
				heap.Fix(s, 0)
			} else {
				heap.Pop(s)
			}
			continue
		}
		best := heap.Pop(s).(candidate)
		if s.pure(best) {
			return best, true
		}
		s.aside = append(s.aside, best)
	}
	return candidate{}, false
}

// nearly is the part of a combination's gain with which a shorter one that
// contains it will do as well: where the noise of leaves is not independent,
// a part can seem as telling as the whole.
const nearly = 0.7

// coarser replaces a combination by the shortest that contains it, has no
// healthy part, and gains nearly as much.
func (s *search) coarser(c candidate) candidate {
	best := c
	for _, up := range s.all {
		if up.mask&c.c.mask != up.mask || len(up.attrs) >= len(best.c.attrs) {
			continue
		}
		j := up.find(up.key(s.cols, c.c.leaf[c.j]))
		g, _ := s.model.gain(&up.stat[j], 0)
		if u := (candidate{up, j, 0, g - s.price(up)}); u.gain >= nearly*c.gain && s.pure(u) {
			best = u
		}
	}
	return best
}

func (s *search) Len() int           { return len(s.heap) }
func (s *search) Less(i, j int) bool { return s.heap[i].gain > s.heap[j].gain }
func (s *search) Swap(i, j int)      { s.heap[i], s.heap[j] = s.heap[j], s.heap[i] }
func (s *search) Push(x any)         { s.heap = append(s.heap, x.(candidate)) }
func (s *search) Pop() any {
	c := s.heap[len(s.heap)-1]
	s.heap = s.heap[:len(s.heap)-1]
	return c
}

// healthyPart is how many nats the parts of a combination may speak for being
// healthy before the combination is refused as too coarse.
const healthyPart = 6

// pure reports whether no part of the combination looks healthy: however the
// other attributes split it, each part must be explained no worse by the
// deviation of the whole than by noise. By Markov's inequality a part of a
// true cause speaks against it by t nats with a probability below exp(-t), so
// of p parts each may do so by log p for nothing.
func (s *search) pure(c candidate) bool {
	_, ef := s.model.gain(&c.c.stat[c.j], 0)
	leaf := c.c.leaf[c.j]
	for extra := 1; extra <= len(s.cols)-len(c.c.attrs); extra++ {
		for _, f := range s.all {
			if f.mask&c.c.mask != c.c.mask || len(f.attrs) != len(c.c.attrs)+extra {
				continue
			}
			if !s.healthyWithin(c.c, f, leaf, &ef) {
				return false
			}
		}
	}
	return true
}

// healthyWithin goes through the parts of a combination (spelled by leaf) in
// the finer cuboid f.
func (s *search) healthyWithin(c, f *cuboid, leaf int32, ef *effect) bool {
	parts := float64(len(f.leaf)) / float64(len(c.leaf))
	free := math.Log(max(parts, 1))
	if len(f.attrs) == len(c.attrs)+1 {
		free = 0
	}
	var against float64
cells:
	for j, l := range f.leaf {
		for _, a := range c.attrs {
			if s.cols[a][l] != s.cols[a][leaf] {
				continue cells
			}
		}
		if f.stat[j].leaves() > 0 {
			d := s.model.under(&f.stat[j], ef)
			if d < -free {
				// It may have a deviation of its own: two causes can overlap.
				if g, _ := s.model.gain(&f.stat[j], 0); g < 0 {
					against += d + free
				}
			}
		}
	}
	return against >= -healthyPart
}
