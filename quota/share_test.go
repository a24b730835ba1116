package quota

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// Three replicas under load at the plan's end: exactly what is left goes out, and nobody is refused while another
// replica sits on tokens.
func TestTheLastMessagesAreSharedExactly(t *testing.T) {
	for _, c := range []struct {
		name string
		busy []int // workers a replica
	}{
		{"all busy", []int{4, 4, 4}},
		{"one busy, two idle", []int{8, 0, 0}},
		{"uneven", []int{8, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := open(t, redistest.Start(t).URL(), store.Options{})
			var ls []*Ledger
			for range c.busy {
				// 4000 a day: the idle lease is 1 token; what the busy ones did before made theirs larger.
				l := join(t, st, time.Now(), "r", plan(4000))
				if n, why := spend(l, time.Now(), nil, Normal, 1000); n != 1000 {
					t.Fatal(n, why) // the others hand back what they hold
				}
				running(t, l)
				ls = append(ls, l)
			}
			var sent atomic.Int64
			var wg sync.WaitGroup
			for i, n := range c.busy {
				for range n {
					wg.Go(func() {
						for refused := 0; refused < 3; {
							n, why := spend(ls[i], time.Now(), nil, Normal, 1)
							sent.Add(int64(n))
							if why == PlanSpent {
								// One that waited in vain lets the next be refused without a wait, until news come.
								refused++
								<-time.After(300 * time.Millisecond)
							} else if why != Granted {
								t.Error(why)
								return
							}
						}
					})
				}
			}
			wg.Wait()
			if n := sent.Load(); n != 1000 {
				t.Fatalf("%d of the 1000 that were left went out", n)
			}
			// Refused at once now, without asking the store.
			at := time.Now()
			for range 100 {
				if _, d := ls[0].Reserve(ctx, at, nil, Normal, 1); d != PlanSpent {
					t.Fatal(d)
				}
			}
			if took := time.Since(at); took > time.Second { // with waits or round trips it would be many
				t.Fatalf("100 refusals took %v", took)
			}
		})
	}
}

// A lever that one replica pulls reaches the others in under a second.
func TestLeversReachOthersInASecond(t *testing.T) {
	st := open(t, redistest.Start(t).URL(), store.Options{})
	a, b := join(t, st, time.Now(), "a", plan(4000)), join(t, st, time.Now(), "b", plan(4000))
	running(t, a)
	running(t, b)
	at := time.Now()
	if err := a.SetBrake(ctx, at, &Brake{Allow: "none", By: "ann"}); err != nil {
		t.Fatal(err)
	}
	await(t, "the brake arrives", func() bool { return b.CurrentBrake(time.Now()) != nil })
	if took := time.Since(at); took > time.Second {
		t.Fatalf("the brake took %v", took)
	}
	at = time.Now()
	if err := a.Exhaust(ctx, at, "over"); err != nil {
		t.Fatal(err)
	}
	await(t, "Pusher's word arrives", func() bool { _, d := b.Reserve(ctx, time.Now(), nil, Critical, 1); return d == Exhausted })
	if took := time.Since(at); took > time.Second {
		t.Fatalf("it took %v", took)
	}
}

// At load the store is asked at most twice a thousand publishes.
func TestRoundTrips(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{})
	l := join(t, st, noon, "a", plan(50_000_000))
	now := noon
	const rate = 3000 // a second
	second := func() {
		for range 4 {
			spend(l, now, nil, Normal, rate/4)
			now = now.Add(250 * time.Millisecond)
			select {
			case <-l.kicks: // Run would beat at once
				beat(t, now, l)
			default:
			}
			beat(t, now, l)
		}
	}
	for range 5 {
		second()
	}
	trips := func() (n int) { return int(l.cur.Load().seq) }
	before := trips()
	for range 10 {
		second()
	}
	if n := trips() - before; n > 2*rate*10/1000 {
		t.Fatalf("%d round trips for %d publishes", n, rate*10)
	} else {
		t.Logf("%.2f round trips per 1000 publishes at %d/s", float64(n)/rate/10*1000, rate)
	}
}

func percentile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))]
}

// On a store of its own an idle ledger leaves the disk alone, and a busy one does not.
func TestIdleBeats(t *testing.T) {
	l := join(t, embedded(t), noon, "a", plan(1000))
	if !l.idle(noon.Add(time.Second)) || l.idle(noon.Add(6*time.Second)) || l.idle(noon.Add(-time.Second)) || l.idle(noon.Add(24*time.Hour)) {
		t.Fatal("idle is judged wrongly")
	}
	spend(l, noon, nil, Normal, 1)
	if l.idle(noon.Add(time.Second)) {
		t.Fatal("it has something to report")
	}
	beat(t, noon, l)
	if !l.idle(noon.Add(time.Second)) {
		t.Fatal("it has reported")
	}
	if join(t, open(t, redistest.Start(t).URL(), store.Options{}), noon, "b", plan(1000)).idle(noon) {
		t.Fatal("others watch its heartbeat")
	}
}

// What costs several messages each: of what is left less than one of them stays, though leases end with odd rests that
// no replica can use alone, and all ask for more at the same time.
func TestOddRestsComeTogether(t *testing.T) {
	st := embedded(t)
	for _, c := range []struct {
		plan, cost int64
		replicas   int
	}{{3000, 2, 2}, {3001, 2, 2}, {999, 2, 3}, {1000, 3, 2}, {1000, 3, 3}, {500, 7, 3}, {77, 5, 4}} {
		t.Run(fmt.Sprintf("%d by %d on %d", c.plan, c.cost, c.replicas), func(t *testing.T) {
			cfg := plan(c.plan)
			cfg.Account, cfg.Wait = t.Name(), time.Nanosecond // nobody waits: all have wants when they report
			var ls []*Ledger
			for i := range c.replicas {
				ls = append(ls, join(t, st, noon, fmt.Sprint("r", i), cfg))
			}
			var sent int64
			now := noon
			for idle := 0; idle < 40; idle++ {
				now = now.Add(100 * time.Millisecond)
				for range 20 {
					for _, l := range ls {
						if h, d := l.Reserve(ctx, now, nil, Normal, c.cost); d == Granted {
							l.Settle(now, h, c.cost)
							sent += c.cost
							idle = 0
						}
					}
				}
				beat(t, now, ls...)
			}
			if left := c.plan - sent; left < 0 || left >= c.cost {
				for _, l := range ls {
					t.Logf("%+v", l.Snapshot(now))
				}
				t.Errorf("%d messages are left where one publish costs %d", left, c.cost)
			}
		})
	}
}

// One message each, nothing in the store, and both want to send what costs two.
func TestOneOfTwoThatHoldOneEachGetsBoth(t *testing.T) {
	st := embedded(t)
	for _, among := range []int{2, 3} {
		cfg := plan(int64(among))
		cfg.Account, cfg.Wait = fmt.Sprint(among), time.Nanosecond // nobody waits: all have wants when they report
		var ls []*Ledger
		now := noon
		for i := range among {
			l := join(t, st, now, fmt.Sprint("r", i), cfg)
			if n := l.Snapshot(now).Lease; n != 1 {
				t.Fatalf("joining brought %d messages; the story needs 1", n)
			}
			ls = append(ls, l)
		}
		sent := 0
		for range 40 {
			for _, l := range ls {
				if h, d := l.Reserve(ctx, now, nil, Normal, 2); d == Granted {
					l.Settle(now, h, 2)
					sent++
				}
			}
			now = now.Add(250 * time.Millisecond)
			beat(t, now, ls...)
		}
		if sent != 1 {
			t.Errorf("%d publishes of two messages went out of the %d that %d replicas held", sent, among, among)
			for _, l := range ls {
				t.Logf("%+v", l.Snapshot(now))
			}
		}
	}
}
