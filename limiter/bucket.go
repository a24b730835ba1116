package limiter

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// bucket is one token bucket. Its arithmetic is rate.Limiter's; the mutex around it is there for
// three things that rate.Limiter does not promise by itself:
//
//   - several buckets are looked at and then taken from as one step (see tokens);
//   - a time that lies before the last one mints no tokens. rate.Limiter sets its clock back to
//     such a time and then counts the same seconds again;
//   - a bucket that was evicted is never taken from again.
//
// A goroutine that locks several does it in the order of tokens.gather, and never waits for one
// while it has a shard of the table locked. So no two can wait for one another.
type bucket struct {
	key  uint64     // never changes
	of   *keyedRate // likewise; who shares the rate shares it
	name string     // of what it counts

	mu     sync.Mutex
	dead   bool      // evicted: look the key up again
	queued bool      // it has news for the other replicas
	gen    uint32    // of the split that its share follows; 0: it was never used
	day    int32     // of a quota: the day that its tokens are of
	sure   int32     // tokens that are there without asking lim: they only grow, but for those taken
	last   time.Time // the latest time seen; also says how long ago it was used
	lim    rate.Limiter
	sh     *share // nil: nobody but this replica needs to know of it
}

// newBucket makes a bucket that gets its share, full, when it is first used.
func newBucket(of *keyedRate, key uint64, name string) *bucket {
	return &bucket{of: of, key: key, name: name}
}

// ask says whether there are n tokens at now, and if not, how long until there are. b.mu is held.
func (b *bucket) ask(now time.Time, n int32) (wait time.Duration, ok bool) {
	if now.After(b.last) {
		b.last = now
	}
	if b.of.rate.Day {
		b.newDay()
	}
	if t := b.of.table; b.gen == 0 || b.gen != t.gen.Load() || b.sh != nil {
		b.follow(t, n)
	}
	if b.sure >= n {
		return 0, true
	}
	left := b.lim.TokensAt(b.last)
	if left < float64(n) {
		return b.refused(left, n), false
	}
	b.sure = int32(min(left, math.MaxInt32))
	if b.of.table.many.Load() && left < float64(b.lim.Burst())/2 {
		b.near()
	}
	return 0, true
}

// take takes the tokens that ask found. b.mu has been held since.
func (b *bucket) take(n int32) {
	b.lim.AllowN(b.last, int(n))
	b.sure -= n
	if b.sh != nil {
		b.spent(n)
	}
}

// full says whether forgetting the bucket would lose nothing. It is no use of the bucket. b.mu is
// held.
func (b *bucket) full(now time.Time) bool {
	if b.sh != nil && b.sh.managed {
		return false // the others would not know
	}
	return b.gen != 0 && b.lim.TokensAt(now) >= float64(b.lim.Burst())
}

// keyedRate is a rate with one bucket a key (an event, a channel, a caller), or one in all.
type keyedRate struct {
	rate   Rate
	id     uint64 // random but stable: the same rate of the same rule has it after a reload
	whose  string // for people
	wide   string // the same on all replicas and after a restart
	reason Reason
	only   *bucket // PerApp; nil: look in the table
	table  *bucketTable
	fill   time.Duration
	part   *part // not nil: it counts by this part of a channel's name
}

// key is where the bucket of something with this hash lies; never 0.
func (k *keyedRate) key(hash uint64) uint64 { return max(k.id^hash, 1) }

// bucketTable holds the buckets that callers can grow, by a seeded 64-bit hash of rate and key.
// It is bounded: when a key is new and its place is full, a bucket that is full again goes, since
// a fresh one is just the same; failing that, the one used least recently goes, and its key starts
// with a full bucket if it comes back. lost counts the second kind.
//
// Two keys with the same hash share a bucket; among a million keys the chance that any two do is
// below 1 in 10 million, and nobody outside knows the seed.
//
// A place is one of eight ways in a set, so a table as full as its bound may forget a little
// before the bound is reached: at half of it, one key in about fifty.
type bucketTable struct {
	shards []bucketShard
	lost   atomic.Int64
	sharing
}

const ways = 8

// bucketSet is two cache lines. A key that is there is found without a lock; what changes the set
// holds the lock of its shard.
type bucketSet [ways]struct {
	key atomic.Uint64 // 0: free
	b   atomic.Pointer[bucket]
}

type bucketShard struct {
	sets atomic.Pointer[[]bucketSet] // a power of two
	mu   sync.Mutex
	max  int // bound of the number of sets
	keys int
	_    [32]byte // a cache line each
}

const (
	shardBits = 7
	shardsNum = 1 << shardBits
)

// setsFor is how many sets of eight each shard may have so that all hold about n keys.
func setsFor(n int) int {
	sets := 1
	for sets*ways*shardsNum < n {
		sets *= 2
	}
	return sets
}

func newBucketTable(maxKeys int) *bucketTable {
	t := &bucketTable{shards: make([]bucketShard, shardsNum)}
	t.start()
	for i := range t.shards {
		sets := make([]bucketSet, 1)
		t.shards[i].sets.Store(&sets)
		t.shards[i].max = setsFor(maxKeys)
	}
	return t
}

func (t *bucketTable) shard(key uint64) *bucketShard { return &t.shards[key>>(64-shardBits)] }

// find is the bucket of key, nil if it has none. It may be evicted the next moment.
func (t *bucketTable) find(key uint64) *bucket {
	set := t.shard(key).set(key)
	for i := range set {
		if set[i].key.Load() == key {
			if b := set[i].b.Load(); b != nil && b.key == key {
				return b
			}
		}
	}
	return nil
}

// get returns the bucket of key, locked, and makes it if needed. The name is copied if it is kept.
func (t *bucketTable) get(now time.Time, key uint64, k *keyedRate, name string) *bucket {
	for {
		b := t.find(key)
		if b == nil {
			b = t.findOrMake(now, key, k, name)
		}
		b.mu.Lock()
		if !b.dead {
			return b
		}
		b.mu.Unlock()
	}
}

func (t *bucketTable) findOrMake(now time.Time, key uint64, k *keyedRate, name string) *bucket {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := t.find(key); b != nil {
		return b
	}
	b := newBucket(k, key, strings.Clone(name))
	t.insert(s, now, b)
	return b
}

func (s *bucketShard) set(key uint64) *bucketSet {
	sets := *s.sets.Load()
	return &sets[key&uint64(len(sets)-1)]
}

// put fills a way of the set. Who reads it meanwhile sees the old bucket or the new one, and
// knows by its key which.
func (set *bucketSet) put(way int, b *bucket) {
	set[way].b.Store(b)
	set[way].key.Store(b.key)
}

func (set *bucketSet) free() (way int, ok bool) {
	for i := range set {
		if set[i].key.Load() == 0 {
			return i, true
		}
	}
	return 0, false
}

// insert puts b in the table; s.mu is held.
func (t *bucketTable) insert(s *bucketShard, now time.Time, b *bucket) {
	for {
		set := s.set(b.key)
		if i, ok := set.free(); ok {
			set.put(i, b)
			s.keys++
			return
		}
		atBound := len(*s.sets.Load()) == s.max
		if i, ok := t.evict(set, now, atBound); ok {
			set.put(i, b)
			return
		}
		if atBound {
			// All eight are in use at this very moment: b serves this publish alone.
			t.lost.Add(1)
			return
		}
		s.grow()
	}
}

// evict clears one way of a full set: one whose bucket is full again. Below the bound it must also
// have been idle for a while, else it is cheaper to grow; at the bound, if none is full, the one
// used least recently goes. A bucket that somebody has locked is in use and stays.
func (t *bucketTable) evict(set *bucketSet, now time.Time, atBound bool) (way int, ok bool) {
	oldest := -1
	var used time.Time
	for i := range set {
		b := set[i].b.Load()
		if !b.mu.TryLock() {
			continue
		}
		last := b.last
		if (atBound || now.Sub(last) >= idle) && b.full(now) {
			b.dead = true
			b.mu.Unlock()
			return i, true
		}
		b.mu.Unlock()
		if oldest < 0 || last.Before(used) {
			oldest, used = i, last
		}
	}
	if !atBound || oldest < 0 {
		return 0, false
	}
	b := set[oldest].b.Load()
	if !b.mu.TryLock() {
		return 0, false
	}
	b.dead = true
	t.evicted(b)
	b.mu.Unlock()
	t.lost.Add(1)
	return oldest, true
}

// idle is how long a key must have been silent before it makes room below the bound.
const idle = 10 * time.Second

// grow doubles the shard; s.mu is held. Every set parts in two, so none can overflow. Who still
// reads the old sets finds the same buckets there.
func (s *bucketShard) grow() {
	old := *s.sets.Load()
	sets := make([]bucketSet, 2*len(old))
	for i := range old {
		for w := range old[i] {
			if b := old[i][w].b.Load(); b != nil {
				set := &sets[b.key&uint64(len(sets)-1)]
				if n, ok := set.free(); ok {
					set.put(n, b)
				}
			}
		}
	}
	s.sets.Store(&sets)
}

// len is how many keys are known.
func (t *bucketTable) len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.keys
		s.mu.Unlock()
	}
	return n
}

// untilToken is the time until a bucket that holds tokens (< 1) holds a whole one, rounded up to
// a millisecond, and at most a day.
func untilToken(tokens, perSecond float64) time.Duration {
	s := (1 - tokens) / perSecond
	if s >= (24 * time.Hour).Seconds() {
		return 24 * time.Hour
	}
	return time.Duration(math.Ceil(s*1000)) * time.Millisecond
}
