package quota

import (
	"fmt"
	"strings"
	"time"
)

// Priority says who may still spend when the plan runs low. The zero value is Bulk,
// the first to be refused.
type Priority uint8

// The priorities, lowest first.
const (
	Bulk Priority = iota
	Normal
	Critical
)

// Priorities is how many there are; arrays indexed by Priority have this length.
const Priorities = 3

var priorityNames = [Priorities]string{"bulk", "normal", "critical"}

// String is the word that the config file uses.
func (p Priority) String() string {
	if int(p) < len(priorityNames) {
		return priorityNames[p]
	}
	return "unknown"
}

// ParsePriority is the inverse of String.
func ParsePriority(s string) (Priority, error) {
	for i, name := range priorityNames {
		if s == name {
			return Priority(i), nil
		}
	}
	return 0, fmt.Errorf("priority %q is none of bulk, normal, critical", s)
}

// Plan is what an account may send in one day, counted as Pusher bills: API calls,
// deliveries and webhooks together.
type Plan struct {
	Name           string
	MessagesPerDay int64
}

// The plans that Pusher sells, smallest first. Sandbox and Startup are confirmed by Pusher's
// support pages, the rest by https://pusher.com/channels/pricing as collected in
// https://github.com/api-evangelist/pusher (2026-05-08). Enterprise has no public number:
// give messages_per_day.
var plans = []Plan{
	{"sandbox", 200_000},
	{"startup", 1_000_000},
	{"pro", 4_000_000},
	{"business", 10_000_000},
	{"premium", 20_000_000},
	{"growth", 40_000_000},
	{"plus", 60_000_000},
	{"growth-plus", 90_000_000},
}

// PlanByName finds one of Pusher's plans; case, and the difference between a space, `_`
// and `-`, do not matter.
func PlanByName(name string) (Plan, bool) {
	name = strings.NewReplacer(" ", "-", "_", "-").Replace(strings.ToLower(strings.TrimSpace(name)))
	for _, p := range plans {
		if p.Name == name {
			return p, true
		}
	}
	return Plan{}, false
}

// PlanNames lists the names that PlanByName knows, smallest plan first.
func PlanNames() []string {
	names := make([]string, len(plans))
	for i, p := range plans {
		names[i] = p.Name
	}
	return names
}

const secondsPerDay = 24 * 60 * 60

// Day is a day of Pusher's accounting, which is a day in UTC: days since 1970-01-01.
// Pusher's counters restart at 00:00 UTC
// (https://docs.bird.com/pusher/channels/channels/limits/over-what-time-period-are-my-channels-limits-counted).
type Day int32

// DayOf is the day that t falls on.
func DayOf(t time.Time) Day {
	s := t.Unix()
	d := s / secondsPerDay
	if s%secondsPerDay < 0 {
		d--
	}
	return Day(d)
}

// Start is the day's first instant.
func (d Day) Start() time.Time { return time.Unix(int64(d)*secondsPerDay, 0).UTC() }

// End is the first instant of the next day.
func (d Day) End() time.Time { return (d + 1).Start() }

// String is the date, as in 2026-11-23.
func (d Day) String() string { return d.Start().Format(time.DateOnly) }
