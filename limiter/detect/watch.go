package detect

import "math"

// The scales of time at which a series is watched: sliding windows of eight
// parts each. A sudden runaway shows at the first, a slow one at the last.
const (
	parts  = 8
	scales = 5
)

// partSeconds is the length of a part at each scale; windows are 8 s, 32 s,
// 2 min, 10 min, 2 h.
var partSeconds = [scales]int64{1, 4, 15, 75, 900}

// learnScale is the scale whose windows teach the level.
const learnScale = 2

// window is a sliding count at one scale, with what is known about how much
// such counts scatter when nothing is wrong.
type window struct {
	part [parts]uint32
	sum  uint32
	at   uint8

	// The variance of a healthy count with mean m is dispersion·m +
	// scatter·m². scatter and peak, the highest ratio to the mean of the
	// last days, are in force; the other three are today's and come into
	// force tomorrow if today had no incident: a runaway that grows slower
	// than the memory of a window cannot teach that it is normal.
	scatter, peak      float32
	today              float32
	squares, weightsSq float32
	// The highest counts over what was expected: since the series was frozen,
	// and in a burst that ended by itself.
	bout, burst float32
	torn        uint8 // for so many parts the window is not whole
}

// watch is what the detector knows about one series.
type watch struct {
	window [scales]window
	// level is the expected count a second where the shape of the week is 1.
	level float64
	// learned counts the windows the level was learned from, and total the
	// messages in them.
	learned int32
	total   float64
	active  int64 // the last second with a message
	// What learnLevel left out while frozen: messages, and what they would be
	// at level 1.
	missed, missedUnit float64
	frozen             bool // part of an open incident: nothing is learned
	spoiled            bool // was frozen today
	shape              *shape

	recent [14]uint32 // by 5 s, for Top: a minute, the present slot, and an empty one
	longer [12]uint32 // by 60 s
}

// How much healthy counts scatter until it is known: variances of Poisson
// with a relative spread, and the highest ratios of bursts.
const (
	dispersion   = 1.3
	priorScatter = 0.015 // a relative spread of 12 %
	leastScatter = 0.004 // and of 6 %, however calm it was
)

var (
	priorPeak = [scales]float32{2.1, 2, 2, 1.5, 1.3}
	leastPeak = [scales]float32{1.9, 1.9, 1.9, 1.2, 1.2}
	leastMark = [scales]float64{2.1, 2.1, 2.1, 1.65, 1.32} // the ratio asked for
)

func (w *watch) init() {
	for k := range w.window {
		w.window[k].scatter, w.window[k].peak = priorScatter, priorPeak[k]
	}
}

// count adds n messages of the seconds (from, to].
func (w *watch) count(n, from, to int64) {
	if n == 0 {
		return
	}
	w.active = to
	for k := range w.window {
		win := &w.window[k]
		p := partSeconds[k]
		// How many parts the tick fills; coarse ticks are spread evenly.
		if m := (to-1)/p - from/p; m > 0 {
			m = min(m+1, parts)
			share := uint32(n / (m))
			for i := range m - 1 {
				win.part[(int(win.at)+parts-1-int(i))%parts] += share
			}
			win.part[win.at] += uint32(n) - share*uint32(m-1)
		} else {
			win.part[win.at] += uint32(n)
		}
		win.sum += uint32(n)
	}
	w.recent[(to-1)/5%int64(len(w.recent))] += uint32(n)
	w.longer[(to-1)/60%int64(len(w.longer))] += uint32(n)
}

// turn ends a part: the oldest makes room for the next.
func (win *window) turn() {
	win.at = (win.at + 1) % parts
	win.torn -= min(win.torn, 1)
	win.sum -= win.part[win.at]
	win.part[win.at] = 0
}

// verdictOn is what the test of one window says.
type verdictOn struct {
	alarm           bool
	real, expected  float64
	ratio, surprise float64
	scale           int
	series          *series
}

// surprising is the log likelihood ratio, in nats, from which a window is an
// alarm: of the shortest windows some million are tested in a quarter of a
// year, of the longest some thousand.
var surprising = [scales]float64{14, 13, 13, 14, 14}

// excessTest is a generalized likelihood ratio test of "the rate has risen by
// some factor" on one window: windows of all scales ending now take the place
// of all possible times of change (window-limited GLR; Lai, JRSS B 1995). The
// likelihood is Poisson's over the learned dispersion. Beyond the likelihood,
// which knows nothing of habits, the ratio must pass the highest one the
// series had in the last days; and most parts of the window must show it, or, of
// the two shortest windows, what remains when a burst is taken out, so that a short
// burst is none.
func (w *watch) excessTest(now int64, k int, expected, need float64) (v verdictOn) {
	win := &w.window[k]
	v.real, v.expected, v.scale = float64(win.sum), expected, k
	if v.real < expected*1.2 || v.real < 8 {
		return v
	}
	e := max(expected, fewest)
	v.ratio = v.real / e
	if w.frozen {
		win.bout = max(win.bout, float32(v.ratio))
	}
	// The level is no surer than the messages it was learned from are many.
	unsure := 0.0
	if w.learned > 0 {
		unsure = 2 / (w.total + 1)
	}
	scatter := float64(win.scatter)
	if k == scales-1 {
		// Of the longest window there are few samples; what shakes it shakes
		// the shorter one.
		scatter = max(scatter, float64(w.window[k-1].scatter))
	}
	if k > learnScale && w.shape.known() {
		// Nor is the shape, of days seen once.
		scatter *= 1 + 1/max(float64(w.shape.seen(now)), 0.5)
	}
	wide := dispersion + (scatter+unsure)*e
	v.surprise = (v.real*math.Log(v.ratio) - (v.real - e)) / wide
	peak := win.peak
	if k == 0 {
		peak = w.window[1].peak // how high bursts of seconds go says nothing of what lasts longer
	}
	high := max(leastMark[k], 1.1*float64(peak))
	mark := max(need, high)
	if v.ratio < mark || v.surprise < surprising[k] || v.ratio < 1.3*float64(win.burst) {
		return v
	}
	if m := burstParts[k]; m > 0 {
		s, r := win.beyond(k, e/parts, scatter+unsure)
		v.alarm = s >= beyondBurst && r >= mark && passes(v.real, e*high/markMargin) >= beyondMark
		return v
	}
	v.alarm = win.lasts(e, v.ratio)
	return v
}

// lasts reports whether six parts of eight show the rise of which the window, that
// should hold e, shows the ratio.
func (win *window) lasts(e, ratio float64) bool {
	high := 0
	for _, n := range win.part {
		if float64(n) > e/parts*(1+(ratio-1)/3) {
			high++
		}
	}
	return high >= parts-2
}

// learnScatter takes a finished window as a sample of the healthy scatter.
func (win *window) learnScatter(expected float64) {
	x := float64(win.sum)
	if expected < 1 || win.torn > 0 {
		return
	}
	if expected >= 20 {
		win.today = max(win.today, float32(x/expected))
	}
	sq := (x-expected)*(x-expected) - dispersion*expected
	// One window cannot say more than four times the prior spread.
	top := 16 * float64(max(win.scatter, priorScatter)) * expected * expected
	win.squares += float32(min(sq, top))
	win.weightsSq += float32(expected * expected)
}

// turnDay brings what was learned today into force.
func (w *watch) turnDay() {
	for k := range w.window {
		win := &w.window[k]
		if !w.spoiled && win.weightsSq > 0 {
			c := max(win.squares/win.weightsSq, leastScatter)
			win.scatter += (c - win.scatter) * max(0.2, 1/float32(max(w.shape.days[0]+w.shape.days[1], 1)))
			// Peaks are half forgotten in ten days.
			win.peak = max(win.peak-(win.peak-1)*0.07, min(win.today, 2*win.peak), leastPeak[k])
		}
		win.squares, win.weightsSq, win.today = 0, 0, 0
		win.burst *= 0.98
	}
	w.spoiled = w.frozen
}

// gain is the part of a window's news that the level takes up.
func (w *watch) gain() float64 {
	gain := 0.002
	if w.shape.known() {
		gain = 0.0003 // what the shape does not know takes days to be believed
	}
	return max(gain, 1/float64(w.learned+1))
}

// afresh forgets how high the series went: what is expected of it is another.
func (w *watch) afresh() {
	for k := range w.window {
		win := &w.window[k]
		win.scatter, win.peak, win.burst, win.bout, win.today = priorScatter, priorPeak[k], 0, 0, 0
		win.squares, win.weightsSq = 0, 0
	}
}

// adopt makes the present rate the usual one, if it is higher: sum is what the
// window holds, unit what it would hold at level 1.
func (w *watch) adopt(sum, unit float64) { w.level = max(w.level, sum/unit) }

// thaw ends a freeze. What was over by itself soon hurt nobody: that high a
// burst is usual from now on, for some weeks. (A job on the hour is one.)
func (w *watch) thaw(soon bool) {
	if soon && w.missedUnit > 0 {
		// It was part of the usual, after all: learn what was left out.
		n := w.missedUnit / float64(parts*partSeconds[learnScale])
		w.level += (w.missed/w.missedUnit - w.level) * (1 - math.Pow(1-w.gain(), n))
	}
	w.missed, w.missedUnit = 0, 0
	w.forget(soon)
	w.frozen = false
}

// forget ends a bout of excess: what is over must not alarm once more from
// the longer windows.
func (w *watch) forget(soon bool) {
	for k := range w.window {
		win := &w.window[k]
		if soon {
			win.burst = max(win.burst, win.bout)
		}
		win.bout = 0
		if k > learnScale {
			win.part, win.sum, win.torn = [parts]uint32{}, 0, parts
		}
	}
}

// learnLevel moves the level towards the last window's rate: at once while it
// is new, then with a half-life of half a day, later of three, and never by more than a
// little for a rate that is far above it. x is what the window holds, unit
// what it would hold at level 1.
func (w *watch) learnLevel(x, unit float64) {
	w.learned++
	w.total = w.total*0.999 + x
	if w.learned == 1 || w.level == 0 {
		w.level = x / unit
		return
	}
	gain := w.gain()
	e := w.level * unit
	ratio := x / e
	if w.learned > 5 {
		// Far above is not the usual; but of few messages chance alone makes
		// many, and to leave that out would be to learn too little.
		ratio = min(ratio, max(1.3, 1+4*math.Sqrt(dispersion*max(e, 1))/e))
	}
	w.level = max(w.level*(1+gain*(ratio-1)), 0.02/unit)
}
