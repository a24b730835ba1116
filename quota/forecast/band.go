package forecast

import (
	"math"
	"slices"
	"time"
)

// errors remembers how far off the forecasts of the last two weeks were, by the hour at which they were made: the logarithm
// of what came after that hour of the day divided by what had been expected. The band around a forecast is made of
// them, so that it is as wide as this account is hard to foretell, and no wider. The zero value knows no day.
type errors struct {
	// Logs[h] are the newest errors of forecasts made at hour h of the day, in a ring.
	Logs [24][]float64
	Next [24]int
	// Expected[h] is what was expected after hour h of Day, and Passed what was used by then; not used while it is 0.
	Expected, Passed [24]float64
	Day              int64
}

const (
	errorsKept = 14 // days
	// Until forecasts were checked on some days, the band is that of a logarithm that is off by this much, as
	// errorsGuessed days would show it.
	errorsGuess   = 0.15
	errorsGuessed = 6
	errorsKnown   = 22 // hours of the week that a profile must know for its forecasts to be checked
	errorsMost    = 3  // one day that was all wrong must not make the band of a month
)

// hour notes a forecast at the beginning of an hour: more messages are expected today, count were sent so far. At the
// first hour of a new day yesterday's are checked; count is then still yesterday's.
func (e *errors) hour(now time.Time, count int64, more float64) {
	day := now.Unix() / 86400
	if day != e.Day {
		if day == e.Day+1 {
			for h := range e.Expected {
				after := float64(count) - e.Passed[h]
				if e.Expected[h] < 1 || after < 0 {
					continue
				}
				off := math.Log(max(after, 1) / e.Expected[h])
				off = min(max(off, -errorsMost), errorsMost)
				if len(e.Logs[h]) < errorsKept {
					e.Logs[h] = append(e.Logs[h], off)
				} else {
					e.Logs[h][e.Next[h]%errorsKept] = off
				}
				e.Next[h]++
			}
		}
		e.Day, e.Expected, e.Passed = day, [24]float64{}, [24]float64{}
		count = 0 // it was yesterday's
	}
	h := now.UTC().Hour()
	e.Expected[h], e.Passed[h] = more, float64(count)
}

// band is the factors by which what is still to come today may differ from what is expected: in one day of ten it is
// less than low, in one of ten more than high.
func (e *errors) band(now time.Time) (low, high float64) {
	h := now.UTC().Hour()
	var logs []float64
	days := 0
	for _, at := range [...]int{h - 1, h, h + 1} { // neighbours are much alike, and three see more than one
		if at < 0 || at > 23 {
			continue
		}
		logs = append(logs, e.Logs[at]...)
		days = max(days, len(e.Logs[at]))
	}
	for i := days; i < errorsGuessed; i++ {
		logs = append(logs, -2*errorsGuess, -errorsGuess, 0, errorsGuess, 2*errorsGuess)
	}
	slices.Sort(logs)
	return min(math.Exp(quantile(logs, 0.1)), 1), max(math.Exp(quantile(logs, 0.9)), 1)
}

// quantile of sorted values, between the two nearest.
func quantile(sorted []float64, p float64) float64 {
	at := p * float64(len(sorted)-1)
	i := int(at)
	if i >= len(sorted)-1 {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// sound says that a stored value can be one.
func (e *errors) sound() bool {
	for h := range e.Logs {
		if len(e.Logs[h]) > errorsKept || e.Next[h] < 0 {
			return false
		}
	}
	return true
}
