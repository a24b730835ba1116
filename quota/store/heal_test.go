package store

import (
	"fmt"
	"testing"
	"time"
)

// However many replicas come and go in a day, 128 of them are told by name; and after a loss of data those who heard of
// different ones count all of them once, whoever speaks first.
func TestManyThatAreGoneAreHealedOnce(t *testing.T) {
	for _, first := range []string{"a", "b"} {
		t.Run(first+" speaks first", func(t *testing.T) {
			eachStore(t, func(t *testing.T, s *Store, forget func()) {
				a, b := &replica{t: t, s: s, id: "a"}, &replica{t: t, s: s, id: "b"}
				now := noon
				a.beat(now, 5)
				come := func(from, to int) {
					for i := from; i < to; i++ {
						now = now.Add(time.Millisecond)
						r := &replica{t: t, s: s, id: fmt.Sprint("gone-", i), epoch: a.epoch}
						r.beat(now, 1)
						leave := r.frame(now)
						leave.Seq, leave.Leave = r.seq+1, true
						if _, err := s.Beat(ctx, leave); err != nil {
							t.Fatal(err)
						}
					}
				}
				come(0, 100)
				p := b.beat(now, 5)
				if q := p.Pots[0]; !q.ClosedNews || len(q.Closed) != 100 || q.ClosedTaken != 100 {
					t.Fatalf("news %v, %d by name, %d taken", q.ClosedNews, len(q.Closed), q.ClosedTaken)
				}
				b.heard(p)
				come(100, 200)
				p = a.beat(now, 0)
				a.heard(p)
				q := p.Pots[0]
				if len(q.Closed) != 128 || q.ClosedTaken != 200 || q.ClosedFrom != noon.UnixMilli()+73 {
					t.Fatalf("%d by name, %d taken, from %d", len(q.Closed), q.ClosedTaken, q.ClosedFrom-noon.UnixMilli())
				}
				if again := a.beat(now, 0).Pots[0]; again.ClosedNews {
					t.Fatalf("told once more: %d by name", len(again.Closed))
				}
				a.last = p // as the ledger keeps what was heard before
				taken := q.Taken
				forget()
				both := []*replica{a, b}
				if first == "b" {
					both = []*replica{b, a}
				}
				for _, r := range both {
					if _, err := r.try(now, 0); err == nil {
						t.Fatal("no loss was found")
					}
					epoch, err := s.Heal(ctx, r.frame(now), State{Version: 1, Plan: 1000}, []Knowledge{{Report: r.rep, Granted: r.last.Pots[0].Granted, Last: r.last.Pots[0]}})
					if err != nil {
						t.Fatal(err)
					}
					r.epoch = epoch
				}
				if got := a.beat(now, 0).Pots[0].Taken; got != taken {
					t.Fatalf("%d taken before the loss, %d after it", taken, got)
				}
			})
		})
	}
}

// A picture that an older release wrote down does not say which of its closed replicas it names all of. What was closed
// since the loss counts beside it.
func TestAnOlderPictureIsNotTooLow(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store, forget func()) {
		fresh, c := &replica{t: t, s: s, id: "fresh"}, &replica{t: t, s: s, id: "c"}
		fresh.beat(noon, 5) // it knows nothing, begins an empty store, and dies
		later := noon.Add(11 * time.Second)
		if p := c.beat(later, 0); p.Pots[0].ClosedTaken != 5 || p.Replicas != 1 {
			t.Fatalf("%+v", p)
		}
		a := &replica{t: t, s: s, id: "a", epoch: "before", acked: 7, seq: 7, rep: PotReport{Acked: 7}}
		last := PotState{ClosedTaken: 10, ClosedSpent: 10}
		if _, err := s.Heal(ctx, a.frame(later), State{Version: 1, Plan: 1000}, []Knowledge{{Report: a.rep, Granted: Counts{3}, Last: last}}); err != nil {
			t.Fatal(err)
		}
		if p := c.beat(later, 0).Pots[0]; p.ClosedTaken != 15 || p.Taken != 18 {
			t.Fatalf("%d taken by the closed ones, want 10 from before the loss and 5 from after it; %d by all", p.ClosedTaken, p.Taken)
		}
	})
}

// heard remembers what a beat told, as quota's ledger does.
func (r *replica) heard(p *Pulse) {
	q := &p.Pots[0]
	r.rep.ClosedTaken, r.rep.ClosedSpent, r.rep.ClosedVersion = q.ClosedTaken, q.ClosedSpent, q.ClosedVersion
}
