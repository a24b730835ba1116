package ops

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// nights are the states in which somebody looks at the page at three in the
// morning. Each is a status as the guard makes it; what is said of it is held
// against its own numbers.
func nights(now time.Time) map[string]night {
	usual := 40.0
	base := func() night {
		n := night{now: now, ready: Readiness{Ready: true}}
		n.st = Status{Store: StoreStatus{Kind: "redis", State: "up"}}
		n.a = AccountStatus{
			Name: "care", Plan: PlanStatus{Name: "startup", MessagesPerDay: 1_000_000}, ResetsAt: now.Truncate(24 * time.Hour).Add(24 * time.Hour),
			Used: 300_000, Remaining: 700_000, Forecast: ForecastStatus{UsedAtReset: 800_000, PerSecond: 9},
			Breaker:    BreakerStatus{State: "closed", Reason: "within the plan", Since: now.Add(-time.Hour)},
			Thresholds: ThresholdStatus{false, .8, .95, .98},
			Ledger:     LedgerStatus{Replicas: 2, Lease: 500, StoreUp: true, OnStoreLoss: "lease"},
			Apps:       []AppStatus{{ID: "1234", Mode: "enforce", Upstream: UpstreamStatus{State: "closed"}}},
			Minute:     MinuteStatus{Asked: 1000, Delivered: 1000},
			Callers:    []CallerStatus{{Name: "care-api", Rate10s: 41, Usual: &usual}, {Name: "refresher", Rate10s: 5}},
		}
		return n
	}
	end := now.Add(2 * time.Hour)
	storm := Incident{ID: "i-1", Account: "care", State: IncidentOpen, StartedAt: now.Add(-3 * time.Minute), Factor: 2684.2, PerSecond: 789, BaselinePer: 40.3,
		Culprits: []Culprit{{Caller: "refresher", Event: "notification.refresh", Channel: "*", Share: .97}}, Action: ActionContained}
	with := func(f func(*night)) night { n := base(); f(&n); return n }
	return map[string]night{
		"calm": base(),
		"contained": with(func(n *night) {
			n.open = []Incident{storm}
			n.a.Minute = MinuteStatus{Asked: 3000, Delivered: 1200, Limited: 1800}
			n.a.Callers[1].Held1m = 1800
		}),
		"contained while shedding": with(func(n *night) {
			n.open = []Incident{storm}
			n.a.Breaker.State, n.a.Breaker.Reason = "shed_bulk", "81 % of the plan is used"
			n.a.Minute = MinuteStatus{Asked: 3000, Delivered: 1105, Limited: 1800, Shed: 95}
			n.a.Callers[1].Held1m, n.a.Callers[0].Held1m = 1800, 95
		}),
		"shedding by threshold": with(func(n *night) {
			n.a.Breaker.State, n.a.Breaker.Reason = "shed_bulk", "81 % of the plan is used"
			n.a.Minute = MinuteStatus{Asked: 1000, Delivered: 700, Shed: 300}
		}),
		"shedding by burn rate": with(func(n *night) {
			n.a.Breaker.State, n.a.Breaker.Reason = "shed_normal", "the plan burns at 15 times its even rate"
			n.a.Minute = MinuteStatus{Asked: 1000, Delivered: 100, Shed: 900}
		}),
		"digesting": with(func(n *night) {
			n.a.Breaker.State, n.a.Breaker.Reason = "shed_bulk", "81 % of the plan is used"
			n.a.Minute = MinuteStatus{Asked: 1000, Delivered: 250, Undelivered: 750}
		}),
		"braked": with(func(n *night) {
			n.a.Brake = &BrakeStatus{Priority: "critical", Reason: "storm", By: "anna", Until: &end}
			n.a.Minute = MinuteStatus{Asked: 1000, Delivered: 10, Shed: 990}
		}),
		"spent": with(func(n *night) {
			n.a.Used, n.a.Remaining = 1_000_000, 0
			n.a.Breaker.State, n.a.Breaker.Reason = "open", "all of the plan is used"
			n.a.Minute = MinuteStatus{Asked: 1000, Shed: 1000}
		}),
		"Pusher silent": with(func(n *night) {
			n.a.Apps[0].Upstream.Silent = true
			n.a.Minute = MinuteStatus{Asked: 1000, Failed: 1000}
		}),
		"store lost on standby": with(func(n *night) {
			n.a.Ledger.StoreUp, n.a.Ledger.StoreError, n.a.Ledger.StoreSince = false, "connection refused", now.Add(-time.Minute)
		}),
		"store lost and spent": with(func(n *night) {
			n.a.Ledger.StoreUp, n.a.Ledger.StoreError, n.a.Ledger.StoreSince, n.a.Ledger.LeaseSpent = false, "connection refused", now.Add(-time.Minute), true
			n.ready = Readiness{Checks: []CheckResult{{Name: "leases", Detail: "the store is out of reach"}}}
			n.a.Minute = MinuteStatus{Asked: 1000, Failed: 1000}
		}),
		"the plan will not last": with(func(n *night) {
			n.a.Forecast = ForecastStatus{ExhaustedAt: &end, UsedAtReset: 2_080_000, PerSecond: 95}
		}),
		"reload refused": with(func(n *night) { n.st.ReloadRefused = true }),
		"Pusher's own 403": with(func(n *night) {
			n.a.Exhausted = &ExhaustedStatus{Since: now.Add(-time.Minute), Reason: "Pusher says: quota exceeded."}
			n.a.Breaker.State = "open"
		}),
		"trying again": with(func(n *night) {
			n.a.Breaker.State, n.a.Breaker.Reason = "half_open", "the hold is over"
		}),
		"restarting": with(func(n *night) {
			n.ready = Readiness{Checks: []CheckResult{{Name: "not_draining", Detail: "this replica is shutting down"}}}
		}),
	}
}

type night struct {
	now   time.Time
	st    Status
	a     AccountStatus
	open  []Incident
	ready Readiness
}

func (n night) verdict() Verdict { return verdict(n.now, &n.st, &n.a, n.open, n.ready) }

func TestVerdictInEachState(t *testing.T) {
	now := time.Date(2026, 5, 11, 3, 0, 0, 0, time.UTC)
	all := nights(now)
	want := map[string]struct{ severity, title, doing, try string }{
		"calm":                     {"good", "All right", "All 1,000 publishes of the last minute passed.", ""},
		"contained":                {"warn", "Runaway: refresher · notification.refresh", "pushguard holds refresher · notification.refresh to its allowance. 1,800 of 3,000 publishes were refused in the last minute; no other caller was refused.", "--release"},
		"contained while shedding": {"warn", "Runaway: refresher", "of these 95 by other callers (care-api). Quota: refusing bulk.", "--release"},
		"shedding by threshold":    {"warn", "Saving the plan: refusing bulk", "300 of 1,000 publishes were refused", "pushguard top"},
		"shedding by burn rate":    {"warn", "Saving the plan: refusing bulk and normal", "900 of 1,000", "pushguard top"},
		"digesting":                {"warn", "Saving the plan: refusing bulk", "Nothing was refused in the last minute, but 750 of 1,000 publishes were accepted and not delivered.", ""},
		"braked":                   {"bad", "The brake is on: only critical publishes pass", "990 of 1,000", "brake off --account care"},
		"spent":                    {"bad", "Stopped: the plan is used up", "1,000 of 1,000", "plan set"},
		"Pusher silent":            {"bad", "Pusher answers nothing for app 1234", "1,000 of 1,000", "check"},
		"store lost on standby":    {"warn", "Redis does not answer: publishes still pass", "All 1,000", "check"},
		"store lost and spent":     {"bad", "Redis does not answer: publishes are refused", "1,000 of 1,000", "check"},
		"the plan will not last":   {"warn", "At this rate the plan is used up at 05:00 UTC, in 2 h", "All 1,000", "brake on"},
		"reload refused":           {"warn", "The config was not reloaded", "All 1,000", "check"},
		"Pusher's own 403":         {"bad", "Pusher refuses", "", "plan set"},
		"trying again":             {"warn", "Trying again", "", ""},
		"restarting":               {"bad", "This replica is not ready: not draining", "", ""},
	}
	for name, n := range all {
		w, ok := want[name]
		if !ok {
			t.Errorf("%s: no expectation", name)
		}
		v := n.verdict()
		if v.Severity != w.severity || !strings.Contains(v.Title, w.title) || !strings.Contains(v.Doing, w.doing) || !strings.Contains(v.Try, w.try) {
			t.Errorf("%s: got %+v, want %+v", name, v, w)
		}
	}
}

// What a sentence claims, the numbers beside it bear out, in every state.
func TestVerdictContradictsNoNumber(t *testing.T) {
	now := time.Date(2026, 5, 11, 3, 0, 0, 0, time.UTC)
	for name, n := range nights(now) {
		v := n.verdict()
		m := n.a.Minute
		if m.Delivered+m.Duplicates+m.Undelivered+m.Refused() != m.Asked {
			t.Errorf("%s: the minute does not add up", name)
		}
		text := strings.Join([]string{v.Title, v.Text, v.Lasts, v.Who, v.Doing}, "\n")
		var others int64
		for _, c := range n.a.Callers {
			if c.Name != "refresher" {
				others += c.Held1m
			}
		}
		for _, claim := range []struct {
			says string
			true bool
		}{
			{"no other caller was refused", others == 0},
			{"passed", m.Delivered == m.Asked || m.Refused()+m.Undelivered == 0},
			{"Nothing was refused", m.Refused() == 0},
			{"not delivered", m.Undelivered > 0},
			{"plan lasts", n.a.Forecast.ExhaustedAt == nil && n.a.Remaining > 0},
			{"All right", m.Refused() == 0 || n.a.Breaker.State == "closed"},
			{"publishes are refused", m.Refused() > 0},
			{"nothing passes", n.a.Breaker.State == "open" || n.a.Brake != nil && n.a.Brake.Priority == "none"},
			{"publishes/s", len(n.open) == 0}, // with an incident all rates are messages/s
		} {
			if strings.Contains(text, claim.says) && !claim.true {
				t.Errorf("%s: says %q, and the numbers do not: %s", name, claim.says, text)
			}
		}
		if bad := regexp.MustCompile(`\d{4,}|\d\.\d{2,}[^0-9]|\d+m\d+s|%!|\.\.|  `).FindString(strings.NewReplacer("2026", "", "1234", "").Replace(text)); bad != "" {
			t.Errorf("%s: %q is no way to write for people: %s", name, bad, text)
		}
		for _, s := range []string{v.Title, v.Lasts, v.Who, v.Doing} {
			if s == "" {
				t.Errorf("%s: a question has no answer: %+v", name, v)
			}
		}
	}
}
