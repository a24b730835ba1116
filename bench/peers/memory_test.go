package peers

import (
	"sync"
	"testing"
	"time"

	sethvargo "github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	ulule "github.com/ulule/limiter/v3"
	ululememory "github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"
)

// BenchmarkMemory is one decision in one process.
func BenchmarkMemory(b *testing.B) {
	rows := []struct {
		name string
		make func(*testing.B) goroutine
	}{
		{"pushguard-Admit", func(b *testing.B) goroutine { return newWorld(b, "embedded").admit(false) }},
		{"pushguard-Admit+Done", func(b *testing.B) goroutine { return newWorld(b, "embedded").admit(true) }},
		{"x-time-rate-map", mapOfRates},
		{"sethvargo", sethvargoMemory},
		{"throttled", throttledMemory},
		{"ulule", ululeMemory},
		{"boulder", boulderMemory},
	}
	for _, r := range rows {
		for _, k := range keyed {
			b.Run(r.name+"/"+k.name, func(b *testing.B) { measure(b, k.keys, r.make(b), 0) })
		}
	}
	// One limiter, known beforehand: the floor.
	b.Run("x-time-rate-bare/1key", func(b *testing.B) {
		l := rate.NewLimiter(plenty, plenty)
		measure(b, 1, func() decide { return func(int) bool { return l.Allow() } }, 0)
	})
	b.Run("clock/1key", func(b *testing.B) {
		measure(b, 1, func() decide { return func(int) bool { return !time.Now().IsZero() } }, 0)
	})
}

// mapOfRates is what most programs write for themselves.
func mapOfRates(*testing.B) goroutine {
	var mu sync.Mutex
	m := map[string]*rate.Limiter{}
	return func() decide {
		return func(key int) bool {
			name := names()[key]
			mu.Lock()
			l := m[name]
			if l == nil {
				l = rate.NewLimiter(plenty, plenty)
				m[name] = l
			}
			mu.Unlock()
			return l.Allow()
		}
	}
}

func sethvargoMemory(b *testing.B) goroutine {
	st, err := sethvargo.New(&sethvargo.Config{Tokens: plenty, Interval: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close(ctx) })
	return func() decide {
		return func(key int) bool {
			_, _, _, ok, err := st.Take(ctx, names()[key])
			return ok && err == nil
		}
	}
}

// throttledQuota is as generous as its arithmetic allows: it counts in whole nanoseconds between two requests.
var throttledQuota = throttled.RateQuota{MaxRate: throttled.PerSec(plenty), MaxBurst: plenty}

func throttledMemory(b *testing.B) goroutine {
	st, err := memstore.NewCtx(0)
	if err != nil {
		b.Fatal(err)
	}
	l, err := throttled.NewGCRARateLimiterCtx(st, throttledQuota)
	if err != nil {
		b.Fatal(err)
	}
	return func() decide {
		return func(key int) bool {
			limited, _, err := l.RateLimitCtx(ctx, names()[key], 1)
			return !limited && err == nil
		}
	}
}

func ululeMemory(*testing.B) goroutine {
	l := ulule.New(ululememory.NewStore(), ulule.Rate{Period: time.Second, Limit: plenty})
	return func() decide {
		return func(key int) bool {
			c, err := l.Get(ctx, names()[key])
			return err == nil && !c.Reached
		}
	}
}
