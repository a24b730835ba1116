package ops

import (
	"net/http"
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
}

// StoreStatus says which store this is ("embedded", "redis", …) and whether it
// answers ("up", "down: why").
type StoreStatus struct {
	Kind  string `json:"kind"`
	State string `json:"state"`
}

// AccountStatus is one Pusher account today. Remaining is what the plan has
// left; Leased is the part of it that replicas hold and have not spent.
type AccountStatus struct {
	Name      string         `json:"name"`
	Plan      PlanStatus     `json:"plan"`
	Day       string         `json:"day"`
	Used      int64          `json:"used"`
	Leased    int64          `json:"leased"`
	Remaining int64          `json:"remaining"`
	Forecast  ForecastStatus `json:"forecast"`
	Breaker   BreakerStatus  `json:"breaker"`
	Brake     *BrakeStatus   `json:"brake"`
	Callers   []CallerStatus `json:"callers"`
	Apps      []AppStatus    `json:"apps"`
}

// PlanStatus is the plan in force.
type PlanStatus struct {
	Name           string `json:"name"`
	MessagesPerDay int64  `json:"messages_per_day"`
}

// ForecastStatus says when the plan will be used up at this rate, null when it
// will not be today, and how much will be used by 00:00 UTC.
type ForecastStatus struct {
	ExhaustedAt *time.Time `json:"exhausted_at"`
	UsedAtReset int64      `json:"used_at_reset"`
}

// BreakerStatus is the quota breaker.
type BreakerStatus struct {
	State  string    `json:"state"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// BrakeStatus is a stop by hand; Priority is what still passes.
type BrakeStatus struct {
	Priority string     `json:"priority"`
	Reason   string     `json:"reason"`
	By       string     `json:"by"`
	Until    *time.Time `json:"until"`
}

// CallerStatus is one caller over all apps of the account.
type CallerStatus struct {
	Name          string           `json:"name"`
	Rate1m        float64          `json:"rate_1m"`
	MessagesToday int64            `json:"messages_today"`
	Outcomes      map[string]int64 `json:"outcomes"`
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
	Upstream UpstreamStatus `json:"upstream"`
}

// UpstreamStatus is the upstream breaker: "closed", "open" or "half-open", and
// the share of recent calls that failed.
type UpstreamStatus struct {
	URL       string  `json:"url"`
	State     string  `json:"state"`
	ErrorRate float64 `json:"error_rate"`
}

// Status gathers what /api/v1/status shows.
func (s *Server) Status() Status {
	now := s.cfg.Now()
	out := Status{
		Version: s.cfg.Version, Replica: s.cfg.Replica,
		UptimeS:  int64(now.Sub(s.cfg.Started).Seconds()),
		Accounts: []AccountStatus{},
	}
	out.Store.Kind, out.Store.State = s.cfg.Store()
	for _, a := range s.cfg.Accounts() {
		out.Accounts = append(out.Accounts, s.accountStatus(now, a))
	}
	sort.Slice(out.Accounts, func(i, j int) bool { return out.Accounts[i].Name < out.Accounts[j].Name })
	return out
}

func (s *Server) status(*http.Request) (Status, error) { return s.Status(), nil }

func (s *Server) accountStatus(now time.Time, a Account) AccountStatus {
	snap := a.Ledger.Snapshot(now)
	br := a.Breaker.State(now)
	out := AccountStatus{
		Name: a.Name,
		Plan: PlanStatus{Name: snap.Plan.Name, MessagesPerDay: snap.Plan.MessagesPerDay},
		Day:  snap.Day.String(), Used: snap.Used, Leased: snap.Leased, Remaining: snap.Remaining,
		Breaker:  BreakerStatus{State: br.State.String(), Reason: br.Reason, Since: br.Since.UTC()},
		Forecast: forecast(now, snap, s.pace.perSecond(a.Name)),
		Callers:  callers(now, a),
		Apps:     []AppStatus{},
	}
	if snap.Brake != nil {
		b := &BrakeStatus{Priority: snap.Brake.Allow, Reason: snap.Brake.Reason, By: snap.Brake.By}
		if !snap.Brake.Until.IsZero() {
			until := snap.Brake.Until.UTC()
			b.Until = &until
		}
		out.Brake = b
	}
	for _, app := range a.Apps {
		state, rate := app.Upstream.State()
		out.Apps = append(out.Apps, AppStatus{ID: app.ID, Upstream: UpstreamStatus{URL: app.Upstream.Host(), State: state, ErrorRate: rate}})
	}
	sort.Slice(out.Apps, func(i, j int) bool { return out.Apps[i].ID < out.Apps[j].ID })
	return out
}

// forecast draws today's straight line: what is used, and the last minute's
// rate until 00:00 UTC.
func forecast(now time.Time, snap quota.Snapshot, perSecond float64) ForecastStatus {
	left := snap.Day.End().Sub(now).Seconds()
	out := ForecastStatus{UsedAtReset: snap.Used + int64(perSecond*left)}
	if snap.Remaining <= 0 {
		t := now.UTC()
		out.ExhaustedAt = &t
		return out
	}
	if perSecond > 0 {
		if secs := float64(snap.Remaining) / perSecond; secs < left {
			t := now.Add(time.Duration(secs * float64(time.Second))).UTC().Truncate(time.Second)
			out.ExhaustedAt = &t
		}
	}
	return out
}

func callers(now time.Time, a Account) []CallerStatus {
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
			for o := range limiter.Outcome(limiter.Outcomes) {
				row.Outcomes[o.String()] += st.Outcomes[o]
			}
		}
		if row := byName["app"]; row != nil {
			for _, o := range app.CallerOrigins() {
				row.Origins = append(row.Origins, OriginStatus{Name: o.Name, Publishes: o.Publishes})
			}
		}
	}
	out := make([]CallerStatus, 0, len(byName))
	for _, row := range byName {
		out = append(out, *row)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}
