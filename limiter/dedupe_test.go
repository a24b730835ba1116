package limiter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var k1, k2 = dkey{1, 1}, dkey{2, 2}

func TestWindowTimeline(t *testing.T) {
	const len2 = 2 * time.Second
	type step struct {
		at   time.Duration
		key  dkey
		dup  bool
		fate Fate // of a publish that is no duplicate, at once
	}
	for name, story := range map[string][]step{
		"a repeat inside the window": {
			{0, k1, false, Delivered}, {time.Second, k1, true, 0}, {len2 - 1, k1, true, 0}, {len2, k1, false, Delivered},
		},
		"a repeat does not prolong the window": {
			{0, k1, false, Delivered}, {1500 * time.Millisecond, k1, true, 0}, {2500 * time.Millisecond, k1, false, Delivered},
		},
		"another publish":         {{0, k1, false, Delivered}, {0, k2, false, Delivered}, {1, k1, true, 0}, {1, k2, true, 0}},
		"what was not sent":       {{0, k1, false, NotSent}, {1, k1, false, Delivered}, {2, k1, true, 0}},
		"what Pusher refused":     {{0, k1, false, Refused}, {1, k1, false, Delivered}},
		"what nobody knows about": {{0, k1, false, Unknown}, {1, k1, false, Delivered}},
	} {
		w := newWindow(1)
		for i, s := range story {
			ticket, dup, f := w.begin(at(s.at), s.key, len2, true)
			if dup != s.dup || f != nil {
				t.Fatalf("%s, step %d: duplicate %v, flight %v", name, i, dup, f)
			}
			if !dup {
				w.end(at(s.at), ticket, s.fate)
			}
		}
	}
}

func TestTheWindowRunsFromDelivery(t *testing.T) {
	w := newWindow(1)
	ticket, _, _ := w.begin(at(0), k1, time.Second, true)
	w.end(at(5*time.Second), ticket, Delivered)
	if _, dup, _ := w.begin(at(5900*time.Millisecond), k1, time.Second, true); !dup {
		t.Fatal("forgotten before its window ended")
	}
	if _, dup, _ := w.begin(at(6*time.Second), k1, time.Second, true); dup {
		t.Fatal("remembered after its window")
	}
}

func TestTheShorterOfTwoWindowsCounts(t *testing.T) {
	for _, c := range []struct{ first, second time.Duration }{{time.Second, time.Minute}, {time.Minute, time.Second}} {
		w := newWindow(1)
		ticket, _, _ := w.begin(at(0), k1, c.first, true)
		w.end(at(0), ticket, Delivered)
		if _, dup, _ := w.begin(at(999*time.Millisecond), k1, c.second, true); !dup {
			t.Fatalf("%v: no duplicate inside both", c)
		}
		if _, dup, _ := w.begin(at(time.Second), k1, c.second, true); dup {
			t.Fatalf("%v: a duplicate outside of the shorter", c)
		}
	}
}

// A duplicate of a publish under way waits, and learns its fate.
func TestFlight(t *testing.T) {
	for _, fate := range []Fate{Delivered, NotSent, Refused, Unknown} {
		synctest.Test(t, func(t *testing.T) {
			w := newWindow(1)
			ticket, _, _ := w.begin(time.Now(), k1, time.Second, true)
			var wg sync.WaitGroup
			for range 3 {
				_, dup, f := w.begin(time.Now(), k1, time.Second, true)
				if !dup || f == nil {
					t.Fatal("not in flight")
				}
				wg.Go(func() {
					if got := fateOf(t.Context(), f); got != fate {
						t.Errorf("waited for %v, got %v", fate, got)
					}
				})
			}
			synctest.Wait()
			time.Sleep(time.Second) // the bubble's clock
			w.end(time.Now(), ticket, fate)
			wg.Wait()
			if n := w.waiting(); n != 0 {
				t.Fatalf("%d flights are kept", n)
			}
		})
	}
}

func (w *window) waiting() (n int) {
	for i := range w.shards {
		n += len(w.shards[i].flights)
	}
	return n
}

func TestFlightWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(1)
		w.begin(time.Now(), k1, time.Second, true)
		_, _, f := w.begin(time.Now(), k1, time.Second, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if got := fateOf(ctx, f); got != Unknown || time.Since(began) != time.Second {
			t.Fatalf("%v after %v", got, time.Since(began))
		}
	})
}

// A border that never calls Done blocks nobody for ever, and its late Done changes nothing.
func TestAPublishThatNeverEnds(t *testing.T) {
	w := newWindow(1)
	lost, _, _ := w.begin(at(0), k1, time.Second, true)
	_, _, f := w.begin(at(time.Second), k1, time.Second, true)
	fresh, dup, _ := w.begin(at(pendingFor), k1, time.Second, true)
	if dup || fateOf(background, f) != Unknown {
		t.Fatal("its place is still held")
	}
	w.end(at(pendingFor), lost, Delivered)
	if _, dup, f := w.begin(at(pendingFor), k1, time.Second, true); !dup || f == nil {
		t.Fatal("the late end settled somebody else's publish")
	}
	w.end(at(pendingFor), fresh, NotSent)
	if _, dup, _ := w.begin(at(pendingFor), k1, time.Second, true); dup {
		t.Fatal("not forgotten")
	}
}

func TestWindowForgetsTheSoonestOverAndCountsIt(t *testing.T) {
	w := newWindow(1)
	for i := range ways {
		ticket, _, _ := w.begin(at(0), dkey{lo: uint64(i + 1)}, time.Duration(10-i)*time.Second, true)
		w.end(at(0), ticket, Delivered)
	}
	ticket, _, _ := w.begin(at(time.Second), dkey{lo: 100}, time.Minute, true)
	w.end(at(time.Second), ticket, Delivered)
	if n := w.lost.Load(); n != 1 {
		t.Fatalf("lost %d, want 1", n)
	}
	for i := range ways {
		_, dup, _ := w.begin(at(time.Second), dkey{lo: uint64(i + 1)}, time.Minute, false)
		if want := i != ways-1; dup != want {
			t.Fatalf("key %d: duplicate %v, want %v", i+1, dup, want)
		}
		if !dup {
			break
		}
	}
}

// A publish under way keeps its place: who waits for it must be woken. What finds none goes out
// unrecorded.
func TestWindowNeverForgetsWhatIsUnderWay(t *testing.T) {
	w := newWindow(1)
	for i := range ways {
		w.begin(at(0), dkey{lo: uint64(i + 1)}, time.Second, true)
	}
	ticket, dup, _ := w.begin(at(0), dkey{lo: 100}, time.Second, true)
	if dup || ticket.serial != 0 || w.lost.Load() != 1 {
		t.Fatalf("%v, %v, lost %d", ticket, dup, w.lost.Load())
	}
	w.end(at(0), ticket, Delivered) // changes nothing
	for i := range ways {
		if _, dup, f := w.begin(at(1), dkey{lo: uint64(i + 1)}, time.Second, true); !dup || f == nil {
			t.Fatalf("key %d was forgotten under way", i+1)
		}
	}
}

func TestWindowGrowsAndKeepsAll(t *testing.T) {
	w := newWindow(1 << 17)
	const n = 20_000
	key := func(i int) dkey {
		r := rand.New(rand.NewPCG(3, uint64(i)))
		return dkey{r.Uint64(), r.Uint64()}
	}
	tickets := make([]ticket, n)
	for i := range n {
		tickets[i], _, _ = w.begin(at(0), key(i), time.Minute, true)
	}
	for i := range n {
		w.end(at(1), tickets[i], Delivered)
	}
	for i := range n {
		if _, dup, _ := w.begin(at(2), key(i), time.Minute, true); !dup {
			t.Fatalf("publish %d was forgotten; lost %d", i, w.lost.Load())
		}
	}
}

// Whatever happens in whatever order: a duplicate always has a twin that was delivered inside the
// window, or is under way; and while nothing had to be forgotten, none is missed.
func TestDedupeNeverSwallowsTheOnlyCopy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, err := New(Policy{Rules: []Rule{
			normal(Rule{Name: "long", Match: Match{Event: []string{"long"}}, Dedupe: 3 * time.Second}),
			normal(Rule{Name: "short", Match: Match{Event: []string{"*"}}, Dedupe: time.Second, Rates: []Rate{{PerSecond: 2, Burst: 3}}}),
		}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		type going struct {
			key  string
			c    Claim
			v    Verdict
			fate *Fate // set when it ends
		}
		type landing struct {
			f    *Flight
			fate *Fate
		}
		type delivery struct {
			at     time.Duration
			window time.Duration
		}
		last := map[string]delivery{}
		underWay := map[string]*going{}
		var waits []landing
		var open []*going
		var clock time.Duration
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			clock += time.Duration(rapid.IntRange(0, 900).Draw(t, "ms")) * time.Millisecond
			if len(open) > 0 && rapid.Bool().Draw(t, "end one") {
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				g := open[i]
				open = append(open[:i], open[i+1:]...)
				fate := Fate(rapid.IntRange(0, 3).Draw(t, "fate"))
				a.Done(at(clock), &g.c, &g.v, fate, 1)
				*g.fate = fate
				delete(underWay, g.key)
				if fate == Delivered {
					last[g.key] = delivery{clock, g.v.Rule.spec.Dedupe}
				}
				continue
			}
			event := rapid.SampledFrom([]string{"long", "other"}).Draw(t, "event")
			channels := rapid.SampledFrom([][]string{{"a"}, {"b"}, {"a", "b"}, {"b", "a"}, {"a", "a"}}).Draw(t, "channels")
			digest := rapid.Uint64Range(1, 2).Draw(t, "digest") * 2
			if event == "long" {
				digest++ // the event is part of the digest
			}
			g := &going{c: claim(event, channels...).saying(digest), fate: new(Fate)}
			g.key = fmt.Sprint(digest, len(channels), channels[0] == channels[len(channels)-1], channels[0])
			if len(channels) == 2 && channels[0] != channels[1] {
				g.key = fmt.Sprint(digest, "both")
			}
			g.v = a.Admit(background, at(clock), &g.c)
			twin, fresh := last[g.key]
			fresh = fresh && clock-twin.at < min(twin.window, g.v.Rule.spec.Dedupe)
			flying := underWay[g.key]
			switch {
			case g.v.Outcome == Deduplicated && g.v.Flight != nil:
				if flying == nil {
					t.Fatalf("waits for nothing: %q", g.key)
				}
				waits = append(waits, landing{g.v.Flight, flying.fate})
			case g.v.Outcome == Deduplicated:
				if !fresh {
					t.Fatalf("at %v %q was swallowed; its last twin: %+v", clock, g.key, twin)
				}
			default:
				if fresh || flying != nil {
					t.Fatalf("at %v %q was missed (%v)", clock, g.key, g.v.Outcome)
				}
				if g.v.Outcome == Sent {
					underWay[g.key] = g
					open = append(open, g)
					continue
				}
			}
			if g.v.Flight == nil {
				a.Done(at(clock), &g.c, &g.v, NotSent, 0)
			}
		}
		for _, g := range open {
			a.Done(at(clock), &g.c, &g.v, Delivered, 1)
		}
		for _, l := range waits {
			if got := fateOf(background, l.f); got != *l.fate {
				t.Fatalf("waited for %v, got %v", *l.fate, got)
			}
		}
	})
}
