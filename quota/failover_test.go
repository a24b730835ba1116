package quota

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// The master dies in the middle of load, and the replica that takes over had fallen behind: the newest grants are
// gone from the store. What went out still stays within the plan, and nobody is refused for good.
func TestFailoverToALaggingReplica(t *testing.T) {
	top := redistest.StartSentinels(t)
	st := open(t, top.URL(), store.Options{Timeout: short})
	const all = 30_000
	var ls []*Ledger
	for _, name := range []string{"a", "b", "c"} {
		l := join(t, st, time.Now(), name, plan(all))
		running(t, l)
		ls = append(ls, l)
	}
	var sent atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, l := range ls {
		wg.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				// About 4000 a second each: the plan is used up in some seconds.
				n, _ := spend(l, time.Now(), nil, Normal, 8)
				sent.Add(int64(n))
			}
		})
	}
	await(t, "some load", func() bool { return sent.Load() > all/6 })
	top.Replica.Stop() // it falls behind …
	behind := sent.Load()
	await(t, "more load", func() bool { return sent.Load() > behind+all/6 })
	top.Master.Kill() // … and takes over
	top.Replica.Continue()
	await(t, "the rest of the plan", func() bool {
		return sent.Load() >= all*99/100 || ls[0].Snapshot(time.Now()).Remaining == 0
	})
	await(t, "everybody is told that the plan is spent", func() bool {
		for _, l := range ls {
			if _, d := l.Reserve(ctx, time.Now(), nil, Normal, 1000); d != PlanSpent {
				return false
			}
		}
		return true
	})
	close(stop)
	wg.Wait()
	faults := 0
	for _, l := range ls {
		faults += l.Snapshot(time.Now()).Faults
	}
	for range 3 {
		for _, l := range ls {
			n, _ := spend(l, time.Now(), nil, Normal, all)
			sent.Add(int64(n))
		}
	}
	if n := sent.Load(); n > all || n < all*99/100 {
		t.Fatalf("%d of %d went out", n, all)
	}
	// How far behind the replica was depends on what the kernel's buffers held.
	t.Logf("%d of %d went out, %d losses of data seen", sent.Load(), all, faults)
}

// Each account of a cluster lies on one node; the ledger does not mind which.
func TestCluster(t *testing.T) {
	_, url := redistest.StartCluster(t)
	st := open(t, url, store.Options{})
	for _, account := range []string{"care", "clinic", "lab", "billing"} {
		cfg := plan(1000)
		cfg.Account = account
		cfg.Shares = map[string]float64{"api": 0.1}
		a, b := join(t, st, noon, "a", cfg), join(t, st, noon, "b", cfg)
		share, _ := spend(a, noon, a.Share("api"), Normal, 500)
		beat(t, noon, b, b, a) // b hears of it, and hands back the one that it held
		more, why := spend(a, noon, a.Share("api"), Normal, 500)
		if share += more; share != 100 || why != ShareSpent {
			t.Fatal(share, why)
		}
		if err := b.SetPlan(ctx, noon, 1200, "ann", ""); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, a, b, a, b)
		n, _ := spend(a, noon, nil, Normal, 5000)
		beat(t, noon, b, a, b, a)
		m, _ := spend(b, noon, nil, Normal, 5000)
		if err := b.Close(ctx); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, a)
		k, _ := spend(a, noon, nil, Normal, 5000)
		if n+m+k != 1100 {
			t.Fatalf("%s: %d+%d+%d", account, n, m, k)
		}
	}
}

// A slow store does not slow publishes: the lease is renewed before it runs dry.
func TestSlowStoreSlowsNobody(t *testing.T) {
	srv := redistest.Start(t)
	slow := redistest.Delay(t, srv.Addr(), 100*time.Millisecond)
	p99 := func(addr string) (time.Duration, int) {
		st := open(t, "redis://"+addr, store.Options{})
		cfg := plan(50_000_000)
		cfg.Account = addr
		l := join(t, st, time.Now(), "a", cfg)
		running(t, l)
		var took []time.Duration
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		warm := time.Now().Add(time.Second)
		refused := 0
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
			<-tick.C
			for range 3 {
				at := time.Now()
				h, d := l.Reserve(ctx, at, nil, Normal, 1)
				if at.After(warm) {
					took = append(took, time.Since(at))
				}
				if d != Granted {
					refused++
					continue
				}
				l.Settle(at, h, 1)
			}
		}
		return percentile(took, 0.99), refused
	}
	fast, r1 := p99(srv.Addr())
	slowed, r2 := p99(slow)
	t.Logf("p99 of reserve: %v beside a fast store, %v beside one that takes 100 ms; refused %d, %d", fast, slowed, r1, r2)
	if slowed > 50*time.Millisecond || // half a round trip; less is a busy machine
		r1+r2 > 0 {
		t.Fatal("the slow store was felt")
	}
}
