package store

import (
	"testing"
	"time"
)

// A replica whose clock is an hour ahead lacks tokens, and dies. The others go on: they neither wait an hour for it to be
// heard again after the server was restarted, nor hand their leases back to it.
func TestADeadReplicaWhoseClockWasWrongHoldsNobodyUp(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store, forget func()) {
		a, b, wrong := &replica{t: t, s: s, id: "a"}, &replica{t: t, s: s, id: "b"}, &replica{t: t, s: s, id: "wrong"}
		a.beat(noon, 900)
		b.beat(noon, 0)
		wrong.rep.Need = Counts{999}
		wrong.beat(noon.Add(time.Hour), 0)
		now := noon.Add(time.Second)
		if p := a.beat(now, 0); p.Pots[0].Hungry {
			t.Error("a is to hand back what it holds, to one that spoke an hour from now")
		}
		// Another now lacks some, and is heard.
		b.rep.Need = Counts{999}
		b.beat(now, 0)
		b.rep.Need = Counts{}
		if p := a.beat(now, 0); !p.Pots[0].Hungry {
			t.Error("b lacks tokens, and a is not told")
		}
		now = now.Add(20 * time.Second)
		a.beat(now, 0)
		if p := b.beat(now, 0); p.Replicas != 2 {
			t.Errorf("%d replicas, one of them has been dead for 20 s", p.Replicas)
		}
		// The server was restarted: until all have spoken no lease is given.
		if err := s.rdb.HSet(ctx, stateKey("care"), "run", "another").Err(); err != nil {
			t.Fatal(err)
		}
		a.beat(now, 10)
		b.beat(now, 0)
		if p := a.beat(now, 10); p.Withheld {
			t.Error("leases are withheld until one speaks that is dead")
		}
	})
}
