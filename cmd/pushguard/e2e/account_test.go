package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// attempt is one publish as its caller saw it.
type attempt struct {
	id      string
	outcome string // "" when no answer came
	status  int
	body    string
}

// Folding, conflation and deduplication among replicas are on; replicas are
// killed and restarted under load. Every 200 is accounted for in the record of
// what arrived: sent, or the same was delivered, or a value as new goes out.
// What arrived without a 200 is only what its caller was told nothing of.
func TestEvery200IsAccountedFor(t *testing.T) {
	s := startSim(t, "--latency", "5ms")
	redis := fmt.Sprintf("redis://:%s@%s/0", redisSecret, startRedis(t))
	config := fmt.Sprintf(`
store: %q
accounts:
  - name: care
    plan: growth-plus
    apps:
      - { id: %q, key: %s, secret: %s, upstream: "http://%s" }
    rules:
      - { match: { event: once }, priority: critical, dedupe: { window: 10m, scope: cluster } }
      - { match: { event: state }, priority: critical, conflate: 250ms }
      - { priority: critical }
`, redis, appID, appKey, appSecret, s.addr)

	const replicas, writers, kills = 3, 4, 4
	var guards [replicas]*guard
	var addrs [replicas]atomic.Value
	dirs := make([]string, replicas)
	for i := range guards {
		dirs[i] = t.TempDir()
		guards[i] = serve(t, fmt.Sprint("replica-", i), dirs[i], config)
		addrs[i].Store(guards[i].data)
	}

	var mu sync.Mutex
	seen := map[string][]attempt{} // by "event|channel"
	stop := make(chan struct{})
	var all sync.WaitGroup
	publish := func(event, channel, id string) {
		a, err := post(addrs[rand.IntN(replicas)].Load().(string), fmt.Sprintf(`{"name":%q,"channel":%q,"data":%q}`, event, channel, id))
		got := attempt{id: id}
		if err == nil {
			got.status, got.outcome, got.body = a.status, a.outcome(), a.body
		}
		mu.Lock()
		defer mu.Unlock()
		seen[event+"|"+channel] = append(seen[event+"|"+channel], got)
	}
	for w := range writers {
		for _, event := range []string{"plain", "once", "state"} {
			all.Go(func() {
				for n := 1; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					channel := fmt.Sprint("room-", w)
					if event == "once" {
						channel = "room" // all writers say the same
					}
					publish(event, channel, strconv.Itoa(n))
				}
			})
		}
	}
	count := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, list := range seen {
			for _, a := range list {
				if a.status == http.StatusOK {
					n++
				}
			}
		}
		return n
	}
	for kill := range kills {
		i := rand.IntN(replicas)
		before := count()
		until(t, "the load runs", func() bool { return count() > before+60 })
		if kill%4 == 3 {
			_ = guards[i].cmd.Process.Signal(syscall.SIGTERM)
			<-guards[i].done
		} else {
			guards[i].kill()
		}
		guards[i] = serve(t, fmt.Sprintf("replica-%d-%d", i, kill), dirs[i], config)
		addrs[i].Store(guards[i].data)
	}
	close(stop)
	all.Wait()

	arrived := func() map[string][]string {
		m := map[string][]string{}
		for _, e := range s.events(t, 0) {
			for _, ch := range e.Channels {
				m[e.Name+"|"+ch] = append(m[e.Name+"|"+ch], e.Data)
			}
		}
		return m
	}
	// What is held goes out when its window ends; of a replica that died over it, when its claim does.
	last := func(list []attempt) (n int) {
		for _, a := range list {
			if a.status == http.StatusOK {
				v, _ := strconv.Atoi(a.id)
				n = max(n, v)
			}
		}
		return n
	}
	for key, list := range seen {
		if !strings.HasPrefix(key, "state|") {
			continue
		}
		want := last(list)
		waited := func() bool {
			return slices.ContainsFunc(arrived()[key], func(d string) bool { v, _ := strconv.Atoi(d); return v >= want })
		}
		came := waitFor(waited)
		if !came { // a claim of a dead replica ends after 30 s
			came = waitFor(waited)
		}
		if !came {
			t.Errorf("%s: value %d was answered 200, and no value as new arrived: %v", key, want, arrived()[key])
		}
	}
	got := arrived()
	totals := map[string]int{}
	for key, list := range seen {
		times := map[string]int{}
		for _, d := range got[key] {
			times[d]++
		}
		told := map[string]bool{} // of each id: somebody was told 200
		dark := map[string]bool{} // or nothing
		for _, a := range list {
			word := a.outcome
			switch {
			case a.status == 0:
				word = "no answer"
				dark[a.id] = true
			case a.status >= 500:
				dark[a.id] = true
			case a.status != http.StatusOK:
				t.Errorf("%s %s was answered %d %s", key, a.id, a.status, a.body)
			default:
				told[a.id] = true
				if (word == "sent" || word == "deduplicated") && times[a.id] == 0 {
					t.Errorf("%s %s was answered %s and never arrived", key, a.id, word)
				}
			}
			totals[strings.SplitN(key, "|", 2)[0]+" "+word]++
		}
		for id, n := range times {
			if !told[id] && !dark[id] {
				t.Errorf("%s %s arrived, and nobody published it", key, id)
			}
			if n > 1 && strings.HasPrefix(key, "plain|") {
				t.Errorf("%s %s arrived %d times", key, id, n)
			}
			if n > 1 && strings.HasPrefix(key, "once|") {
				totals["once, arrived again"]++
				if !dark[id] {
					var alone float64
					for _, g := range guards {
						alone += g.metric(t, `pushguard_dedupe_shared_total{account="care",answer="alone"}`)
					}
					if alone == 0 {
						t.Errorf("%s %s arrived %d times, and everybody had an answer", key, id, n)
					}
				}
			}
		}
	}
	st := s.stats(t)
	t.Logf("%d replicas, %d ends: %v; %d events in %d calls", replicas, kills, totals, st.Events, st.Requests)
	for _, word := range []string{"plain sent", "once sent", "once deduplicated", "state sent", "state conflated"} {
		if totals[word] == 0 {
			t.Errorf("nothing was %s, so that was not tested", word)
		}
	}
}

// Many callers publish at once and share calls; each channel's real clients
// hear its events in the order in which they were published.
func TestOrderWithSharedCalls(t *testing.T) {
	const rooms, each = 24, 15
	addr := startSoketi(t)
	g := serve(t, "guard", t.TempDir(), oneApp(addr))
	w, err := hire("subscriber.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.dismiss)
	var channels []string
	for i := range rooms {
		channels = append(channels, fmt.Sprint("room-", i))
	}
	anna := subscribe(t, w, addr, "anna", "user-anna", channels...)
	var want []string
	for n := range each {
		want = append(want, fmt.Sprint("n", n))
	}
	var all sync.WaitGroup
	for _, ch := range channels {
		all.Go(func() {
			for _, name := range want {
				a, err := post(g.data, fmt.Sprintf(`{"name":%q,"channel":%q,"data":"x"}`, name, ch))
				if err != nil || a.status != http.StatusOK || a.outcome() != "sent" {
					t.Errorf("%s on %s: %d %s (%v)", name, ch, a.status, a.body, err)
				}
			}
		})
	}
	all.Wait()
	for _, ch := range channels {
		anna.hears(t, ch, want...)
	}
	publishes, calls := g.metric(t, `pushguard_folded_publishes_total{app="`+appID+`"}`), g.metric(t, `pushguard_fold_calls_total{app="`+appID+`"}`)
	t.Logf("%v publishes in %v calls", publishes, calls)
	if calls >= publishes/2 {
		t.Errorf("%v publishes took %v calls: hardly any was shared, so nothing was tested", publishes, calls)
	}
}
