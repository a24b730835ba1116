// Package words writes numbers, times and states for people: one form each,
// for the dashboard's API, the terminal, alerts and post-mortems alike.
//
// It holds no state and knows nothing of the guard's types: what it is given
// is what it says. A number has one rounding here, and a state one name.
package words

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Count writes 1234567 as 1,234,567.
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Rate writes something a second with the digits that say something.
func Rate(perSecond float64) string {
	switch a := math.Abs(perSecond); {
	case math.IsNaN(a) || math.IsInf(a, 0):
		return "unknown"
	case a < 0.005:
		return "0"
	case a < 0.0995:
		return strconv.FormatFloat(perSecond, 'f', 2, 64)
	case a < 99.95:
		return strconv.FormatFloat(perSecond, 'f', 1, 64)
	}
	return Count(int64(math.Round(perSecond)))
}

// Times writes a factor: 1.7, 24, 2,684. One that has no bound, or no base to
// compare with, is "many".
func Times(f float64) string {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return "many"
	case f < 9.95:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return Count(int64(math.Round(f)))
}

// Part writes a part of the plan: 0.4 %, 37.5 %, 120 %, and beyond ten plans
// "19.6 plans", because nobody reads 1961 %.
func Part(f float64) string {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return "an unknown part"
	case f >= 10:
		return Times(f) + " plans"
	case f >= 0.9995:
		return strconv.FormatFloat(f*100, 'f', 0, 64) + " %"
	case f == 0:
		return "0 %"
	case f < 0.0005:
		return "under 0.1 %"
	}
	return strconv.FormatFloat(f*100, 'f', 1, 64) + " %"
}

// Span writes a duration in at most two units: 350 ms, 45 s, 1 min 30 s, 2 h,
// 1 d 4 h.
func Span(d time.Duration) string {
	if d < 0 {
		return "-" + Span(-d)
	}
	if d == 0 {
		return "0 s"
	}
	if d < time.Second {
		if d < time.Millisecond {
			return strconv.FormatInt(d.Microseconds(), 10) + " µs"
		}
		return strconv.FormatInt(d.Round(time.Millisecond).Milliseconds(), 10) + " ms"
	}
	if d < 10*time.Second && d%time.Second != 0 {
		return strings.TrimSuffix(strconv.FormatFloat(d.Seconds(), 'f', 1, 64), ".0") + " s"
	}
	s := int64(d.Round(time.Second) / time.Second)
	two := func(a int64, unit string, b int64, small string) string {
		if b == 0 {
			return fmt.Sprintf("%d %s", a, unit)
		}
		return fmt.Sprintf("%d %s %d %s", a, unit, b, small)
	}
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return two(s/60, "min", s%60, "s")
	case s < 86400:
		return two(s/3600, "h", s/60%60, "min")
	}
	return two(s/86400, "d", s/3600%24, "h")
}

// Setting writes a duration as the config file and flags take it: 2s, 10m,
// 1h30m, 24h.
func Setting(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var spanPart = regexp.MustCompile(`^\s*([0-9]+(?:\.[0-9]+)?)\s*(ns|us|µs|ms|minutes?|mins?|m|seconds?|secs?|s|hours?|hrs?|h|days?|d|weeks?|w)\s*`)

// ErrSpan is what ParseSpan says of a text that is no duration.
var ErrSpan = errors.New("write a number with its unit, like 500ms, 30s, 10m, 1h30m or 2d")

// ParseSpan reads a duration as people write it: 500ms, 90s, 10m, 10 min,
// 1h30m, 2d, 1w. The error is ErrSpan.
func ParseSpan(text string) (time.Duration, error) {
	rest := strings.ToLower(strings.TrimSpace(text))
	if rest == "0" {
		return 0, nil
	}
	if rest == "" {
		return 0, ErrSpan
	}
	var sum float64
	for rest != "" {
		m := spanPart.FindStringSubmatch(rest)
		if m == nil {
			return 0, ErrSpan
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, ErrSpan
		}
		unit := time.Nanosecond
		switch m[2] {
		case "us", "µs":
			unit = time.Microsecond
		case "ms":
			unit = time.Millisecond
		case "s", "sec", "secs", "second", "seconds":
			unit = time.Second
		case "m", "min", "mins", "minute", "minutes":
			unit = time.Minute
		case "h", "hr", "hrs", "hour", "hours":
			unit = time.Hour
		case "d", "day", "days":
			unit = 24 * time.Hour
		case "w", "week", "weeks":
			unit = 7 * 24 * time.Hour
		}
		sum += n * float64(unit)
		rest = rest[len(m[0]):]
	}
	if sum >= math.MaxInt64 {
		return 0, ErrSpan
	}
	return time.Duration(math.Round(sum)), nil
}

// Printable keeps what callers chose from moving a terminal's cursor, breaking
// a line or turning the direction of text.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) || r >= 0x2028 && r <= 0x202e {
			return '?'
		}
		return r
	}, s)
}

// Plural is "1 caller", "2 callers", "1,000 publishes".
func Plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if strings.HasSuffix(one, "sh") || strings.HasSuffix(one, "s") {
		one += "e"
	}
	return Count(n) + " " + one + "s"
}

// Clock is a time of day in UTC, with its date where that is not the day of now.
func Clock(at, now time.Time) string {
	at, now = at.UTC(), now.UTC()
	if at.Year() == now.Year() && at.YearDay() == now.YearDay() {
		return at.Format("15:04 UTC")
	}
	return at.Format("2 Jan 15:04 UTC")
}

// Quota is what the quota breaker's state means for publishes.
func Quota(state string) string {
	switch state {
	case "closed":
		return "all pass"
	case "shed_bulk":
		return "refusing bulk"
	case "shed_normal":
		return "refusing bulk and normal"
	case "critical_only":
		return "only critical pass"
	case "open":
		return "nothing passes"
	case "half_open":
		return "trying again"
	}
	return state
}

// Outcome is what became of a publish, for people who have not read the API.
func Outcome(outcome string) string {
	switch outcome {
	case "deduplicated":
		return "duplicate, not sent again"
	case "conflated":
		return "replaced by a newer value"
	case "digested":
		return "not delivered; a refresh event goes instead"
	case "vacant":
		return "not sent, nobody subscribed"
	case "over_budget":
		return "over budget"
	}
	return outcome
}

// Undelivered says whether an outcome was accepted from the caller (200) while
// this publish itself reaches nobody.
func Undelivered(outcome string) bool {
	switch outcome {
	case "digested", "vacant", "conflated", "deduplicated":
		return true
	}
	return false
}
