package detect

import "math"

// burstParts is how many parts of the two shortest windows a healthy burst may take:
// five seconds, however high it is.
var burstParts = [scales]int{5, 2}

// beyondBurst is how many nats a window must speak for a rise when the burst
// that explains most of it is taken out. A busy account has ten bursts of five
// seconds a day, and each has two seconds beside it that chance may lift.
const beyondBurst = 8

// beyond tests what remains of the window when the burst that explains most of
// it is taken out: of all beginnings of the rise that leave parts beside the
// burst, the one that speaks most for it. A part is expected to hold e, with that
// scatter. It returns the log likelihood ratio in nats, and by how much the rate has
// risen there.
func (win *window) beyond(k int, e, dispersion, scatter float64) (surprise, ratio float64) {
	m := burstParts[k]
	var n [parts]float64 // in the order of time, the last one first
	for i := range n {
		n[i] = float64(win.part[(int(win.at)+parts-i)%parts])
	}
	for long := m + 1; long <= parts; long++ {
		var sum, burst, run float64
		for i, x := range n[:long] {
			sum += x
			run += x
			if i >= m {
				run -= n[i-m]
			}
			burst = max(burst, run)
		}
		real, expected := sum-burst, e*float64(long-m)
		if real <= expected {
			continue
		}
		r := real / expected
		if s := (real*math.Log(r) - (real - expected)) / (dispersion + scatter*expected); s > surprise {
			surprise, ratio = s, r
		}
	}
	return surprise, ratio
}

// beyondMark is how many nats a short window must speak for a rise that passes the
// mark over one that stays markMargin below it: chance may lift what is below.
const (
	beyondMark = 4
	markMargin = 1.15
)

// passes is the log likelihood ratio, in nats, of what is seen over no more than e
// being expected. How much that is unsure is in the margin.
func passes(real, e, dispersion float64) float64 {
	if real <= e {
		return 0
	}
	return (real*math.Log(real/e) - (real - e)) / (dispersion + leastScatter*e)
}

// sinceAPause is what the series have sent beyond the expected since they fell
// silent, or nearly so, in the last two minutes; +Inf if they did not. What a pause held
// back may come at once.
func (d *Detector) sinceAPause(list []*series, in func(*series) bool) float64 {
	const k = learnScale
	var real [parts]float64 // in the order of time
	expected := 0.0         // in a part
	for _, s := range list {
		if !in(s) {
			continue
		}
		win := &s.window[k]
		for i := range real {
			real[i] += float64(win.part[(int(win.at)+1+i)%parts])
		}
		expected += d.expect(s, k) / parts
	}
	since, paused := 0.0, false
	for i, x := range real {
		e := expected
		if i == parts-1 { // it is not over
			e *= float64((d.now-1)%partSeconds[k]+1) / float64(partSeconds[k])
		}
		if !paused && i < parts-1 {
			paused = x < pauseRate*e && e-x > 3*math.Sqrt(e)
		}
		if paused {
			since += x - e
		}
	}
	if !paused {
		return math.Inf(1)
	}
	return since
}

// pauseRate is the part of what is expected below which a caller pauses.
const pauseRate = 0.7
