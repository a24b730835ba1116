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
		{100, "e", "d", 3, false, Delivered, Sent, 0},  // another channel
		{100, "f", "c", 4, false, Delivered, Sent, 0},  // another event
		{900, "e", "c", 5, false, 0, Conflated, 1000},  // a newer value, the same end
		{901, "e", "c", 1, false, 0, Deduplicated, 0},  // the delivered value again is no news
		{1010, "e", "c", 5, true, Delivered, Sent, 0},  // the newest goes out, and begins the next window
		{1500, "e", "c", 6, false, 0, Conflated, 2010}, // of which this is the first to wait
		{2010, "e", "c", 6, true, Delivered, Sent, 0},  //
		{3011, "e", "c", 7, false, NotSent, Sent, 0},   // quiet for a window: at once; but it fails
		{3012, "e", "c", 8, false, Delivered, Sent, 0}, // so the next is the first
		{3013, "e", "c", 9, false, 0, Conflated, 4012}, //
		{100, "", "", 0, false, Delivered, Sent, 0},    // a read has no event and is never held
		{101, "", "", 0, false, Delivered, Sent, 0},
	}
	for i, s := range story {
		c := &Claim{Caller: a.Caller("x"), Event: s.event, Digest: [2]uint64{s.digest, s.digest}, Late: s.late}
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
		a.Done(at(s.ms), c, &v, s.fate, 1)
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
