package quota

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

const short = 200 * time.Millisecond

// await polls until ok; the condition is one that a running goroutine brings about.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(15 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("never happened: ", what)
		}
	}
}

func running(t *testing.T, l *Ledger) {
	run, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { l.Run(run); close(done) }()
	t.Cleanup(func() { stop(); <-done })
}

func TestLossPolicies(t *testing.T) {
	for _, c := range []struct {
		policy LossPolicy
		check  func(t *testing.T, l *Ledger, lease int)
		used   func(lease int) int64
	}{
		{LossLease, func(t *testing.T, l *Ledger, lease int) {
			if n, why := spend(l, noon, nil, Normal, 5000); n != lease || why != StoreLost {
				t.Fatalf("sent %d, %v; want the lease of %d", n, why, lease)
			}
		}, func(lease int) int64 { return 100 + int64(lease) }},
		{LossClosed, func(t *testing.T, l *Ledger, lease int) {
			if n, why := spend(l, noon, nil, Normal, 5000); n != 0 || why != StoreLost {
				t.Fatalf("sent %d, %v; want none", n, why)
			}
		}, func(lease int) int64 { return 100 }},
		{LossOpen, func(t *testing.T, l *Ledger, lease int) {
			// Two replicas: it may go on to half of what was not leased when it last heard of the store.
			n, why := spend(l, noon, nil, Normal, 50_000)
			s := l.Snapshot(noon)
			if why != StoreLost || n <= lease || s.Borrowed != int64(n-lease) || n-lease > 5000 {
				t.Fatalf("sent %d (lease %d), %v, borrowed %d", n, lease, why, s.Borrowed)
			}
		}, nil},
	} {
		t.Run(c.policy.String(), func(t *testing.T) {
			srv := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
			st := open(t, srv.URL(), store.Options{Timeout: short})
			cfg := plan(10_000)
			cfg.OnStoreLoss, cfg.Wait = c.policy, -1
			a, b := join(t, st, noon, "a", cfg), join(t, st, noon, "b", cfg)
			spend(a, noon, nil, Normal, 100)
			beat(t, noon, b, a)
			lease := int(a.Snapshot(noon).Lease)
			srv.Kill()
			if err := a.Beat(ctx, noon); err == nil {
				t.Fatal("a dead store answered")
			}
			if s := a.Snapshot(noon); s.StoreUp || s.StoreErr == "" {
				t.Fatalf("%+v", s)
			}
			c.check(t, a, lease)
			// A new day begins meanwhile: nothing was leased of it.
			if c.policy != LossOpen {
				if _, d := a.Reserve(ctx, noon.Add(24*time.Hour), nil, Normal, 1); d != StoreLost {
					t.Fatalf("the new day: %v", d)
				}
			}
			sent := a.cur.Load().plan.spent.Load()
			if b := a.find(noon); b != nil {
				sent = b.plan.spent.Load()
			}
			srv.Restart()
			await(t, "the store is back", func() bool { return a.Beat(ctx, noon) == nil })
			beat(t, noon, b)
			beat(t, noon, a)
			s := a.Snapshot(noon)
			if !s.StoreUp || s.StoreErr != "" || s.Borrowed != 0 {
				t.Fatalf("%+v", s)
			}
			if s.Used != sent || (c.used != nil && s.Used != c.used(lease)) {
				t.Fatalf("used %d, this one sent %d", s.Used, sent)
			}
			// What was borrowed is settled: together they send the plan, not more.
			n, now := int(sent), noon
			for range 12 {
				x, _ := spend(a, now, nil, Normal, 20_000)
				y, _ := spend(b, now, nil, Normal, 20_000)
				n += x + y
				now = now.Add(50 * time.Millisecond)
				beat(t, now, a, b)
				beat(t, now, a, b)
			}
			if n != 10_000 {
				t.Fatalf("%d of 10000 went out", n)
			}
		})
	}
}

// A store that hangs instead of dying: publishes do not notice while the lease lasts, and are refused quickly after.
func TestHungStoreSlowsNobody(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	cfg := plan(1_000_000)
	l := join(t, st, time.Now(), "a", cfg)
	running(t, l)
	spend(l, time.Now(), nil, Normal, 5000)
	await(t, "a lease", func() bool { return l.Snapshot(time.Now()).Lease > 1000 })
	before, _ := l.Used(time.Now())
	srv.Stop()
	defer srv.Continue()
	lease := l.Snapshot(time.Now()).Lease
	slow := 0
	for range lease - 100 {
		at := time.Now()
		h, d := l.Reserve(ctx, at, nil, Normal, 1)
		if time.Since(at) > short/2 {
			slow++
		}
		if d != Granted {
			t.Fatal(d)
		}
		l.Settle(at, h, 1)
	}
	if slow > 2 { // a hung round trip is 200 ms; the scheduler of a busy machine may take its time as well
		t.Fatalf("%d reserves waited with a lease in hand", slow)
	}
	await(t, "the loss is noticed", func() bool { return !l.Snapshot(time.Now()).StoreUp })
	spend(l, time.Now(), nil, Normal, 100)
	quickest := time.Hour
	for range 5 { // the scheduler of a busy machine may take its time with one of them
		at := time.Now()
		if _, d := l.Reserve(ctx, at, nil, Normal, 1); d != StoreLost {
			t.Fatal(d)
		}
		quickest = min(quickest, time.Since(at))
	}
	if quickest > 100*time.Millisecond {
		t.Fatalf("refused only after %v", quickest)
	}
	srv.Continue()
	await(t, "the store is back", func() bool { return l.Snapshot(time.Now()).StoreUp })
	await(t, "a lease", func() bool { return l.Snapshot(time.Now()).Lease > 0 })
	if used, _ := l.Used(time.Now()); used != before+lease {
		t.Fatalf("used %d, want %d: stuck requests were counted twice or not at all", used, before+lease)
	}
}

// Redis restarts empty. It is noticed, said loudly, and healed from what the replicas know.
func TestStoreComesBackEmpty(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	cfg := plan(1000)
	cfg.Wait = -1
	cfg.Shares = map[string]float64{"api": 0.3}
	a, err := Open(ctx, noon, st, "a", cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	b, gone := join(t, st, noon, "b", cfg), join(t, st, noon, "gone", cfg)
	spend(a, noon, a.Share("api"), Normal, 200)
	spend(b, noon, nil, Normal, 200)
	spend(gone, noon, nil, Normal, 50)
	gone.Close(ctx)
	beat(t, noon, b)
	if err := a.SetPlan(ctx, noon, 2000, "ann", ""); err != nil {
		t.Fatal(err)
	}
	if err := a.SetBrake(ctx, noon, &Brake{Allow: "critical", By: "ann", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	if err := a.SetUsage(ctx, noon, 1500, "ann", ""); err != nil { // +1050 over what was reported
		t.Fatal(err)
	}
	beat(t, noon, b, a, b, a, b, a) // leases were called back and given anew
	epoch := a.Snapshot(noon).Epoch
	leaseA, leaseB := a.Snapshot(noon).Lease, b.Snapshot(noon).Lease

	srv.Do("FLUSHALL")
	beat(t, noon, b)
	s := b.Snapshot(noon)
	if !s.Healing || s.Faults != 1 || s.Epoch == epoch || s.Used != 1500 || s.Plan.MessagesPerDay != 2000 || s.Brake == nil {
		t.Fatalf("%+v", s)
	}
	// a has not spoken yet: b lives on its lease.
	if n, why := spend(b, noon, nil, Normal, 1000); n != int(leaseB) || why != StoreLost {
		t.Fatalf("b sent %d (lease %d), %v", n, leaseB, why)
	}
	beat(t, noon, a)
	beat(t, noon, b)
	if s := b.Snapshot(noon); !s.Healing || s.Used != 1500+leaseB {
		t.Fatalf("all that are known have spoken, but others may not have: %+v", s)
	}
	healed := noon.Add(store.HealQuiet)
	beat(t, healed, a, b)
	if s := b.Snapshot(healed); s.Healing || s.Used != 1500+leaseB {
		t.Fatalf("%+v", s)
	}
	if !strings.Contains(said.String(), "level=ERROR") || !strings.Contains(said.String(), "lost data") {
		t.Fatalf("it was not said: %s", said.String())
	}
	// The share's count was lost and found as well.
	if n, why := spend(a, healed, a.Share("api"), Normal, 1000); n > 400 || why == Granted {
		t.Fatalf("the caller sent %d more: %v", n, why)
	}
	_ = leaseA
	total, now := int64(0), healed
	for range 10 {
		spend(a, now, nil, Normal, 1000)
		spend(b, now, nil, Normal, 1000)
		now = now.Add(50 * time.Millisecond)
		beat(t, now, a, b)
		beat(t, now, a, b)
	}
	total, _ = a.Used(now)
	if total != 2000 {
		t.Fatalf("used %d of 2000 at the end", total)
	}
	sent := a.cur.Load().plan.spent.Load() + b.cur.Load().plan.spent.Load()
	if sent != 400+500 {
		t.Fatalf("%d went out, want 900", sent)
	}
}

// Redis comes back from an old file, as after a failover to a server that lagged: the newest grants are missing.
func TestStoreRollsBack(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	cfg := plan(1000)
	cfg.Wait = -1
	a, b := join(t, st, noon, "a", cfg), join(t, st, noon, "b", cfg)
	spend(a, noon, nil, Normal, 10)
	spend(b, noon, nil, Normal, 10)
	beat(t, noon, a, b)
	if got := srv.Do("SAVE"); got != "+OK" {
		t.Fatal(got)
	}
	if n, _ := spend(a, noon, nil, Normal, 600); n != 600 {
		t.Fatal(n)
	}
	beat(t, noon, a) // b does not know of these
	srv.Kill()
	srv.Restart()
	await(t, "the store is back", func() bool { return b.Beat(ctx, noon) == nil })
	// b's own entry is as it should be. Yet the server is another one, so nothing is given until a has spoken.
	lease := int(b.Snapshot(noon).Lease)
	if n, why := spend(b, noon, nil, Normal, 2000); n != lease || why != StoreLost {
		t.Fatalf("b sent %d with a lease of %d, %v", n, lease, why)
	}
	beat(t, noon, a)
	if s := a.Snapshot(noon); s.Faults != 1 {
		t.Fatalf("a did not notice: %+v", s)
	}
	beat(t, noon, b)
	now := noon.Add(store.HealQuiet)
	beat(t, now, a, b)
	for range 12 {
		spend(b, now, nil, Normal, 1000)
		spend(a, now, nil, Normal, 1000)
		now = now.Add(50 * time.Millisecond)
		beat(t, now, a, b)
		beat(t, now, a, b)
	}
	sent := a.cur.Load().plan.spent.Load() + b.cur.Load().plan.spent.Load()
	if used, _ := a.Used(now); sent != 1000 || used != 1000 {
		t.Fatalf("%d went out, used %d; want 1000", sent, used)
	}
}

// Pusher says "over quota" while the store is away: this replica obeys at once, the others when it is back.
func TestExhaustWhileTheStoreIsAway(t *testing.T) {
	srv := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	st := open(t, srv.URL(), store.Options{Timeout: short})
	a, b := join(t, st, noon, "a", plan(1000)), join(t, st, noon, "b", plan(1000))
	srv.Kill()
	if err := a.Exhaust(ctx, noon, "over"); err == nil {
		t.Fatal("no error although nobody was told")
	}
	if _, d := a.Reserve(ctx, noon, nil, Normal, 1); d != Exhausted {
		t.Fatal(d)
	}
	if s := a.Snapshot(noon); s.ExhaustedBy != "over" {
		t.Fatalf("%+v", s)
	}
	if err := a.SetPlan(ctx, noon, 5, "ann", ""); err == nil {
		t.Fatal("a lever worked without a store")
	}
	srv.Restart()
	await(t, "the store is back", func() bool { return a.Beat(ctx, noon) == nil })
	beat(t, noon, b)
	if _, d := b.Reserve(ctx, noon, nil, Normal, 1); d != Exhausted {
		t.Fatalf("b was not told: %v", d)
	}
}

func TestOpenNeedsAStore(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	srv.Kill()
	if _, err := Open(ctx, noon, st, "a", plan(1000), quiet); err == nil || !strings.Contains(err.Error(), "no first lease") {
		t.Fatal(err)
	}
}

// What is left of the lease while the store is away is kept for higher priorities as the plan is.
func TestLeaseIsRationedWhileTheStoreIsAway(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	cfg := plan(1_000_000)
	cfg.Wait = -1
	cfg.Floors = [Priorities]float64{Normal: 0.2, Critical: 0.1}
	l := join(t, st, noon, "a", cfg)
	spend(l, noon, nil, Bulk, 1000)
	beat(t, noon, l)
	lease := float64(l.Snapshot(noon).Lease)
	srv.Kill()
	l.Beat(ctx, noon)
	for _, step := range []struct {
		p    Priority
		part float64
	}{{Bulk, 0.7}, {Normal, 0.2}, {Critical, 0.1}} {
		n, why := spend(l, noon, nil, step.p, 100_000)
		if want := lease * step.part; float64(n) < want-1 || float64(n) > want+1 || why != StoreLost {
			t.Fatalf("%v sent %d of a lease of %v, %v; want %v", step.p, n, lease, why, want)
		}
		if spent := l.Snapshot(noon).LeaseSpent; spent != (step.p == Critical) {
			t.Fatalf("%v is refused; the lease is spent: %v", step.p, spent)
		}
	}
}

// A message is left, and each publish costs two: nothing passes, and the ledger does not say that it goes on.
func TestALeaseThatNoPublishFitsIsSpent(t *testing.T) {
	srv := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	st := open(t, srv.URL(), store.Options{Timeout: short})
	cfg := plan(1_000_000)
	cfg.Wait = -1
	l := join(t, st, noon, "a", cfg)
	spend(l, noon, nil, Normal, 1000)
	beat(t, noon, l)
	srv.Kill()
	l.Beat(ctx, noon)
	spend(l, noon, nil, Critical, int(l.Snapshot(noon).Lease)-1)
	if s := l.Snapshot(noon); s.Lease != 1 || s.LeaseSpent {
		t.Fatalf("%+v", s)
	}
	if _, d := l.Reserve(ctx, noon, nil, Critical, 2); d != StoreLost {
		t.Fatal(d)
	}
	if s := l.Snapshot(noon); s.Lease != 1 || !s.LeaseSpent {
		t.Fatalf("%+v", s)
	}
	srv.Restart()
	await(t, "the store is back", func() bool { return l.Beat(ctx, noon) == nil })
	if s := l.Snapshot(noon); s.LeaseSpent {
		t.Fatalf("%+v", s)
	}
}

// A replica starts on a Redis that lost everything a moment ago, before the one that spends has noticed: it takes nothing
// until that one has spoken.
func TestJoiningAStoreThatWasJustEmptied(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	cfg := plan(1000)
	cfg.Wait = -1
	a := join(t, st, noon, "a", cfg)
	if n, _ := spend(a, noon, nil, Normal, 990); n != 990 {
		t.Fatal(n)
	}
	srv.Do("FLUSHALL")
	cfg.Listen = time.Second
	joined := make(chan *Ledger, 1)
	go func() { joined <- join(t, st, noon, "b", cfg) }()
	await(t, "b began the store anew", func() bool { return srv.Do("EXISTS pg:{care}:state") == ":1" })
	beat(t, noon, a)
	b := <-joined
	if n, why := spend(b, noon.Add(time.Second), nil, Critical, 1000); n != 0 || why != StoreLost {
		t.Fatalf("b sent %d, %v", n, why)
	}
	healed := noon.Add(store.HealQuiet)
	beat(t, healed, a, b)
	x, _ := spend(b, healed, nil, Critical, 1000)
	y, _ := spend(a, healed, nil, Critical, 1000)
	if x+y != 10 {
		t.Fatalf("%d and %d of the last 10", x, y)
	}
}

// The store is gone, and somebody pulls the brake: the replica that is asked obeys, and the others when the store is
// back. The same when it is lifted.
func TestTheBrakeHoldsWithoutTheStore(t *testing.T) {
	srv := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	st := open(t, srv.URL(), store.Options{Timeout: short})
	a, b := join(t, st, noon, "a", plan(1_000_000)), join(t, st, noon, "b", plan(1_000_000))
	beat(t, noon, a, b)
	back := func() {
		srv.Restart()
		await(t, "the store is back", func() bool { return a.Beat(ctx, noon) == nil && b.Beat(ctx, noon) == nil })
		beat(t, noon, a, b)
	}
	srv.Kill()
	err := a.SetBrake(ctx, noon, &Brake{Allow: "critical", Reason: "runaway", By: "ann"})
	if !errors.Is(err, ErrHereAlone) {
		t.Fatal(err)
	}
	if here, there := a.CurrentBrake(noon), b.CurrentBrake(noon); here == nil || here.By != "ann" || !here.Since.Equal(noon) || there != nil {
		t.Fatalf("a: %+v, b: %+v", here, there)
	}
	back()
	for name, l := range map[string]*Ledger{"a": a, "b": b} {
		if br := l.CurrentBrake(noon); br == nil || br.Reason != "runaway" || br.Allow != "critical" {
			t.Fatalf("%s, the store is back: %+v", name, br)
		}
	}
	srv.Kill()
	if err := b.LiftBrake(ctx, noon, "bob", "over"); !errors.Is(err, ErrHereAlone) {
		t.Fatal(err)
	}
	if here, there := b.CurrentBrake(noon), a.CurrentBrake(noon); here != nil || there == nil {
		t.Fatalf("b: %+v, a: %+v", here, there)
	}
	back()
	if a.CurrentBrake(noon) != nil || b.CurrentBrake(noon) != nil {
		t.Fatal("the brake was lifted, and holds")
	}
	trail, err := a.Audit(ctx, 10)
	if err != nil || len(trail) != 2 || trail[0].What != "brake off" || trail[0].Who != "bob" || trail[1].What != "brake on" || trail[1].Who != "ann" {
		t.Fatalf("%+v %v", trail, err)
	}
	// Two people, two replicas, two brakes: who is heard last is obeyed by both.
	srv.Kill()
	for l, who := range map[*Ledger]string{a: "ann", b: "bob"} {
		if err := l.SetBrake(ctx, noon, &Brake{Allow: "critical", Reason: "runaway", By: who}); !errors.Is(err, ErrHereAlone) {
			t.Fatal(err)
		}
	}
	srv.Restart()
	await(t, "the store is back", func() bool { return b.Beat(ctx, noon) == nil })
	await(t, "for a as well", func() bool { return a.Beat(ctx, noon) == nil })
	if x := a.CurrentBrake(noon); x == nil || x.By != "ann" {
		t.Fatalf("what the store held counts before it was told: %+v", x)
	}
	beat(t, noon, a, b)
	if x, y := a.CurrentBrake(noon), b.CurrentBrake(noon); x == nil || y == nil || x.By != "ann" || y.By != "ann" {
		t.Fatalf("%+v and %+v", x, y)
	}
	if err := a.LiftBrake(ctx, noon, "ann", "over"); err != nil {
		t.Fatal(err)
	}
	if err := a.SetPlan(ctx, noon, 2_000_000, "ann", "more"); err != nil { // and the levers move as ever
		t.Fatal(err)
	}
	srv.Kill()
	if err := a.SetPlan(ctx, noon, 3_000_000, "ann", "more"); err == nil || errors.Is(err, ErrHereAlone) {
		t.Fatalf("a plan is everybody's or nobody's: %v", err)
	}
}
