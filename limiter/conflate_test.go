package limiter

import (
	"testing"
	"time"
)

func TestABurstGoesOutFirstAndNewest(t *testing.T) {
	a, err := New(Policy{App: "1", Rules: []Rule{{Conflate: time.Second, Dedupe: time.Second}}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t0 := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	story := []struct {
		ms      int
		event   string
		channel string
		digest  uint64
		late    bool
		fate    Fate
		want    Outcome
		due     int
	}{
		{0, "e", "c", 1, false, Delivered, Sent, 0},
		{100, "e", "c", 2, false, 0, Conflated, 1000},
		{100, "e", "d", 3, false, Delivered, Sent, 0},   // another channel
		{100, "f", "c", 4, false, Delivered, Sent, 0},   // another event
		{900, "e", "c", 5, false, 0, Conflated, 1000},   // a newer value, the same end
		{900, "e", "g", 1, false, Delivered, Sent, 0},   //
		{901, "e", "g", 1, false, 0, Deduplicated, 0},   // the delivered value again is no news
		{902, "e", "c", 1, false, 0, Conflated, 1000},   // but it is where another was to follow it
		{903, "e", "c", 5, false, 0, Conflated, 1000},   //
		{1010, "e", "c", 5, true, Delivered, Sent, 0},   // the newest goes out, and begins the next window
		{1500, "e", "c", 6, false, 0, Conflated, 2010},  // of which this is the first to wait
		{2010, "e", "c", 6, true, Delivered, Sent, 0},   //
		{3011, "e", "c", 7, false, NotSent, Sent, 0},    // quiet for a window: at once; but it fails
		{3012, "e", "c", 8, false, Delivered, Sent, 0},  // so the next is the first
		{3013, "e", "c", 9, false, 0, Conflated, 4012},  //
		{4100, "e", "c", 7, false, 0, Conflated, 4100},  // the held one is not out yet: it must not arrive last
		{4200, "e", "c", 6, false, 0, Conflated, 5100},  // that began the next window
		{4300, "e", "c", 9, true, Delivered, Sent, 0},   // an old one, late: the newest still waits
		{4301, "e", "c", 8, false, 0, Conflated, 5100},  //
		{5100, "e", "c", 8, true, Delivered, Sent, 0},   //
		{6101, "e", "c", 9, false, Delivered, Sent, 0},  // quiet for a window
		{6102, "e", "c", 8, false, 0, Conflated, 7101},  //
		{70000, "e", "c", 7, false, Delivered, Sent, 0}, // nobody told of the held one: another replica sent it
		{100, "", "", 0, false, Delivered, Sent, 0},     // a read has no event and is never held
		{101, "", "", 0, false, Delivered, Sent, 0},
	}
	heldAt := map[uint64]time.Time{}
	for i, s := range story {
		c := &Claim{HeldAt: heldAt[s.digest], Caller: a.Caller("x"), Event: s.event, Digest: [2]uint64{s.digest, s.digest}, Late: s.late}
		if s.channel != "" {
			c.Channels = []string{s.channel}
		}
		v := a.Admit(t.Context(), at(s.ms), c)
		if v.Outcome != s.want {
			t.Fatalf("step %d at %d ms: %s, want %s", i, s.ms, v.Outcome, s.want)
		}
		if s.want == Conflated && !v.Due.Equal(at(s.due)) {
			t.Fatalf("step %d: due %s, want %s", i, v.Due, at(s.due))
		}
		if v.Outcome == Conflated {
			heldAt[s.digest] = at(s.ms)
		}
		a.Done(at(s.ms), c, &v, s.fate, 1)
	}
}

// What was held is on its way for longer than a window. What comes meanwhile must not overtake it.
func TestNothingOvertakesWhatIsOnItsWay(t *testing.T) {
	a, err := New(Policy{App: "1", Rules: []Rule{{Conflate: time.Second}}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t0 := time.Unix(1000, 0)
	claim := func() *Claim { return &Claim{Event: "e", Channels: []string{"c"}} }
	admit := func(ms int, c *Claim, want Outcome) *Verdict {
		t.Helper()
		v := a.Admit(t.Context(), t0.Add(time.Duration(ms)*time.Millisecond), c)
		if v.Outcome != want {
			t.Fatalf("at %d ms: %s, want %s", ms, v.Outcome, want)
		}
		return &v
	}
	done := func(ms int, c *Claim, v *Verdict, fate Fate) {
		a.Done(t0.Add(time.Duration(ms)*time.Millisecond), c, v, fate, 1)
	}
	first, held := claim(), claim()
	done(0, first, admit(0, first, Sent), Delivered)
	done(100, held, admit(100, held, Conflated), NotSent)
	late := &Claim{Event: "e", Channels: []string{"c"}, Late: true, HeldAt: t0.Add(100 * time.Millisecond)}
	flying := admit(1000, late, Sent)
	admit(2500, claim(), Conflated) // its window is over, and it is still flying
	done(2600, late, flying, Delivered)
	admit(3600, claim(), Conflated) // now that one waits
	newer := &Claim{Event: "e", Channels: []string{"c"}, Late: true, HeldAt: t0.Add(3600 * time.Millisecond)}
	refused := admit(4700, newer, Sent)
	done(4700, newer, refused, NotSent) // it did not go out: it waits on
	admit(5800, claim(), Conflated)
	newest := &Claim{Event: "e", Channels: []string{"c"}, Late: true, HeldAt: t0.Add(5800 * time.Millisecond)}
	done(6900, newest, admit(6900, newest, Sent), Delivered)
	admit(8000, claim(), Sent)
}

// The first of a burst fails while a newer value is held: that one is not forgotten.
func TestAFailedFirstKeepsWhatFollowedIt(t *testing.T) {
	b := newBursts(1000)
	t0 := time.Unix(1000, 0)
	k := dkey{lo: 1, hi: 1}
	if _, first := b.begin(t0, k, time.Second); !first {
		t.Fatal("not the first")
	}
	b.begin(t0.Add(time.Millisecond), k, time.Second)
	b.end(k)
	if due, first := b.begin(t0.Add(2*time.Millisecond), k, time.Second); first || !due.Equal(t0.Add(time.Second)) {
		t.Errorf("first %v, due %s: it overtakes what is held", first, due)
	}
}

func TestBurstsAreBounded(t *testing.T) {
	b := newBursts(0)
	t0 := time.Unix(1000, 0)
	for i := range 100_000 {
		b.begin(t0, dkey{lo: uint64(i), hi: 1}, time.Second)
	}
	n := 0
	for i := range b.shards {
		n += len(b.shards[i].until)
	}
	if n > 16*shardsNum || b.lost.Load() != int64(100_000-n) {
		t.Errorf("%d windows kept, %d not conflated", n, b.lost.Load())
	}
	if _, first := b.begin(t0.Add(2*time.Second), dkey{lo: 7, hi: 99}, time.Second); !first {
		t.Error("a new key is not the first of its burst")
	}
	if b.lost.Load() != int64(100_000-n) {
		t.Error("windows that are over were not swept")
	}
}
