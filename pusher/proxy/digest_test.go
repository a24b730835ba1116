package proxy

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// shedding refuses bulk from the first message on, and digests it.
func shedding(t *testing.T, c rigConfig, every time.Duration, budget float64) *rig {
	t.Helper()
	c.policy = policyOf(
		limiter.Rule{Match: limiter.Match{Event: []string{"plain"}}, Priority: quota.Bulk, NoDigest: true},
		limiter.Rule{Match: limiter.Match{Event: []string{"news"}}, Priority: quota.Bulk},
		limiter.Rule{Match: limiter.Match{Event: []string{"alarm"}}, Priority: quota.Critical})
	c.policy.Digest = true
	if c.plan == 0 {
		c.plan = 100_000
	}
	r := newRig(t, c)
	r.app.Refresh = &RefreshConfig{Event: "refresh", Data: "{}", Every: every}
	if err := r.ledger.Reconfigure(quota.Config{Account: "a", Plan: quota.Plan{Name: "custom", MessagesPerDay: c.plan},
		Shares: map[string]float64{limiter.DigestShare: budget}}); err != nil {
		t.Fatal(err)
	}
	if err := r.app.Breaker.Configure(limiter.BreakerConfig{ShedBulkAt: 0.02, ShedNormalAt: 0.9, CriticalOnlyAt: 0.95}); err != nil {
		t.Fatal(err)
	}
	if err := r.ledger.SetUsage(t.Context(), time.Now(), c.plan/10, "t", "t"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shedding of bulk", func() bool { return r.publish("plain", "c", "x").status == 403 })
	return r
}

// While bulk is shed each of its channels is told once in an interval, whatever
// the number of publishes and of replicas.
func TestWhatIsShedStillLightsTheDot(t *testing.T) {
	const every = 3 * time.Second
	server := redistest.Start(t)
	open := func() *store.Store {
		st, err := store.Open(t.Context(), server.URL(), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		return st
	}
	a := shedding(t, rigConfig{store: open(), release: true}, every, 0.01)
	b := shedding(t, rigConfig{store: open(), release: true, simulator: a.sim}, every, 0.01)
	want(t, a.publish("alarm", "c0", "x"), 200, "sent")
	began := time.Now()
	for round := 0; round < 2 || time.Since(began) < every/2; round++ {
		var all sync.WaitGroup
		for _, r := range []*rig{a, b} {
			all.Go(func() {
				for ch := range 3 {
					got, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody("news", fmt.Sprint("c", ch), "x"))
					if err != nil || got.status != 200 || got.outcome != "digested" || got.body != "{}" || got.header.Get("Pushguard-Reason") != "refreshed" {
						t.Errorf("%+v %v", got, err)
					}
				}
			})
		}
		all.Wait()
	}
	want(t, a.publish("plain", "c1", "x"), 403, "over_budget")
	want(t, a.publish("news", "private-encrypted-c", `{\"nonce\":\"a\",\"ciphertext\":\"b\"}`), 403, "over_budget")
	want(t, a.publish("news", "cache-c", "x"), 403, "over_budget")

	// One at once, and one at the interval's end for what was shed after that.
	eventually(t, "both refresh events of each channel", func() bool { return len(a.dataOf("refresh")) >= 6 })
	took := time.Since(began)
	told := map[string]int{}
	for _, e := range a.sim.Events(1000) {
		if e.Name == "refresh" {
			told[e.Channels[0]]++
			if e.Data != "{}" {
				t.Errorf("refresh with data %q", e.Data)
			}
		} else if e.Name != "alarm" {
			t.Errorf("%s went out", e.Name)
		}
	}
	if most := 1 + int(took/every); len(told) != 3 || told["c0"] > most || told["c1"] > most || told["c2"] > most {
		t.Errorf("in %s of an interval of %s: %v", took, every, told)
	}
	if took < every-refreshSkew {
		t.Errorf("the second came after %s of an interval of %s", took, every)
	}
	eventually(t, "all refresh events counted", func() bool {
		return a.proxy.Stats().Held().Refreshes+b.proxy.Stats().Held().Refreshes == int64(len(a.dataOf("refresh")))
	})
}

// The promise holds when the replica that gave it dies, and while the brake is
// pulled it waits.
func TestARefreshOutlivesItsReplica(t *testing.T) {
	dying := shedding(t, rigConfig{}, time.Minute, 0.01) // never releases
	want(t, dying.publish("news", "c", "x"), 200, "digested")
	if err := dying.ledger.SetBrake(t.Context(), time.Now(), &quota.Brake{Allow: "critical", Reason: "x", By: "y", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	want(t, dying.publish("news", "d", "x"), 403, "braked")
	heir := shedding(t, rigConfig{store: dying.store, simulator: dying.sim}, time.Minute, 0.01)
	if _, err := heir.proxy.releaseDue(t.Context(), heir.shelf); err != nil {
		t.Fatal(err)
	}
	if n := len(heir.dataOf("refresh")); n != 0 {
		t.Errorf("%d refresh events went out under the brake", n)
	}
	if err := dying.ledger.LiftBrake(t.Context(), time.Now(), "y", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the refresh event from the other replica", func() bool {
		if _, err := heir.proxy.releaseDue(t.Context(), heir.shelf); err != nil {
			t.Fatal(err)
		}
		return len(heir.dataOf("refresh")) == 1
	})
}

// Its own small budget bounds what is digested; beyond it publishes are refused
// as without a digest.
func TestADigestHasABudget(t *testing.T) {
	r := shedding(t, rigConfig{plan: 3000, release: true}, time.Hour, 0.01) // 30 messages, 3 an event
	digested := 0
	for n := range 40 {
		got := r.publish("news", fmt.Sprint("c", n), "x")
		if got.outcome == "digested" {
			digested++
		} else if got.status != 403 || got.outcome != "over_budget" {
			t.Errorf("%+v", got)
		}
		eventually(t, "an empty shelf", func() bool {
			waiting, claimed, err := r.shelf.Count(t.Context())
			return err == nil && waiting+claimed == 0
		})
	}
	if sent := len(r.dataOf("refresh")); digested == 0 || digested > 10 || sent != digested {
		t.Errorf("%d publishes were digested and %d refresh events sent with a budget for 10", digested, sent)
	}
}
