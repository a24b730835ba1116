package limiter

import (
	"math"
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
	mu   sync.Mutex
	dead bool      // evicted: look the key up again
	last time.Time // the latest time seen; also says how long ago it was used
	lim  rate.Limiter
}

func newBucket(r Rate) *bucket {
	// A Limiter whose clock stands at the zero time is full at whatever time it is first used.
	b := &bucket{}
	b.lim.SetLimitAt(time.Time{}, rate.Limit(r.PerSecond))
	b.lim.SetBurstAt(time.Time{}, r.Burst)
	return b
}

// clock is now, or the last time seen if that is later. b.mu is held.
func (b *bucket) clock(now time.Time) time.Time {
	if now.Before(b.last) {
		return b.last
	}
	b.last = now
	return now
}

// full says whether forgetting the bucket would lose nothing. b.mu is held.
func (b *bucket) full(now time.Time) bool {
	return b.lim.TokensAt(b.clock(now)) >= float64(b.lim.Burst())
}

// keyedRate is a rate with one bucket a key (an event, a channel, a caller), or one in all.
type keyedRate struct {
	rate   Rate
	id     uint64 // random but stable: the same rate of the same rule has it after a reload
	reason Reason
	only   *bucket // PerApp; nil: look in the table
}

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
}

const ways = 8

type bucketSet struct {
	key [ways]uint64 // 0: free
	b   [ways]*bucket
}

type bucketShard struct {
	mu   sync.Mutex
	sets []bucketSet // a power of two
	max  int         // bound of len(sets)
	keys int
	_    [8]byte // a cache line each
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
	for i := range t.shards {
		t.shards[i].sets = make([]bucketSet, 1)
		t.shards[i].max = setsFor(maxKeys)
	}
	return t
}

// get returns the bucket of key, locked, and makes it if needed.
func (t *bucketTable) get(now time.Time, key uint64, r *Rate) *bucket {
	if key == 0 {
		key = 1
	}
	s := &t.shards[key>>(64-shardBits)]
	for {
		s.mu.Lock()
		b := s.find(key)
		if b == nil {
			b = newBucket(*r)
			t.insert(s, now, key, b)
		}
		s.mu.Unlock()
		b.mu.Lock()
		if !b.dead {
			return b
		}
		b.mu.Unlock()
	}
}

func (s *bucketShard) set(key uint64) *bucketSet { return &s.sets[key&uint64(len(s.sets)-1)] }

func (s *bucketShard) find(key uint64) *bucket {
	set := s.set(key)
	for i := range set.key {
		if set.key[i] == key {
			return set.b[i]
		}
	}
	return nil
}

// insert puts b in the table; s.mu is held.
func (t *bucketTable) insert(s *bucketShard, now time.Time, key uint64, b *bucket) {
	for {
		set := s.set(key)
		for i := range set.key {
			if set.key[i] == 0 {
				set.key[i], set.b[i] = key, b
				s.keys++
				return
			}
		}
		if i, ok := t.evict(set, now, len(s.sets) == s.max); ok {
			set.key[i], set.b[i] = key, b
			return
		}
		if len(s.sets) == s.max {
			// All eight are in use at this very moment: b serves this publish alone.
			t.lost.Add(1)
			return
		}
		s.grow()
	}
}

// evict clears one way of a full set: one whose bucket is full again, else, if force, the one
// used least recently. A bucket that somebody has locked is in use and stays.
func (t *bucketTable) evict(set *bucketSet, now time.Time, force bool) (way int, ok bool) {
	oldest := -1
	var used time.Time
	for i, b := range set.b {
		if !b.mu.TryLock() {
			continue
		}
		if b.full(now) {
			b.dead = true
			b.mu.Unlock()
			return i, true
		}
		if oldest < 0 || b.last.Before(used) {
			oldest, used = i, b.last
		}
		b.mu.Unlock()
	}
	if !force || oldest < 0 {
		return 0, false
	}
	b := set.b[oldest]
	if !b.mu.TryLock() {
		return 0, false
	}
	b.dead = true
	b.mu.Unlock()
	t.lost.Add(1)
	return oldest, true
}

// grow doubles the shard. Every set parts in two, so none can overflow.
func (s *bucketShard) grow() {
	old := s.sets
	s.sets = make([]bucketSet, 2*len(old))
	for i := range old {
		for w, key := range old[i].key {
			if key == 0 {
				continue
			}
			set := s.set(key)
			for n := range set.key {
				if set.key[n] == 0 {
					set.key[n], set.b[n] = key, old[i].b[w]
					break
				}
			}
		}
	}
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
