package ops

import (
	"cmp"
	"net/http"
	"slices"
	"sort"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// Status is the answer of GET /api/v1/status. Times are RFC 3339 in UTC, counts
// are integers.
type Status struct {
	Version  string          `json:"version"`
	Replica  string          `json:"replica"`
	UptimeS  int64           `json:"uptime_s"`
	Store    StoreStatus     `json:"store"`
	Accounts []AccountStatus `json:"accounts"`
	// The config that was last given has mistakes, and the one before is in force; absent when not so.
	ReloadRefused bool `json:"reload_refused,omitempty"`
}

// StoreStatus says which store this is ("embedded", "redis", …) and whether it
// answers ("up", "down: why").
type StoreStatus struct {
	Kind  string `json:"kind"`
	State string `json:"state"`
}

// AccountStatus is one Pusher account today. Remaining is what the plan has
// left; Leased is the part of it that replicas hold and have not spent. Used,
// Leased and Remaining are of all replicas; rates and outcomes are of this one.
type AccountStatus struct {
	Name       string          `json:"name"`
	Plan       PlanStatus      `json:"plan"`
	Day        string          `json:"day"`
	ResetsAt   time.Time       `json:"resets_at"`
	Used       int64           `json:"used"`
	Leased     int64           `json:"leased"`
	Remaining  int64           `json:"remaining"`
	Forecast   ForecastStatus  `json:"forecast"`
	Breaker    BreakerStatus   `json:"breaker"`
	Thresholds ThresholdStatus `json:"thresholds"`
	Floors     FloorStatus     `json:"floors"`
	Brake      *BrakeStatus    `json:"brake"`
	// Aimed are brakes on a part of the account.
	Aimed      []AimStatus      `json:"aimed"`
	Exhausted  *ExhaustedStatus `json:"exhausted"`
	Ledger     LedgerStatus     `json:"ledger"`
	Priorities []PriorityStatus `json:"priorities"`
	// Minute is what became of the last minute's publishes, Verdict what all of this means.
	Minute  MinuteStatus `json:"minute"`
	Verdict Verdict      `json:"verdict"`
	// CallersTotal is how many there are; the stream of events carries only the
	// busiest.
	CallersTotal int            `json:"callers_total"`
	Callers      []CallerStatus `json:"callers"`
	Apps         []AppStatus    `json:"apps"`
	// Bill says how the count comes about, and how much of it is a guess.
	Bill BillStatus `json:"bill"`
	// Held is what was answered and waits in the store to be sent, on all replicas.
	Held HeldStatus `json:"held"`
	// Sink is true when this replica swallows everything (serve --sink).
	Sink bool `json:"sink"`
	// Swallowed is what did not go to Pusher because of --sink or because its
	// callers are load tests; null when no caller is one.
	Swallowed *Swallowed `json:"swallowed"`
}

// HeldStatus counts held publishes: waiting, of those the ones whose window is
// over (the brake, the plan or Pusher keeps them), and those a replica sends now.
// It is a second old at most while the store answers.
type HeldStatus struct {
	Waiting int64 `json:"waiting"`
	Overdue int64 `json:"overdue"`
	Sending int64 `json:"sending"`
}

// Swallowed is what answered in Pusher's place and what Pusher would have
// billed for it, counted on this replica since the process began.
type Swallowed struct {
	Calls      int64 `json:"calls"`
	Events     int64 `json:"events"`
	Deliveries int64 `json:"deliveries"`
	Messages   int64 `json:"messages"`
}

// Add adds o.
func (s *Swallowed) Add(o Swallowed) {
	s.Calls += o.Calls
	s.Events += o.Events
	s.Deliveries += o.Deliveries
	s.Messages += o.Messages
}

// ThresholdStatus says at which part of the plan (0–1) the breaker begins to
// refuse what.
type ThresholdStatus struct {
	// ByForecast: they follow from what the rest of the day needs for the priorities that are kept, and move with it.
	ByForecast   bool    `json:"by_forecast"`
	ShedBulk     float64 `json:"shed_bulk"`
	ShedNormal   float64 `json:"shed_normal"`
	CriticalOnly float64 `json:"critical_only"`
}

// FloorStatus is the part of the plan (0–1) that lower priorities cannot eat.
type FloorStatus struct {
	Critical float64 `json:"critical"`
	Normal   float64 `json:"normal"`
}

// ExhaustedStatus is Pusher's own word that the account is over its quota.
type ExhaustedStatus struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// LedgerStatus is how this replica stands with the store.
type LedgerStatus struct {
	Replicas    int       `json:"replicas"`      // alive, this one included
	Lease       int64     `json:"lease"`         // messages that this replica may send without asking
	LeaseSpent  bool      `json:"lease_spent"`   // the store is out of reach, and too little of the lease is left for what comes
	Borrowed    int64     `json:"borrowed"`      // sent beyond the lease while the store is out of reach
	StoreUp     bool      `json:"store_up"`      //
	StoreError  string    `json:"store_error"`   // why not
	StoreSince  time.Time `json:"store_since"`   // since when up, or not
	OnStoreLoss string    `json:"on_store_loss"` // lease, open, closed
	Healing     bool      `json:"healing"`       // the store lost data and is being told what replicas know
	Faults      int       `json:"faults"`        // losses of data seen since this replica started
	Epoch       string    `json:"epoch"`         // changes when the store loses data
}

// PriorityStatus is the last minute of one priority on this replica. Refused is
// the part of Publishes that was held back.
type PriorityStatus struct {
	Priority  string `json:"priority"`
	Publishes int64  `json:"publishes_1m"`
	Refused   int64  `json:"refused_1m"`
}

// PlanStatus is the plan in force.
type PlanStatus struct {
	Name           string `json:"name"`
	MessagesPerDay int64  `json:"messages_per_day"`
}

// ForecastStatus says when the plan will be used up at this rate, null when it
// will not be today, and how much will be used by 00:00 UTC. The rate is that of
// the last minute; low and high are the band in which most minutes of the last
// hour lay.
type ForecastStatus struct {
	ExhaustedAt *time.Time `json:"exhausted_at"`
	UsedAtReset int64      `json:"used_at_reset"`
	// Low and High are the band: one day in ten ends below, one above.
	Low           int64   `json:"used_at_reset_low"`
	High          int64   `json:"used_at_reset_high"`
	PerSecond     float64 `json:"per_s"`
	LowPerSecond  float64 `json:"low_per_s"`
	HighPerSecond float64 `json:"high_per_s"`
	// Basis is profile when the account's week is known, as learned hour by hour; straight_line, the last minute's rate
	// held until the reset, until the first whole hour has been seen.
	Basis string `json:"basis"`
	// ProfileHours is how many of the week's 168 hours are known. What is not known counts as that hour on other days,
	// else as the day's mean.
	ProfileHours int `json:"profile_hours"`
}

// BreakerStatus is the quota breaker.
type BreakerStatus struct {
	State  string     `json:"state"`
	Reason string     `json:"reason"`
	Since  time.Time  `json:"since"`
	Burn   BurnStatus `json:"burn"`
}

// BurnStatus is how fast the plan burns, as multiples of the even rate (the plan divided by the day), and where the
// part of the breaker stands that watches it. It decides in burn_rate: observe too, and then sheds nothing.
type BurnStatus struct {
	Mode  string `json:"mode"`  // on, observe, off
	State string `json:"state"` // closed, shed_bulk, shed_normal, critical_only, half_open (on trial)
	// Since, Until and Reason are of that state; Until is null when it has no end. Trips is how often it began to shed today.
	Since  *time.Time `json:"since"`
	Until  *time.Time `json:"until"`
	Reason string     `json:"reason,omitempty"`
	By     string     `json:"by,omitempty"` // the replica that decided it
	Trips  int        `json:"trips_today"`
	// Windows are pairs, the longer first: both must be at Mark or more, and the forecast must say that the plan will not
	// last. Times is null until the process has watched for that long.
	Windows []BurnWindowStatus `json:"windows"`
}

// BurnWindowStatus is one window.
type BurnWindowStatus struct {
	OverS float64  `json:"over_s"`
	Times *float64 `json:"times"`
	Mark  float64  `json:"mark"`
}

func burnStatus(now time.Time, a Account, plan int64) BurnStatus {
	st := a.Breaker.BurnState()
	if st.Day != quota.DayOf(now) {
		st = quota.Burn{}
	}
	out := BurnStatus{Mode: a.Levels.Burn.String(), State: burnLevel(st).String(), Reason: st.Reason, By: st.By, Trips: st.Trips}
	if !st.Since.IsZero() {
		since := st.Since.UTC()
		out.Since = &since
	}
	if st.Level > 0 && !st.Until.IsZero() {
		until := st.Until.UTC()
		out.Until = &until
	}
	for _, w := range a.Breaker.BurnWindows(now, plan) {
		one := BurnWindowStatus{OverS: w.Over.Seconds(), Mark: w.Mark}
		if w.Known {
			one.Times = &w.Times
		}
		out.Windows = append(out.Windows, one)
	}
	return out
}

// burnLevel is the level that the burn rate asks for.
func burnLevel(st quota.Burn) limiter.Level {
	if st.Trial {
		return limiter.HalfOpen
	}
	return limiter.Level(st.Level)
}

// BrakeStatus is a stop by hand; Priority is what still passes.
type BrakeStatus struct {
	Priority string     `json:"priority"`
	Reason   string     `json:"reason"`
	By       string     `json:"by"`
	Since    time.Time  `json:"since"`
	Until    *time.Time `json:"until"`
}

// CallerStatus is one caller over all apps of the account, on this replica.
// Outcomes are since the process began. Rates are publishes a second asked for,
// whatever became of them; Usual is the median minute of the last hour, null
// while too little is known.
type CallerStatus struct {
	Name          string           `json:"name"`
	Rate1m        float64          `json:"rate_1m"`
	Rate10s       float64          `json:"rate_10s"`
	Usual         *float64         `json:"usual_per_s"`
	Held1m        int64            `json:"held_1m"` // publishes refused in the last minute
	MessagesToday int64            `json:"messages_today"`
	Outcomes      map[string]int64 `json:"outcomes"`
	Would         map[string]int64 `json:"would,omitempty"`    // decided in observe mode, not carried out
	Rejected      int64            `json:"rejected,omitempty"` // refused by Pusher itself
	Origins       []OriginStatus   `json:"origins,omitempty"`
}

// OriginStatus tells apart who shares the app's own key.
type OriginStatus struct {
	Name      string `json:"name"`
	Publishes int64  `json:"publishes"`
}

// AppStatus is one app and its way to Pusher.
type AppStatus struct {
	ID       string         `json:"id"`
	Mode     string         `json:"mode"` // enforce, observe
	Upstream UpstreamStatus `json:"upstream"`
}

// UpstreamStatus is the upstream breaker: "closed", "open" or "half-open", and
// the share of recent calls that failed; and how many requests are on their way
// to it, may be, wait to be, and were sent away because they could not be, by
// priority.
type UpstreamStatus struct {
	URL       string           `json:"url"`
	State     string           `json:"state"`
	ErrorRate float64          `json:"error_rate"`
	Limit     int64            `json:"limit"`
	UnderWay  int64            `json:"under_way"`
	Waiting   int64            `json:"waiting"`
	Silent    bool             `json:"silent,omitempty"` // it answers nothing; then Limit is 0
	Shed      map[string]int64 `json:"shed,omitempty"`
}

// Status gathers what /api/v1/status shows.
func (s *Server) Status() Status {
	now := s.cfg.Now()
	out := Status{
		Version: s.cfg.Version, Replica: s.cfg.Replica,
		UptimeS:       int64(now.Sub(s.cfg.Started).Seconds()),
		Accounts:      []AccountStatus{},
		ReloadRefused: s.cfg.ReloadOK != nil && !s.cfg.ReloadOK(),
	}
	out.Store.Kind, out.Store.State = s.cfg.Store()
	ready, incidents := s.readiness(), s.listIncidents()
	for _, a := range s.cfg.Accounts() {
		one := s.accountStatus(now, a)
		one.Verdict = verdict(now, &out, &one, openOf(incidents, a.Name), ready)
		out.Accounts = append(out.Accounts, one)
	}
	sort.Slice(out.Accounts, func(i, j int) bool { return out.Accounts[i].Name < out.Accounts[j].Name })
	return out
}

func (s *Server) status(*http.Request) (Status, error) { return s.Status(), nil }

func (s *Server) accountStatus(now time.Time, a Account) AccountStatus {
	snap := a.Ledger.Snapshot(now)
	br := a.Breaker.State(now)
	b := s.book(a.Name)
	marks, byForecast := a.Breaker.Protected(snap.Plan.MessagesPerDay)
	out := AccountStatus{
		Name: a.Name,
		Plan: PlanStatus{Name: snap.Plan.Name, MessagesPerDay: snap.Plan.MessagesPerDay},
		Day:  snap.Day.String(), ResetsAt: snap.Day.End(), Used: snap.Used, Leased: snap.Leased, Remaining: snap.Remaining,
		Breaker:    BreakerStatus{State: br.State.String(), Reason: br.Reason, Since: br.Since.UTC(), Burn: burnStatus(now, a, snap.Plan.MessagesPerDay)},
		Forecast:   expect(now, a, snap, b.pace(now)),
		Thresholds: ThresholdStatus{byForecast, marks[limiter.ShedBulk], marks[limiter.ShedNormal], marks[limiter.OnlyCritical]},
		Floors:     FloorStatus{Critical: a.Floors[quota.Critical], Normal: a.Floors[quota.Normal]},
		Ledger: LedgerStatus{
			Replicas: snap.Replicas, Lease: snap.Lease, LeaseSpent: snap.LeaseSpent, Borrowed: snap.Borrowed, StoreUp: snap.StoreUp, StoreError: snap.StoreErr,
			StoreSince: snap.StoreSince.UTC(), OnStoreLoss: snap.OnStoreLoss.String(), Healing: snap.Healing, Faults: snap.Faults, Epoch: snap.Epoch,
		},
		Priorities: b.priorities(now),
		Minute:     b.minuteStatus(now),
		Callers:    callers(now, a, b),
		Apps:       []AppStatus{},
	}
	out.CallersTotal = len(out.Callers)
	out.Bill = BillOf(now, a)
	if a.Shelf != nil {
		out.Held = HeldStatus(a.Shelf.Held())
	}
	if out.Sink = a.Sink; a.Swallowed != nil {
		out.Swallowed = a.Swallowed()
	}
	out.Aimed = aimStatuses(snap.Aims)
	if snap.Brake != nil {
		out.Brake = &BrakeStatus{Priority: snap.Brake.Allow, Reason: snap.Brake.Reason, By: snap.Brake.By, Since: snap.Brake.Since.UTC()}
		if !snap.Brake.Until.IsZero() {
			until := snap.Brake.Until.UTC()
			out.Brake.Until = &until
		}
	}
	if !snap.Exhausted.IsZero() {
		out.Exhausted = &ExhaustedStatus{snap.Exhausted.UTC(), snap.ExhaustedBy}
	}
	for _, app := range a.Apps {
		state, rate := app.Upstream.State()
		over := app.Upstream.Overload()
		up := UpstreamStatus{URL: app.Upstream.Host(), State: state, ErrorRate: rate, Limit: over.Limit, UnderWay: over.UnderWay, Waiting: over.Waiting, Silent: over.Silent}
		for p, n := range over.Shed {
			if n > 0 {
				if up.Shed == nil {
					up.Shed = map[string]int64{}
				}
				up.Shed[quota.Priority(p).String()] = n
			}
		}
		out.Apps = append(out.Apps, AppStatus{ID: app.ID, Mode: app.Limiter.Policy().Mode.String(), Upstream: up})
	}
	sort.Slice(out.Apps, func(i, j int) bool { return out.Apps[i].ID < out.Apps[j].ID })
	return out
}

// priorities is the last minute by priority, highest first. A rule that
// observes is left out: what it matches is judged, and counted, under another.
func (b *book) priorities(now time.Time) []PriorityStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sums [quota.Priorities]pair
	for r, w := range b.rules {
		if r.Spec().Mode == limiter.Observe {
			continue
		}
		p := w.sum(now.Unix())
		sums[r.Priority()].asked += p.asked
		sums[r.Priority()].held += p.held
	}
	out := make([]PriorityStatus, 0, quota.Priorities)
	for p := quota.Critical; ; p-- {
		out = append(out, PriorityStatus{p.String(), sums[p].asked, sums[p].held})
		if p == quota.Bulk {
			return out
		}
	}
}

func callers(now time.Time, a Account, b *book) []CallerStatus {
	byName := map[string]*CallerStatus{}
	for _, app := range a.Apps {
		for _, c := range app.Limiter.Callers() {
			row := byName[c.Name()]
			if row == nil {
				row = &CallerStatus{Name: c.Name(), Outcomes: map[string]int64{}}
				byName[c.Name()] = row
			}
			st := c.Stats(now)
			row.Rate1m += st.Rate1m
			row.MessagesToday += st.MessagesToday
			row.Rejected += st.Refused
			for o := range limiter.Outcome(limiter.Outcomes) {
				row.Outcomes[o.String()] += st.Outcomes[o]
				if st.Would[o] > 0 {
					if row.Would == nil {
						row.Would = map[string]int64{}
					}
					row.Would[o.String()] += st.Would[o]
				}
			}
		}
		if row := byName["app"]; row != nil {
			for _, o := range app.CallerOrigins() {
				row.Origins = append(row.Origins, OriginStatus{Name: o.Name, Publishes: o.Publishes})
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ten, minute := b.recent(now, 10), b.recent(now, 60)
	out := make([]CallerStatus, 0, len(byName))
	for name, row := range byName {
		if i, known := b.index[name]; known {
			row.Rate10s = float64(ten[i].asked) / 10
			row.Held1m = minute[i].held
			if usual, ok := b.usual(now, i); ok {
				row.Usual = &usual
			}
		}
		out = append(out, *row)
	}
	slices.SortFunc(out, func(a, b CallerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
