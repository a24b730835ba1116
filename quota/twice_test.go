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
