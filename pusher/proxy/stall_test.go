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

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota"
)

// mute is an upstream whose calls take a while, but for a span of time in which it
// answers nothing and loses what it was sent.
type mute struct {
	from, to, takes, timeout time.Duration

	began     time.Time
	delivered atomic.Int64
	lost      atomic.Int64 // sent into the span
	refused   atomic.Int64
	first     atomic.Int64 // when the first was refused
	last      atomic.Int64 // and the last
}

// crowd has so many a second come to a for so long.
func (m *mute) crowd(a *admission, perSecond int, long time.Duration) {
	var all sync.WaitGroup
	m.began = time.Now()
	for n := 0; time.Since(m.began) < long; n++ {
		all.Go(func() {
			var mine turn
			due := &deadline{until: moment().Add(m.timeout)}
			if !a.enter(&mine, due, quota.Priority(n%3)) {
				m.refused.Add(1)
				at := int64(time.Since(m.began))
				m.first.CompareAndSwap(0, at)
				m.last.Store(max(m.last.Load(), at))
				return
			}
			began, at := moment(), time.Since(m.began)
			if at >= m.from && at < m.to {
				m.lost.Add(1)
				time.Sleep(m.timeout)
				a.done(began, &answer{fate: limiter.Unknown, silent: true, ended: moment()})
				return
			}
			time.Sleep(m.takes)
			m.delivered.Add(1)
			a.done(began, &answer{fate: limiter.Delivered, ended: moment()})
		})
		time.Sleep(time.Second / time.Duration(perSecond))
	}
	all.Wait()
}

// An upstream that answers nothing is seen after one timeout, however few calls it
// holds; then little is sent into it, and the first answer ends that.
func TestAStall(t *testing.T) {
	const sec, ms = time.Second, time.Millisecond
	for _, perSecond := range []int{2, 20, 200, 2000} {
		synctest.Test(t, func(t *testing.T) {
			m := &mute{from: 2 * sec, to: 12 * sec, takes: 100 * ms, timeout: 3500 * ms}
			var told []string
			a := newAdmission(m.timeout, paceMost)
			a.stall.told = func(stalled bool, _ time.Duration) {
				told = append(told, fmt.Sprintf("%v at %s", stalled, time.Since(m.began).Round(sec)))
			}
			m.crowd(a, perSecond, 20*sec)
			first, last := time.Duration(m.first.Load()), time.Duration(m.last.Load())
			if first > m.from+5*sec || last > m.to+sec {
				t.Errorf("%d a second: the first refused at %s, the last at %s", perSecond, first, last)
			}
			if most := int64(perSecond)*4 + 80; m.lost.Load() > min(most, paceMost*9/8+100) {
				t.Errorf("%d a second: %d were sent into the stall", perSecond, m.lost.Load())
			}
			if len(told) != 2 || a.under.Load() != 0 || a.waiting.Load() != 0 || a.stall.is.Load() {
				t.Errorf("%d a second: told %q, %d under way, %d waiting", perSecond, told, a.under.Load(), a.waiting.Load())
			}
			t.Logf("%d a second: %q, %d delivered, %d lost, %d refused from %s to %s", perSecond, told, m.delivered.Load(), m.lost.Load(), m.refused.Load(), first, last)
		})
	}
}

// A call that takes long is no stall, nor is one that is lost while others are answered.
func TestWhatIsNoStall(t *testing.T) {
	const sec, ms = time.Second, time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(3500*ms, paceMost)
		a.stall.told = func(bool, time.Duration) { t.Error("called stalled") }
		slow := &mute{from: -1, to: -1, takes: 2500 * ms, timeout: 3500 * ms}
		slow.crowd(a, 200, 10*sec)
		if n := slow.refused.Load(); n > 0 {
			t.Errorf("%d refused by one that takes 2.5 s", n)
		}
		var all sync.WaitGroup
		all.Go(func() {
			began := moment()
			a.under.Add(1)
			time.Sleep(3500 * ms)
			a.done(began, &answer{fate: limiter.Unknown, silent: true, ended: moment()})
		})
		few := &mute{from: -1, to: -1, takes: 100 * ms, timeout: 3500 * ms}
		few.crowd(a, 1, 6*sec)
		all.Wait()
	})
}

// An idle app whose only call was lost sends its next one.
func TestAStallIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(time.Second, paceMost)
		began := moment()
		var first turn
		a.enter(&first, someday(), quota.Normal)
		time.Sleep(time.Second)
		a.done(began, &answer{fate: limiter.Unknown, silent: true, ended: moment()})
		if !a.stall.is.Load() {
			t.Fatal("no stall")
		}
		time.Sleep(stallForget + time.Second)
		for range 5 {
			var next turn
			if !a.enter(&next, someday(), quota.Normal) {
				t.Error("refused")
			}
		}
	})
}

// The same with real calls, alone and folded: everybody has an answer in time, what was
// not sent says so and never arrives, and Pusher's first answer ends it.
func TestAHangMeetsEverybodyInTime(t *testing.T) {
	for name, fold := range map[string]*FoldConfig{"folded": {}, "alone": nil} {
		t.Run(name, func(t *testing.T) {
			const timeout = 2 * time.Second
			r := newRig(t, rigConfig{fold: fold, timeout: timeout, sim: sim.Config{}, policy: limiter.Policy{Rules: []limiter.Rule{
				{Name: "twins", Match: limiter.Match{Event: []string{"twin"}}, Priority: quota.Normal, Dedupe: 5 * time.Second},
				{Name: "strict", Match: limiter.Match{Event: []string{"strict"}}, Priority: quota.Normal, Strict: true}}}})
			want(t, r.publish("e", "c", "before"), 200, "sent")
			r.sim.SetFail(sim.FailHang)
			var mu sync.Mutex
			notSent := map[string]bool{}
			var all sync.WaitGroup
			var slowest atomic.Int64
			for i := range 40 {
				all.Go(func() {
					event, data := []string{"e", "twin", "strict", "e"}[i%4], fmt.Sprint("hang-", i)
					if event == "twin" {
						data = "hang-twin"
					}
					began := time.Now()
					got, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody(event, fmt.Sprint("c", i%3), data))
					if err != nil {
						t.Error(err)
						return
					}
					took := int64(time.Since(began))
					mu.Lock()
					defer mu.Unlock()
					slowest.Store(max(slowest.Load(), took))
					switch {
					case got.status == 504 && strings.Contains(got.body, "may or may not"):
					case got.status == 503 && strings.Contains(got.body, "not sent"):
						notSent[data] = event != "twin" // one of those was
					default:
						t.Errorf("%d %v %s", got.status, got.header, got.body)
					}
				})
			}
			all.Wait()
			if took := time.Duration(slowest.Load()); took > timeout+time.Second {
				t.Errorf("an answer took %s", took)
			}
			if len(notSent) == 0 {
				t.Error("none waited: the test did not test")
			}
			if o := r.app.Upstream.Overload(); !o.Silent || o.UnderWay != 0 {
				t.Errorf("%+v", o)
			}
			r.sim.SetFail(sim.FailNone)
			eventually(t, "an answer", func() bool { return r.publish("e", "c", "after").status == 200 })
			want(t, r.publish("e", "c", "after that"), 200, "sent")
			for _, e := range r.sim.Events(10_000) {
				if notSent[e.Data] {
					t.Errorf("%s was answered 503 and arrived", e.Data)
				}
			}
		})
	}
}

// As soon as Pusher answers one, others go, although what it was sent before still
// hangs and holds as many places and connections as there may be.
func TestAStallEndsWithTheFirstAnswer(t *testing.T) {
	for _, plain := range []bool{false, true} { // also not on the poller's connections, as where a trace is wanted
		var silent atomic.Bool
		var hang, served atomic.Int64
		release := make(chan struct{})
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if silent.Load() {
				hang.Add(1)
				<-release
			} else {
				served.Add(1)
			}
			fmt.Fprint(w, "{}")
		}))
		t.Cleanup(up.Close)
		r := newRig(t, rigConfig{upstream: up.URL, conns: 4, timeout: 20 * time.Second})
		if plain {
			r.app.Upstream.conns = nil
		}
		silent.Store(true)
		stop := make(chan struct{})
		end := sync.OnceFunc(func() { close(release); close(stop) })
		t.Cleanup(end)
		var all sync.WaitGroup
		var mute atomic.Int64
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
					case got.status == 503 && got.header.Get("Pushguard-Reason") == "upstream_silent" && strings.Contains(got.body, "cost no message"):
						mute.Add(1)
						silent.Store(false) // before every worker hangs as a probe
					case got.status != 503 || got.header.Get("Pushguard-Reason") != "overloaded":
						t.Errorf("%d %s %v %s", got.status, got.outcome, got.header, got.body)
					}
				}
			})
		}
		eventually(t, "somebody is told of the stall", func() bool { return mute.Load() > 0 })
		eventually(t, "Pusher answers, and is asked", func() bool { return served.Load() > 100 })
		if o := r.app.Upstream.Overload(); hang.Load() < 2 || o.Silent || o.Limit < 6 {
			t.Errorf("%d hang, %+v", hang.Load(), o)
		}
		end()
		all.Wait()
	}
}
