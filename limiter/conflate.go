package limiter

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// bursts knows which channels and events are in a burst: the first publish of one goes out at once
// and begins a window; what comes inside it is held, and the newest of it goes out at its end,
// which begins the next window. A channel and event that is quiet for a window is forgotten.
//
// It is bounded: where there is no room, a publish is not conflated but judged as any other, and
// lost counts it. The windows are this replica's own; what is held is shared (quota.Shelf), so n
// replicas that get the same channel's burst send at most n firsts and then one newest a window.
type bursts struct {
	shards [shardsNum]burstShard
	most   int // keys a shard
	lost   atomic.Int64
}

type burstShard struct {
	mu    sync.Mutex
	until map[dkey]int64 // unix ns
	swept int64
}

func newBursts(maxKeys int) *bursts {
	b := &bursts{most: max(maxKeys/shardsNum, 16)}
	for i := range b.shards {
		b.shards[i].until = map[dkey]int64{}
	}
	return b
}

// begin reports the end of the window that now lies in; if there is none it begins one, and the
// publish is the first of its burst.
func (b *bursts) begin(now time.Time, k dkey, window time.Duration) (until time.Time, first bool) {
	s := &b.shards[k.lo%shardsNum]
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now.UnixNano()
	end, known := s.until[k]
	if known && end > at {
		return time.Unix(0, end), false
	}
	if !known && len(s.until) >= b.most && !s.sweep(at) {
		b.lost.Add(1)
		return time.Time{}, true
	}
	s.until[k] = at + int64(window)
	return time.Time{}, true
}

// sweep forgets windows that are over and reports whether that made room. It looks at all keys of
// the shard, so not more than once in 100 ms.
func (s *burstShard) sweep(at int64) bool {
	if at-s.swept < int64(100*time.Millisecond) {
		return false
	}
	s.swept = at
	before := len(s.until)
	for k, end := range s.until {
		if end <= at {
			delete(s.until, k)
		}
	}
	return len(s.until) < before
}

// again begins the next window: the newest of the last one goes out now.
func (b *bursts) again(now time.Time, k dkey, window time.Duration) {
	s := &b.shards[k.lo%shardsNum]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.until[k]; known || len(s.until) < b.most {
		s.until[k] = now.UnixNano() + int64(window)
	}
}

// end takes a window back that a publish began which then did not go out.
func (b *bursts) end(k dkey) {
	s := &b.shards[k.lo%shardsNum]
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.until, k)
}

// burstKey is what a publish is conflated by: its event, its channels in any order, and the claim's
// own part.
func (a *App) burstKey(c *Claim) dkey {
	lo, hi := maphash.String(a.seed, c.Event), maphash.String(a.seed2, c.Event)
	k := a.identity(&Claim{Channels: c.Channels, Digest: c.Group})
	return dkey{lo: k.lo + lo*3, hi: k.hi + hi*5}
}

// conflate is the step between dedupe and buckets.
func (j *judgement) conflate(r *CompiledRule) Outcome {
	if r.spec.Conflate == 0 || j.c.Event == "" {
		return Sent
	}
	k := j.a.burstKey(j.c)
	if j.c.Late {
		j.a.bursts.again(j.now, k, r.spec.Conflate)
		return Sent
	}
	until, first := j.a.bursts.begin(j.now, k, r.spec.Conflate)
	if first {
		j.v.burst, j.v.began = k, true
		return Sent
	}
	j.v.Due = until
	return j.refuse(Conflated, NewerValue, 0)
}
