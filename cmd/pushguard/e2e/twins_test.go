package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// metric reads one sample of /metrics, labels and all as it is written there.
func (g *guard) metric(t testing.TB, sample string) float64 {
	t.Helper()
	_, body := g.get(t, "/metrics")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, sample+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("%s has no metric %s", g.name, sample)
	return 0
}

// Two replicas on one Redis, a rule with scope cluster: however often and
// wherever the same is published, it arrives once. Without Redis each replica
// goes on by itself, and says so.
func TestDeduplicationAmongReplicas(t *testing.T) {
	s := startSim(t, "--latency", "15ms")
	server, addr := startRedisServer(t)
	config := fmt.Sprintf(`
store: "redis://:%s@%s/0"
on_store_loss: open
accounts:
  - name: care
    plan: growth
    apps:
      - { id: %q, key: %s, secret: %s, upstream: "http://%s" }
    rules:
      - { priority: critical, dedupe: { window: 10m, scope: cluster } }
`, redisSecret, addr, appID, appKey, appSecret, s.addr)
	guards := []*guard{serve(t, "replica-a", t.TempDir(), config), serve(t, "replica-b", t.TempDir(), config)}
	alone := func() (n float64) {
		for _, g := range guards {
			n += g.metric(t, `pushguard_dedupe_shared_total{account="care",answer="alone"}`)
		}
		return n
	}

	const payloads, each = 60, 10
	var mu sync.Mutex
	outcomes := map[string]int{}
	var all sync.WaitGroup
	for i := range each {
		all.Go(func() {
			for n := range payloads {
				// Some in the words of an SDK that escapes, keys in another order.
				body := fmt.Sprintf(`{"name":"news","channel":"room-%d","data":"{\"n\":%d,\"m\":1}"}`, n%7, n)
				if i%3 == 0 {
					body = fmt.Sprintf(`{"data":"{ \"m\": 1, \"n\": %d }","channels":["room-%d"],"name":"\u006eews"}`, n, n%7)
				}
				a, err := post(guards[i%2].data, body)
				if err != nil || a.status != http.StatusOK {
					t.Errorf("answered %d %s (%v)", a.status, a.body, err)
				}
				mu.Lock()
				outcomes[a.outcome()]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	st, lonely := s.stats(t), alone()
	trips := guards[0].metric(t, `pushguard_dedupe_shared_trips_total{account="care"}`) + guards[1].metric(t, `pushguard_dedupe_shared_trips_total{account="care"}`)
	t.Logf("%d publishes of %d payloads: %v; %d arrived; %v round trips, %v decided alone", payloads*each, payloads, outcomes, st.Events, trips, lonely)
	if st.Events < payloads || float64(st.Events) > payloads+lonely || int(st.Events) != outcomes["sent"] {
		t.Errorf("%d arrived and %d were answered as sent, want %d (%v were decided alone)", st.Events, outcomes["sent"], payloads, lonely)
	}

	// Batches: the same ten events in another order to each replica, at once.
	batch := func(g *guard, round int, reversed bool) answer {
		var events []string
		for n := range 10 {
			if reversed {
				n = 9 - n
			}
			events = append(events, fmt.Sprintf(`{"name":"batch","channel":"room-%d","data":"%d of %d"}`, n%3, n, round))
		}
		a, err := postTo(g.data, "/apps/"+appID+"/batch_events", appKey, appSecret, `{"batch":[`+strings.Join(events, ",")+`]}`)
		if err != nil || a.status != http.StatusOK {
			t.Errorf("%s answered a batch %d %s (%v)", g.name, a.status, a.body, err)
		}
		return a
	}
	const rounds = 8
	before, lonely := s.stats(t).Events, alone()
	for round := range rounds {
		for i, g := range guards {
			all.Go(func() { batch(g, round, i == 1) })
		}
		all.Wait()
	}
	if n, more := s.stats(t).Events-before, alone()-lonely; n < 10*rounds || float64(n) > 10*rounds+more {
		t.Errorf("%d events of batches arrived, want %d (%v were decided alone)", n, 10*rounds, more)
	}

	t.Run("redis does not answer", func(t *testing.T) {
		_ = server.cmd.Process.Signal(syscall.SIGSTOP)
		defer func() { _ = server.cmd.Process.Signal(syscall.SIGCONT) }()
		for _, g := range guards {
			body := `{"name":"news","channel":"lost","data":"x"}`
			if a := mustPost(t, g.data, body); a.status != http.StatusOK || a.outcome() != "sent" {
				t.Errorf("%s answered %d %s: %s", g.name, a.status, a.outcome(), a.body)
			}
			if a := mustPost(t, g.data, body); a.outcome() != "deduplicated" {
				t.Errorf("%s by itself answered %s", g.name, a.outcome())
			}
			if a := batch(g, rounds, false); a.outcome() != "sent" {
				t.Errorf("%s answered a batch %s", g.name, a.outcome())
			}
			if a := batch(g, rounds, true); a.outcome() != "deduplicated" {
				t.Errorf("%s by itself answered a batch %s", g.name, a.outcome())
			}
			if up := g.metric(t, `pushguard_dedupe_shared_up{account="care"}`); up != 0 {
				t.Errorf("%s says that it shares what it deduplicates", g.name)
			}
			if _, body := g.get(t, "/readyz"); !strings.Contains(body, "in this replica only") {
				t.Errorf("readyz of %s says nothing: %s", g.name, body)
			}
			if !strings.Contains(g.out.String(), "look in this replica only") {
				t.Errorf("the log of %s says nothing", g.name)
			}
		}
	})
	for _, g := range guards {
		until(t, g.name+" shares again", func() bool { return g.metric(t, `pushguard_dedupe_shared_up{account="care"}`) == 1 })
	}
	lonely = alone()
	if a := mustPost(t, guards[0].data, `{"name":"news","channel":"again","data":"x"}`); a.outcome() != "sent" {
		t.Errorf("answered %s", a.outcome())
	}
	if a := mustPost(t, guards[1].data, `{"name":"news","channel":"again","data":"x"}`); a.outcome() != "deduplicated" && alone() == lonely {
		t.Errorf("after the store's return the other replica answered %s", a.outcome())
	}
}
