package sim

import (
	"maps"
	"strconv"
	"time"
)

// account is the bill. Its owner holds Server.mu.
type account struct {
	plan int64
	day  int64 // days since 1970-01-01 UTC of the last charge
	used int64 // messages of that day

	requests, events, deliveries, messages, refused int64
	byEndpoint                                      map[string]int64
	byStatus                                        map[int]int64
}

// roll begins a new day at 00:00 UTC. A clock that goes back does not bring
// yesterday's plan back.
func (a *account) roll(now time.Time) {
	if day := floorDiv(now.Unix(), 86400); day > a.day {
		a.day, a.used = day, 0
	}
}

func floorDiv(n, d int64) int64 {
	q := n / d
	if n%d < 0 {
		q--
	}
	return q
}

// charge books cost, all of it or nothing.
func (a *account) charge(now time.Time, cost int64) bool {
	a.roll(now)
	if a.plan != 0 && a.used+cost > a.plan {
		return false
	}
	a.used += cost
	a.messages += cost
	return true
}

// Stats is what the server counted since it began or was last reset.
type Stats struct {
	Requests   int64 `json:"requests"`   // calls to the Channels API, whatever became of them
	Events     int64 `json:"events"`     // events that were accepted
	Deliveries int64 `json:"deliveries"` // messages to subscribers of those
	Messages   int64 `json:"messages"`   // what was billed, over all days
	Refused    int64 `json:"refused"`    // calls refused because the plan was used up; they are not billed
	// ByEndpoint are requests: events, batch_events, channels, channel, users,
	// terminate_connections, channel_events (deprecated), other.
	ByEndpoint map[string]int64 `json:"by_endpoint"`
	// ByStatus are answers, by HTTP status.
	ByStatus map[string]int64 `json:"by_status"`
	// Day, MessagesToday and MessagesPerDay are the account's state now.
	Day            string `json:"day"`
	MessagesToday  int64  `json:"messages_today"`
	MessagesPerDay int64  `json:"messages_per_day"` // 0: no limit
	// Recorded events can be read; Forgotten ones no longer.
	Recorded  int64 `json:"recorded"`
	Forgotten int64 `json:"forgotten"`
}

// Stats returns the counts as they are now.
func (s *Server) Stats() Stats {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.account
	a.roll(now)
	st := Stats{
		Requests: a.requests, Events: a.events, Deliveries: a.deliveries, Messages: a.messages, Refused: a.refused,
		ByEndpoint: maps.Clone(a.byEndpoint), ByStatus: map[string]int64{},
		Day:           time.Unix(a.day*86400, 0).UTC().Format(time.DateOnly),
		MessagesToday: a.used, MessagesPerDay: a.plan,
		Recorded: int64(s.record.len()), Forgotten: s.record.forgotten,
	}
	for status, n := range a.byStatus {
		st.ByStatus[strconv.Itoa(status)] = n
	}
	return st
}
