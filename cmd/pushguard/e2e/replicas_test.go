package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// load publishes from several goroutines until stop is closed, each event with
// an id of its own as its data, and hands every answer to got.
type load struct {
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup
	ids  atomic.Int64
}

// run starts n senders that take turns over the addresses.
func run(n int, addrs []string, got func(id string, a answer, err error)) *load {
	l := &load{stop: make(chan struct{})}
	for i := range n {
		addr := addrs[i%len(addrs)]
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				id := fmt.Sprintf("id-%d", l.ids.Add(1))
				a, err := post(addr, `{"name":"load","channel":"room-`+id+`","data":"`+id+`"}`)
				got(id, a, err)
			}
		})
	}
	return l
}

func (l *load) end() {
	l.once.Do(func() { close(l.stop) })
	l.wg.Wait()
}

// account is a config with one account whose publishes are all critical, so
// that no threshold short of the plan itself is in the way.
func accountOf(upstream, plan, store string) string {
	return fmt.Sprintf(`
store: %q
accounts:
  - name: care
    plan: %s
    apps:
      - { id: %q, key: %s, secret: %s, upstream: "http://%s", learn: { sample: false } }
    rules:
      - { priority: critical }
`, store, plan, appID, appKey, appSecret, upstream)
}

// Two replicas on one Redis share a plan. Together they never pass it, they
// stop at it and not before, and a brake pulled on one holds on the other.
func TestRedis(t *testing.T) {
	const plan = 3000
	s := startSim(t) // with a far larger plan: it would let everything through
	redis := fmt.Sprintf("redis://:%s@%s/3", redisSecret, startRedis(t))
	config := accountOf(s.addr, fmt.Sprintf("{ messages_per_day: %d }", plan), redis)
	a := serve(t, "replica-a", t.TempDir(), config)
	b := serve(t, "replica-b", t.TempDir(), config)

	var sent, refused, other atomic.Int64
	var strange sync.Map
	l := run(8, []string{a.data, b.data}, func(_ string, got answer, err error) {
		switch {
		case err == nil && got.status == http.StatusOK && got.outcome() == "sent":
			sent.Add(1)
		case err == nil && got.status == http.StatusForbidden && got.outcome() == "over_budget":
			refused.Add(1)
		default:
			other.Add(1)
			strange.Store(fmt.Sprintf("%d %s %s", got.status, got.outcome(), got.body), true)
		}
	})
	defer l.end()
	// A message that one replica has in its lease goes to the other within a
	// heartbeat or two (0.5 s each; on a starved machine they come when they can):
	// only when nothing went out for many of them, while both were asked all the
	// time, would it be stranded. When all went out some time shows that no more does.
	last, since := int64(-1), time.Now()
	until(t, "the plan is used up", func() bool {
		if n := sent.Load(); n != last {
			last, since = n, time.Now()
		}
		patience := 15 * time.Second
		if s.stats(t).Messages >= plan {
			patience = 2 * time.Second
		}
		return last > 0 && refused.Load() > 0 && time.Since(since) > patience
	})
	l.end()
	strange.Range(func(k, _ any) bool { t.Errorf("neither sent nor over budget: %s", k); return true })
	st := s.stats(t)
	t.Logf("plan %d, billed %d by %d publishes, %d refused", plan, st.Messages, st.Events, refused.Load())
	if st.Messages > plan {
		t.Errorf("the plan of %d was passed: the simulator billed %d", plan, st.Messages)
	}
	if st.Messages != plan {
		t.Errorf("%d messages of the plan were stranded while both replicas refused", plan-st.Messages)
	}
	if st.Events != sent.Load() {
		t.Errorf("%d publishes were answered 200, %d arrived", sent.Load(), st.Events)
	}

	t.Run("a raised plan is taken by both", func(t *testing.T) {
		a.order(t, "PUT", "/api/v1/accounts/care/plan", fmt.Sprintf(`{"messages_per_day":%d,"reason":"raised"}`, 100*plan))
		for _, g := range []*guard{a, b} {
			took := until(t, g.name+" sends again", func() bool {
				return mustPost(t, g.data, fmt.Sprintf(`{"name":"n","channel":"c","data":"%d"}`, time.Now().UnixNano())).outcome() == "sent"
			})
			t.Logf("%s after %s", g.name, took)
			if took > time.Second {
				t.Errorf("%s took %s, more than a second", g.name, took)
			}
		}
	})
	t.Run("a brake holds on both", func(t *testing.T) {
		outcome := func(g *guard) string {
			return mustPost(t, g.data, fmt.Sprintf(`{"name":"n","channel":"c","data":"%d"}`, time.Now().UnixNano())).outcome()
		}
		for _, step := range []struct{ method, body, want string }{
			{"POST", `{"allow":"none","reason":"test","for":"1h"}`, "braked"},
			{"DELETE", "", "sent"},
		} {
			a.order(t, step.method, "/api/v1/accounts/care/brake", step.body)
			if got := outcome(a); got != step.want {
				t.Errorf("%s brake: %s answers %s at once, want %s", step.method, a.name, got, step.want)
			}
			took := until(t, "the other replica obeys", func() bool { return outcome(b) == step.want })
			t.Logf("%s brake: obeyed by the other replica after %s", step.method, took)
			if took > time.Second {
				t.Errorf("%s brake: the other replica took %s, more than a second", step.method, took)
			}
		}
	})
}

// kill -9 under load, again and again: what the simulator billed is never
// forgotten, and the plan still holds.
func TestKill(t *testing.T) {
	const plan = 200_000
	s := startSim(t)
	dir := t.TempDir()
	for round := range 3 {
		g := serve(t, fmt.Sprintf("round-%d", round), dir, accountOf(s.addr, fmt.Sprintf("{ messages_per_day: %d }", plan), "embedded"))
		var sent atomic.Int64
		l := run(8, []string{g.data}, func(_ string, a answer, err error) {
			if err == nil && a.status == http.StatusOK {
				sent.Add(1)
			}
		})
		until(t, "some hundred publishes are through", func() bool { return sent.Load() > 400 })
		g.kill()
		l.end()
		if n := s.stats(t).Events; n < sent.Load() {
			t.Fatalf("%d answered 200 in this round, %d arrived in all", sent.Load(), n)
		}

		again := serve(t, fmt.Sprintf("after-%d", round), dir, accountOf(s.addr, fmt.Sprintf("{ messages_per_day: %d }", plan), "embedded"))
		used, billed := again.account(t, "care").Used, s.stats(t).Messages
		t.Logf("round %d: billed %d, the restarted guard says used %d (%d wasted by %d kills)", round, billed, used, used-billed, round+1)
		if used < billed {
			t.Errorf("round %d: %d messages were forgotten", round, billed-used)
		}
		// A crash wastes a lease at most: what some seconds of this load cost.
		if wasted := used - billed; wasted > int64(round+1)*plan/4 {
			t.Errorf("%d kills wasted %d messages of a plan of %d", round+1, wasted, plan)
		}
		if used > plan {
			t.Errorf("round %d: used %d of a plan of %d", round, used, plan)
		}
		again.end()
	}
}

// SIGTERM under load loses nothing: what was answered 200 arrived, nobody saw
// a broken answer, and the ledger that the next process opens is exact.
func TestDrain(t *testing.T) {
	s := startSim(t, "--latency", "20ms")
	dir := t.TempDir()
	g := serve(t, "leaving", dir, "drain_delay: 700ms\n"+strings.TrimPrefix(accountOf(s.addr, "growth", "embedded"), "\n"))

	var mu sync.Mutex
	accepted := map[string]bool{}
	var failed []string
	l := run(16, []string{g.data}, func(id string, a answer, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil && a.status == http.StatusOK:
			accepted[id] = true
		case err == nil && a.status == http.StatusServiceUnavailable && a.header.Get("Pushguard-Reason") == "draining":
		case err == nil:
			failed = append(failed, fmt.Sprintf("%d %s", a.status, a.body))
		case strings.Contains(err.Error(), "connection refused"), strings.Contains(err.Error(), "connection reset"),
			strings.Contains(err.Error(), "EOF"), strings.Contains(err.Error(), "closed idle connection"):
			// The listener is closed, or was with this connection in its
			// queue, or this kept-alive connection was idle at that moment.
		default:
			failed = append(failed, scrub(err.Error()))
		}
	})
	defer l.end()
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(accepted) }
	until(t, "the load runs", func() bool { return count() > 200 })

	began := time.Now()
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	var notReady time.Duration
	var said string
	until(t, "readyz says no", func() bool {
		status, body := g.get(t, "/readyz")
		said = body
		notReady = time.Since(began)
		return status == http.StatusServiceUnavailable
	})
	during := count()
	if !strings.Contains(said, "not_draining") {
		t.Errorf("readyz does not name what fails: %s", said)
	}
	if notReady > 500*time.Millisecond {
		t.Errorf("readyz said no only after %s of a drain_delay of 700ms", notReady)
	}
	code := g.exitCode(t)
	took := time.Since(began)
	l.end()
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took < 700*time.Millisecond {
		t.Errorf("gone after %s, before drain_delay was over", took)
	}
	if count() <= during {
		t.Error("nothing was served while draining")
	}
	for _, f := range failed {
		t.Errorf("a client saw: %s", f)
	}
	arrived := map[string]bool{}
	for _, e := range s.events(t, 0) {
		arrived[e.Data] = true
	}
	lost := 0
	for id := range accepted {
		if !arrived[id] {
			lost++
		}
	}
	t.Logf("%d accepted, %d of them after readyz said no (%s after SIGTERM); %d arrived; gone after %s", len(accepted), len(accepted)-during, notReady, len(arrived), took)
	if lost > 0 {
		t.Errorf("%d publishes were answered 200 and never arrived", lost)
	}
	next := serve(t, "next", dir, accountOf(s.addr, "growth", "embedded"))
	if used, billed := next.account(t, "care").Used, s.stats(t).Messages; used != billed {
		t.Errorf("after a drain the next process says used %d, the simulator billed %d", used, billed)
	}
}

// What is under way when the drain ends is finished, and a request that comes
// behind it on the same connection is told so.
func TestDrainFinishesWhatIsUnderWay(t *testing.T) {
	s := startSim(t)
	g := serve(t, "leaving", t.TempDir(), accountOf(s.addr, "growth", "embedded"))
	s.control(t, `{"fail":"hang"}`)
	slow := make(chan answer, 1)
	go func() {
		a, err := post(g.data, `{"name":"slow","channel":"c","data":"x"}`)
		if err != nil {
			a.body = scrub(err.Error())
		}
		slow <- a
	}()
	until(t, "the publish is at the simulator", func() bool { return s.stats(t).Requests == 1 })
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	until(t, "the data port is closed", func() bool {
		_, err := exchange(g.data, "", 0)
		return err != nil
	})
	s.control(t, `{"fail":"none"}`)
	if a := <-slow; a.status != http.StatusOK {
		t.Errorf("the publish under way was answered %d %s", a.status, a.body)
	}
	if code := g.exitCode(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
