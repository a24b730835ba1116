package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota/fanout"
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
		if fate := fateOf(t.Context(), v.Flight); fate == limiter.Delivered {
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
	for try := 0; ; try++ {
		event := fmt.Sprint("e", try)
		b := newRig(t, rigConfig{policy: p, twins: true, store: open(), simulator: a.sim})
		lost, began := losses(a, b), time.Now()
		want(t, a.publish(event, "c", "A"), 200, "sent")
		want(t, a.publish(event, "c", "B"), 200, "conflated")
		got := b.publish(event, "c", "A")
		late := time.Since(began) >= p.Rules[0].Conflate // B may have gone out before
		if late || losses(a, b) != lost {
			if try == 20 { // on a busy machine the store may be slower than a publish waits for it
				t.Fatal("the store never answered in time")
			}
			continue
		}
		if got.outcome != "conflated" {
			t.Errorf("%s: B will arrive last", got.outcome)
		}
		eventually(t, "the newest", func() bool { return len(a.dataOf(event)) >= 2 })
		if got := fmt.Sprint(a.dataOf(event)); got != "[A A]" {
			t.Errorf("arrived %s", got)
		}
		return
	}
}

// The same while A is under way still, as far as the store has heard.
func TestARepeatOfWhatIsUnderWayTakesThePlaceOfWhatAnotherReplicaHolds(t *testing.T) {
	rule := limiter.Rule{Dedupe: time.Minute, DedupeScope: limiter.ScopeCluster, Conflate: 2 * time.Second}
	both := replicasOn(t, redistest.Start(t).URL(), 2, rigConfig{policy: policyOf(rule), release: true})
	a, b := both[0], both[1]
	patient := clustered(time.Minute)
	patient.SentWithin = time.Hour // so nothing but its word ends what is under way
	far := limiterOf(t, a, patient)
	for try := 0; ; try++ {
		eventually(t, "a store that answers", func() bool {
			return a.twins.Stats().Up && b.twins.Stats().Up && !a.proxy.holdFails.Load() && !b.proxy.holdFails.Load()
		})
		event, lost, began := fmt.Sprint("e", try), losses(both...), time.Now()
		first := claimOf(b, eventBody(event, "c", "A"))
		v := far.Admit(t.Context(), began, &first)
		one, two := a.publish(event, "c", "before"), a.publish(event, "c", "B")
		elsewhere := b.twins.Stats().Elsewhere
		done := make(chan reply, 1)
		go func() {
			got, err := b.try(b.caller, "POST", "/apps/7/events", nil, eventBody(event, "c", "A"))
			if err != nil {
				t.Error(err)
			}
			done <- got
		}()
		eventually(t, "a repeat of what is under way", func() bool { return b.twins.Stats().Elsewhere > elsewhere || losses(both...) > lost })
		far.Done(time.Now(), &first, &v, limiter.Delivered, 1)
		got := <-done
		if time.Since(began) >= rule.Conflate || losses(both...) != lost { // B may have gone out before
			if try == 20 {
				t.Fatal("the store never answered in time")
			}
			continue
		}
		if outcomes := fmt.Sprintln(one.outcome, two.outcome, got.outcome); outcomes != "sent conflated conflated\n" {
			t.Errorf("%sB will arrive last", outcomes)
		}
		eventually(t, "the newest", func() bool { return len(a.dataOf(event)) >= 2 })
		if got := fmt.Sprint(a.dataOf(event)); got != "[before A]" {
			t.Errorf("arrived %s", got)
		}
		return
	}
}

// replicasOn are n replicas, each with a connection of its own to the Redis at
// url, in front of one simulated Pusher.
func replicasOn(t *testing.T, url string, n int, c rigConfig) (all []*rig) {
	t.Helper()
	c.twins = true
	for range n {
		st, err := store.Open(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		c.store = st
		all = append(all, newRig(t, c))
		c.simulator = all[0].sim
	}
	return all
}

// claims are the questions that reached the server since the last call: how
// many claims are in each.
func claims(m *redistest.Monitor) (each []int) {
	for _, c := range m.Commands() {
		if n := strings.Count(c, ` "c" "`); strings.Contains(c, ":twins:") && n > 0 {
			each = append(each, n)
		}
	}
	return each
}

// losses is how often the store was slower than anybody waits for it: what a
// test has seen meanwhile says nothing.
func losses(all ...*rig) (n int) {
	for _, r := range all {
		for _, slow := range []string{"in this replica only", "store timeout", "could not be held"} {
			n += strings.Count(r.logs.String(), slow)
		}
	}
	return n
}

// inTime tells a story until the store has answered all of it in time. try is
// another number each time.
func inTime(t *testing.T, all []*rig, story func(try int) (wrong string)) {
	t.Helper()
	for try := range 50 {
		eventually(t, "a store that answers", func() bool {
			for _, r := range all {
				if !r.twins.Stats().Up {
					return false
				}
			}
			return true
		})
		before := losses(all...)
		wrong := story(try)
		if losses(all...) != before {
			continue
		}
		if wrong != "" {
			t.Error(wrong)
		}
		return
	}
	t.Fatal("the store never answered in time")
}

// told waits until the store has heard what became of everything.
func (r *rig) told(ops int64) {
	r.t.Helper()
	eventually(r.t, fmt.Sprint(ops, " questions and fates"), func() bool { return r.twins.Stats().Ops >= ops })
}

func batchOf(events ...string) string { return `{"batch":[` + strings.Join(events, ",") + `]}` }

// The events of a batch are asked about together, and only those that nothing
// else refuses.
func TestABatchIsAskedAboutInOneRoundTrip(t *testing.T) {
	rule := limiter.Rule{Dedupe: time.Minute, DedupeScope: limiter.ScopeCluster}
	slow, unheard := rule, rule
	slow.Match.Event, slow.Rates = []string{"slow"}, []limiter.Rate{{PerSecond: 1e-6, Burst: 1, Per: limiter.PerChannel}}
	unheard.Match.Event, unheard.SkipVacant = []string{"unheard"}, true
	server := redistest.Start(t)
	both := replicasOn(t, server.URL(), 2, rigConfig{policy: policyOf(slow, unheard, rule)})
	a, b := both[0], both[1]
	want(t, a.publish("e", "c", "x"), 200, "sent") // the script is loaded
	m := server.Monitor(t)
	inTime(t, both, func(try int) string {
		quiet := fmt.Sprint("quiet", try)
		a.app.Fanout.Learn(time.Now(), quiet, 0, fanout.FromWebhook)
		var events []string
		for i := range 9 {
			events = append(events, eventBody("e", "c", fmt.Sprint(try, "-", i)))
		}
		events = append(events, events[0])
		arrived, ops := a.sim.Stats().Events, a.twins.Stats().Ops
		claims(m)
		var got []string
		ask := func(r *rig, body string) {
			answer := r.do("POST", "/apps/7/batch_events", nil, body)
			got = append(got, fmt.Sprint(answer.status, " ", answer.outcome, " ", claims(m), " ", a.sim.Stats().Events-arrived))
		}
		ask(a, batchOf(events...))
		a.told(ops + 18)
		ask(b, batchOf(events...))
		ask(a, batchOf(eventBody("slow", quiet, "1"), eventBody("slow", quiet, "2"), eventBody("unheard", quiet, "3"), eventBody("e", quiet, "4")))
		want := []string{
			"200 " + strings.Repeat("sent, ", 9) + "deduplicated [9] 9",
			"200 deduplicated [9] 9",
			"200 sent, throttled, vacant, sent [2] 11",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Sprintf("answers, claims by round trip, events arrived:\n%q, want\n%q", got, want)
		}
		return ""
	})
}

// Many publishes at the same moment are few round trips, where one takes a
// while.
func TestTheStoreSeesBatchesOfPublishes(t *testing.T) {
	const many = 48
	server := redistest.Start(t)
	all := replicasOn(t, "redis://"+redistest.Delay(t, server.Addr(), 20*time.Millisecond), 1,
		rigConfig{policy: clustered(time.Minute), timeout: 30 * time.Second})
	r := all[0]
	want(t, r.publish("e", "c", "the first"), 200, "sent")
	m := server.Monitor(t)
	inTime(t, all, func(try int) string {
		ops := r.twins.Stats().Ops
		claims(m)
		var callers sync.WaitGroup
		var sent atomic.Int64
		for i := range many {
			callers.Go(func() {
				got, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody("e", "c", fmt.Sprint(try, "-", i)))
				if err == nil && got.status == 200 && got.outcome == "sent" {
					sent.Add(1)
				}
			})
		}
		callers.Wait()
		r.told(ops + many) // or the store was lost
		asked, trips := 0, claims(m)
		for _, n := range trips {
			asked += n
		}
		if asked != many || int(sent.Load()) != many || len(trips) > many/3 {
			return fmt.Sprintf("%d of %d publishes were sent; %d claims in %d round trips: %v", sent.Load(), many, asked, len(trips), trips)
		}
		t.Logf("%d claims in %d round trips: %v", asked, len(trips), trips)
		return ""
	})
}

// A request sends and settles what it may send before it waits for another
// replica, so that two never wait for one another: here each has what the other
// wants.
func TestWhoWaitsForATwinHoldsNoClaim(t *testing.T) {
	a, b := twoReplicas(t, rigConfig{policy: clustered(time.Minute)})
	patient := clustered(time.Minute)
	patient.SentWithin = time.Hour // so nothing but an answer ends the wait for it
	far := limiterOf(t, b, patient)
	inTime(t, []*rig{a, b}, func(try int) string {
		one, two := eventBody("e", "c", fmt.Sprint(try, " one")), eventBody("e", "c", fmt.Sprint(try, " two"))
		elsewhere, lost := a.twins.Stats().Elsewhere, losses(a, b)
		first, second := claimOf(b, two), claimOf(b, one)
		v := far.Admit(t.Context(), time.Now(), &first)
		done := make(chan reply, 1)
		go func() {
			got, err := a.try(a.caller, "POST", "/apps/7/batch_events", nil, batchOf(one, two))
			if err != nil {
				t.Error(err)
			}
			done <- got
		}()
		eventually(t, "the batch waiting", func() bool { return a.twins.Stats().Elsewhere > elsewhere || losses(a, b) > lost })
		w := far.Admit(t.Context(), time.Now(), &second)
		fate := limiter.Delivered
		if w.Flight != nil { // it is being sent at this moment
			fate = fateOf(t.Context(), w.Flight)
		}
		far.Done(time.Now(), &first, &v, limiter.Delivered, 1)
		if fate == limiter.Delivered {
			far.Done(time.Now(), &second, &w, limiter.Delivered, 1)
		}
		got := <-done
		if w.Outcome != limiter.Deduplicated || fate != limiter.Delivered {
			return fmt.Sprintf("what the batch sent is %v (%v) elsewhere, its fate %v: it is kept until the batch has what it waits for", w.Outcome, w.Reason, fate)
		}
		if got.status != 200 || got.outcome != "sent, deduplicated" {
			return fmt.Sprintf("%d %s", got.status, got.outcome)
		}
		return ""
	})
}

// It waited for another replica's twin, which failed, and went out itself: one
// publish, one token.
func TestWhoWaitedForATwinTakesOneToken(t *testing.T) {
	p := clustered(time.Minute)
	p.Rules[0].Rates = []limiter.Rate{{PerSecond: 1e-6, Burst: 2, Per: limiter.PerChannel}}
	a, b := twoReplicas(t, rigConfig{policy: p})
	far := limiterOf(t, a, clustered(time.Minute))
	inTime(t, []*rig{a, b}, func(try int) string {
		channel := fmt.Sprint("c", try)
		before, lost := b.twins.Stats().Elsewhere, losses(a, b)
		first := claimOf(a, eventBody("e", channel, "x"))
		v := far.Admit(t.Context(), time.Now(), &first)
		done := make(chan reply, 1)
		go func() {
			got, err := b.try(b.caller, "POST", "/apps/7/events", nil, eventBody("e", channel, "x"))
			if err != nil {
				t.Error(err)
			}
			done <- got
		}()
		eventually(t, "it waits", func() bool { return b.twins.Stats().Elsewhere > before || losses(a, b) > lost })
		far.Done(time.Now(), &first, &v, limiter.Refused, 0)
		got := <-done
		next, last := b.publish("e", channel, "y"), b.publish("e", channel, "z")
		if outcomes := fmt.Sprintln(got.outcome, next.outcome, last.outcome); outcomes != "sent sent throttled\n" {
			return fmt.Sprintf("with two tokens: %s", outcomes)
		}
		return ""
	})
}

// Without the store a batch waits no longer than a publish, and is
// deduplicated in its replica; the log says so.
func TestABatchWithoutAStore(t *testing.T) {
	server := redistest.Start(t)
	r := replicasOn(t, server.URL(), 1, rigConfig{policy: clustered(time.Minute)})[0]
	want(t, r.publish("e", "c", "x"), 200, "sent")
	server.Stop()
	defer server.Continue()
	var events []string
	for i := range 10 {
		events = append(events, eventBody("e", "c", fmt.Sprint(i)))
	}
	began, alone := time.Now(), r.twins.Stats().Alone
	want(t, r.do("POST", "/apps/7/batch_events", nil, batchOf(events...)), 200, "sent")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	want(t, r.do("POST", "/apps/7/batch_events", nil, batchOf(events...)), 200, "deduplicated")
	if s := r.twins.Stats(); s.Up || s.Why == "" || s.Alone != alone+10 {
		t.Errorf("%+v", s)
	}
	if n := r.sim.Stats().Events; n != 11 {
		t.Errorf("%d events arrived, want 11", n)
	}
	if !strings.Contains(r.logs.String(), "in this replica only") {
		t.Errorf("the log says nothing:\n%s", r.logs)
	}
}

// fateOf waits for the fate of a publish under way, or for ctx: then it is Unknown.
func fateOf(ctx context.Context, f *limiter.Flight) limiter.Fate {
	select {
	case <-f.Done():
		return f.Fate()
	case <-ctx.Done():
		return limiter.Unknown
	}
}
