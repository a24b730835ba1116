package detect

import (
	"math"
	"slices"
)

// The scales of time at which a series is watched: sliding windows of eight
// parts each. A sudden runaway shows at the first, a slow one at the last.
const (
	parts  = 8
	scales = 5
)

// partSeconds is the length of a part at each scale; windows are 8 s, 32 s,
// 2 min, 10 min, 2 h.
var partSeconds = [scales]int64{1, 4, 15, 75, 900}

func windowSeconds(k int) float64 { return float64(parts * partSeconds[k]) }

// learnScale is the longest of the scales that are measured by what the series did
// in the last hours; the longer ones are measured by what it does at that hour.
const learnScale = 2

// window is a sliding count at one scale, with what is known about how much
// such counts scatter.
type window struct {
	part [parts]uint32
	sum  uint32
	at   uint8
	torn uint8 // for so many parts the window is not whole

	// dispersion is the variance of a count over its mean, as this series shows it:
	// publishes come in clumps, by the minute, at will. It is learned from every
	// whole window, and one that is far off teaches little (winsorized).
	dispersion float32
	samples    uint32
	// tops are the highest ratios to the expected of the last days, today's first. The
	// second highest of them counts: what happened on one day alone is no habit.
	tops [topDays]float32
}

const topDays = 5

// watch is what the detector knows about one series.
type watch struct {
	window [scales]window
	// levels are the publishes a second of the last days where the shape of the
	// week is 1, and level is their median. 0: not known.
	level   float64
	levels  [levelDays]float32
	born    int64   // the second before the first publish
	learned int32   // windows of the learning scale since then
	day     float64 // publishes today
	dayUnit float64 // the shape's unit when day began to be counted
	total   float64 // publishes until the shape was known
	active  int64   // the last second with a publish
	frozen  bool    // part of an open incident
	base    float64 // then: the rate it is measured by
	muted   int64   // until when the long windows are not tested: they hold what is over
	shape   *shape

	adopted      float64 // a rate that was taken for the usual one
	adoptedUntil int64   // by when the last hours show it

	localAt int64 // for which quarter of a minute localOf is worked out
	localOf float64

	recent [14]uint32 // by 5 s, for Top: a minute, the present slot, and an empty one
	longer [12]uint32 // by 60 s
}

const levelDays = 5

const (
	leastScatter = 0.004 // a relative spread of 6 %, however calm a series was
	fewKnown     = 720   // windows of the learning scale in a day
)

var (
	priorPeak = [scales]float32{2.1, 2, 1.7, 1.45, 1.35}
	leastPeak = [scales]float32{1.9, 1.8, 1.35, 1.2, 1.2}
)

func (w *watch) init() {
	for k := range w.window {
		w.window[k].dispersion = priorDispersion
	}
}

// priorDispersion stands for what is not known: publishes in small clumps.
const (
	priorDispersion   = 1.3
	unknownDispersion = 2 // until an hour of it was seen
)

// count adds n publishes of the seconds (from, to].
func (w *watch) count(n, from, to int64) {
	if n == 0 {
		return
	}
	w.active = to
	w.day += float64(n)
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

// ago is the part that began so many parts before the present one.
func (win *window) ago(i int) float64 { return float64(win.part[(int(win.at)+parts-i)%parts]) }

// peak is the ratio that the series has reached on two of the last days, of a scale.
func (w *watch) peak(k int) float32 {
	win := &w.window[k]
	first, second, days := float32(0), float32(0), 0
	for _, t := range win.tops[1:] {
		if t > 0 {
			days++
		}
		if t > first {
			first, second = t, first
		} else if t > second {
			second = t
		}
	}
	if days < 2 {
		return priorPeak[k]
	}
	return max(second, leastPeak[k])
}

// learnScatter takes a finished window as a sample of how the series scatters.
func (win *window) learnScatter(expected float64) {
	if expected < 0.5 || win.torn > 0 {
		return
	}
	x := float64(win.sum)
	if x < expected/2 && expected >= 8 {
		return // a pause, or what follows a burst: it says nothing of how counts scatter
	}
	if expected >= 20 {
		win.tops[0] = max(win.tops[0], float32(x/expected))
	}
	z := float32((x - expected) * (x - expected) / expected)
	win.samples++
	gain := max(1.0/64, 1/float32(win.samples+16))
	win.dispersion += gain * (min(z, 5*win.dispersion) - win.dispersion)
	win.dispersion = max(win.dispersion, 1)
}

// dispersion is that of the scale; a short window is taken to scatter no less than
// the longer ones whose counts tell more.
func (w *watch) dispersion(k int) float64 {
	d := w.window[k].dispersion
	for j := k + 1; j <= learnScale; j++ {
		d = max(d, w.window[j].dispersion)
	}
	if k <= learnScale && w.window[learnScale].samples < 32 {
		d = max(d, unknownDispersion)
	}
	return float64(d)
}

// turnDay brings the day's level and peaks into force.
func (w *watch) turnDay() {
	for k := range w.window {
		win := &w.window[k]
		copy(win.tops[1:], win.tops[:topDays-1])
		win.tops[0] = 0
	}
	unit := w.shape.unit - w.dayUnit
	if w.shape.known() && unit > secondsDay/8 && w.day > 0 {
		copy(w.levels[1:], w.levels[:levelDays-1])
		w.levels[0] = max(float32(w.day/unit), 1e-7)
		w.settle()
	}
	w.day, w.dayUnit = 0, 0
}

// settle works the level out from the days'.
func (w *watch) settle() {
	v := make([]float32, 0, levelDays)
	for _, l := range w.levels {
		if l > 0 {
			v = append(v, l)
		}
	}
	if len(v) == 0 {
		return
	}
	slices.Sort(v)
	w.level = float64(v[(len(v)-1)/2]+v[len(v)/2]) / 2
}

// scale makes the level that times as high.
func (w *watch) scale(by float64) {
	for i := range w.levels {
		w.levels[i] *= float32(by)
	}
	w.level *= by
}

// verdictOn is what the test of one window says.
type verdictOn struct {
	alarm           bool
	real, expected  float64
	ratio, surprise float64
	scale           int
	series          *series
	fanout          bool // it is the price that has risen
}

// surprising is the log likelihood ratio, in nats, from which a window is an
// alarm: of the shortest windows some million are tested in a quarter of a
// year, of the longest some thousand.
var surprising = [scales]float64{14, 13, 13, 14, 14}

// fewestClumps is how many clumps a short window must hold at the least: two or three that are
// large by chance are no rise.
const fewestClumps = 12

// excessTest is a generalized likelihood ratio test of "the rate has risen by
// some factor" on one window: windows of all scales ending now take the place
// of all possible times of change (window-limited GLR; Lai, JRSS B 1995). The
// likelihood is Poisson's over the dispersion that the series shows
// (quasi-likelihood; Wedderburn 1974), and unsure is the relative variance of
// the expectation. Beyond the likelihood the ratio must pass what the series has
// reached on two of the last days; and the window must show the rise in
// its course, so that a short burst is none.
func (w *watch) excessTest(k int, expected, unsure, need float64) (v verdictOn) {
	win := &w.window[k]
	v.real, v.expected, v.scale = float64(win.sum), expected, k
	if v.real < expected*1.2 || v.real < 8 {
		return v
	}
	e := max(expected, fewest)
	v.ratio = v.real / e
	scatter := leastScatter + unsure
	dispersion := w.dispersion(k)
	if k <= learnScale && v.real < fewestClumps*dispersion {
		return v
	}
	wide := dispersion + scatter*e
	v.surprise = (v.real*math.Log(v.ratio) - (v.real - e)) / wide
	peak := w.peak(k)
	if k == 0 {
		peak = w.peak(1) // how high bursts of seconds go says nothing of what lasts longer
	}
	high := 1.1 * float64(peak)
	mark := max(need, high)
	if v.ratio < mark || v.surprise < surprising[k] {
		return v
	}
	switch {
	case burstParts[k] > 0:
		s, r := win.beyond(k, e/parts, dispersion, scatter)
		v.alarm = s >= beyondBurst && r >= mark && passes(v.real, e*high/markMargin, dispersion) >= beyondMark
	case k == learnScale:
		v.alarm = win.halves(e)
	default:
		v.alarm = win.lasts(e, v.ratio)
	}
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

// halves reports whether each half of the window has three tenths of the excess: a
// rise does, and so do pulses; what took less than a minute does not.
func (win *window) halves(e float64) bool {
	late := 0.0
	for i := range parts / 2 {
		late += win.ago(i)
	}
	excess := float64(win.sum) - e
	late -= e / 2
	return late >= 0.3*excess && excess-late >= 0.3*excess
}

// mute makes the long windows blind for as long as they hold what is over.
func (w *watch) mute(now int64) { w.muted = now + parts*partSeconds[scales-1] }
