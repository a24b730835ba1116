package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/fanout"
)

func TestNobodyThere(t *testing.T) {
	r := newRig(t, rigConfig{policy: policyOf(
		limiter.Rule{Name: "kept", Match: limiter.Match{Event: []string{"kept"}}},
		limiter.Rule{Name: "skips", SkipVacant: true})})
	now := time.Now()
	for _, ch := range []string{"empty", "also-empty", "cache-empty", "private-cache-empty", "presence-cache-empty", "private-encrypted-cache-empty"} {
		r.app.Fanout.Learn(now, ch, 0, fanout.FromWebhook)
	}
	r.app.Fanout.Learn(now, "full", 3, fanout.FromWebhook)
	r.app.Fanout.Learn(now.Add(-vacantByWebhook-time.Second), "long-empty", 0, fanout.FromWebhook)
	r.app.Fanout.Learn(now.Add(-vacantByPoll-time.Second), "polled-long-ago", 0, fanout.FromInfo)
	r.app.Fanout.Learn(now, "counted", 0, fanout.FromInfo)
	for _, c := range []struct{ body, outcome string }{
		{eventBody("e", "empty", "x"), "vacant"},
		{eventBody("e", "counted", "x"), "vacant"},
		{`{"name":"e","channels":["empty","also-empty"],"data":"x"}`, "vacant"},
		{`{"name":"e","channels":["empty","full"],"data":"x"}`, "sent"},
		{eventBody("e", "never-heard-of", "x"), "sent"},
		{eventBody("e", "full", "x"), "sent"},
		{eventBody("e", "long-empty", "x"), "sent"},
		{eventBody("e", "polled-long-ago", "x"), "sent"},
		{eventBody("kept", "empty", "x"), "sent"},
		{`{"name":"e","channel":"empty","data":"x","info":"subscription_count"}`, "sent"},
		{eventBody("e", "cache-empty", "x"), "sent"},
		{eventBody("e", "private-cache-empty", "x"), "sent"},
		{eventBody("e", "presence-cache-empty", "x"), "sent"},
		{`{"name":"e","channel":"private-encrypted-cache-empty","data":"{\"nonce\":\"a\",\"ciphertext\":\"b\"}"}`, "sent"},
		{eventBody("e", "#server-to-user-u", "x"), "sent"},
	} {
		before := r.sim.Stats().Events
		got := r.do("POST", "/apps/7/events", nil, c.body)
		want(t, got, 200, c.outcome)
		if went := r.sim.Stats().Events - before; (went == 1) != (c.outcome == "sent") {
			t.Errorf("%s: answered %s, %d events went out", c.body, c.outcome, went)
		}
		if c.outcome == "vacant" && (got.body != "{}" || got.header.Get("Pushguard-Reason") != "nobody_there") {
			t.Errorf("%q, reason %q", got.body, got.header.Get("Pushguard-Reason"))
		}
	}
	// Somebody came.
	r.app.Fanout.Learn(now.Add(time.Second), "empty", 1, fanout.FromWebhook)
	want(t, r.publish("e", "empty", "x"), 200, "sent")
}

// A brake is a brake, also where nobody would have heard.
func TestABrakeGoesBeforeVacancy(t *testing.T) {
	r := newRig(t, rigConfig{policy: policyOf(limiter.Rule{SkipVacant: true})})
	r.app.Fanout.Learn(time.Now(), "empty", 0, fanout.FromWebhook)
	if err := r.ledger.SetBrake(t.Context(), time.Now(), &quota.Brake{Allow: "none", Reason: "x", By: "y", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	want(t, r.publish("e", "empty", "x"), 403, "braked")
}

// With a key of the payload each order has a burst of its own; what has no key
// is never held.
func TestABurstOfEachOrder(t *testing.T) {
	rule := limiter.Rule{Match: limiter.Match{Event: []string{"news"}}, Conflate: time.Second, ConflateKey: "/order/id"}
	r := newRig(t, rigConfig{policy: policyOf(rule), release: true, sim: sim.Config{}})
	data := func(id string, n int) string { return fmt.Sprintf(`{"n":%d,"order":{"id":%s}}`, n, id) }
	for _, id := range []string{`1`, `"1"`, `{"a":[1]}`} {
		want(t, r.publish("news", "c", data(id, 1)), 200, "sent")
	}
	for n := 2; n < 5; n++ {
		for _, id := range []string{`1`, `"1"`, `{"a":[1]}`} {
			want(t, r.publish("news", "c", data(id, n)), 200, "conflated")
		}
	}
	for _, none := range []string{"hello", `{"n":1}`, `{"order":{}}`, `{"order":{"id":null}}`, `{"order":`} {
		for range 2 {
			want(t, r.publish("news", "c", none), 200, "sent")
		}
	}
	eventually(t, "the newest of each order", func() bool { return len(r.dataOf("news")) == 3+10+3 })
	last := map[string]bool{}
	for _, d := range r.dataOf("news")[13:] {
		last[d] = true
	}
	for _, id := range []string{`1`, `"1"`, `{"a":[1]}`} {
		if !last[data(id, 4)] {
			t.Errorf("the newest of order %s did not come: %v", id, last)
		}
	}
	eventually(t, "the settling of what was released", func() bool { return r.used() == r.sim.Stats().Messages })
}
