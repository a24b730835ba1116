package quota

import (
	"github.com/pushguard/pushguard/quota/fanout"
	"strings"
	"testing"
	"time"
)

func TestPlans(t *testing.T) {
	for name, want := range map[string]int64{
		"sandbox": 200_000, "startup": 1_000_000, "Pro": 4_000_000, "business": 10_000_000, " premium ": 20_000_000,
		"growth": 40_000_000, "plus": 60_000_000, "growth-plus": 90_000_000, "Growth Plus": 90_000_000, "growth_plus": 90_000_000,
	} {
		if p, ok := PlanByName(name); !ok || p.MessagesPerDay != want {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if _, ok := PlanByName("enterprise"); ok {
		t.Error("enterprise has no public number")
	}
	names := PlanNames()
	if len(names) != 8 || names[0] != "sandbox" || names[7] != "growth-plus" {
		t.Error(names)
	}
}

func TestDays(t *testing.T) {
	for _, c := range []struct {
		t    time.Time
		want string
	}{
		{time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), "2026-11-23"},
		{time.Date(2026, 11, 23, 23, 59, 59, 999, time.UTC), "2026-11-23"},
		{time.Date(2026, 11, 24, 0, 30, 0, 0, time.FixedZone("", 3600)), "2026-11-23"},
		{time.Date(2028, 2, 29, 5, 0, 0, 0, time.UTC), "2028-02-29"},
		{time.Date(1969, 12, 31, 23, 0, 0, 0, time.UTC), "1969-12-31"},
		{time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC), "1969-12-31"},
		{time.Unix(0, 0), "1970-01-01"},
	} {
		d := DayOf(c.t)
		if d.String() != c.want || c.t.Before(d.Start()) || !c.t.Before(d.End()) {
			t.Errorf("%v: %v", c.t, d)
		}
	}
}

func TestWords(t *testing.T) {
	for p := Bulk; p < Priorities; p++ {
		if got, err := ParsePriority(p.String()); err != nil || got != p {
			t.Error(p, got, err)
		}
	}
	if _, err := ParsePriority("urgent"); err == nil || Priority(9).String() != "unknown" {
		t.Error(err)
	}
	for p := LossLease; p <= LossClosed; p++ {
		if got, err := ParseLossPolicy(p.String()); err != nil || got != p {
			t.Error(p, got, err)
		}
	}
	if _, err := ParseLossPolicy("maybe"); err == nil || LossPolicy(9).String() != "unknown" {
		t.Error(err)
	}
	seen := map[string]bool{}
	for d := Granted; d <= Exhausted; d++ {
		seen[d.String()] = true
	}
	if len(seen) != 6 || seen["unknown"] || Denial(9).String() != "unknown" {
		t.Error(seen)
	}
	if fanout.FromWebhook.String() != "webhook" || fanout.Source(9).String() != "unknown" {
		t.Error("sources")
	}
}

func TestConfigTellsEveryMistake(t *testing.T) {
	bad := Config{Plan: Plan{MessagesPerDay: -1}, Floors: [Priorities]float64{Normal: 0.7, Critical: 1.5}, OnStoreLoss: 9,
		Shares: map[string]float64{"api": 0, "web": 2}}
	_, err := Open(ctx, noon, embedded(t), "a", bad, nil)
	for _, want := range []string{"needs a name", "-1 messages", "floor of critical", "more than all", "share of api", "share of web", "policy 9"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestReconfigure(t *testing.T) {
	st, dawn := embedded(t), DayOf(noon).Start() // nothing can be lent yet
	cfg := plan(1000)
	cfg.Shares = map[string]float64{"api": 0.1}
	l := join(t, st, dawn, "a", cfg)
	api := l.Share("api")
	if n, why := spend(l, dawn, api, Normal, 500); n != 100 || why != ShareSpent {
		t.Fatal(n, why)
	}
	// Refused whole: the old config stays.
	bad := cfg
	bad.Floors[Critical] = 7
	if err := l.Reconfigure(bad); err == nil {
		t.Fatal("accepted")
	}
	other := cfg
	other.Account = "lab"
	if err := l.Reconfigure(other); err == nil {
		t.Fatal("an account cannot change its name")
	}
	// A larger share, a new one, a floor and a larger plan, live.
	cfg.Plan.MessagesPerDay = 2000
	cfg.Floors[Critical] = 0.5
	cfg.Shares = map[string]float64{"api": 0.2, "web": 0.01}
	if err := l.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
	beat(t, dawn, l)
	if n, why := spend(l, dawn, api, Normal, 1000); n != 300 || why != ShareSpent {
		t.Fatal(n, why)
	}
	if n, why := spend(l, dawn, l.Share("web"), Normal, 1000); n != 20 || why != ShareSpent {
		t.Fatal(n, why)
	}
	if n, why := spend(l, dawn, nil, Normal, 5000); n != 1000-420 || why != FloorReserved {
		t.Fatal(n, why)
	}
	// No share any more: the handle that is out spends freely.
	cfg.Shares, cfg.Floors = nil, [Priorities]float64{}
	if err := l.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
	beat(t, dawn, l)
	if l.Share("api") != nil {
		t.Fatal("still a share")
	}
	if n, why := spend(l, dawn, api, Normal, 5000); n != 1000 || why != PlanSpent {
		t.Fatal(n, why)
	}
}

func TestAuditAppend(t *testing.T) {
	l := join(t, embedded(t), noon, "a", plan(10))
	if err := l.AuditAppend(ctx, storeAudit("ann", "contain")); err != nil {
		t.Fatal(err)
	}
	if trail, err := l.Audit(ctx, 1); err != nil || trail[0].What != "contain" {
		t.Fatal(trail, err)
	}
}
