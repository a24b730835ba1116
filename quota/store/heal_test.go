package store

import (
	"errors"
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

// A replica that is killed and started anew all day long leaves an entry each time. How many are kept, and so what a
// heartbeat may cost, is bounded; what all of them took counts on.
func TestGoneReplicasAreBounded(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store, forget func()) {
		a, late := &replica{t: t, s: s, id: "a"}, &replica{t: t, s: s, id: "late"}
		a.beat(noon, 5)
		totals, _, gone := potKeys("care", 20000, "")
		const n = 2048
		var entries []any
		for i := range n {
			entries = append(entries, fmt.Sprint("gone-", i), fmt.Sprint("7 0 ", noon.UnixMilli()-2*n+int64(i), " 1 0 0 0 0 0 0"))
		}
		if err := s.rdb.HSet(ctx, gone, entries...).Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.rdb.HSet(ctx, totals, "rt", 300, "rs", 300).Err(); err != nil {
			t.Fatal(err)
		}
		before := a.beat(noon, 0).Pots[0].Taken
		if p := late.beat(noon, 5); p.Pots[0].Taken != before+5 {
			t.Fatalf("%d taken, want %d", p.Pots[0].Taken, before+5)
		}
		leave := late.frame(noon)
		leave.Seq, leave.Leave, leave.Pots[0].Want = late.seq+1, true, Counts{}
		if _, err := s.Beat(ctx, leave); err != nil {
			t.Fatal(err)
		}
		if left := s.rdb.HLen(ctx, gone).Val(); left != 1024 {
			t.Fatalf("%d of %d are kept", left, n+1)
		}
		if p := a.beat(noon, 0).Pots[0]; p.Taken != before+5 || len(p.Closed) != 128 {
			t.Fatalf("%d taken, want %d; %d by name", p.Taken, before+5, len(p.Closed))
		}
		// One that is kept speaks again, and has its tokens. One that is not tells the store what it took.
		back := &replica{t: t, s: s, id: fmt.Sprint("gone-", n-1), epoch: a.epoch, seq: 7, acked: 7}
		if p := back.beat(noon, 0).Pots[0]; p.Taken != before+5 || p.Granted.Sum() != 1 {
			t.Fatalf("%d taken, want %d; it has %d", p.Taken, before+5, p.Granted.Sum())
		}
		old := &replica{t: t, s: s, id: "gone-0", epoch: a.epoch, seq: 7, acked: 7}
		if _, err := old.try(noon, 0); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
	})
}
