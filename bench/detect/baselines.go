package main

import (
	"math"
	"slices"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// rivals are what is commonly used instead, fed with the same traffic: three
// ways to notice, and Adtributor (Bhagwan et al., NSDI 2014) to name.
//
//   - static: the account's rate over 10 s is above twice the highest of the
//     week before.
//   - ewma: a caller's rate over 10 s is more than three standard deviations
//     above its exponentially weighted mean (both with a memory of 5 min).
//   - linear: a line through the account's last ten minutes reaches, within
//     the hour, twice the highest of the week before (predict_linear).
type rivals struct {
	top     float64 // highest rate of the week before
	bin     []float64
	mean    []float64
	square  []float64
	seen    int
	line    []float64 // the account's last 60 rates over 10 s
	usual   []float64 // by leaf, a minute's count before the incident
	minute  [][]float64
	found   [3]int64 // when each noticed first, after the incident began
	early   [3]int   // alarms in the healthy quarter of an hour before
	noisy   [3]bool
	callers int
}

func newRivals(a *detecttest.Account) *rivals {
	r := &rivals{usual: make([]float64, len(a.Leaves))}
	for i := range a.Leaves {
		r.callers = max(r.callers, a.Leaves[i].Caller+1)
	}
	r.bin, r.mean, r.square = make([]float64, r.callers), make([]float64, r.callers), make([]float64, r.callers)
	r.minute = append(r.minute, make([]float64, len(a.Leaves)))
	return r
}

// week takes a count of the weeks before.
func (r *rivals) week(total, seconds float64) { r.top = max(r.top, total/seconds) }

func (r *rivals) count(a *detecttest.Account, leaf int, n int64) {
	r.bin[a.Leaves[leaf].Caller] += float64(n)
	r.minute[len(r.minute)-1][leaf] += float64(n)
}

// second ends a second; begin is when the incident began.
func (r *rivals) second(now, begin int64) {
	if now%10 != 0 {
		return
	}
	total := 0.0
	alarm := [3]bool{}
	for c, x := range r.bin {
		total += x
		sd := math.Sqrt(max(r.square[c]-r.mean[c]*r.mean[c], 0))
		if r.seen > 30 && x > 10 && x > r.mean[c]+3*sd {
			alarm[1] = true
		}
		const memory = 1.0 / 30
		r.mean[c] += (x - r.mean[c]) * memory
		r.square[c] += (x*x - r.square[c]) * memory
	}
	clear(r.bin)
	r.seen++
	rate := total / 10
	alarm[0] = rate > 2*r.top
	if r.line = append(r.line, rate); len(r.line) > 60 {
		r.line = r.line[1:]
		alarm[2] = predict(r.line, 360) > 2*r.top
	}
	for i, on := range alarm {
		switch {
		case on && now <= begin && !r.noisy[i]:
			r.early[i]++
		case on && now > begin && r.found[i] == 0:
			r.found[i] = now
		}
		r.noisy[i] = on
	}
	if now%60 == 0 {
		if now <= begin {
			for i, n := range r.minute[len(r.minute)-1] {
				r.usual[i] += (n - r.usual[i]) / float64(len(r.minute))
			}
		}
		r.minute = append(r.minute, make([]float64, len(r.usual)))
	}
}

// predict extends the least-squares line by so many steps.
func predict(y []float64, steps float64) float64 {
	n := float64(len(y))
	var sx, sy, sxy, sxx float64
	for i, v := range y {
		x := float64(i)
		sx, sy, sxy, sxx = sx+x, sy+v, sxy+x*v, sxx+x*x
	}
	slope := (n*sxy - sx*sy) / (n*sxx - sx*sx)
	return (sy-slope*sx)/n + slope*(n-1+steps)
}

// adtributor names from the last full minute against the usual minute: the
// one attribute whose values are most surprising, and of its values, by
// surprise, those that explain a tenth or more, until two thirds are
// explained.
func (r *rivals) adtributor(a *detecttest.Account) []detect.Culprit {
	if len(r.minute) < 2 {
		return nil
	}
	last := r.minute[len(r.minute)-2]
	var sumF, sumA float64
	for i := range last {
		sumF, sumA = sumF+r.usual[i], sumA+last[i]
	}
	type element struct {
		culprit        detect.Culprit
		f, a, surprise float64
	}
	var best []detect.Culprit
	most := math.Inf(-1)
	for attr := range 3 {
		by := map[string]*element{}
		for i := range last {
			k := a.Leaves[i].Key
			v := []string{k.Caller, k.Event, k.Channel}[attr]
			e := by[v]
			if e == nil {
				c := []string{detect.Any, detect.Any, detect.Any}
				c[attr] = v
				e = &element{culprit: detect.Culprit{Caller: c[0], Event: c[1], Channel: c[2]}}
				by[v] = e
			}
			e.f, e.a = e.f+r.usual[i], e.a+last[i]
		}
		var es []*element
		for _, e := range by {
			p, q := e.f/sumF, e.a/sumA
			if p > 0 {
				e.surprise += 0.5 * p * math.Log(2*p/(p+q))
			}
			if q > 0 {
				e.surprise += 0.5 * q * math.Log(2*q/(p+q))
			}
			es = append(es, e)
		}
		slices.SortFunc(es, func(x, y *element) int {
			if x.surprise > y.surprise {
				return -1
			}
			return 1
		})
		var named []detect.Culprit
		var explained, surprise float64
		for _, e := range es {
			if ep := (e.a - e.f) / (sumA - sumF); ep > 0.1 {
				named = append(named, e.culprit)
				explained += ep
				surprise += e.surprise
			}
			if explained > 0.67 {
				break
			}
		}
		if explained > 0.67 && surprise > most {
			best, most = named, surprise
		}
	}
	return best
}
