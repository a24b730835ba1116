package limiter

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func rateIn(tb *bucketTable, r *Rate) *keyedRate {
	return &keyedRate{rate: *r, table: tb, fill: r.fill()}
}

// lone is a bucket that no replica shares.
func lone(r Rate) *bucket { return newBucket(rateIn(newBucketTable(1), &r), 1, "") }

func TestBucketTimeline(t *testing.T) {
	b := lone(Rate{PerSecond: 2, Burst: 3})
	for _, step := range []struct {
		at   time.Duration
		ok   bool
		wait time.Duration
	}{
		{0, true, 0}, {0, true, 0}, {0, true, 0},
		{0, false, 500 * time.Millisecond},
		{200 * time.Millisecond, false, 300 * time.Millisecond},
		{500 * time.Millisecond, true, 0},
		{500 * time.Millisecond, false, 500 * time.Millisecond},
		{400 * time.Millisecond, false, 500 * time.Millisecond}, // a time before the last one changes nothing
		{time.Hour, true, 0}, {time.Hour, true, 0}, {time.Hour, true, 0},
		{time.Hour, false, 500 * time.Millisecond},
	} {
		wait, ok := b.ask(at(step.at), 1)
		if ok {
			b.take(1)
		}
		if ok != step.ok || wait != step.wait {
			t.Fatalf("at %v: %v, %v; want %v, %v", step.at, ok, wait, step.ok, step.wait)
		}
	}
}

func TestUntilTokenIsBounded(t *testing.T) {
	if d := untilToken(0, 1e-9); d != 24*time.Hour {
		t.Fatal(d)
	}
	if d := untilToken(0.9999999, 1e9); d != time.Millisecond {
		t.Fatal(d)
	}
}

// golang.org/x/time/rate sets its clock back when it is asked about an earlier time, and then
// counts the same seconds twice. Two goroutines that read the clock a little apart are enough.
func TestAnEarlierTimeMintsNothing(t *testing.T) {
	b := lone(Rate{PerSecond: 10, Burst: 10})
	taken := 0
	for i := range 1000 {
		now := at(time.Second)
		if i%2 == 0 {
			now = at(0)
		}
		if _, ok := b.ask(now, 1); ok {
			b.take(1)
			taken++
		}
	}
	if taken > 20 {
		t.Fatalf("%d tokens in a second from a bucket of 10/s, burst 10", taken)
	}
}

// Whatever the order and whatever the clocks: never more than burst + rate × time, and when asked
// in good time no less.
func TestBucketNeverGivesMoreThanBurstAndRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{PerSecond: float64(rapid.IntRange(1, 50).Draw(t, "rate")), Burst: rapid.IntRange(1, 20).Draw(t, "burst")}
		b := lone(r)
		var clock time.Duration
		var given []time.Duration
		for range rapid.IntRange(1, 200).Draw(t, "asks") {
			clock += time.Duration(rapid.IntRange(0, 100).Draw(t, "step")) * time.Millisecond
			now := clock - time.Duration(rapid.IntRange(0, 300).Draw(t, "late"))*time.Millisecond
			if _, ok := b.ask(at(now), 1); !ok {
				continue
			}
			if rapid.Bool().Draw(t, "take") {
				b.take(1)
				given = append(given, clock)
			}
		}
		for i := range given {
			for j := i; j < len(given); j++ {
				most := float64(r.Burst) + r.PerSecond*(given[j]-given[i]).Seconds()
				// A late asker may take what its bucket had when the clock was earlier.
				most += r.PerSecond * 0.3
				if n := float64(j - i + 1); n > most+1e-6 {
					t.Fatalf("%v tokens between %v and %v, at most %v", n, given[i], given[j], most)
				}
			}
		}
	})
}

// oneSet is keys that share one set of a table of one set a shard.
func oneSet(n int) []uint64 {
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = uint64(i+1) << 16
	}
	return keys
}

func spend(tb *bucketTable, now time.Time, key uint64, r *Rate) bool {
	b := tb.get(now, key, rateIn(tb, r), "")
	defer b.mu.Unlock()
	_, ok := b.ask(now, 1)
	if ok {
		b.take(1)
	}
	return ok
}

func TestTableForgetsFullBucketsFirst(t *testing.T) {
	tb := newBucketTable(1) // one set of eight a shard
	slow, fast := &Rate{PerSecond: 0.001, Burst: 1}, &Rate{PerSecond: 1000, Burst: 1}
	keys := oneSet(40)
	for _, k := range keys[:ways-1] {
		spend(tb, at(0), k, slow) // empty for long
	}
	for i, k := range keys[ways-1:] {
		spend(tb, at(time.Duration(i)*time.Second), k, fast) // full again when the next comes
	}
	for _, k := range keys[:ways-1] {
		if spend(tb, at(time.Minute), k, slow) {
			t.Fatal("an empty bucket was forgotten although a full one was there")
		}
	}
	if n := tb.lost.Load(); n != 0 || tb.len() != ways {
		t.Fatalf("lost %d, holds %d", n, tb.len())
	}
}

func TestTableForgetsTheLeastRecentlyUsedAndCountsIt(t *testing.T) {
	tb := newBucketTable(1)
	slow := &Rate{PerSecond: 0.001, Burst: 1}
	keys := oneSet(ways + 1)
	for i, k := range keys[:ways] {
		spend(tb, at(time.Duration(i)*time.Second), k, slow)
	}
	spend(tb, at(time.Minute), keys[0], slow) // refused, but a use: keys[1] is now the oldest
	spend(tb, at(time.Minute), keys[ways], slow)
	if n := tb.lost.Load(); n != 1 {
		t.Fatalf("lost %d, want 1", n)
	}
	if spend(tb, at(time.Minute), keys[0], slow) {
		t.Fatal("the one used a moment ago was forgotten")
	}
	if !spend(tb, at(time.Minute), keys[1], slow) {
		t.Fatal("the one used least recently was kept")
	}
}

func TestTableGrowsForBusyKeysAndNotForIdleOnes(t *testing.T) {
	tb := newBucketTable(1 << 20)
	r := &Rate{PerSecond: 100, Burst: 1}
	key := func(i int) uint64 { return rand.New(rand.NewPCG(7, uint64(i))).Uint64() }
	for i := range 100_000 {
		spend(tb, at(time.Duration(i)*time.Millisecond), key(i), r)
	}
	// 10 s of 1000 keys a second are busy; the rest is idle and full, and goes when its place is asked for.
	if n := tb.len(); n < 10_000 || n > 70_000 {
		t.Fatalf("%d keys are kept of 10,000 busy ones", n)
	}
	if tb.lost.Load() != 0 {
		t.Fatalf("lost %d", tb.lost.Load())
	}
}

func TestTableKeepsToItsBound(t *testing.T) {
	const bound = 1 << 13
	tb := newBucketTable(bound)
	slow := &Rate{PerSecond: 0.001, Burst: 2}
	r := rand.New(rand.NewPCG(1, 2))
	for range bound / 2 {
		spend(tb, at(0), r.Uint64(), slow)
	}
	if lost := tb.lost.Load(); lost > bound/2/40 {
		t.Fatalf("half full, %d of %d forgotten", lost, bound/2)
	}
	for range 20 * bound {
		spend(tb, at(0), r.Uint64(), slow)
	}
	if n := tb.len(); n > bound {
		t.Fatalf("%d keys, the bound is %d", n, bound)
	}
}

// Who looked a bucket up before it was evicted, and locks it after, gets the key's new one.
func TestAnEvictedBucketIsNotHandedOut(t *testing.T) {
	r := &Rate{PerSecond: 1, Burst: 1}
	const key = 1 << 16
	for range 3000 {
		tb := newBucketTable(1)
		old := tb.get(at(0), key, rateIn(tb, r), "")
		got := make(chan *bucket)
		go func() {
			b := tb.get(at(0), key, rateIn(tb, r), "")
			b.mu.Unlock()
			got <- b
		}()
		runtime.Gosched() // most of the time it is waiting for old by now
		s := &tb.shards[0]
		s.mu.Lock()
		s.set(key)[0].key.Store(0)
		s.mu.Unlock()
		old.dead = true
		old.mu.Unlock()
		if <-got == old {
			t.Fatal("a dead bucket was handed out")
		}
	}
}

// Many goroutines, few keys, two buckets each, evictions all the time: no deadlock, and no bucket
// that was not forgotten gives more than it may.
func TestTableUnderContention(t *testing.T) {
	tb := newBucketTable(1)
	busy := &Rate{PerSecond: 1, Burst: 50}
	other := &Rate{PerSecond: 1e6, Burst: 1}
	keys := oneSet(30)
	var taken [4]atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				now := at(time.Duration(i) * time.Microsecond)
				if k := (g + i) % 4; spend(tb, now, keys[k], busy) {
					taken[k].Add(1)
				}
				spend(tb, now.Add(time.Second), keys[4+(g*7+i)%26], other)
			}
		})
	}
	wg.Wait()
	if tb.lost.Load() > 0 {
		return // some key got a fresh bucket: nothing to say about its sum
	}
	for k := range taken {
		if n := taken[k].Load(); n > 50 {
			t.Fatalf("key %d gave %d tokens of 50", k, n)
		}
	}
}

func ExampleParseRate() {
	r, _ := ParseRate("5/s per channel")
	fmt.Println(r.PerSecond, r.Burst, r.Per)
	// Output: 5 5 channel
}
