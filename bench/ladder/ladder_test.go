package ladder

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/time/rate"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
)

const keys = 100_000

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// pace is the time between two publishes of one worker.
const pace = 400 * time.Nanosecond

// world is what everybody publishes to.
type world struct {
	app      *limiter.App
	channels []string
	events   []string
	callers  []*limiter.Caller
	workers  []*worker
	ledger   *quota.Ledger // nil: none
	beats    int
}

// worker is the publishes of one goroutine: channels in random order, each with its own digest.
type worker struct {
	order    []uint32
	n        int
	claims   [blockLen]limiter.Claim
	times    [blockLen]time.Time
	verdicts [blockLen]limiter.Verdict
	channel  [blockLen][1]string
	names    []byte // the bytes of the block's channels: fresh from a request, so in the cache
}

func newWorld(app *limiter.App, ledger *quota.Ledger, nkeys int) *world {
	w := &world{app: app, ledger: ledger}
	for i := range nkeys {
		w.channels = append(w.channels, "private-user-"+strconv.Itoa(i))
	}
	for i := range 20 {
		w.events = append(w.events, "notification."+strconv.Itoa(i))
	}
	for i := range 12 {
		w.callers = append(w.callers, app.Caller("caller-"+strconv.Itoa(i)))
	}
	for g := range runtime.GOMAXPROCS(0) {
		k := &worker{order: make([]uint32, 1<<18), names: make([]byte, 0, 32*blockLen)}
		r := rand.New(rand.NewPCG(1, uint64(g)))
		for i := range k.order {
			k.order[i] = uint32(r.IntN(nkeys))
		}
		w.workers = append(w.workers, k)
	}
	return w
}

// prepare makes up the next block of publishes.
func (w *world) prepare(g int) {
	k := w.workers[g]
	if w.ledger != nil && g == 0 {
		if w.beats++; w.beats%256 == 1 {
			if err := w.ledger.Beat(background, start.Add(time.Duration(k.n)*pace)); err != nil {
				panic(err)
			}
		}
	}
	k.names = k.names[:0]
	for i := range k.claims {
		k.n++
		at := k.order[k.n&(len(k.order)-1)]
		digest := uint64(k.n)<<8 | uint64(g)
		from := len(k.names)
		k.names = append(k.names, w.channels[at]...)
		k.channel[i][0] = unsafe.String(&k.names[from], len(k.names)-from)
		k.times[i] = start.Add(time.Duration(k.n) * pace)
		k.claims[i] = limiter.Claim{
			Caller:   w.callers[int(at)%len(w.callers)],
			Event:    w.events[int(at)%len(w.events)],
			Channels: k.channel[i][:],
			Digest:   [2]uint64{digest * 0x9e3779b97f4a7c15, digest * 0xd6e8feb86659fd93},
			Cost:     2,
			Size:     100,
		}
	}
}

var background = context.Background()

// judge is what is timed: the rule is looked up inside Admit.
func (w *world) judge(g, i int) {
	k := w.workers[g]
	k.verdicts[i] = w.app.Admit(background, k.times[i], &k.claims[i])
}

func (w *world) done(g, i int) {
	k := w.workers[g]
	w.app.Done(k.times[i], &k.claims[i], &k.verdicts[i], limiter.Delivered, 2)
}

func generous() *limiter.Rate { return &limiter.Rate{PerSecond: 1e8, Burst: 1e8} }

// rung adds one stage to the judgement; the last has all of them.
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
func build(tb testing.TB, height int) (*limiter.App, *quota.Ledger) {
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
	return app, ledger
}

func run(b *testing.B, height, nkeys int) {
	app, ledger := build(b, height)
	w := newWorld(app, ledger, nkeys)
	for range 3 * nkeys / blockLen / len(w.workers) {
		for g := range w.workers {
			w.prepare(g)
			for i := range blockLen {
				w.judge(g, i)
				w.done(g, i)
			}
		}
	}
	refused := 0
	blocks(b, func(g int) {
		for i := range w.workers[g].verdicts {
			if g == 0 && w.workers[g].verdicts[i].Outcome != limiter.Sent {
				refused++
			}
		}
		w.prepare(g)
	}, step{"admit-ns", w.judge}, step{"done-ns", w.done})
	if refused > 0 {
		b.Fatalf("%d publishes were refused: this measures something else", refused)
	}
}

// BenchmarkLadder is Admit with one stage more on each rung, over 100,000 channels.
func BenchmarkLadder(b *testing.B) {
	for i, r := range rungs {
		b.Run(fmt.Sprintf("%d+%s", i+1, r.name), func(b *testing.B) { run(b, i+1, keys) })
	}
}

// BenchmarkAdmit is all stages on: the figure that is promised.
func BenchmarkAdmit(b *testing.B) {
	b.Run("1key", func(b *testing.B) { run(b, len(rungs), 1) })
	b.Run("100k", func(b *testing.B) { run(b, len(rungs), keys) })
}

// BenchmarkBareRate is golang.org/x/time/rate with nothing around it, and in the map under one
// mutex that everybody writes first.
func BenchmarkBareRate(b *testing.B) {
	b.Run("AllowN", func(b *testing.B) {
		app, _ := build(b, 1)
		w := newWorld(app, nil, 1)
		l := rate.NewLimiter(1e8, 1e8)
		blocks(b, w.prepare, step{"allow-ns", func(g, i int) { l.AllowN(w.workers[g].times[i], 1) }})
	})
	b.Run("map100k", func(b *testing.B) {
		var mu sync.Mutex
		m := map[string]*rate.Limiter{}
		app, _ := build(b, 1)
		w := newWorld(app, nil, keys)
		for _, c := range w.channels {
			m[c] = rate.NewLimiter(1e8, 1e8)
		}
		blocks(b, w.prepare, step{"allow-ns", func(g, i int) {
			k := w.workers[g]
			mu.Lock()
			l := m[k.claims[i].Channels[0]]
			mu.Unlock()
			l.AllowN(k.times[i], 1)
		}})
	})
}

// newLedger is a real ledger on the embedded store, its lease kept full between the blocks as Run
// does it between publishes.
func newLedger(tb testing.TB) *quota.Ledger {
	tb.Helper()
	quiet := slog.New(slog.DiscardHandler)
	st, err := store.Open(background, "embedded", store.Options{Log: quiet})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { st.Close() })
	l, err := quota.Open(background, start, st, "ladder", quota.Config{
		Account: "ladder",
		Plan:    quota.Plan{Name: "large", MessagesPerDay: 1 << 45},
	}, quiet)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}
