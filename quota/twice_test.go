package quota

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// A replica dies, one of the others hears that it was closed, one does not, and then Redis loses everything. What the
// dead one took must be counted once, whoever speaks first.
func TestWhatADeadReplicaTookIsHealedOnce(t *testing.T) {
	for _, c := range []struct {
		name  string
		dies  func(x *Ledger, now time.Time) error
		first int // of a and b, who heals first
	}{
		{"crashed, the informed one speaks first", nil, 0},
		{"crashed, the uninformed one speaks first", nil, 1},
		{"left, the informed one speaks first", func(x *Ledger, _ time.Time) error { return x.Close(ctx) }, 0},
		{"left, the uninformed one speaks first", func(x *Ledger, _ time.Time) error { return x.Close(ctx) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := redistest.Start(t)
			st := open(t, srv.URL(), store.Options{})
			a, b, x := join(t, st, noon, "a", plan(100_000)), join(t, st, noon, "b", plan(100_000)), join(t, st, noon, "x", plan(100_000))
			spend(x, noon, nil, Normal, 700)
			now := noon.Add(time.Second)
			beat(t, now, x, a, b, x)
			if c.dies != nil {
				if err := c.dies(x, now); err != nil {
					t.Fatal(err)
				}
				now = now.Add(time.Second)
				beat(t, now, a)
			} else {
				now = now.Add(4 * time.Second)
				beat(t, now, a, b)
				now = now.Add(7 * time.Second) // x has been silent for eleven, b for seven
				beat(t, now, a)
			}
			before, _ := a.Used(now)
			srv.Do("FLUSHALL")
			order := []*Ledger{a, b}
			if c.first == 1 {
				order = []*Ledger{b, a}
			}
			for range 3 {
				beat(t, now, order...)
				now = now.Add(time.Second)
			}
			now = now.Add(5 * time.Second)
			beat(t, now, a, b)
			now = now.Add(8 * time.Second)
			beat(t, now, a, b)
			if used, _ := a.Used(now); used != before {
				t.Errorf("%d used before the loss, %d after it was healed", before, used)
			}
		})
	}
}

// A replica is silent for so long that it is taken for dead, and speaks again; some hear of the one, some of the other,
// and then Redis loses everything. Whoever speaks first, what the silent one took is counted once.
func TestWhoSpokeAgainIsHealedOnce(t *testing.T) {
	for order := range 6 {
		t.Run(string("abc"[order/2])+" first, "+[]string{"the next after it", "the last after it"}[order%2], func(t *testing.T) {
			srv := redistest.Start(t)
			st := open(t, srv.URL(), store.Options{})
			a, b, c := join(t, st, noon, "a", plan(100_000)), join(t, st, noon, "b", plan(100_000)), join(t, st, noon, "c", plan(100_000))
			spend(c, noon, nil, Normal, 700)
			now := noon.Add(time.Second)
			beat(t, now, c, a, b, c)
			now = now.Add(4 * time.Second)
			beat(t, now, a, b)
			now = now.Add(7 * time.Second)
			beat(t, now, a) // hears that c was closed
			if n := a.Snapshot(now).Replicas; n != 2 {
				t.Fatalf("a counts %d replicas; c is not taken for dead", n)
			}
			beat(t, now, c, b) // c lives, b hears that; a does not
			before, _ := b.Used(now)
			taken := b.view.Load().taken
			srv.Do("FLUSHALL")
			all := []*Ledger{a, b, c}
			first := order / 2
			who := []*Ledger{all[first], all[(first+1)%3], all[(first+2)%3]}
			if order%2 == 1 {
				who[1], who[2] = who[2], who[1]
			}
			for range 3 {
				beat(t, now, who...)
				now = now.Add(time.Second)
			}
			beat(t, now, who...)
			used, _ := a.Used(now)
			if v := a.view.Load(); used != before || v.taken != taken {
				t.Errorf("%d used and %d taken before the loss, %d and %d after it was healed", before, taken, used, v.taken)
			}
		})
	}
}
