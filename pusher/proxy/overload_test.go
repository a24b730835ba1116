package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// limited is an admission of so many places.
func limited(n int64) *admission {
	a := newAdmission(4*time.Second, paceMost)
	a.may = n
	a.pace.bound, a.pace.fully = true, moment().Add(time.Hour) // it stays so
	a.limit.Store(n)
	a.ahead.Store(n)
	return a
}

// someday is a deadline that is not the reason for anything.
func someday() *deadline { return &deadline{until: moment().Add(time.Hour)} }

// standing waits until n stand in line.
func standing(a *admission, n int64) {
	synctest.Wait()
	if got := a.waiting.Load(); got != n {
		panic(fmt.Sprintf("%d in line, not %d", got, n))
	}
}

// Places go to the more important first, and among equals to who came first.
func TestTheLineGoesByPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limited(1)
		var first turn
		if !a.enter(&first, someday(), quota.Bulk) {
			t.Fatal("an idle line refuses")
		}
		var mu sync.Mutex
		var order []string
		var all sync.WaitGroup
		for i, class := range []quota.Priority{quota.Bulk, quota.Normal, quota.Critical, quota.Bulk, quota.Normal, quota.Critical} {
			all.Go(func() {
				var mine turn
				if !a.enter(&mine, someday(), class) {
					t.Errorf("%d %s was sent away", i, class)
				}
				mu.Lock()
				order = append(order, fmt.Sprintf("%s %d", class, i))
				mu.Unlock()
				a.leave(time.Now(), time.Now(), true, true)
			})
			standing(a, int64(i)+1)
		}
		a.leave(time.Now(), time.Now(), true, true)
		all.Wait()
		if got := strings.Join(order, " "); got != "critical 2 critical 5 normal 1 normal 4 bulk 0 bulk 3" {
			t.Error(got)
		}
		if a.under.Load() != 0 || a.waiting.Load() != 0 {
			t.Errorf("%d under way, %d waiting", a.under.Load(), a.waiting.Load())
		}
	})
}

// What is critical finds a place although the others have taken theirs, but not
// without end.
func TestPlacesAheadAreForTheCritical(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limited(1)
		a.ahead.Store(2)
		took := func(class quota.Priority) time.Duration {
			began := time.Now()
			a.heard(began, began, true) // it is full, and not silent
			var mine turn
			if a.enter(&mine, someday(), class) {
				return 0
			}
			return time.Since(began)
		}
		for _, step := range []struct {
			class quota.Priority
			waits time.Duration
		}{{quota.Bulk, 0}, {quota.Normal, patience[quota.Normal]}, {quota.Critical, 0}, {quota.Critical, patience[quota.Critical]}} {
			if got := took(step.class); got != step.waits {
				t.Errorf("with %d under way %s waited %s, not %s", a.under.Load(), step.class, got, step.waits)
			}
		}
		// Nor does it stand behind others that wait.
		a.leave(time.Now(), time.Now(), true, true)
		var all sync.WaitGroup
		all.Go(func() { took(quota.Bulk) })
		standing(a, 1)
		if got := took(quota.Critical); got != 0 {
			t.Errorf("behind one that is less important it waited %s", got)
		}
		all.Wait()
	})
}

// Nobody stands in line for longer than his patience.
func TestTheLineHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limited(0)
		for class := range quota.Priority(quota.Priorities) {
			began := time.Now()
			var mine turn
			if a.enter(&mine, someday(), class) {
				t.Error("let in")
			}
			if took := time.Since(began); took != patience[class] {
				t.Errorf("%s stood for %s", class, took)
			}
			if a.shed[class][ShedWaited].Load() != 1 || mine.why != ShedWaited || a.waiting.Load() != 0 {
				t.Errorf("%s: %d shed, as %s, %d waiting", class, a.shed[class][ShedWaited].Load(), mine.why, a.waiting.Load())
			}
			// So the next one is refused at once, for as long as a third of that.
			if began = time.Now(); a.enter(&mine, someday(), class) || time.Since(began) != 0 || mine.why != ShedVain {
				t.Errorf("after one that stood in vain %s stood for %s: %s", class, time.Since(began), mine.why)
			}
		}
	})
}

// A full line makes room for what is more important, and for nothing else.
func TestAFullLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limited(0)
		var all sync.WaitGroup
		var gone [maxWaiting]atomic.Bool
		for i := range maxWaiting {
			all.Go(func() {
				var mine turn
				began := time.Now()
				if a.enter(&mine, someday(), quota.Normal) {
					t.Error("let in")
				}
				gone[i].Store(time.Since(began) < patience[quota.Normal])
			})
			synctest.Wait()
		}
		var more turn
		began := time.Now()
		if a.enter(&more, someday(), quota.Normal) || more.why != ShedLineFull || a.enter(&more, someday(), quota.Bulk) || more.why != ShedLineFull || time.Since(began) != 0 {
			t.Error("a line that is full grows")
		}
		all.Go(func() {
			var mine turn
			a.enter(&mine, someday(), quota.Critical)
			if time.Since(began) != patience[quota.Critical] {
				t.Error("the more important one had no place in a full line")
			}
		})
		standing(a, maxWaiting)
		all.Wait()
		if !gone[0].Load() || gone[1].Load() {
			t.Error("another one had to go than the one that stood longest")
		}
		for why, want := range [ShedCauses]int64{ShedLineFull: 1, ShedGaveWay: 1, ShedWaited: maxWaiting - 1} {
			if got := a.shed[quota.Normal][why].Load(); got != want {
				t.Errorf("%d normal ones are counted as %s, not %d", got, ShedCause(why), want)
			}
		}
	})
}

// An upstream that carries little and is asked for a lot: what is critical gets
// through, the rest is told to come back, and the ledger pays for what was sent
// and nothing else.
func TestOverloadShedsByPriority(t *testing.T) {
	var busy = make(chan struct{}, 4)
	var served atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		busy <- struct{}{}
		<-time.After(25 * time.Millisecond)
		<-busy
		served.Add(1)
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(up.Close)
	r := newRig(t, rigConfig{upstream: up.URL, policy: limiter.Policy{Rules: []limiter.Rule{
		{Name: "alarms", Match: limiter.Match{Event: []string{"alarm"}}, Priority: quota.Critical}, {Name: "rest", Priority: quota.Bulk}}}})
	door := r.app.Upstream.admission
	door.mu.Lock()
	door.pace.limit, door.pace.base, door.pace.bound, door.pace.fully = 8, 25*time.Millisecond, true, moment() // as it is after a while of this
	door.may = 8
	door.open()
	door.mu.Unlock()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	var all sync.WaitGroup
	var bulk, shed, alarms, lost atomic.Int64
	for i := range 100 {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				event := "refresh"
				if i < 4 {
					event = "alarm"
				}
				got := r.publish(event, fmt.Sprint("c", i), fmt.Sprint(n))
				switch {
				case event == "alarm" && got.status == 200:
					alarms.Add(1)
				case event == "alarm":
					lost.Add(1)
				case got.status == 200:
					bulk.Add(1)
				case got.status == 503 && got.outcome == "unavailable" && got.header.Get("Pushguard-Reason") == "overloaded" && got.header.Get("Retry-After") == "1" &&
					strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") && strings.Contains(got.body, "cost no message"):
					shed.Add(1)
				default:
					t.Errorf("%d %s %v %s", got.status, got.outcome, got.header, got.body)
				}
			}
		})
	}
	all.Wait()
	if alarms.Load() == 0 || lost.Load() > 0 || shed.Load() == 0 {
		t.Errorf("critical: %d sent, %d not; bulk: %d sent, %d told to come back", alarms.Load(), lost.Load(), bulk.Load(), shed.Load())
	}
	o := r.app.Upstream.Overload()
	if o.UnderWay != 0 || o.Waiting != 0 || o.Shed[quota.Bulk] != shed.Load() || o.Shed[quota.Critical] != 0 {
		t.Errorf("%+v", o)
	}
	// Each is one call and two deliveries.
	if n := alarms.Load() + bulk.Load(); served.Load() != n || r.used() != 3*n {
		t.Errorf("%d were told sent, the upstream served %d, the ledger booked %d", n, served.Load(), r.used())
	}
}

// A defect under way does not cost a place for ever.
func TestAPanicGivesItsPlaceBack(t *testing.T) {
	r := newRig(t, rigConfig{})
	r.app.Upstream.dial = func(string, time.Duration) (net.Conn, error) { panic("a defect") }
	if got := r.publish("e", "c", "d"); got.status != 500 {
		t.Fatal(got)
	}
	if n := r.app.Upstream.Overload().UnderWay; n != 0 {
		t.Errorf("%d under way", n)
	}
}

// More than a replica can take in at all is refused before it is read.
func TestACrowdedReplica(t *testing.T) {
	r := newRig(t, rigConfig{})
	r.proxy.inFlight.Add(maxUnderWay)
	got := r.publish("e", "c", "d")
	r.proxy.inFlight.Add(-maxUnderWay)
	if got.status != 503 || got.outcome != "unavailable" || got.header.Get("Pushguard-Reason") != "overloaded" || r.proxy.Stats().Crowded() != 1 || r.used() != 0 {
		t.Errorf("%+v, crowded %d, used %d", got, r.proxy.Stats().Crowded(), r.used())
	}
	if got := r.publish("e", "c", "d"); got.status != 200 {
		t.Error(got)
	}
}
