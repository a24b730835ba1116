package quota

import (
	"strconv"
	"testing"
	"time"

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
		var census Census
		census.Add("room")
		f := NewFanout(1, nil)
		if err := a.Polled(ctx, at(3), "7", at(0), f.LearnOccupied(at(0), &census)); err != nil {
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
			other := NewFanout(1, nil)
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

// A question is asked when the messages that would be miscounted without it are more than it costs.
func TestWhenAQuestionIsWorthItsPrice(t *testing.T) {
	for _, c := range []struct {
		name  string
		d     Doubt
		price float64
		ask   int64
		want  bool
	}{
		{"nothing is published", Doubt{0, 100, FromDefault, 0, 1}, 1, 1, false},
		{"one publish, and the guess is off by itself: no gain", Doubt{1, 1, FromDefault, 0, 1}, 1, 1, false},
		{"a little more", Doubt{1.01, 1, FromDefault, 0, 1}, 1, 1, true},
		{"where asking costs two", Doubt{1.01, 1, FromDefault, 0, 1}, 1, 2, false},
		{"and then it takes two", Doubt{2.01, 1, FromDefault, 0, 1}, 1, 2, true},
		{"a question that costs nothing still costs a call", Doubt{0.5, 1, FromDefault, 0, 1}, 1, 0, false},
		{"where messages cost nothing", Doubt{1e6, 100, FromDefault, 0, 1}, 0, 1, false},
		{"in another currency it is the same", Doubt{1.01, 1, FromDefault, 0, 1}, 49. / 30e6, 1, true},
		{"guesses that were never wrong", Doubt{1e6, 100, FromDefault, 0, 0}, 1, 1, false},
		{"counts known to be right to a hundredth", Doubt{100, 1, FromDefault, 0, 0.01}, 1, 1, false},
		{"for many subscribers", Doubt{100, 2, FromDefault, 0, 0.01}, 1, 1, true},
		{"an empty channel counts as one that could be", Doubt{2, 0, FromPoll, time.Hour, 1}, 1, 1, true},
		{"asked a moment ago", Doubt{1000, 100, FromInfo, 0, 1}, 1, 1, false},
		{"asked half a half-life ago", Doubt{3.5, 1, FromInfo, 15 * time.Minute, 1}, 1, 1, true},
		{"the same but less published", Doubt{3.4, 1, FromInfo, 15 * time.Minute, 1}, 1, 1, false},
		{"a webhook's word lasts", Doubt{3.5, 1, FromWebhook, 15 * time.Minute, 1}, 1, 1, false},
		{"from the future", Doubt{1000, 100, FromInfo, -time.Hour, 1}, 1, 1, false},
	} {
		if got := c.d.Worth(c.price, c.ask); got != c.want {
			t.Errorf("%s: %v, the expected error is %.3f messages", c.name, got, c.d.ExpectedError())
		}
	}
}

func TestSurprise(t *testing.T) {
	var s Surprise
	if off, checked := s.Off(FromDefault); off != 1 || checked {
		t.Fatal(off, checked)
	}
	s.Note(FromDefault, 1, 1)
	if off, checked := s.Off(FromDefault); off != 0.5 || !checked {
		t.Fatal("after one that was right:", off, checked)
	}
	for range 500 {
		s.Note(FromDefault, 3, 3)
	}
	if off, _ := s.Off(FromDefault); off != 0.01 {
		t.Fatal("never wrong, and still to be asked now and then:", off)
	}
	for range 500 {
		s.Note(FromDefault, 2, 6)
	}
	if off, _ := s.Off(FromDefault); off < 1.99 || off > 2.01 {
		t.Fatal("off by twice itself:", off)
	}
	s.Note(FromDefault, 1, 1e9)
	if off, _ := s.Off(FromDefault); off > 60 {
		t.Fatal("one giant makes all doubtful:", off)
	}
	if off, checked := s.Off(FromInfo); off != 1 || checked {
		t.Fatal("another source is another matter:", off, checked)
	}
	s.Note(FanoutSource(7), 1, 2)
	if off, checked := s.Off(FanoutSource(7)); off != 1 || checked {
		t.Fatal(off, checked)
	}
}

// Among a hundred thousand channels that get a publish each the few busy ones are found, with about their rates, and
// what is no longer busy is forgotten.
func TestBusyChannels(t *testing.T) {
	b := &Busy{}
	now := noon
	names := make([][]string, 100_000)
	for i := range names {
		names[i] = []string{"quiet-" + strconv.Itoa(i)}
	}
	room, hall := []string{"room"}, []string{"hall", "#server-to-user-7"}
	for range 300 {
		now = now.Add(time.Second)
		for i := range 40 {
			b.Note(now, room, 2)
			if i%4 == 0 {
				b.Note(now, hall, 101)
			}
			b.Note(now, names[(now.Second()*1000+i*17)%len(names)], 2)
		}
		b.Top(now, 1)
	}
	top := b.Top(now, 2)
	if len(top) != 2 || top[0].Channel != "hall" || top[1].Channel != "room" {
		t.Fatal(top)
	}
	if r := top[0].PerSecond; r < 5 || r > 20 {
		t.Errorf("hall gets 10 a second, not %.1f", r)
	}
	if r := top[1].PerSecond; r < 20 || r > 80 {
		t.Errorf("room gets 40 a second, not %.1f", r)
	}
	if n := testing.AllocsPerRun(1000, func() { b.Note(now, room, 2); b.Note(now, names[len(names)-1], 2) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	for range 20 {
		now = now.Add(time.Minute)
		top = b.Top(now, 10)
	}
	if len(top) != 0 {
		t.Errorf("still busy after 20 minutes of nothing: %v", top)
	}
}

func TestAtLeastThatMany(t *testing.T) {
	f := NewFanout(2, nil)
	f.LearnAtLeast(noon, "presence-a", 1, FromPoll)
	if n, src, _ := f.Explain("presence-a"); n != 2 || src != FromDefault {
		t.Fatal("two stands", n, src)
	}
	f.LearnAtLeast(noon, "presence-a", 9, FromPoll)
	if n, src, _ := f.Explain("presence-a"); n != 9 || src != FromPoll {
		t.Fatal(n, src)
	}
}
