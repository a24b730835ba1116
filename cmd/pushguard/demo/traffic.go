package demo

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	pusherhttp "github.com/pusher/pusher-http-go/v5"

	"github.com/pushguard/pushguard/cmd/pushguard/loadgen"
	"github.com/pushguard/pushguard/pusher/sim"
)

// demoSide is one of the two worlds: a simulated Pusher and the way to it.
type demoSide struct {
	name         string
	sim          *sim.Server
	host         string
	throughGuard bool
	healthy      demoTally
	runaway      demoTally
}

// demoTally is what one group of callers met.
type demoTally struct {
	asked, accepted atomic.Int64
	firstRefusal    atomic.Int64 // ns since the day began; 0 none
	mu              sync.Mutex
	took            []time.Duration
}

func (t *demoTally) note(since time.Duration, took time.Duration, err error, keep bool) {
	t.asked.Add(1)
	if err != nil {
		t.firstRefusal.CompareAndSwap(0, int64(since))
		return
	}
	t.accepted.Add(1)
	if keep {
		t.mu.Lock()
		t.took = append(t.took, took)
		t.mu.Unlock()
	}
}

func (t *demoTally) share() float64 {
	if t.asked.Load() == 0 {
		return 100
	}
	return 100 * float64(t.accepted.Load()) / float64(t.asked.Load())
}

func (t *demoTally) median() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.took) == 0 {
		return 0
	}
	sort.Slice(t.took, func(i, j int) bool { return t.took[i] < t.took[j] })
	return t.took[len(t.took)/2]
}

// reached counts the publishes of an event that arrived at this side's Pusher;
// folded, one call carries several to a channel each.
func (s *demoSide) reached(event string) (n int64) {
	for _, e := range s.sim.Events(1 << 20) {
		if e.Name == event {
			n += int64(len(e.Channels))
		}
	}
	return n
}

// client is the real Go SDK, pointed at this side. Through the guard each
// caller has a pair of its own; directly they all share the app's.
func (s *demoSide) client(caller string, pool *http.Client) *pusherhttp.Client {
	c := &pusherhttp.Client{AppID: demoApp, Key: demoKey, Secret: demoSecret, Host: s.host, HTTPClient: pool}
	if s.throughGuard {
		c.Key, c.Secret = "k-"+caller, "s-"+caller
	}
	return c
}

// demoTraffic is the day's traffic, the same on both sides.
type demoTraffic struct {
	began       time.Time
	runawayFrom time.Duration
	doubling    time.Duration
	usual       float64 // publishes a second of the one that runs away, before it does
	running     sync.WaitGroup
}

// demoUsual is what everybody sends on every day, publishes a second in a demo
// of a minute; a longer one is thinned so that it uses the same part of the
// plan. The last is the one that runs away.
var demoUsual = []struct {
	caller, event, channel string
	perSecond              float64
}{
	{"orders", "order.updated", "private-shop-%d", 10},
	{"chat", "message.new", "presence-room-%d", 10},
	{"presence", "status.changed", "private-team-%d", 10},
	{"billing", "invoice.paid", "private-account-%d", 10},
	{"alarms", "alarm.raised", "private-ward-%d", 10},
	{"refresher", "notification.refresh", "private-user-%d", 1},
}

const (
	demoRunawayStart = 20   // publishes a second
	demoRunawayMost  = 1200 // what the demo's own machine can be expected to carry
	demoWorkers      = 16
)

func startDemoTraffic(ctx context.Context, began time.Time, length time.Duration, sides []*demoSide) *demoTraffic {
	t := &demoTraffic{began: began, runawayFrom: length / 5, doubling: length / 15, usual: demoUsual[len(demoUsual)-1].perSecond * 60 / length.Seconds()}
	healthy := demoUsual[:len(demoUsual)-1]
	for _, side := range sides {
		pool := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		for i, h := range healthy {
			client := side.client(h.caller, pool)
			every := time.Duration(float64(length) / (60 * h.perSecond))
			t.running.Go(func() {
				next := began.Add(every * time.Duration(i) / time.Duration(len(healthy)))
				for n := 0; loadgen.WaitUntil(ctx, next); n++ {
					next = next.Add(every)
					start := time.Now()
					err := client.Trigger(fmt.Sprintf(h.channel, n%40), h.event, map[string]int{"n": n})
					if ctx.Err() == nil {
						side.healthy.note(start.Sub(began), time.Since(start), err, true)
					}
				}
			})
		}
		due := make(chan int, demoWorkers)
		client := side.client("refresher", pool)
		t.running.Go(func() { t.schedule(ctx, due) })
		for range demoWorkers {
			t.running.Go(func() {
				for n := range due {
					start := time.Now()
					// A retry storm: most of it is the same few payloads again and again.
					err := client.Trigger(fmt.Sprintf("private-user-%d", n%200), "notification.refresh", map[string]int{"version": n / 2000})
					if ctx.Err() == nil {
						side.runaway.note(start.Sub(began), 0, err, false)
					}
				}
			})
		}
	}
	return t
}

// runawayRate is what the runaway asks for at a time, in publishes a second.
func (t *demoTraffic) runawayRate(at time.Duration) float64 {
	if at < t.runawayFrom {
		return t.usual
	}
	return min(demoRunawayMost, demoRunawayStart*math.Exp2(float64(at-t.runawayFrom)/float64(t.doubling)))
}

// schedule hands out the runaway's publishes when they are due. What its
// workers cannot take up at once is not sent at all, on neither side.
func (t *demoTraffic) schedule(ctx context.Context, due chan<- int) {
	defer close(due)
	const step = 10 * time.Millisecond
	next, owed, n := t.began, 0.0, 0
	for loadgen.WaitUntil(ctx, next) {
		next = next.Add(step)
		for owed += t.runawayRate(time.Since(t.began)) * step.Seconds(); owed >= 1; owed-- {
			select {
			case due <- n:
			default:
			}
			n++
		}
	}
}

func (t *demoTraffic) wait() { t.running.Wait() }
