package quota

import (
	"github.com/pushguard/pushguard/quota/store/redistest"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

func TestPlanIsSpentToTheLastMessage(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		l := join(t, st, noon, "a", plan(1000))
		if sent, why := spend(l, noon, nil, Normal, 2000); sent != 1000 || why != PlanSpent {
			t.Fatalf("sent %d, %v; want 1000, plan_spent", sent, why)
		}
		beat(t, noon, l)
		s := l.Snapshot(noon)
		if s.Used != 1000 || s.Leased != 0 || s.Remaining != 0 || !s.StoreUp || s.Replicas != 1 {
			t.Fatalf("%+v", s)
		}
		tomorrow := noon.Add(24 * time.Hour)
		if sent, why := spend(l, tomorrow, nil, Normal, 5); sent != 5 {
			t.Fatalf("next day: sent %d, %v", sent, why)
		}
	})
}

func TestThreeReplicasShareTheRestExactly(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		var ls []*Ledger
		cfg := plan(3000)
		cfg.Wait = -1
		for _, name := range []string{"a", "b", "c"} {
			ls = append(ls, join(t, st, noon, name, cfg))
		}
		now, total, dry := noon, 0, 0
		for dry < 3 {
			dry = 0
			for _, l := range ls {
				n, why := spend(l, now, nil, Normal, 7)
				total += n
				if why != Granted {
					dry++
				}
			}
			now = now.Add(10 * time.Millisecond)
			beat(t, now, ls...)
			beat(t, now, ls...)
		}
		if total != 3000 {
			t.Fatalf("3 replicas sent %d of 3000", total)
		}
	})
}

func TestFloorsAreKeptForHigherPriorities(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		cfg := plan(1000)
		cfg.Floors = [Priorities]float64{Normal: 0.2, Critical: 0.1}
		l := join(t, st, noon, "a", cfg)
		for _, step := range []struct {
			p    Priority
			sent int
			why  Denial
		}{
			{Bulk, 700, FloorReserved},
			{Normal, 200, FloorReserved},
			{Bulk, 0, FloorReserved},
			{Critical, 100, PlanSpent},
			{Bulk, 0, PlanSpent},
		} {
			if sent, why := spend(l, noon, nil, step.p, 5000); sent != step.sent || why != step.why {
				t.Fatalf("%v: sent %d, %v; want %d, %v", step.p, sent, why, step.sent, step.why)
			}
		}
	})
}

func TestCriticalSpendsWhatBulkLeftAndNeverTheReverse(t *testing.T) {
	cfg := plan(100)
	cfg.Floors = [Priorities]float64{Critical: 0.5}
	l := join(t, embedded(t), noon, "a", cfg)
	if sent, why := spend(l, noon, nil, Critical, 500); sent != 100 || why != PlanSpent {
		t.Fatalf("critical sent %d, %v", sent, why)
	}
	l = join(t, embedded(t), noon, "a", cfg)
	if sent, why := spend(l, noon, nil, Bulk, 500); sent != 50 || why != FloorReserved {
		t.Fatalf("bulk sent %d, %v", sent, why)
	}
}

// Tokens that only critical may spend lie in the lease; bulk and normal are refused all the same.
func TestCriticalTokensInTheLeaseAreForCriticalAlone(t *testing.T) {
	cfg := plan(100)
	cfg.Floors = [Priorities]float64{Critical: 0.5}
	l := join(t, embedded(t), noon, "a", cfg)
	spend(l, noon, nil, Critical, 60)
	h, d := l.Reserve(ctx, noon, nil, Critical, 10)
	if d != Granted {
		t.Fatal(d)
	}
	l.Refund(noon, h)
	if n := l.cur.Load().plan.lease[Critical].Load(); n < 10 {
		t.Fatalf("the lease holds %d critical tokens", n)
	}
	for _, p := range []Priority{Bulk, Normal} {
		if _, d := l.Reserve(ctx, noon, nil, p, 1); d != FloorReserved {
			t.Fatalf("%v: %v", p, d)
		}
	}
}

func TestCostThatNoClassCanPayAlone(t *testing.T) {
	cfg := plan(100)
	cfg.Floors = [Priorities]float64{Normal: 0.3, Critical: 0.3}
	l := join(t, embedded(t), noon, "a", cfg)
	h, d := l.Reserve(ctx, noon, nil, Critical, 95) // 40 bulk, 30 normal, 25 critical tokens
	if d != Granted || h.Cost() != 95 {
		t.Fatal(h, d)
	}
	if _, d := l.Reserve(ctx, noon, nil, Critical, 6); d != PlanSpent {
		t.Fatalf("6 of the 5 left: %v", d)
	}
	if _, d := l.Reserve(ctx, noon, nil, Critical, 5); d != Granted {
		t.Fatalf("the last 5: %v", d)
	}
}

func TestSettleAndRefund(t *testing.T) {
	for _, c := range []struct {
		name           string
		cost, actual   int64
		used, left     int64
		refusedAfter   Denial
		sendsAfterward int
	}{
		{"as reserved", 10, 10, 10, 90, PlanSpent, 90},
		{"less", 10, 3, 3, 97, PlanSpent, 97},
		{"nothing", 10, 0, 0, 100, PlanSpent, 100},
		{"more, out of the lease", 10, 30, 30, 70, PlanSpent, 70},
		{"more than the whole plan", 100, 130, 130, 0, PlanSpent, 0},
		{"negative is nothing", 10, -5, 0, 100, PlanSpent, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := join(t, embedded(t), noon, "a", plan(100))
			h, d := l.Reserve(ctx, noon, nil, Normal, c.cost)
			if d != Granted {
				t.Fatal(d)
			}
			if used, _ := l.Used(noon); used != 0 {
				t.Fatalf("used %d before it was settled", used)
			}
			l.Settle(noon, h, c.actual)
			beat(t, noon, l)
			if s := l.Snapshot(noon); s.Used != c.used || s.Remaining != c.left {
				t.Fatalf("%+v", s)
			}
			sent, why := spend(l, noon, nil, Normal, 1000)
			if sent != c.sendsAfterward || why != c.refusedAfter {
				t.Fatalf("then sent %d, %v", sent, why)
			}
		})
	}
}

func TestZeroHold(t *testing.T) {
	l := join(t, embedded(t), noon, "a", plan(100))
	h, d := l.Reserve(ctx, noon, nil, Normal, 0)
	if d != Granted || h.Cost() != 0 {
		t.Fatal(h, d)
	}
	l.Refund(noon, h)
	if used, _ := l.Used(noon); used != 0 {
		t.Fatal(used)
	}
	l.Settle(noon, h, 7) // an own call that was not foreseen
	if used, _ := l.Used(noon); used != 7 {
		t.Fatal(used)
	}
}

func TestShareCapsACallerOverAllReplicas(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		cfg := plan(1000)
		cfg.Wait = -1
		cfg.Shares = map[string]float64{"api": 0.4}
		a, b := join(t, st, noon, "a", cfg), join(t, st, noon, "b", cfg)
		if a.Share("web") != nil {
			t.Fatal("web has no share")
		}
		total, now := 0, noon
		for range 20 {
			now = now.Add(100 * time.Millisecond)
			for _, l := range []*Ledger{a, b} {
				n, why := spend(l, now, l.Share("api"), Normal, 50)
				if total += n; n < 50 && why != ShareSpent {
					t.Fatalf("refused with %v", why)
				}
			}
			beat(t, now, a, b)
			beat(t, now, a, b)
		}
		if total != 400 {
			t.Fatalf("the caller sent %d, want its share of 400", total)
		}
		rest := 0
		for range 10 {
			for _, l := range []*Ledger{a, b} {
				n, _ := spend(l, now, nil, Normal, 1000)
				rest += n
			}
			now = now.Add(100 * time.Millisecond)
			beat(t, now, a, b)
			beat(t, now, a, b)
		}
		if rest != 600 {
			t.Fatalf("the others sent %d of 600", rest)
		}
	})
}

func TestRefundGivesTheShareBackToo(t *testing.T) {
	cfg := plan(100)
	cfg.Shares = map[string]float64{"api": 0.1}
	l := join(t, embedded(t), noon, "a", cfg)
	h, d := l.Reserve(ctx, noon, l.Share("api"), Normal, 10)
	if d != Granted {
		t.Fatal(d)
	}
	if _, d := l.Reserve(ctx, noon, l.Share("api"), Normal, 1); d != ShareSpent {
		t.Fatal(d)
	}
	l.Refund(noon, h)
	if sent, why := spend(l, noon, l.Share("api"), Normal, 50); sent != 10 || why != ShareSpent {
		t.Fatal(sent, why)
	}
}

func TestPlanSetIsLiveOnEveryReplicaAndKept(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		a, b := join(t, st, noon, "a", plan(100)), join(t, st, noon, "b", plan(100))
		if n, _ := spend(a, noon, nil, Normal, 60); n != 60 {
			t.Fatal(n)
		}
		if err := a.SetPlan(ctx, noon, 4_000_000, "ann", "incident"); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, b)
		for _, l := range []*Ledger{a, b} {
			if s := l.Snapshot(noon); s.Plan != (Plan{"pro", 4_000_000}) {
				t.Fatalf("%+v", s.Plan)
			}
		}
		if n, why := spend(b, noon, nil, Normal, 500); n != 500 {
			t.Fatal(n, why)
		}
		c := join(t, st, noon, "c", plan(100)) // the same config: the lever's word holds
		if _, p := c.Used(noon); p != 4_000_000 {
			t.Fatalf("a new replica reset the plan to %d", p)
		}
		d := join(t, st, noon, "d", plan(5000)) // a new figure in the config: it holds
		if _, p := d.Used(noon); p != 5000 {
			t.Fatalf("the config's new plan was ignored: %d", p)
		}
		trail, err := a.Audit(ctx, 10)
		if err != nil || len(trail) != 1 || trail[0].Who != "ann" || trail[0].Why != "incident" || trail[0].Before != "100" || trail[0].After != "4000000" {
			t.Fatalf("%+v %v", trail, err)
		}
		if err := a.SetPlan(ctx, noon, 0, "ann", ""); err == nil {
			t.Fatal("a plan of 0 was accepted")
		}
	})
}

func TestLoweredPlanCallsLeasesBack(t *testing.T) {
	st := embedded(t)
	cfg := plan(1_000_000)
	cfg.Wait = -1
	a, b := join(t, st, noon, "a", cfg), join(t, st, noon, "b", cfg)
	spend(a, noon, nil, Normal, 1000)
	spend(b, noon, nil, Normal, 500)
	beat(t, noon, a, b)
	if err := a.SetPlan(ctx, noon, 1510, "ann", ""); err != nil {
		t.Fatal(err)
	}
	beat(t, noon, b) // hears of it
	beat(t, noon, b) // hands back
	beat(t, noon, a)
	n, now := 0, noon
	for range 10 {
		x, _ := spend(a, now, nil, Normal, 100)
		y, _ := spend(b, now, nil, Normal, 100)
		n += x + y
		now = now.Add(100 * time.Millisecond)
		beat(t, now, a, b)
		beat(t, now, a, b)
	}
	if n != 10 {
		t.Fatalf("%d went out under the lowered plan, want the 10 left", n)
	}
}

func TestUsageSetCorrectsTheCount(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		a, b := join(t, st, noon, "a", plan(1000)), join(t, st, noon, "b", plan(1000))
		spend(a, noon, nil, Normal, 10)
		spend(b, noon, nil, Normal, 5)
		beat(t, noon, b)
		if err := a.SetUsage(ctx, noon, 900, "ann", "the dashboard says 900"); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, b)
		for _, l := range []*Ledger{a, b} {
			if used, _ := l.Used(noon); used != 900 {
				t.Fatalf("used %d", used)
			}
		}
		n, now := 0, noon
		for range 10 {
			x, _ := spend(a, now, nil, Normal, 1000)
			y, _ := spend(b, now, nil, Normal, 1000)
			n += x + y
			now = now.Add(100 * time.Millisecond)
			beat(t, now, a, b)
			beat(t, now, a, b)
		}
		if n != 100 {
			t.Fatalf("%d went out after it, want 100", n)
		}
		if err := a.SetUsage(ctx, noon, 0, "ann", "a mistake"); err != nil {
			t.Fatal(err)
		}
		if n, why := spend(a, noon, nil, Normal, 300); n != 300 {
			t.Fatal(n, why)
		}
		if err := a.SetUsage(ctx, noon, -1, "ann", ""); err == nil {
			t.Fatal("a negative usage was accepted")
		}
	})
}

func TestPushersWordClosesTheAccountEverywhere(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		a, b := join(t, st, noon, "a", plan(1000)), join(t, st, noon, "b", plan(1000))
		held, _ := a.Reserve(ctx, noon, nil, Normal, 1)
		if err := a.Exhaust(ctx, noon, "over message quota"); err != nil {
			t.Fatal(err)
		}
		a.Refund(noon, held)
		beat(t, noon, b)
		for _, l := range []*Ledger{a, b} {
			if _, d := l.Reserve(ctx, noon, nil, Critical, 1); d != Exhausted {
				t.Fatal(d)
			}
			if s := l.Snapshot(noon); s.ExhaustedBy != "over message quota" || !s.Exhausted.Equal(noon) {
				t.Fatalf("%+v", s)
			}
		}
		h, d := b.Probe(ctx, noon, nil, Normal, 1)
		if d != Granted {
			t.Fatalf("the probe: %v", d)
		}
		b.Settle(noon, h, 1)
		tomorrow := DayOf(noon).End()
		if _, d := b.Reserve(ctx, tomorrow, nil, Normal, 1); d != Granted {
			t.Fatalf("next day: %v", d)
		}
		if err := b.Reopen(ctx, noon, "probe accepted"); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, a)
		for _, l := range []*Ledger{a, b} {
			if _, d := l.Reserve(ctx, noon, nil, Normal, 1); d != Granted {
				t.Fatalf("reopened: %v", d)
			}
		}
	})
}

func TestBrake(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		a, b := join(t, st, noon, "a", plan(1000)), join(t, st, noon, "b", plan(1000))
		if a.CurrentBrake(noon) != nil {
			t.Fatal("a brake from nowhere")
		}
		if err := a.SetBrake(ctx, noon, &Brake{Allow: "critical", Reason: "runaway", By: "ann", Until: noon.Add(2 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, b)
		for _, l := range []*Ledger{a, b, join(t, st, noon, "c", plan(1000))} {
			br := l.CurrentBrake(noon.Add(time.Hour))
			if br == nil || br.Allow != "critical" || br.Reason != "runaway" || br.By != "ann" || !br.Since.Equal(noon) {
				t.Fatalf("%+v", br)
			}
			if l.CurrentBrake(noon.Add(2*time.Hour)) != nil {
				t.Fatal("the brake did not end")
			}
		}
		if err := b.LiftBrake(ctx, noon, "bob", "over"); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, a)
		if a.CurrentBrake(noon) != nil || a.Snapshot(noon).Brake != nil {
			t.Fatal("still braked")
		}
		if err := a.SetBrake(ctx, noon, &Brake{Allow: "bulk"}); err == nil {
			t.Fatal("allow bulk was accepted")
		}
		if err := a.SetBrake(ctx, noon, nil); err != nil {
			t.Fatal(err)
		}
		trail, err := a.Audit(ctx, 2)
		if err != nil || len(trail) != 2 || trail[1].What != "brake off" || trail[1].Who != "bob" {
			t.Fatalf("%+v %v", trail, err)
		}
	})
}

func TestCloseHandsTheLeaseBack(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		cfg := plan(1000)
		cfg.Wait = -1
		a, b := join(t, st, noon, "a", cfg), join(t, st, noon, "b", cfg)
		spend(a, noon, nil, Normal, 100)
		stuck, _ := a.Reserve(ctx, noon, nil, Normal, 3)
		_ = stuck // never settled: counts as spent
		if err := a.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(ctx); err != nil {
			t.Fatal("closing twice:", err)
		}
		if _, d := a.Reserve(ctx, noon, nil, Normal, 1); d != StoreLost {
			t.Fatalf("a closed ledger granted: %v", d)
		}
		beat(t, noon, b)
		if n, why := spend(b, noon, nil, Normal, 2000); n != 897 || why != PlanSpent {
			t.Fatalf("b sent %d, %v; want 897", n, why)
		}
		beat(t, noon, b)
		if s := b.Snapshot(noon); s.Used != 1000 || s.Replicas != 1 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestCrashCountsTheLeaseAsSpentAndNoMore(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		cfg := plan(10_000)
		cfg.Wait = -1
		a, b := join(t, st, noon, "a", cfg), join(t, st, noon, "b", cfg)
		spend(a, noon, nil, Normal, 300)
		beat(t, noon, a)
		lease := a.Snapshot(noon).Lease // a is never heard again
		later := noon.Add(11 * time.Second)
		beat(t, later, b)
		beat(t, later, b)
		if s := b.Snapshot(later); s.Used != 300+lease || s.Replicas != 1 {
			t.Fatalf("used %d with a lease of %d lost, %d replicas", s.Used, lease, s.Replicas)
		}
		n, why := spend(b, later, nil, Normal, 20_000)
		if want := 10_000 - 300 - int(lease); n != want || why != PlanSpent {
			t.Fatalf("b sent %d, %v; want %d", n, why, want)
		}
		// It was not dead, only silent: it finds its lease, and nothing is counted twice.
		beat(t, later, a)
		n, _ = spend(a, later, nil, Normal, 20_000)
		if n != int(lease) {
			t.Fatalf("a sent %d of its lease of %d", n, lease)
		}
		beat(t, later, a)
		beat(t, later, b)
		if s := b.Snapshot(later); s.Used != 10_000 {
			t.Fatalf("used %d", s.Used)
		}
	})
}

func TestDayChange(t *testing.T) {
	midnight := DayOf(noon).End()
	eachStore(t, func(t *testing.T, st *store.Store) {
		a, b := join(t, st, midnight.Add(-time.Second), "a", plan(1000)), join(t, st, midnight.Add(-time.Second), "b", plan(1000))
		spend(a, midnight.Add(-time.Second), nil, Normal, 990)
		old, d := a.Reserve(ctx, midnight.Add(-time.Millisecond), nil, Normal, 4)
		if d != Granted {
			t.Fatal(d)
		}
		// b's clock is two seconds ahead: it is in the new day already.
		if n, why := spend(b, midnight.Add(time.Second), nil, Normal, 50); n != 50 {
			t.Fatal(n, why)
		}
		if used, _ := b.Used(midnight.Add(time.Second)); used != 50 {
			t.Fatalf("b's new day: %d", used)
		}
		beat(t, midnight.Add(-time.Millisecond), a)
		if used, _ := a.Used(midnight.Add(-time.Millisecond)); used != 990 {
			t.Fatalf("a's old day: %d", used)
		}
		beat(t, midnight.Add(time.Millisecond), a)
		// A publish that was judged just before midnight still belongs to yesterday.
		if h, d := a.Reserve(ctx, midnight.Add(-time.Microsecond), nil, Normal, 1); d != Granted {
			t.Fatal(d)
		} else {
			a.Settle(midnight.Add(time.Second), h, 1)
		}
		beat(t, midnight.Add(time.Second), b, a)
		if used, _ := a.Used(midnight.Add(time.Second)); used != 50 {
			t.Fatalf("a's new day: %d", used)
		}
		a.Settle(midnight.Add(2*time.Second), old, 4)
		late := midnight.Add(10 * time.Second)
		beat(t, late, a, b)
		beat(t, late, a, b)
		if a.prev.Load() != nil || len(a.books) != 1 {
			t.Fatalf("yesterday is still open: %d books", len(a.books))
		}
		// A third one looks at yesterday: all 995 are there, nothing is leased.
		c := join(t, st, midnight.Add(-time.Second), "c", plan(1000))
		s := c.Snapshot(midnight.Add(-time.Second))
		if s.Used != 995 || s.Leased != s.Lease {
			t.Fatalf("yesterday: %+v", s)
		}
	})
}

func TestClockThatJumps(t *testing.T) {
	l := join(t, embedded(t), noon, "a", plan(1000))
	spend(l, noon, nil, Normal, 100)
	beat(t, noon, l)
	far := noon.Add(400 * 24 * time.Hour)
	if n, _ := spend(l, far, nil, Normal, 10); n != 10 {
		t.Fatal("the far day refused")
	}
	beat(t, far, l)
	if n, why := spend(l, noon, nil, Normal, 2000); n != 900 || why != PlanSpent {
		t.Fatalf("back again: sent %d, %v; want the 900 left", n, why)
	}
	beat(t, noon, l)
	if used, _ := l.Used(noon); used != 1000 {
		t.Fatalf("used %d", used)
	}
}

// A share lends what its caller did not use so far, and takes it back when it does.
func TestSharesLendAndTakeBack(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		cfg := plan(10_000)
		cfg.Wait = -1
		cfg.Shares = map[string]float64{"api": 0.2, "jobs": 0.4}
		l := join(t, st, DayOf(noon).Start(), "a", cfg)
		api, jobs := l.Share("api"), l.Share("jobs")
		now := DayOf(noon).Start()
		all := func(s *Share) (n int) {
			for range 5 {
				x, why := spend(l, now, s, Normal, 20_000)
				if n += x; why != ShareSpent {
					t.Fatal(why)
				}
				now = now.Add(300 * time.Millisecond)
				beat(t, now, l)
			}
			return n
		}
		if n := all(api); n != 2000 {
			t.Fatalf("at 00:00 nothing can be lent yet; api sent %d", n)
		}
		now = noon // jobs used nothing in half a day: half of its 4000 is lent
		beat(t, now, l)
		if n := all(api); n < 1990 || n > 2000 {
			t.Fatalf("at noon api sent %d more, want about 2000", n)
		}
		if n := all(jobs); n != 4000 {
			t.Fatalf("jobs got %d of its own 4000 although the plan has room", n)
		}
		if n := all(api); n != 0 {
			t.Fatalf("jobs has used its share, yet api borrowed %d from it", n)
		}
		if n, _ := spend(l, now, nil, Normal, 20_000); n < 1990 || n > 2010 {
			t.Fatalf("the rest of the plan was %d", n)
		}
	})
}

// The first publish of a day finds a lease: it was taken just before midnight, from the new day's plan.
func TestMidnightWaitsForNobody(t *testing.T) {
	midnight := DayOf(noon).End()
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	cfg := plan(10_000)
	cfg.Shares = map[string]float64{"api": 0.5}
	l := join(t, st, midnight.Add(-3*time.Second), "a", cfg)
	spend(l, midnight.Add(-3*time.Second), l.Share("api"), Normal, 50)
	beat(t, midnight.Add(-time.Second), l)
	srv.Kill()
	if n, why := spend(l, midnight, l.Share("api"), Normal, 20); n != 20 {
		t.Fatal(n, why)
	}
	if used, _ := l.Used(midnight); used != 20 {
		t.Fatal(used)
	}
	if used, _ := l.Used(midnight.Add(-time.Millisecond)); used != 50 {
		t.Fatal(used)
	}
}

// A new day begins while the store is away. Nothing was leased of it; with the open policy this replica's part of the
// fresh plan may be lent.
func TestNewDayWithoutAStore(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	cfg := plan(1000)
	cfg.OnStoreLoss = LossOpen
	cfg.Shares = map[string]float64{"api": 0.1}
	l := join(t, st, noon, "a", cfg)
	srv.Kill()
	l.Beat(ctx, noon)
	tomorrow := noon.Add(24 * time.Hour)
	if n, why := spend(l, tomorrow, l.Share("api"), Normal, 5000); n != 100 || why != StoreLost {
		t.Fatal(n, why)
	}
	if n, why := spend(l, tomorrow, nil, Normal, 5000); n != 900 || why != StoreLost {
		t.Fatal(n, why)
	}
}
