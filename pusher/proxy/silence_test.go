package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// mute is an upstream whose calls take 5 ms, but for a span of time in which it
// answers nothing. What it was sent then it has lost, or answers at the span's end.
type mute struct {
	from, to time.Duration
	answers  bool
	timeout  time.Duration
	takes    time.Duration // a call; 0: 5 ms

	began time.Time
}

// call is one call, and whether it was answered.
func (m *mute) call() (answered bool) {
	at := time.Since(m.began)
	switch {
	case at < m.from || at >= m.to:
		time.Sleep(or(m.takes, 5*time.Millisecond))
		return true
	case m.answers && m.to-at < m.timeout:
		time.Sleep(m.to - at)
		return true
	}
	time.Sleep(m.timeout)
	return false
}

// fates is what became of those that came.
type fates struct {
	mu        sync.Mutex
	refused   [quota.Priorities][]time.Duration // when
	in        int                               // were sent into the silence
	delivered int
}

// crowd has so many a second come to a, a fifth of them critical, for so long.
func (m *mute) crowd(a *admission, perSecond int, long time.Duration) *fates {
	var got fates
	var all sync.WaitGroup
	m.began = time.Now()
	for n := 0; time.Since(m.began) < long; n++ {
		class := []quota.Priority{quota.Bulk, quota.Bulk, quota.Normal, quota.Normal, quota.Critical}[n%5]
		all.Go(func() {
			var mine turn
			if !a.enter(&mine, class) {
				got.mu.Lock()
				got.refused[class] = append(got.refused[class], time.Since(m.began))
				got.mu.Unlock()
				return
			}
			began := time.Now()
			answered := m.call()
			a.leave(began, time.Now(), answered, answered)
			got.mu.Lock()
			defer got.mu.Unlock()
			if answered {
				got.delivered++
			} else {
				got.in++
			}
		})
		time.Sleep(time.Second / time.Duration(perSecond))
	}
	all.Wait()
	return &got
}

// Callers meet an upstream's silence for as long as it lasts, not for as long as
// its timeout is, and little is sent into it.
func TestSilence(t *testing.T) {
	const sec, ms = time.Second, time.Millisecond
	for _, c := range []struct {
		name    string
		m       mute
		refused time.Duration // the last one at the latest
		in      int           // at most: what had a place when it began, and one each 100 ms
	}{
		{"of 100 ms: nobody notices", mute{from: sec, to: 1100 * ms, timeout: 4 * sec, answers: true}, 0, 0},
		{"of a second, and all is lost", mute{from: sec, to: 2 * sec, timeout: 4 * sec}, 2300 * ms, 296 + 10},
		{"of a second, and then it answers", mute{from: sec, to: 2 * sec, timeout: 4 * sec, answers: true}, 2300 * ms, 0},
		{"longer than the timeout", mute{from: sec, to: 8 * sec, timeout: 4 * sec}, 8300 * ms, 296 + 70},
		{"longer than the timeout, and then it answers", mute{from: sec, to: 8 * sec, timeout: 4 * sec, answers: true}, 8300 * ms, 296 + 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAdmission(c.m.timeout)
				var heard []bool
				a.silence.told = func(silent bool, _ time.Duration) { heard = append(heard, silent) }
				got := c.m.crowd(a, 1000, 14*sec)
				var n int
				for class, times := range got.refused {
					n += len(times)
					for _, at := range times {
						if at > c.refused {
							t.Fatalf("a %s one was refused after %s", quota.Priority(class), at)
						}
					}
				}
				if got.in > c.in || (c.refused > 0) != (n > 0) || got.in+got.delivered+n != 14000 {
					t.Errorf("%d refused, %d sent into it, %d delivered", n, got.in, got.delivered)
				}
				if want := 2; (c.refused > 0) != (len(heard) == want && heard[0] && !heard[1]) {
					t.Errorf("told of %v", heard)
				}
				t.Logf("%d refused, %d sent into it, %d delivered", n, got.in, got.delivered)
				// And then all is as it was.
				if a.limit.Load() != a.may || a.under.Load() != 0 || a.waiting.Load() != 0 || a.silence.lost.Load() != 0 || a.may < paceStart {
					t.Errorf("limit %d of %d, %d under way, %d in line, %d lost", a.limit.Load(), a.may, a.under.Load(), a.waiting.Load(), a.silence.lost.Load())
				}
			})
		})
	}
}

// Full is not silent, as long as there are answers; nor is what was full once, and
// heard no answer, silent for ever.
func TestFullIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limited(8)
		a.window.turn(time.Now().Add(time.Hour), 1<<40) // and that does not change
		a.silence.told = func(bool, time.Duration) { t.Error("called silent") }
		m := mute{takes: 20 * time.Millisecond}
		if got := m.crowd(a, 1000, 5*time.Second); len(got.refused[quota.Bulk]) == 0 {
			t.Error("it was not full")
		}
		a = limited(1)
		a.silence.told = func(bool, time.Duration) { t.Error("called silent by what was a minute ago") }
		for range 2 {
			var first, second turn
			if !a.enter(&first, quota.Bulk) || a.enter(&second, quota.Bulk) {
				t.Error("one place, and not one has it")
			}
			a.leave(time.Now(), time.Now(), false, false)
			time.Sleep(time.Minute)
		}
	})
}

// The same with real calls, alone and folded: as soon as Pusher answers one, others
// go, although what it was sent before still hangs; and who was told that it is
// silent paid nothing.
func TestASilenceEndsWithTheFirstAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		fold  *FoldConfig
		conns int
		plain bool // not on the poller's connections, as where a trace is wanted
	}{
		{name: "alone"},
		{name: "folded", fold: &FoldConfig{Calls: 2}},
		{name: "with fewer connections than places", conns: 3},
		{name: "the same by fasthttp's client", conns: 3, plain: true},
		{name: "folded, and no connection is left", fold: &FoldConfig{Calls: 2}, conns: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var silent atomic.Bool
			var hang, served atomic.Int64
			release := make(chan struct{})
			up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if silent.Load() {
					hang.Add(1)
					defer hang.Add(-1)
					<-release
				} else {
					served.Add(1)
				}
				fmt.Fprint(w, "{}")
			}))
			t.Cleanup(up.Close)
			r := newRig(t, rigConfig{upstream: up.URL, fold: c.fold, conns: c.conns, timeout: 20 * time.Second})
			if c.plain {
				r.app.Upstream.conns = nil
			}
			door := r.app.Upstream.admission
			door.mu.Lock()
			door.pace.limit, door.pace.base, door.may = 4, time.Millisecond, 4
			door.open()
			door.mu.Unlock()
			silent.Store(true)
			stop := make(chan struct{})
			end := sync.OnceFunc(func() { close(release); close(stop) })
			t.Cleanup(end)
			var all sync.WaitGroup
			var sent, mute atomic.Int64
			for i := range 16 {
				all.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						switch got := r.publish("e", fmt.Sprint("c", i), fmt.Sprint(n)); {
						case got.status == 200:
							sent.Add(1)
						case got.status == 503 && got.header.Get("Pushguard-Reason") == "upstream_silent" && strings.Contains(got.body, "cost no message"):
							mute.Add(1)
							silent.Store(false) // before every worker hangs as a probe
						case got.status != 503 || got.header.Get("Pushguard-Reason") != "overloaded":
							t.Errorf("%d %s %v %s", got.status, got.outcome, got.header, got.body)
						}
					}
				})
			}
			eventually(t, "somebody is told of the silence", func() bool { return mute.Load() > 0 })
			eventually(t, "Pusher answers, and is asked", func() bool { return served.Load() > 100 })
			if o := r.app.Upstream.Overload(); hang.Load() < 2 || o.Silent || o.Limit < 6 {
				t.Errorf("%d hang, %+v", hang.Load(), o)
			}
			end()
			all.Wait()
			if o := r.app.Upstream.Overload(); o.UnderWay != 0 || o.Waiting != 0 || door.silence.lost.Load() != 0 {
				t.Errorf("%+v, %d lost", o, door.silence.lost.Load())
			}
			if c.fold == nil && r.used() != 3*sent.Load() { // one call and two deliveries
				t.Errorf("%d were sent, the ledger booked %d", sent.Load(), r.used())
			}
		})
	}
}
