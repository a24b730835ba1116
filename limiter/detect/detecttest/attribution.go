// Package detecttest makes data with a known answer for package detect:
// single moments with injected causes (this file), and days of traffic with
// injected incidents. Everything follows from a seed, so a figure can be
// measured again, and seeds used for tuning can be kept apart from seeds used
// for judging.
package detecttest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/pushguard/pushguard/limiter/detect"
)

// Setting is one family of attribution cases. The two published families of
// the RiskLoc paper (Kalander 2022, arXiv 2205.10004, section 5) are S and L.
type Setting struct {
	Name string
	// Dims is the number of values of each attribute; every combination of
	// values is one leaf.
	Dims []int
	// Noise is the range of the relative forecast error (one standard
	// deviation) of healthy leaves.
	Noise [2]float64
	// Severity is the range of the relative drop of an anomaly, before the
	// noise level is added to it.
	Severity [2]float64
	// Deviation is the range of the spread of the drop within one anomaly.
	Deviation [2]float64
	// Anomalies and Elements are the ranges of the number of anomalies in a
	// case and of attribute combinations in an anomaly.
	Anomalies, Elements [2]int
	// LastLayer puts all anomalies on single leaves.
	LastLayer bool
}

// S has five attributes with few values, anomalies on any number of them.
var S = Setting{
	Name: "S", Dims: []int{10, 12, 10, 8, 5},
	Noise: [2]float64{0, 0.25}, Severity: [2]float64{0.2, 1}, Deviation: [2]float64{0, 0.1},
	Anomalies: [2]int{1, 3}, Elements: [2]int{1, 3},
}

// L has four attributes with more values, and every anomaly is one leaf.
var L = Setting{
	Name: "L", Dims: []int{10, 24, 10, 15},
	Noise: [2]float64{0, 0.1}, Severity: [2]float64{0.5, 1},
	Anomalies: [2]int{1, 5}, Elements: [2]int{1, 1}, LastLayer: true,
}

// Case is one moment with its injected causes, each a vector with one value
// code per attribute, -1 where the cause does not fix that attribute.
type Case struct {
	Table  detect.Table
	Causes [][]int32
}

// Generate makes the case that belongs to seed. The distributions are those
// of the paper: Weibull leaf values, a share of zero leaves, Gaussian relative
// error on either side, then drops of a common relative size (the generalized
// ripple effect) on the side towards which the healthy error already leans.
func (s Setting) Generate(seed uint64) Case {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	k, n := len(s.Dims), 1
	for _, d := range s.Dims {
		n *= d
	}
	cols := make([][]int32, k)
	for a, stride := k-1, 1; a >= 0; a-- {
		cols[a] = make([]int32, n)
		for i := range n {
			cols[a][i] = int32(i / stride % s.Dims[a])
		}
		stride *= s.Dims[a]
	}
	zero, noise, shape := 0.25*r.Float64(), between(r, s.Noise), between(r, [2]float64{0.5, 1})
	truth, pred := make([]float64, n), make([]float64, n)
	var sumReal, sumPred float64
	for i := range n {
		v := 100 * math.Pow(r.ExpFloat64(), 1/shape)
		if r.Float64() <= zero {
			v = 0
		}
		w := v * (1 + noise*r.NormFloat64())
		if r.IntN(2) == 0 {
			v, w = w, v
		}
		truth[i], pred[i] = v, max(w, 0)
		sumReal += truth[i]
		sumPred += pred[i]
	}
	var causes [][]int32
	anomalies := s.place(r, cols, truth)
	for _, an := range anomalies {
		sev, dev := between(r, s.Severity)+noise, between(r, s.Deviation)
		for i := range n {
			if !slices.ContainsFunc(an, func(c []int32) bool { return covers(c, cols, i) }) {
				continue
			}
			keep := max(0, 1-(sev+dev*r.NormFloat64()))
			if sumReal > sumPred {
				pred[i] = truth[i] * keep
			} else {
				truth[i] = pred[i] * keep
			}
		}
		causes = append(causes, an...)
	}
	return Case{Table: detect.Table{Columns: cols, Real: truth, Predicted: pred}, Causes: causes}
}

// place draws the attribute combinations of every anomaly: no two anomalies on
// the same attributes (single leaves excepted), no value of an attribute used
// by two anomalies, no leaf that is zero.
func (s Setting) place(r *rand.Rand, cols [][]int32, truth []float64) [][][]int32 {
	k := len(s.Dims)
	type anomaly struct {
		attrs []int
		elems [][]int32
	}
	type size struct{ level, elems int }
	sizes := make([]size, s.Anomalies[0]+r.IntN(s.Anomalies[1]-s.Anomalies[0]+1))
	for i := range sizes {
		sizes[i].level = k
		if !s.LastLayer {
			sizes[i].level = 1 + r.IntN(k)
		}
		sizes[i].elems = s.Elements[0] + r.IntN(s.Elements[1]-s.Elements[0]+1)
	}
	var done []anomaly
	for try := 0; len(done) < len(sizes); try++ {
		if try == 1000 {
			return s.place(r, cols, truth) // the values have run out; begin again
		}
		level, elems := sizes[len(done)].level, sizes[len(done)].elems
		attrs := r.Perm(k)[:level]
		slices.Sort(attrs)
		if level < k && slices.ContainsFunc(done, func(d anomaly) bool { return slices.Equal(d.attrs, attrs) }) {
			continue
		}
		es := make([][]int32, elems)
		for j := range es {
			es[j] = slices.Repeat([]int32{-1}, k)
		}
		ok := true
		for _, a := range attrs {
			free := make([]int32, 0, s.Dims[a])
			for v := range int32(s.Dims[a]) {
				if !slices.ContainsFunc(done, func(d anomaly) bool {
					return slices.ContainsFunc(d.elems, func(e []int32) bool { return e[a] == v })
				}) {
					free = append(free, v)
				}
			}
			if len(free) == 0 {
				ok = false
				break
			}
			for j := range es {
				es[j][a] = free[r.IntN(len(free))]
			}
		}
		for j := range es {
			ok = ok && !slices.ContainsFunc(es[:j], func(e []int32) bool { return slices.Equal(e, es[j]) })
			if ok && level == k {
				leaf := 0
				for a := range k {
					leaf = leaf*s.Dims[a] + int(es[j][a])
				}
				ok = truth[leaf] != 0
			}
		}
		if ok {
			done = append(done, anomaly{attrs, es})
		}
	}
	out := make([][][]int32, len(done))
	for i, d := range done {
		out[i] = d.elems
	}
	return out
}

func covers(c []int32, cols [][]int32, i int) bool {
	for a, v := range c {
		if v >= 0 && cols[a][i] != v {
			return false
		}
	}
	return true
}

func between(r *rand.Rand, lohi [2]float64) float64 { return lohi[0] + r.Float64()*(lohi[1]-lohi[0]) }

// Score counts named causes that equal an injected one exactly (tp), named
// ones that do not (fp), and injected ones that were not named (fn): the
// metric of the paper. F1 over many cases is 2tp/(2tp+fp+fn) of the sums.
func Score(named, injected [][]int32) (tp, fp, fn int) {
	for _, c := range named {
		if slices.ContainsFunc(injected, func(t []int32) bool { return slices.Equal(c, t) }) {
			tp++
		} else {
			fp++
		}
	}
	return tp, fp, len(injected) - tp
}
