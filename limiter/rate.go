package limiter

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Per says what a rate is counted by. The zero value is PerApp.
type Per uint8

// The kinds.
const (
	PerApp     Per = iota // one bucket for all that the rate applies to
	PerCaller             // one a caller
	PerEvent              // one an event name
	PerChannel            // one a channel; a publish to several channels takes a token of each
)

var perNames = [...]string{"app", "caller", "event", "channel"}

// String is the word that the config file uses.
func (p Per) String() string {
	if int(p) < len(perNames) {
		return perNames[p]
	}
	return "unknown"
}

// Rate is a token bucket's size: Burst publishes at once, and PerSecond over any longer time.
type Rate struct {
	PerSecond float64 // > 0
	Burst     int     // >= 1; 0 stands for max(1, ceil(PerSecond))
	Per       Per

	// Of a quota; see ParseQuota. PerSecond is 0, and Burst is for a whole UTC day.
	Day      bool
	Messages bool   // counted as billed, not by publishes
	Part     string // of PerChannel: the pattern of what it counts by; empty: whole names
}

// ParseRate reads "200/s", "5/s per channel", "100/m per event", "0.5/h". Units are s, m, h
// and d, with or without a number before them ("10/5s"). Burst is set to its default.
func ParseRate(s string) (Rate, error) {
	bad := func(why string) (Rate, error) {
		return Rate{}, fmt.Errorf(`rate %q: %s (want for example "200/s" or "5/s per channel")`, s, why)
	}
	fields := strings.Fields(s)
	r := Rate{}
	switch {
	case len(fields) == 3 && fields[1] == "per":
		found := false
		for i, name := range perNames {
			if fields[2] == name {
				r.Per, found = Per(i), true
			}
		}
		if !found {
			return bad("per must be app, caller, event or channel")
		}
	case len(fields) != 1:
		return bad("not a rate")
	}
	count, unit, ok := strings.Cut(fields[0], "/")
	if !ok {
		return bad("the unit of time is missing")
	}
	n, err := strconv.ParseFloat(count, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return bad("the count is not a number")
	}
	if n <= 0 {
		return bad("the count must be above zero")
	}
	span, err := parseSpan(unit)
	if err != nil {
		return bad(err.Error())
	}
	r.PerSecond = n / span.Seconds()
	return r.normal()
}

var spanUnits = map[string]time.Duration{
	"s": time.Second, "sec": time.Second, "second": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute,
	"h": time.Hour, "hour": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour,
}

func parseSpan(s string) (time.Duration, error) {
	if s == "" {
		return 0, fmt.Errorf("the unit of time is missing")
	}
	digits := len(s) - len(strings.TrimLeft(s, "+-.0123456789"))
	unit, ok := spanUnits[s[digits:]]
	if !ok {
		return 0, fmt.Errorf("the unit of time must be s, m, h or d, or second, minute, hour or day")
	}
	if digits == 0 {
		return unit, nil
	}
	n, err := strconv.ParseUint(s[:digits], 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("the number before the unit of time must be between 1 and 65535")
	}
	return time.Duration(n) * unit, nil
}

// String is the form that ParseRate reads; the burst is not in it.
func (r Rate) String() string {
	if r.Day {
		return r.quotaString()
	}
	s := ""
	switch n := r.PerSecond; {
	case n >= 1 || n == 0:
		s = strconv.FormatFloat(n, 'g', -1, 64) + "/s"
	case n*60 >= 1:
		s = strconv.FormatFloat(n*60, 'g', 6, 64) + "/m"
	default:
		s = strconv.FormatFloat(n*3600, 'g', 6, 64) + "/h"
	}
	if r.Per != PerApp {
		s += " per " + r.Per.String()
	}
	return s
}

const (
	maxPerSecond = 1e9
	maxBurst     = 1 << 30
)

// normal checks a rate and fills in its default burst.
func (r Rate) normal() (Rate, error) {
	if r.Day {
		if r.PerSecond != 0 || r.Burst < 1 || r.Burst > maxBurst || int(r.Per) >= len(perNames) {
			return r, fmt.Errorf("quota of %d a day: must be between 1 and %d", r.Burst, maxBurst)
		}
		return r, nil
	}
	if !(r.PerSecond > 0) || r.PerSecond > maxPerSecond {
		return r, fmt.Errorf("rate of %g a second: must be above 0 and at most %g", r.PerSecond, float64(maxPerSecond))
	}
	if int(r.Per) >= len(perNames) {
		return r, fmt.Errorf("rate per %d: not a kind", r.Per)
	}
	if r.Burst == 0 {
		r.Burst = max(1, int(math.Ceil(r.PerSecond)))
	}
	if r.Burst < 1 || r.Burst > maxBurst {
		return r, fmt.Errorf("burst of %d: must be between 1 and %d", r.Burst, maxBurst)
	}
	return r, nil
}

// fill is how long an empty bucket takes to be full.
func (r Rate) fill() time.Duration {
	if r.Day {
		return 24 * time.Hour
	}
	s := float64(r.Burst) / r.PerSecond
	if s >= maxFill.Seconds() {
		return maxFill
	}
	return time.Duration(s * float64(time.Second))
}

const maxFill = 366 * 24 * time.Hour
