package rates_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
)

// TestCost measures 100,000 keys of which 1,000 are at their limit, on three replicas: go test -run TestCost -v -grid.
func TestCost(t *testing.T) {
	if !*grid {
		t.Skip("a measurement: -grid")
	}
	const keys, hot = 100_000, 1000
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("private-user-%d", i)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	f := newFleet(t, onRedis(t), limiter.Rate{PerSecond: 5, Burst: 5, Per: limiter.PerChannel})
	alone := func() *limiter.App {
		app, err := limiter.New(f.policy, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return app
	}
	before := heap()
	one := alone()
	admit := func(app *limiter.App, now time.Time, i int) {
		c := limiter.Claim{Event: "e", Channels: names[i : i+1], Cost: 1}
		v := app.Admit(background, now, &c)
		app.Done(now, &c, &v, limiter.Delivered, 1)
	}
	for i := range keys {
		admit(one, f.now, i)
	}
	aloneBytes := heap() - before
	for range 3 {
		f.join()
	}
	f.settle()
	before = heap()
	var exchange time.Duration
	trips := f.trips
	const seconds = 20
	for s := range seconds * 10 {
		begin := time.Now()
		f.tick(100*time.Millisecond, nil)
		exchange += time.Since(begin)
		for _, r := range f.all {
			for i := range keys / 100 { // each key a tenth of a publish a second on each replica
				admit(r.app, f.now, hot+(s*keys/100+i)%(keys-hot))
			}
			for i := range hot { // 10/s where 5/s pass
				if (s+i)%3 == 0 {
					admit(r.app, f.now, i)
				}
			}
		}
	}
	shared := heap() - before
	t.Logf("buckets of %d keys: %.1f MB alone, %.1f MB a replica shared", keys, float64(aloneBytes)/1e6, float64(shared)/3e6)
	st := f.all[0].shares.Status()
	t.Logf("%.2f round trips a second and replica, %.0f buckets reported in each, %.1f ms each (three replicas and Redis on this machine)",
		float64(f.trips-trips)/seconds/3, float64(st.Reports)/float64(st.Exchanges), exchange.Seconds()*1000/float64(f.trips-trips))
	measure := func(app *limiter.App, now time.Time) float64 {
		best := 1e9
		for range 15 {
			begin := time.Now()
			for i := range keys {
				admit(app, now, i)
			}
			best = min(best, float64(time.Since(begin).Nanoseconds())/keys)
			now = now.Add(3 * time.Second)
		}
		return best
	}
	f.now = f.now.Add(time.Minute)
	a, b := measure(one, f.now), measure(f.all[0].app, f.now)
	t.Logf("Admit and Done, 100,000 keys in turn: %.0f ns alone, %.0f ns shared (%+.1f %%)", a, b, 100*(b/a-1))
	c := limiter.Claim{Event: "e", Channels: names[:1], Cost: 1}
	n := testing.AllocsPerRun(1000, func() {
		v := f.all[0].app.Admit(background, f.now, &c)
		f.all[0].app.Done(f.now, &c, &v, limiter.Delivered, 1)
	})
	t.Logf("%.0f allocations a publish", n)
}
