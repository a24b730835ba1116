package proxy

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// eventually waits for a condition, at most ten seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never came: " + what)
		}
		<-tick.C
	}
}

func (r *rig) dataOf(event string) (all []string) {
	for _, e := range r.sim.Events(100_000) {
		if e.Name == event {
			all = append(all, e.Data)
		}
	}
	return all
}

func conflating(window time.Duration) limiter.Policy {
	return policyOf(limiter.Rule{Match: limiter.Match{Event: []string{"news"}}, Conflate: window})
}

func TestOfABurstTheFirstAndTheNewestGoOut(t *testing.T) {
	r := newRig(t, rigConfig{policy: conflating(time.Second), release: true})
	want(t, r.publish("news", "c", "1"), 200, "sent")
	for _, data := range []string{"2", "3", "4"} {
		got := r.publish("news", "c", data)
		want(t, got, 200, "conflated")
		if got.body != "{}" {
			t.Errorf("body %q", got.body)
		}
	}
	want(t, r.publish("other", "c", "x"), 200, "sent")
	eventually(t, "the newest value", func() bool { return len(r.dataOf("news")) == 2 })
	if got := fmt.Sprint(r.dataOf("news")); got != "[1 4]" {
		t.Errorf("arrived %s, want the first and the newest", got)
	}
	// It is counted after it went out and before the shelf lets go of it.
	eventually(t, "an empty shelf", func() bool {
		waiting, claimed, err := r.shelf.Count(t.Context())
		return err == nil && waiting+claimed == 0
	})
	if st := r.proxy.Stats().Held(); st.Held != 3 || st.Replaced != 2 || st.Sent != 1 {
		t.Errorf("counted %+v", st)
	}
	r.agree()
}

// A replica answers 200 and dies. Another one, on the same store, sends.
func TestWhatWasHeldOutlivesItsReplica(t *testing.T) {
	dying := newRig(t, rigConfig{policy: conflating(time.Second)}) // never releases
	dying.publish("news", "c", "1")
	want(t, dying.publish("news", "c", "2"), 200, "conflated")
	heir := newRig(t, rigConfig{policy: conflating(time.Second), release: true, store: dying.store, simulator: dying.sim})
	eventually(t, "the held publish from the other replica", func() bool { return len(heir.dataOf("news")) == 2 })
}

// A replica claims what it held, and dies before it says what became of it.
func TestWhatADeadReplicaClaimedIsSent(t *testing.T) {
	dying := newRig(t, rigConfig{policy: conflating(time.Second)}) // never releases
	dying.publish("news", "c", "1")
	want(t, dying.publish("news", "c", "2"), 200, "conflated")
	now := time.Now()
	claimed, err := dying.shelf.Claim(t.Context(), now.Add(time.Minute), now, 10) // the window is over by then, the claim is now
	if err != nil || len(claimed) != 1 {
		t.Fatal(claimed, err)
	}
	heir := newRig(t, rigConfig{policy: conflating(time.Second), release: true, store: dying.store, simulator: dying.sim})
	eventually(t, "what was claimed, from the other replica", func() bool {
		st := heir.proxy.Stats().Held()
		return len(heir.dataOf("news")) == 2 && st.Sent == 1 && st.Again == 1
	})
	if err := dying.shelf.Settle(t.Context(), claimed[0].Token); err != nil { // it was only slow
		t.Error(err)
	}
	eventually(t, "an empty shelf", func() bool {
		waiting, sending, err := heir.shelf.Count(t.Context())
		return err == nil && waiting+sending == 0
	})
	if got := fmt.Sprint(heir.dataOf("news")); got != "[1 2]" {
		t.Errorf("arrived %s", got)
	}
}

// Four replicas release at the same time; each held publish goes out once.
func TestOneReplicaSendsWhatIsHeld(t *testing.T) {
	first := newRig(t, rigConfig{policy: conflating(time.Second), release: true})
	rigs := []*rig{first}
	for range 3 {
		rigs = append(rigs, newRig(t, rigConfig{policy: conflating(time.Second), release: true, store: first.store, simulator: first.sim}))
	}
	const channels = 40
	var all sync.WaitGroup
	for ch := range channels {
		all.Go(func() {
			for n := range 4 {
				rigs[0].publish("news", fmt.Sprint("c", ch), fmt.Sprint(n))
			}
		})
	}
	all.Wait()
	eventually(t, "all newest values", func() bool {
		var sent int64
		for _, r := range rigs {
			sent += r.proxy.Stats().Held().Sent
		}
		waiting, claimed, err := first.shelf.Count(t.Context())
		return sent >= channels && err == nil && waiting+claimed == 0
	})
	byChannel := map[string][]string{}
	for _, e := range first.sim.Events(10_000) {
		byChannel[e.Channels[0]] = append(byChannel[e.Channels[0]], e.Data)
	}
	for ch, data := range byChannel {
		if last := data[len(data)-1]; last != "3" {
			t.Errorf("%s: the newest value never went out: %v", ch, data)
		}
		seen := map[string]bool{}
		for _, d := range data {
			if seen[d] {
				t.Errorf("%s: %s went out twice: %v", ch, d, data)
			}
			seen[d] = true
		}
	}
}

// Two replicas take one channel's values in turn. What one of them holds must not arrive after what the other got
// later.
func TestTheNewestArrivesLastWhicheverReplicaGotIt(t *testing.T) {
	url := "redis://" + redistest.Start(t).Addr()
	var rigs []*rig
	var simulator *sim.Server
	for range 2 {
		st, err := store.Open(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		r := newRig(t, rigConfig{policy: conflating(time.Second), release: true, store: st, simulator: simulator})
		simulator = r.sim
		rigs = append(rigs, r)
	}
	a, b := rigs[0], rigs[1]
	want(t, a.publish("news", "c", "1"), 200, "sent")
	want(t, a.publish("news", "c", "2"), 200, "conflated")
	want(t, b.publish("news", "c", "3"), 200, "conflated") // b knows of no burst, the shelf does
	want(t, b.publish("news", "d", "x"), 200, "sent")
	eventually(t, "the newest", func() bool { return len(a.dataOf("news")) == 3 })
	eventually(t, "an empty shelf", func() bool {
		waiting, claimed, err := a.shelf.Count(t.Context())
		return err == nil && waiting+claimed == 0
	})
	if got := fmt.Sprint(a.dataOf("news")); got != "[1 x 3]" {
		t.Errorf("arrived %s, want the first and the newest", got)
	}
}

func TestABrakeKeepsWhatIsHeldUntilItIsLifted(t *testing.T) {
	r := newRig(t, rigConfig{policy: conflating(time.Second), release: true})
	r.publish("news", "c", "1")
	want(t, r.publish("news", "c", "2"), 200, "conflated")
	due := time.Now().Add(time.Second)
	if err := r.ledger.SetBrake(t.Context(), time.Now(), &quota.Brake{Allow: "none", Reason: "x", By: "y", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a due publish that the brake holds back", func() bool {
		waiting, claimed, err := r.shelf.Count(t.Context())
		return err == nil && time.Since(due) > 4*releaseEvery && waiting+claimed == 1 && len(r.dataOf("news")) == 1
	})
	if err := r.ledger.LiftBrake(t.Context(), time.Now(), "y", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the held publish", func() bool { return len(r.dataOf("news")) == 2 })
}

// The lever ends the windows of bursts; a refresh event still goes out once in its interval.
func TestHasteningKeepsTheIntervalOfRefreshes(t *testing.T) {
	r := newRig(t, rigConfig{}) // never releases
	ctx, now := t.Context(), time.Now()
	for i := range 2100 { // more than one call of the store's takes
		if _, err := r.shelf.Put(ctx, fmt.Sprint("burst", i), now.Add(time.Hour), []byte("b")); err != nil {
			t.Fatal(err)
		}
		if i < 1999 {
			continue
		}
		if due, err := r.shelf.Pace(ctx, now, fmt.Sprint("refresh", i), time.Hour, []byte("r")); err != nil || due.After(now) {
			t.Fatal(due, err)
		}
	}
	first, err := r.shelf.Claim(ctx, now, now.Add(time.Minute), 1000) // the refresh events that go out at once
	if err != nil || len(first) != 101 {
		t.Fatal(len(first), err)
	}
	for _, c := range first {
		if due, err := r.shelf.Pace(ctx, now, strings.TrimSuffix(c.ID, "~3600000"), time.Hour, []byte("r")); err != nil || due.Before(now.Add(59*time.Minute)) {
			t.Fatal(due, err)
		}
		if err := r.shelf.Settle(ctx, c.Token); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := r.shelf.Flush(ctx, now); n != 2100 || err != nil {
		t.Errorf("%d hastened, %v", n, err)
	}
	claimed, err := r.shelf.Claim(ctx, now, now.Add(time.Minute), 10_000)
	if err != nil || len(claimed) != 2100 {
		t.Errorf("%d are due, %v", len(claimed), err)
	}
	for _, c := range claimed {
		if string(c.Body) != "b" {
			t.Fatalf("%s is due before its interval is over", c.ID)
		}
	}
	if h := r.shelf.Held(); h.Waiting != 2201 || h.Sending != 0 {
		t.Errorf("before the claim %+v were held", h)
	}
}

func TestOldNewsIsNoNews(t *testing.T) {
	r := newRig(t, rigConfig{})
	rec := func(at time.Time) []byte {
		b, err := json.Marshal(heldPublish{App: "7", Caller: "care-api", At: at, Body: []byte(eventBody("news", "c", "d"))})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := r.ledger.SetBrake(t.Context(), time.Now(), &quota.Brake{Allow: "none", Reason: "x", By: "y", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if r.proxy.releaseOne(rec(now), false, now) {
		t.Error("a fresh publish was given up because of the brake")
	}
	if !r.proxy.releaseOne(rec(now.Add(-defaultHeldExpiry-time.Second)), false, now) || r.proxy.Stats().Held().Expired != 1 {
		t.Error("an old publish waits on")
	}
	r.app.HeldExpiry = time.Hour
	if r.proxy.releaseOne(rec(now.Add(-time.Hour+time.Second)), false, now) || !r.proxy.releaseOne(rec(now.Add(-time.Hour-time.Second)), false, now) {
		t.Error("held_expiry is not what decides")
	}
	if !r.proxy.releaseOne([]byte("rubbish"), false, now) || r.proxy.Stats().Held().Dropped != 1 {
		t.Error("what cannot be read waits for ever")
	}
	if n := r.sim.Stats().Events; n != 0 {
		t.Errorf("%d events went out under the brake", n)
	}
}

func TestWhatCannotBeHeldGoesOutAtOnce(t *testing.T) {
	r := newRig(t, rigConfig{policy: conflating(time.Hour)})
	r.app.Shelf = nil
	r.publish("news", "c", "1")
	want(t, r.publish("news", "c", "2"), 200, "sent")
	if st := r.proxy.Stats().Held(); st.NotHeld != 1 || r.sim.Stats().Events != 2 {
		t.Errorf("%+v, %d events", st, r.sim.Stats().Events)
	}
}

func TestHeldIDsTellApart(t *testing.T) {
	p := func(event string, channels ...string) *pusher.Publish {
		p := &pusher.Publish{Name: []byte(event)}
		for _, c := range channels {
			p.Channels = append(p.Channels, []byte(c))
		}
		return p
	}
	seen := map[string]string{}
	for _, c := range []struct {
		what, app string
		p         *pusher.Publish
		group     [2]uint64
	}{
		{"plain", "1", p("e", "c"), [2]uint64{}}, {"app", "2", p("e", "c"), [2]uint64{}}, {"event", "1", p("f", "c"), [2]uint64{}},
		{"channel", "1", p("e", "d"), [2]uint64{}}, {"two channels", "1", p("e", "c", "d"), [2]uint64{}},
		{"glued", "1", p("ec"), [2]uint64{}}, {"glued 2", "1", p("e", "cd"), [2]uint64{}}, {"group", "1", p("e", "c"), [2]uint64{1}},
	} {
		id := heldID(c.app, c.p, c.group)
		if other, twice := seen[id]; twice {
			t.Errorf("%s and %s have the same id", c.what, other)
		}
		seen[id] = c.what
	}
}
