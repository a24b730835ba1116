package quota

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/fanout"
	"github.com/pushguard/pushguard/quota/store"
)

// Two replicas ask Pusher for the list of channels: one does, both know, and neither asks more than the day allows.
func TestOneReplicaPollsForAll(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		a, b := join(t, st, noon, "a", plan(1000)), join(t, st, noon, "b", plan(1000))
		const every = time.Minute
		at := func(sec int) time.Time { return noon.Add(time.Duration(sec) * time.Second) }
		claim := func(what string, l *Ledger, sec int, want bool, spent int64, last time.Time) {
			t.Helper()
			mine, n, was, err := l.MayPoll(ctx, at(sec), "7", every, 1, 4)
			if err != nil || mine != want || n != spent || !was.Equal(last) {
				t.Fatalf("%s: %v, spent %d, last %v, %v", what, mine, n, was, err)
			}
		}
		claim("the first asks", a, 0, true, 1, time.Time{})
		claim("the other waits for it", b, 1, false, 1, time.Time{})
		claim("the first too", a, 2, false, 1, time.Time{})
		var found fanout.ChannelList
		found.Add("room")
		f := fanout.New(1, nil)
		if err := a.Polled(ctx, at(3), "7", at(0), f.LearnOccupied(at(0), &found)); err != nil {
			t.Fatal(err)
		}
		claim("there is a list now", b, 5, false, 1, at(0))
		list, err := b.LastPoll(ctx, "7")
		if err != nil {
			t.Fatal(err)
		}
		if st.Exclusive() {
			if len(list) > 0 {
				t.Fatalf("%d bytes were kept for nobody", len(list))
			}
		} else {
			other := fanout.New(1, nil)
			if err := other.MergeOccupied(list); err != nil {
				t.Fatal(err)
			}
			if n, asOf := other.Occupied(); n != 1 || !asOf.Equal(at(0)) {
				t.Fatal(n, asOf)
			}
		}
		claim("a minute later", b, 60, true, 2, at(0))
		claim("which it does not finish", a, 110, false, 2, at(0))
		claim("so another takes over", a, 121, true, 3, at(0))
		if err := a.Polled(ctx, at(122), "7", at(121), nil); err != nil {
			t.Fatal(err)
		}
		if err := b.Polled(ctx, at(123), "7", at(60), nil); err != nil { // late, and older
			t.Fatal(err)
		}
		claim("the newest list counts", b, 130, false, 3, at(121))
		if ok, n, err := b.MayAsk(ctx, at(131), "7", 1, 4); !ok || n != 4 || err != nil {
			t.Fatal(ok, n, err)
		}
		if ok, n, err := b.MayAsk(ctx, at(131), "7", 1, 4); ok || n != 4 || err != nil {
			t.Fatal("more than the day allows", ok, n, err)
		}
		claim("nor is polled", a, 300, false, 4, at(121))
		if ok, n, err := b.MayAsk(ctx, at(300), "8", 1, 4); !ok || n != 1 || err != nil {
			t.Fatal("another app has its own budget", ok, n, err)
		}
		tomorrow := DayOf(noon).End().Add(time.Second)
		if ok, n, err := a.MayAsk(ctx, tomorrow, "7", 1, 4); !ok || n != 1 || err != nil {
			t.Fatal("a new day", ok, n, err)
		}
		// Of a replica whose clock is two seconds behind: it counts on the new day's.
		if ok, n, err := b.MayAsk(ctx, tomorrow.Add(-2*time.Second), "7", 1, 4); !ok || n != 2 || err != nil {
			t.Fatal("yesterday's clock", ok, n, err)
		}
		// A clock that was a year ahead once does not stop polling for a year.
		if err := a.Polled(ctx, tomorrow, "7", tomorrow.AddDate(1, 0, 0), nil); err != nil {
			t.Fatal(err)
		}
		if mine, _, _, err := b.MayPoll(ctx, tomorrow.Add(time.Minute), "7", every, 1, 4); !mine || err != nil {
			t.Fatal(mine, err)
		}
	})
}
