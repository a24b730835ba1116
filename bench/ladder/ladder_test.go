package ladder

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

const keys = 100_000

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// traffic is the publishes of one goroutine: channels in random order, each with its own digest.
type traffic struct {
	*world
	order  []uint32
	n      int
	digest uint64
	claim  limiter.Claim
}

// world is what all goroutines publish to.
type world struct {
	app      *limiter.App
	channels [][]string
	events   []string
	callers  []*limiter.Caller
	ready    chan *traffic // one a goroutine, made before the clock runs
}

func newWorld(app *limiter.App, nkeys int) *world {
	w := &world{app: app, ready: make(chan *traffic, runtime.GOMAXPROCS(0))}
	names := make([]string, nkeys)
	for i := range nkeys {
		names[i] = "private-user-" + strconv.Itoa(i)
		w.channels = append(w.channels, names[i:i+1])
	}
	for i := range 20 {
		w.events = append(w.events, "notification."+strconv.Itoa(i))
	}
	for i := range 12 {
		w.callers = append(w.callers, app.Caller("caller-"+strconv.Itoa(i)))
	}
	for g := range cap(w.ready) {
		t := &traffic{world: w, digest: uint64(g+1) << 48}
		r := rand.New(rand.NewPCG(1, t.digest))
		for range 1 << 18 {
			t.order = append(t.order, uint32(r.IntN(nkeys)))
		}
		w.ready <- t
	}
	return w
}

// next is the claim of the next publish, and its time: 5 million a second.
func (t *traffic) next() (time.Time, *limiter.Claim) {
	t.n++
	i := t.order[t.n&(len(t.order)-1)]
	t.digest++
	t.claim.Caller = t.callers[int(i)%len(t.callers)]
	t.claim.Event = t.events[int(i)%len(t.events)]
	t.claim.Channels = t.channels[i]
	t.claim.Rule = t.app.Match(t.claim.Event, t.claim.Channels, t.claim.Caller)
	t.claim.Digest = [2]uint64{t.digest * 0x9e3779b97f4a7c15, t.digest * 0xd6e8feb86659fd93}
	t.claim.Cost = 2
	return start.Add(time.Duration(t.n) * 200 * time.Nanosecond), &t.claim
}

func generous() *limiter.Rate { return &limiter.Rate{PerSecond: 1e8, Burst: 1e8} }

// rungs add one stage of the judgement each; the last has all of them.
type rung struct {
	name   string
	policy func(*limiter.Policy)
	ledger bool
}

var rungs = []rung{
	{name: "rule", policy: func(p *limiter.Policy) {
		p.Rules = []limiter.Rule{
			{Name: "alarms", Match: limiter.Match{Event: []string{"alarm.*"}}, Priority: quota.Critical},
			{Name: "reports", Match: limiter.Match{Event: []string{"*.report"}, Caller: []string{"reporting"}}, Priority: quota.Bulk},
			{Name: "notifications", Match: limiter.Match{Event: []string{"notification.*"}, Channel: []string{"private-user-*"}}, Priority: quota.Normal},
		}
	}},
	{name: "dedupe", policy: func(p *limiter.Policy) { p.Rules[2].Dedupe = 10 * time.Millisecond }},
	{name: "caller", policy: func(p *limiter.Policy) {
		for i := range 12 {
			p.Callers = append(p.Callers, limiter.CallerPolicy{Name: "caller-" + strconv.Itoa(i), Rate: generous()})
		}
	}},
	{name: "event", policy: func(p *limiter.Policy) { p.EventRate = generous() }},
	{name: "channel", policy: func(p *limiter.Policy) {
		p.Rules[2].Rates = []limiter.Rate{{PerSecond: 1e8, Burst: 1e8, Per: limiter.PerChannel}}
	}},
	{name: "app", policy: func(p *limiter.Policy) { p.AppRate = generous() }},
	{name: "budget", policy: func(*limiter.Policy) {}, ledger: true},
}

// build makes the app of the given number of rungs.
func build(tb testing.TB, height int) *limiter.App {
	tb.Helper()
	p := limiter.Policy{App: "ladder"}
	var ledger *quota.Ledger
	var breaker *limiter.Breaker
	for _, r := range rungs[:height] {
		r.policy(&p)
		if r.ledger {
			ledger = newLedger(tb)
			b, err := limiter.NewBreaker(start, limiter.BreakerConfig{}, nil)
			if err != nil {
				tb.Fatal(err)
			}
			breaker = b
		}
	}
	app, err := limiter.New(p, ledger, breaker)
	if err != nil {
		tb.Fatal(err)
	}
	return app
}

func run(b *testing.B, height, nkeys int, done bool) {
	app := build(b, height)
	w := newWorld(app, nkeys)
	ctx := context.Background()
	warm := <-w.ready
	for range 2 * nkeys {
		now, c := warm.next()
		v := app.Admit(ctx, now, c)
		app.Done(now, c, &v, limiter.Delivered, c.Cost)
	}
	w.ready <- warm
	var refused atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		t := <-w.ready
		t.n = warm.n
		for pb.Next() {
			now, c := t.next()
			v := app.Admit(ctx, now, c)
			if v.Outcome != limiter.Sent {
				refused.Add(1)
			}
			if done {
				app.Done(now, c, &v, limiter.Delivered, c.Cost)
			}
		}
		w.ready <- t
	})
	if n := refused.Load(); n > int64(b.N/100) {
		b.Fatalf("%d of %d publishes were refused: this measures something else", n, b.N)
	}
}

// BenchmarkLadder is Admit with one stage more on each rung, over 100,000 channels, Match included.
func BenchmarkLadder(b *testing.B) {
	for i, r := range rungs {
		b.Run(fmt.Sprintf("%d+%s", i+1, r.name), func(b *testing.B) { run(b, i+1, keys, false) })
	}
}

// BenchmarkAdmit is all stages on: the figure that is promised.
func BenchmarkAdmit(b *testing.B) {
	b.Run("1key", func(b *testing.B) { run(b, len(rungs), 1, false) })
	b.Run("100k", func(b *testing.B) { run(b, len(rungs), keys, false) })
	b.Run("100k+Done", func(b *testing.B) { run(b, len(rungs), keys, true) })
}

// BenchmarkTraffic is what the loop above costs by itself: making up the publish, and Match.
func BenchmarkTraffic(b *testing.B) {
	w := newWorld(build(b, 1), keys)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		t := <-w.ready
		for pb.Next() {
			t.next()
		}
		w.ready <- t
	})
}

// BenchmarkBareRate is golang.org/x/time/rate with nothing around it.
func BenchmarkBareRate(b *testing.B) {
	b.Run("Allow", func(b *testing.B) {
		l := rate.NewLimiter(1e8, 1e8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				l.Allow()
			}
		})
	})
	b.Run("AllowN", func(b *testing.B) {
		l := rate.NewLimiter(1e8, 1e8)
		b.RunParallel(func(pb *testing.PB) {
			for now := start; pb.Next(); now = now.Add(200) {
				l.AllowN(now, 1)
			}
		})
	})
	// The same in the map under one mutex that everybody writes first.
	b.Run("map100k", func(b *testing.B) {
		var mu sync.Mutex
		m := map[string]*rate.Limiter{}
		get := func(k string) *rate.Limiter {
			mu.Lock()
			defer mu.Unlock()
			l := m[k]
			if l == nil {
				l = rate.NewLimiter(1e8, 1e8)
				m[k] = l
			}
			return l
		}
		w := newWorld(build(b, 1), keys)
		for _, c := range w.channels {
			get(c[0])
		}
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			t := <-w.ready
			for n := 0; pb.Next(); n++ {
				get(t.channels[t.order[n&(len(t.order)-1)]][0]).AllowN(start.Add(time.Duration(n)*200), 1)
			}
			w.ready <- t
		})
	})
}

func newLedger(tb testing.TB) *quota.Ledger {
	tb.Helper()
	l, err := quota.Open(context.Background(), start, nil, "ladder", quota.Config{
		Account: "ladder",
		Plan:    quota.Plan{Name: "large", MessagesPerDay: 1 << 50},
	}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}
