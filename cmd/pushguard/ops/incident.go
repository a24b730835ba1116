package ops

import (
	"cmp"
	"context"
	"fmt"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The states of an incident.
const (
	IncidentOpen     = "open"
	IncidentResolved = "resolved"
)

// What is being done about an incident's culprits.
const (
	ActionContained = "contained" // held to their allowance
	ActionSuggested = "suggested" // containment waits for a person
	ActionReleased  = "released"  // let go, by a person or because they calmed
	ActionNone      = "none"
)

// Incident is a rate that is wrong, and who makes it. Times are in UTC.
type Incident struct {
	ID         string     `json:"id"`
	Account    string     `json:"account"`
	State      string     `json:"state"` // open, resolved
	StartedAt  time.Time  `json:"started_at"`
	DetectedAt time.Time  `json:"detected_at"`
	ResolvedAt *time.Time `json:"resolved_at"`
	// Factor is how many times its usual the culprit's rate was at its highest.
	Factor      float64        `json:"factor"`
	PerSecond   float64        `json:"per_s"`           // messages a second of the culprits, now or the last
	BaselinePer float64        `json:"baseline_per_s"`  // messages a second that they send as a rule
	Excess      int64          `json:"excess_messages"` // beyond the usual, so far
	Culprits    []Culprit      `json:"culprits"`
	Action      string         `json:"action"` // contained, suggested, released, none
	AckedBy     string         `json:"acked_by,omitempty"`
	Forecast    ForecastStatus `json:"forecast"`
	Samples     []Sample       `json:"samples"`
	Timeline    []Event        `json:"timeline"`
}

// Culprit is a combination that explains a part of the excess; what is empty or
// "*" stands for any.
type Culprit struct {
	Caller  string  `json:"caller"`
	Event   string  `json:"event"`
	Channel string  `json:"channel"`
	Payload string  `json:"payload,omitempty"` // digest
	Share   float64 `json:"share"`             // of the excess, 0–1
}

// Sample is one publish of the culprit. The payload itself is not kept.
type Sample struct {
	At      time.Time `json:"at"`
	Caller  string    `json:"caller"`
	Event   string    `json:"event"`
	Channel string    `json:"channel"`
	Digest  string    `json:"digest"`
	Bytes   int       `json:"bytes"`
	Count   int64     `json:"count,omitempty"` // how often this payload was seen
	Example string    `json:"example,omitempty"`
}

// TopRow is one of the busiest keys. Count is publishes in the window, too high
// by Error at most; Share is of all publishes in the window, 0–1.
type TopRow struct {
	Key   string  `json:"key"`
	Count int64   `json:"count"`
	Error int64   `json:"error"`
	Share float64 `json:"share"`
}

// listIncidents is what the detector knows, newest first.
func (s *Server) listIncidents() []Incident {
	if s.cfg.Incidents == nil {
		return []Incident{}
	}
	list := orEmpty(slices.Clone(s.cfg.Incidents()))
	slices.SortStableFunc(list, func(a, b Incident) int {
		if (a.State == IncidentOpen) != (b.State == IncidentOpen) {
			return map[bool]int{true: -1, false: 1}[a.State == IncidentOpen]
		}
		return b.StartedAt.Compare(a.StartedAt)
	})
	for i := range list {
		in := &list[i]
		in.Culprits, in.Samples, in.Timeline = orEmpty(in.Culprits), orEmpty(in.Samples), orEmpty(in.Timeline)
	}
	return list
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (s *Server) incidents(r *http.Request) ([]Incident, error) {
	list := s.listIncidents()
	if account := r.URL.Query().Get("account"); account != "" {
		list = slices.DeleteFunc(list, func(i Incident) bool { return i.Account != account })
	}
	return list, nil
}

func (s *Server) incidentOf(r *http.Request) (Incident, error) {
	id := r.PathValue("id")
	for _, in := range s.listIncidents() {
		if in.ID == id {
			return in, nil
		}
	}
	if s.cfg.Incidents == nil {
		return Incident{}, &failure{http.StatusNotFound, "the detector is not running, so there are no incidents"}
	}
	return Incident{}, &failure{http.StatusNotFound, fmt.Sprintf("there is no incident %q; see /api/v1/incidents", id)}
}

// incident answers with JSON, or with ?format=markdown a post-mortem draft.
func (s *Server) incident(w http.ResponseWriter, r *http.Request) {
	in, err := s.incidentOf(r)
	if err != nil {
		failWith(w, err)
		return
	}
	switch f := r.URL.Query().Get("format"); f {
	case "", "json":
		reply(w, in)
	case "markdown":
		w.Header().Set("Content-Type", "text/markdown; charset=utf-8")
		_, _ = w.Write([]byte(in.Markdown(s.cfg.Now())))
	default:
		failWith(w, bad("format must be json or markdown; it is %q", f))
	}
}

// IncidentOrder is the body of contain, release, accept and ack.
type IncidentOrder struct {
	Reason string `json:"reason"`
	By     string `json:"by"`
}

// incidentAct is contain, release, accept or ack.
func (s *Server) incidentAct(action string) func(*http.Request, IncidentOrder) (any, error) {
	return func(r *http.Request, in IncidentOrder) (any, error) {
		incident, err := s.incidentOf(r)
		if err != nil {
			return nil, err
		}
		if action == "accept" && incident.State != IncidentOpen {
			return nil, &failure{http.StatusConflict, "the incident is over; only what goes on can be accepted as usual"}
		}
		if dryRun(r) {
			return s.effectOnIncident(s.cfg.Now(), incident, action), nil
		}
		if s.cfg.IncidentAction == nil {
			return nil, &failure{http.StatusServiceUnavailable, "this guard has no detector that could do it"}
		}
		if action != "ack" && strings.TrimSpace(in.Reason) == "" {
			return nil, bad("reason is missing: whoever is on call next must know why")
		}
		ctx, cancel := lasting(r)
		defer cancel()
		who := s.who(r, in.By)
		if err := s.cfg.IncidentAction(ctx, incident.ID, action, who); err != nil {
			return nil, &failure{http.StatusServiceUnavailable, action + " did not work: " + err.Error()}
		}
		s.note(ctx, incident.Account, who, "incident "+action, in.Reason, incident.ID)
		s.cfg.Log.Info("incident "+action, "incident", incident.ID, "account", incident.Account, "who", who)
		return s.incidentOf(r)
	}
}

// Top lists the busiest keys; without a detector callers alone are known, from
// their exact counters.
func (s *Server) top(r *http.Request) ([]TopRow, error) {
	q := r.URL.Query()
	by := cmp.Or(q.Get("by"), "caller")
	if !slices.Contains([]string{"caller", "event", "channel", "payload"}, by) {
		return nil, bad("by must be caller, event, channel or payload; it is %q", by)
	}
	window := time.Minute
	var err error
	if v := q.Get("window"); v != "" {
		if window, err = words.ParseSpan(v); err != nil || window < time.Second || window > 24*time.Hour {
			return nil, bad(`window must be a duration from 1s to 24h, such as "1m"; it is %q`, v)
		}
	}
	limit := 20
	if v := q.Get("limit"); v != "" {
		if _, err := fmt.Sscanf(v, "%d", &limit); err != nil || limit < 1 || limit > 1000 {
			return nil, bad("limit must be from 1 to 1000; it is %q", v)
		}
	}
	rows := []TopRow{}
	switch {
	case s.cfg.Top != nil:
		if rows, err = s.cfg.Top(q.Get("account"), by, window, limit); err != nil {
			return nil, &failure{http.StatusServiceUnavailable, err.Error()}
		}
	case by == "caller":
		for _, a := range s.cfg.Accounts() {
			if want := q.Get("account"); want != "" && want != a.Name {
				continue
			}
			rows = append(rows, s.book(a.Name).topCallers(s.cfg.Now(), window)...)
		}
		slices.SortFunc(rows, func(a, b TopRow) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key)) })
	}
	return orEmpty(rows[:min(limit, len(rows))]), nil
}

func (b *book) topCallers(now time.Time, window time.Duration) (rows []TopRow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, points := b.window(now, window)
	var all int64
	sums := make([]int64, len(b.names))
	for _, p := range points {
		for i, c := range p.callers {
			sums[i] += c.asked
			all += c.asked
		}
	}
	for i, n := range sums {
		if n > 0 {
			rows = append(rows, TopRow{Key: b.names[i], Count: n, Share: float64(n) / float64(all)})
		}
	}
	return rows
}

// note writes a line into the account's audit trail. That it cannot be written
// is logged: the act itself is done.
func (s *Server) note(ctx context.Context, account, who, what, why, after string) {
	for _, a := range s.cfg.Accounts() {
		if a.Name == account {
			if err := a.audit(ctx, s.cfg.Now(), who, what, why, after); err != nil {
				s.cfg.Log.Error("the audit trail could not be written", "what", what, "who", who, "err", err)
			}
		}
	}
}
