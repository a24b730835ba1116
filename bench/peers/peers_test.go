package peers

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
)

var ctx = context.Background()

// plenty is a limit that never bites; as tokens a second and as a burst.
const plenty = 100_000_000

// decide makes one decision about a key; false means that it failed, or was refused.
type decide func(key int) bool

// goroutine makes what one goroutine needs, and returns its decide.
type goroutine func() decide

// keyed is how many keys the traffic is spread over.
var keyed = []struct {
	name string
	keys int
}{{"1key", 1}, {"100k", 100_000}}

var names = sync.OnceValue(func() []string {
	all := make([]string, 100_000)
	for i := range all {
		all[i] = "private-user-" + strconv.Itoa(i)
	}
	return all
})

// order is keys in random order, the same for every row; each goroutine begins somewhere else in it.
var order = sync.OnceValue(func() []uint32 {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]uint32, 1<<20)
	for i := range all {
		all[i] = r.Uint32()
	}
	return all
})

var goroutines atomic.Uint32

// measure runs sub-benchmarks on so many goroutines; 0 stands for one a processor. What setUp needs is made by the
// caller once, and every key is decided once before, so that it is there.
func measure(b *testing.B, keys int, setUp goroutine, workers ...int) {
	b.Helper()
	var wg sync.WaitGroup
	const warming = 16
	for w := range warming {
		wg.Go(func() {
			d := setUp()
			for k := w; k < keys; k += warming {
				d(k)
			}
		})
	}
	wg.Wait()
	for _, n := range workers {
		b.Run(label(n), func(b *testing.B) { run(b, n, keys, setUp) })
	}
}

func run(b *testing.B, workers, keys int, setUp goroutine) {
	order := order()
	var failed atomic.Int64
	if workers > 0 {
		b.SetParallelism(max(workers/runtime.GOMAXPROCS(0), 1)) // RunParallel multiplies by GOMAXPROCS
	}
	b.ReportAllocs()
	b.ResetTimer()
	loop := func(next func() bool) {
		d := setUp()
		i := int(goroutines.Add(1)) * 7919
		var bad int64
		for ; next(); i++ {
			if !d(int(order[i&(len(order)-1)]) % keys) {
				bad++
			}
		}
		failed.Add(bad)
	}
	if workers == 1 {
		n := 0
		loop(func() bool { n++; return n <= b.N })
	} else {
		b.RunParallel(func(pb *testing.PB) { loop(pb.Next) })
	}
	b.StopTimer()
	if n := failed.Load(); n > 0 {
		b.ReportMetric(float64(n)/float64(b.N)*100, "%failed")
	}
}

// world is a pushguard app with all stages on.
type world struct {
	app      *limiter.App
	ledger   *quota.Ledger
	channels [][]string
	events   []string
	callers  []*limiter.Caller
	digests  atomic.Uint64
}

// openLedger joins an account with a huge plan; its heartbeat runs as in a live guard.
func openLedger(b *testing.B, url string) *quota.Ledger {
	b.Helper()
	quiet := slog.New(slog.DiscardHandler)
	st, err := store.Open(ctx, url, store.Options{Dir: b.TempDir(), Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	shares := map[string]float64{}
	for i := range 12 {
		shares["caller-"+strconv.Itoa(i)] = 0.9
	}
	l, err := quota.Open(ctx, time.Now(), st, "bench", quota.Config{
		Account: "bench",
		Plan:    quota.Plan{Name: "huge", MessagesPerDay: 1 << 49},
		Shares:  shares,
	}, quiet)
	if err != nil {
		b.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(run) })
	b.Cleanup(func() {
		stop()
		wg.Wait()
		if err := l.Close(ctx); err != nil {
			b.Error(err)
		}
		if err := st.Close(); err != nil {
			b.Error(err)
		}
	})
	return l
}

func newWorld(b *testing.B, url string) *world {
	b.Helper()
	w := &world{ledger: openLedger(b, url)}
	big := func(per limiter.Per) *limiter.Rate { return &limiter.Rate{PerSecond: plenty, Burst: plenty, Per: per} }
	p := limiter.Policy{
		App: "bench",
		Rules: []limiter.Rule{
			{Name: "alarms", Match: limiter.Match{Event: []string{"alarm.*"}}, Priority: quota.Critical},
			{Name: "reports", Match: limiter.Match{Event: []string{"*.report"}, Caller: []string{"reporting"}}, Priority: quota.Bulk},
			{
				Name: "notifications", Match: limiter.Match{Event: []string{"notification.*"}, Channel: []string{"private-user-*"}},
				Priority: quota.Normal, Dedupe: 10 * time.Millisecond,
				Rates: []limiter.Rate{*big(limiter.PerChannel), *big(limiter.PerApp)},
			},
		},
		EventRate: big(limiter.PerEvent),
		AppRate:   big(limiter.PerApp),
	}
	for i := range 12 {
		p.Callers = append(p.Callers, limiter.CallerPolicy{Name: "caller-" + strconv.Itoa(i), Rate: big(limiter.PerApp), Share: 0.9})
	}
	breaker, err := limiter.NewBreaker(time.Now(), limiter.BreakerConfig{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	if w.app, err = limiter.New(p, w.ledger, breaker); err != nil {
		b.Fatal(err)
	}
	for i := range names() {
		w.channels = append(w.channels, names()[i:i+1:i+1])
	}
	for i := range 20 {
		w.events = append(w.events, "notification."+strconv.Itoa(i))
	}
	for i := range 12 {
		w.callers = append(w.callers, w.app.Caller("caller-"+strconv.Itoa(i)))
	}
	return w
}

// admit judges publishes; with done it also closes them, as the proxy does when Pusher has answered.
func (w *world) admit(done bool) goroutine {
	return func() decide {
		digest := w.digests.Add(1) << 40
		var c limiter.Claim
		return func(key int) bool {
			digest++
			now := time.Now()
			c = limiter.Claim{
				Caller:   w.callers[key%len(w.callers)],
				Event:    w.events[key%len(w.events)],
				Channels: w.channels[key],
				Digest:   [2]uint64{digest * 0x9e3779b97f4a7c15, digest * 0xd6e8feb86659fd93},
				Cost:     2,
			}
			v := w.app.Admit(ctx, now, &c)
			if done {
				w.app.Done(now, &c, &v, limiter.Delivered, 2)
			}
			return v.Outcome == limiter.Sent
		}
	}
}

// reserve is the ledger alone: what an account's plan costs a decision.
func reserve(b *testing.B, url string) goroutine {
	l := openLedger(b, url)
	return func() decide {
		return func(int) bool {
			now := time.Now()
			h, denied := l.Reserve(ctx, now, nil, quota.Normal, 2)
			l.Settle(now, h, 2)
			return denied == quota.Granted
		}
	}
}

func label(workers int) string {
	switch workers {
	case 0:
		return "each-cpu"
	case 1:
		return "1-goroutine"
	}
	return fmt.Sprintf("%d-goroutines", workers)
}
