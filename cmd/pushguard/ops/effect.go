package ops

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/words"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// Effect is what a lever would do if it were moved now: the answer of every
// lever under ?dry_run=1. Counts are publishes of the last minute on this
// replica; null means that it cannot be known, and Notes say why.
type Effect struct {
	Lever   string `json:"lever"`
	Account string `json:"account"`
	// Summary is the effect in one sentence.
	Summary string `json:"summary"`
	// RefusedPerMinute would be refused; AlreadyRefused of them are refused now
	// already, for other reasons.
	RefusedPerMinute *int64           `json:"refused_per_minute"`
	AlreadyRefused   *int64           `json:"already_refused_per_minute"`
	Priorities       []PriorityEffect `json:"priorities"`
	// Callers that ask for most.
	Callers  []CallerEffect  `json:"callers"`
	Breaker  *BreakerEffect  `json:"breaker"`
	Forecast *ForecastStatus `json:"forecast"`
	Until    *time.Time      `json:"until"`
	Notes    []string        `json:"notes"`
}

// PriorityEffect is one priority's part of it.
type PriorityEffect struct {
	Priority   string `json:"priority"`
	Publishes  int64  `json:"publishes_1m"`
	RefusedNow int64  `json:"refused_now_1m"`
	Refused    *int64 `json:"refused_then_1m"`
}

// CallerEffect is what a caller asked for in the last minute.
type CallerEffect struct {
	Name      string `json:"name"`
	Publishes int64  `json:"publishes_1m"`
}

// BreakerEffect is where the quota breaker stands, and where it would.
type BreakerEffect struct {
	From string `json:"from"`
	To   string `json:"to"`
	Why  string `json:"why"`
}

func dryRun(r *http.Request) bool {
	v := r.URL.Query().Get("dry_run")
	return v != "" && v != "0" && v != "false"
}

// effect begins an Effect: stops says whether what is done stops a priority
// then, stopped whether the same kind of thing stops it now. What was stopped
// and is not any more goes on to the judgements that follow; how much of it
// those refuse is only known when it happens.
func (s *Server) effect(now time.Time, a Account, lever string, stopped, stops func(quota.Priority) bool) Effect {
	snap := a.Ledger.Snapshot(now)
	out := Effect{Lever: lever, Account: a.Name, Priorities: []PriorityEffect{}, Callers: []CallerEffect{}, Notes: []string{}}
	b := s.book(a.Name)
	var refused, already, freed int64
	for _, p := range b.priorities(now) {
		row := PriorityEffect{Priority: p.Priority, Publishes: p.Publishes, RefusedNow: p.Refused}
		prio, _ := quota.ParsePriority(p.Priority)
		switch {
		case stops(prio):
			row.Refused = &row.Publishes
			refused += p.Publishes
			already += p.Refused
		case !stopped(prio) || p.Refused == 0:
			row.Refused = &row.RefusedNow
		default:
			freed += p.Refused
		}
		out.Priorities = append(out.Priorities, row)
	}
	out.RefusedPerMinute, out.AlreadyRefused = &refused, &already
	if freed > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%s publishes a minute that are refused now are judged again; how many of them rates, containment or the quota breaker refuse is not known before.", words.Count(freed)))
	}
	b.mu.Lock()
	for i, c := range b.recent(now, 60) {
		if c.asked > 0 {
			out.Callers = append(out.Callers, CallerEffect{b.names[i], c.asked})
		}
	}
	known := len(b.fine.since(now.Unix() - 60))
	b.mu.Unlock()
	busiestFirst(out.Callers)
	out.Callers = out.Callers[:min(len(out.Callers), 5)]
	if known < 55 {
		out.Notes = append(out.Notes, fmt.Sprintf("This replica has watched for %d seconds only: a whole minute will show more.", known))
	}
	if snap.Replicas > 1 {
		out.Notes = append(out.Notes, fmt.Sprintf("Publishes are counted on this replica, one of %d; the lever acts on all of them. What the others would refuse is not known here.", snap.Replicas))
	}
	for _, app := range a.Apps {
		if app.Limiter.Policy().Mode == limiter.Observe {
			out.Notes = append(out.Notes, fmt.Sprintf("App %s runs in observe mode: the lever is counted there, and refuses nothing.", app.ID))
		}
	}
	return out
}

func (s *Server) effectOfBrake(now time.Time, a Account, b *quota.Brake) Effect {
	out := s.effect(now, a, "brake on", nothing, brakes(b))
	what := "every publish"
	if b.Allow == "critical" {
		what = "every publish that is not critical"
	}
	out.Summary = fmt.Sprintf("Refuses %s with 403, on every replica: %s publishes a minute at this rate%s.", what, words.Count(*out.RefusedPerMinute), already(*out.AlreadyRefused))
	if !b.Until.IsZero() {
		until := b.Until.UTC()
		out.Until = &until
	} else {
		out.Notes = append(out.Notes, "It has no end: it stays until somebody lifts it.")
	}
	if cur := a.Ledger.CurrentBrake(now); cur != nil {
		out.Notes = append(out.Notes, fmt.Sprintf("The brake is on already, passing %s, by %s. This replaces it.", cur.Allow, orUnknown(cur.By)))
	}
	return out
}

func busiestFirst(callers []CallerEffect) {
	slices.SortFunc(callers, func(x, y CallerEffect) int {
		return cmp.Or(cmp.Compare(y.Publishes, x.Publishes), cmp.Compare(x.Name, y.Name))
	})
}

func nothing(quota.Priority) bool { return false }

// brakes says what a brake stops.
func brakes(b *quota.Brake) func(quota.Priority) bool {
	return func(p quota.Priority) bool { return b != nil && (b.Allow == "none" || p != quota.Critical) }
}

func already(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", of which %s are refused already", words.Count(n))
}

func (s *Server) effectOfRelease(now time.Time, a Account) Effect {
	cur := a.Ledger.CurrentBrake(now)
	out := s.effect(now, a, "brake off", brakes(cur), nothing)
	if cur == nil {
		out.Summary = "Nothing: no brake is on."
		return out
	}
	var freed int64
	for _, p := range out.Priorities {
		if p.Refused == nil {
			freed += p.RefusedNow
		}
	}
	out.RefusedPerMinute, out.AlreadyRefused = nil, nil
	out.Summary = fmt.Sprintf("%s publishes a minute that are refused now are judged by the other rules again.", words.Count(freed))
	return out
}

// effectOfCount is what another plan, or another count of what is used, does.
func (s *Server) effectOfCount(now time.Time, a Account, lever string, used, plan int64) Effect {
	level, why := a.Breaker.Preview(now, used, a.Ledger.Net(plan))
	state := a.Breaker.State(now)
	out := s.effect(now, a, lever, shedsAt(state.State), shedsAt(level))
	out.Breaker = &BreakerEffect{From: state.State.String(), To: level.String(), Why: why}
	snap := a.Ledger.Snapshot(now)
	snap.Used, snap.Plan.MessagesPerDay = used, plan
	snap.Remaining = max(plan-used, 0)
	f := expect(now, a, snap, s.book(a.Name).pace(now))
	out.Forecast = &f
	lasts := "lasts until the reset at 00:00 UTC"
	switch {
	case snap.Remaining == 0:
		lasts = "is used up"
	case f.ExhaustedAt != nil:
		lasts = "is used up at " + f.ExhaustedAt.Format("15:04:05 UTC")
	}
	out.Summary = fmt.Sprintf("%s of %s messages used (%.1f %%), %s left; at this rate the plan %s.",
		words.Count(used), words.Count(plan), 100*float64(used)/float64(max(plan, 1)), words.Count(snap.Remaining), lasts)
	if level == limiter.Closed {
		out.Summary += " The quota breaker is closed then."
	} else {
		out.Summary += fmt.Sprintf(" The quota breaker is %s then: %s publishes a minute are refused%s.", level, words.Count(*out.RefusedPerMinute), already(*out.AlreadyRefused))
	}
	if !snap.Exhausted.IsZero() {
		out.Notes = append(out.Notes, "Pusher itself refuses publishes of this account today. That is not ended by this; a probe that Pusher takes ends it.")
	}
	return out
}

// shedsAt says what the quota breaker refuses at a level.
func shedsAt(l limiter.Level) func(quota.Priority) bool {
	return func(p quota.Priority) bool {
		switch l {
		case limiter.Closed:
			return false
		case limiter.ShedBulk:
			return p == quota.Bulk
		case limiter.ShedNormal, limiter.OnlyCritical:
			return p != quota.Critical
		}
		return true
	}
}

// effectOfHeldRelease counts what would go out.
func (s *Server) effectOfHeldRelease(now time.Time, a Account) Effect {
	out := Effect{Lever: "held release", Account: a.Name, Priorities: []PriorityEffect{}, Callers: []CallerEffect{}, Notes: []string{}}
	zero := int64(0)
	out.RefusedPerMinute, out.AlreadyRefused = &zero, &zero
	held := a.Shelf.Held()
	if held.Waiting == 0 {
		out.Summary = "Changes nothing: no publish is held for later."
		return out
	}
	out.Summary = fmt.Sprintf("Sends now the %s publishes that are held for later, as the brake, the plan and the upstream allow, instead of at their windows' ends.", words.Count(held.Waiting))
	if snap := a.Ledger.Snapshot(now); snap.Brake != nil {
		out.Notes = append(out.Notes, "The brake is on: what it stops stays held, and expires when it is too old.")
	}
	if held.Overdue > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%s are overdue already: it is not their window that keeps them, but the brake, the breaker, the budget or Pusher.", words.Count(held.Overdue)))
	}
	return out
}

// effectOnIncident is what contain, release, accept or ack does to an incident.
func (s *Server) effectOnIncident(now time.Time, in Incident, action string) Effect {
	out := Effect{Lever: action, Account: in.Account, Priorities: []PriorityEffect{}, Callers: []CallerEffect{}, Notes: []string{}}
	switch action {
	case "ack":
		out.Summary = "Changes nothing for callers. The incident is shown as yours, and its alerts are not repeated."
		zero := int64(0)
		out.RefusedPerMinute, out.AlreadyRefused = &zero, &zero
		return out
	case "accept":
		out.Summary = "Ends the incident: the culprits' present rates count as usual from now on, and nobody is held or told because of them."
	case "release":
		out.Summary = "Lets the culprits pass again, as the rules allow. If the excess goes on, it is spent from the plan."
	default:
		out.Summary = "Holds the culprits to their allowance, and nobody else."
	}
	if in.PerSecond > 0 && in.Factor > 1 {
		over := int64(max(in.PerSecond-in.BaselinePer, 0) * 60)
		if action == "contain" {
			out.RefusedPerMinute = &over
			out.Summary += fmt.Sprintf(" About %s of the %s messages a minute that they cost now would be refused with 429.", words.Count(over), words.Count(int64(in.PerSecond*60)))
		} else {
			out.Summary += fmt.Sprintf(" About %s messages a minute beyond their usual would pass to the next judgement.", words.Count(over))
		}
	} else {
		out.Notes = append(out.Notes, "The culprits' present rate is not known, so neither is how many publishes this touches.")
	}
	names := map[string]bool{}
	for _, c := range in.Culprits {
		names[c.Caller] = true
	}
	b := s.book(in.Account)
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, c := range b.recent(now, 60) {
		if names[b.names[i]] {
			out.Callers = append(out.Callers, CallerEffect{b.names[i], c.asked})
		}
	}
	return out
}
