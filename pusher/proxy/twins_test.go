package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// clustered deduplicates among replicas.
func clustered(window time.Duration) limiter.Policy {
	p := policyOf(limiter.Rule{Dedupe: window, DedupeScope: limiter.ScopeCluster})
	p.SentWithin = 2 * time.Second
	return p
}

// twoReplicas share a store and a simulated Pusher.
func twoReplicas(t *testing.T, c rigConfig) (a, b *rig) {
	t.Helper()
	c.twins = true
	a = newRig(t, c)
	c.store, c.simulator = a.store, a.sim
	return a, newRig(t, c)
}

func TestTheSamePublishGoesOutOnceFromAnyReplica(t *testing.T) {
	a, b := twoReplicas(t, rigConfig{policy: clustered(time.Minute)})
	want(t, a.publish("e", "c", "x"), 200, "sent")
	got := b.publish("e", "c", "x")
	want(t, got, 200, "deduplicated")
	if got.body != "{}" || got.header.Get("Pushguard-Reason") != "duplicate" {
		t.Errorf("%q, reason %q", got.body, got.header.Get("Pushguard-Reason"))
	}
	// The other replica knows it now by itself.
	before := b.twins.Stats()
	want(t, b.publish("e", "c", "x"), 200, "deduplicated")
	if after := b.twins.Stats(); after.Delivered != before.Delivered {
		t.Error("a duplicate that this replica knows of was asked about again")
	}
	// The same in other bytes, as another SDK writes it; and what differs.
	for _, x := range []struct{ body, outcome string }{
		{`{"data":"\u0078","channels":["c"],"name":"\u0065"}`, "deduplicated"},
		{`{"name":"e","channel":"c","data":"x","socket_id":"1.2"}`, "sent"},
		{`{"name":"e","channel":"c","data":"x","info":"subscription_count"}`, "sent"},
		{`{"name":"e","channel":"d","data":"x"}`, "sent"},
		{`{"name":"e","channels":["c","d"],"data":"x"}`, "sent"},
		{`{"name":"f","channel":"c","data":"x"}`, "sent"},
		{`{"name":"e","channel":"c","data":"y"}`, "sent"},
	} {
		want(t, b.do("POST", "/apps/7/events", nil, x.body), 200, x.outcome)
		want(t, a.do("POST", "/apps/7/events", nil, x.body), 200, "deduplicated")
	}
	want(t, a.do("POST", "/apps/7/events", nil, `{"name":"e","channels":["d","c"],"data":"x"}`), 200, "deduplicated")
	if n := a.sim.Stats().Events; n != 7 {
		t.Errorf("%d events arrived, want 7", n)
	}
}

// A duplicate of what another replica is sending is answered when that one is
// delivered, and not before.
func TestADuplicateWaitsForTheOtherReplica(t *testing.T) {
	a, b := twoReplicas(t, rigConfig{policy: clustered(time.Minute), sim: sim.Config{Latency: 300 * time.Millisecond}})
	var all sync.WaitGroup
	outcomes := make([]reply, 12)
	for i := range outcomes {
		r := []*rig{a, b}[i%2]
		all.Go(func() {
			got, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody("e", "c", "x"))
			if err != nil {
				t.Error(err)
			}
			if n := a.sim.Stats().Events; n < 1 {
				t.Error("answered 200 while nothing was delivered")
			}
			outcomes[i] = got
		})
	}
	all.Wait()
	sent := 0
	for _, got := range outcomes {
		if got.status != 200 || got.outcome != "sent" && got.outcome != "deduplicated" {
			t.Errorf("%d %s %s", got.status, got.outcome, got.body)
		}
		if got.outcome == "sent" {
			sent++
		}
	}
	alone := a.twins.Stats().Alone + b.twins.Stats().Alone
	if n := a.sim.Stats().Events; (n != 1 || sent != 1) && alone == 0 {
		t.Errorf("%d arrived, %d were answered as sent", n, sent)
	}
}

// Its fate elsewhere is a failure: one of those that waited sends.
func TestADuplicateOfAFailureIsSent(t *testing.T) {
	hanging := make(chan struct{})
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-hanging
		w.WriteHeader(http.StatusBadRequest)
	}))
	t.Cleanup(broken.Close)
	a := newRig(t, rigConfig{policy: clustered(time.Minute), twins: true, upstream: broken.URL})
	b := newRig(t, rigConfig{policy: clustered(time.Minute), twins: true, store: a.store})
	var all sync.WaitGroup
	all.Go(func() { want(t, a.publish("e", "c", "x"), 400, "refused") })
	eventually(t, "the first replica's claim", func() bool { return a.twins.Stats().Claimed == 1 })
	for range 3 {
		all.Go(func() {
			got, err := b.try(b.caller, "POST", "/apps/7/events", nil, eventBody("e", "c", "x"))
			if err != nil || got.status != 200 {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	eventually(t, "all three waiting", func() bool { return b.twins.Stats().Elsewhere > 0 && b.proxy.InFlight() == 3 })
	if n := b.sim.Stats().Events; n != 0 {
		t.Errorf("%d went out while the first was under way", n)
	}
	close(hanging)
	all.Wait()
	if n := b.sim.Stats().Events; n != 1 {
		t.Errorf("%d went out after the first had failed, want 1", n)
	}
}

// A replica claims, and dies. Who waits for it sends when its claim ends.
func TestADuplicateOutlivesADeadReplica(t *testing.T) {
	a, b := twoReplicas(t, rigConfig{policy: clustered(time.Minute)})
	ghost := limiterOf(t, a, clustered(time.Minute))
	now := time.Now()
	c := claimOf(a, eventBody("e", "c", "x"))
	if v := ghost.Admit(t.Context(), now, &c); v.Outcome != limiter.Sent { // and never Done
		t.Fatalf("%+v", v)
	}
	began := time.Now()
	want(t, b.publish("e", "c", "x"), 200, "sent")
	if took := time.Since(began); took < time.Second || took > 10*time.Second {
		t.Errorf("sent after %s, the dead one's claim was for 2 s", took)
	}
	want(t, a.publish("e", "c", "x"), 200, "deduplicated")
}

// limiterOf is another judge on the rig's record, as of a replica without a
// data port.
func limiterOf(t *testing.T, r *rig, p limiter.Policy) *limiter.App {
	t.Helper()
	p.App = "7"
	judge, err := limiter.New(p, r.ledger, nil)
	if err != nil {
		t.Fatal(err)
	}
	judge.SetTwins(r.twins)
	return judge
}

func claimOf(r *rig, body string) limiter.Claim {
	j := newJob()
	if err := j.query.Parse(nil); err != nil {
		r.t.Fatal(err)
	}
	events, e := j.decoder.Events([]byte(body), &j.query, &r.app.Limits)
	if e != nil {
		r.t.Fatal(e)
	}
	j.open(&principal{app: r.app, caller: r.app.Limiter.Caller("care-api")}, events)
	return j.items[0].claim
}

// Batches that hold the same events in another order do not wait in a circle.
func TestBatchesOfTwoReplicasDoNotWaitForOneAnother(t *testing.T) {
	a, b := twoReplicas(t, rigConfig{policy: clustered(time.Minute), sim: sim.Config{Latency: 20 * time.Millisecond}})
	event := func(n, i int) string { return eventBody("e", fmt.Sprint("c", i), fmt.Sprint(n)) }
	began := time.Now()
	for n := range 10 {
		var all sync.WaitGroup
		for i, r := range []*rig{a, b} {
			order := []int{0, 1, 2}
			if i == 1 {
				order = []int{2, 1, 0}
			}
			all.Go(func() {
				body := fmt.Sprintf(`{"batch":[%s,%s,%s,%s]}`, event(n, order[0]), event(n, order[1]), event(n, order[2]), event(n, order[0]))
				got, err := r.try(r.caller, "POST", "/apps/7/batch_events", nil, body)
				if err != nil || got.status != 200 {
					t.Errorf("%+v %v", got, err)
				}
			})
		}
		all.Wait()
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("ten rounds took %s", took)
	}
	if n := a.sim.Stats().Events; n != 30 && a.twins.Stats().Alone+b.twins.Stats().Alone == 0 {
		t.Errorf("%d events arrived, want 30", n)
	}
}

// What is refused after the claim leaves nothing behind.
func TestARefusalTakesItsClaimBack(t *testing.T) {
	a, b := twoReplicas(t, rigConfig{policy: clustered(time.Minute), plan: 8})
	data, got := 0, reply{status: 200}
	for ; got.status == 200 && data < 10; data++ { // 3 messages each
		got = a.publish("e", "c", fmt.Sprint(data))
	}
	want(t, got, 403, "over_budget")
	data--
	if s := a.twins.Stats(); s.Claimed+s.Alone != int64(data)+1 {
		t.Errorf("%+v: the one that was refused was never claimed, so nothing is tested", s)
	}
	rich, err := limiter.New(b.app.Limiter.Policy(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	rich.SetTwins(b.twins)
	now, c := time.Now(), claimOf(b, eventBody("e", "c", fmt.Sprint(data)))
	v := rich.Admit(t.Context(), now, &c)
	if v.Flight != nil { // the refusal is still on its way to the store
		if fate := v.Flight.Wait(t.Context()); fate == limiter.Delivered {
			t.Fatal("what was refused passes for delivered")
		}
		v = rich.Admit(t.Context(), now, &c)
	}
	if took := time.Since(now); v.Outcome != limiter.Sent || took > 1500*time.Millisecond {
		t.Errorf("another replica may not send what this one could not pay, or waits for its claim's end (%s): %+v", took, v)
	}
	other := claimOf(b, eventBody("e", "c", "0"))
	if v := rich.Admit(t.Context(), now, &other); v.Outcome != limiter.Deduplicated {
		t.Errorf("what was delivered is not known: %+v", v)
	}
}

// One replica delivered A and another holds B: A once more is the newest, and
// takes B's place, although the same was delivered inside the window.
func TestARepeatTakesThePlaceOfWhatAnotherReplicaHolds(t *testing.T) {
	p := policyOf(limiter.Rule{Dedupe: time.Minute, DedupeScope: limiter.ScopeCluster, Conflate: 2 * time.Second})
	server := redistest.Start(t)
	open := func() *store.Store {
		st, err := store.Open(t.Context(), server.URL(), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		return st
	}
	a := newRig(t, rigConfig{policy: p, twins: true, store: open(), release: true})
	b := newRig(t, rigConfig{policy: p, twins: true, store: open(), simulator: a.sim})
	want(t, a.publish("e", "c", "A"), 200, "sent")
	want(t, a.publish("e", "c", "B"), 200, "conflated")
	if got := b.publish("e", "c", "A"); got.outcome != "conflated" {
		t.Errorf("%s: B will arrive last", got.outcome)
	}
	eventually(t, "the newest", func() bool { return len(a.dataOf("e")) >= 2 })
	if got := fmt.Sprint(a.dataOf("e")); got != "[A A]" {
		t.Errorf("arrived %s", got)
	}
}
