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
// While a value is held, nothing newer may overtake it, or the older one would arrive last: so what
// comes after the window's end, before the held one went out, takes its place and is due at once.
//
// It is bounded: where there is no room, a publish is not conflated but judged as any other, and
// lost counts it. The windows are this replica's own; what is held is shared (delayed.Queue), so a
// border on a shared store asks it before it sends a first (Verdict.First).
type bursts struct {
	shards [shardsNum]burstShard
	most   int // keys a shard
	lost   atomic.Int64
}

type burstShard struct {
	mu    sync.Mutex
	until map[dkey]burst
	swept int64
}

// burst is one window.
type burst struct {
	until int64 // unix ns, a whole millisecond, as the store keeps due times
	held  int64 // unix ns: when the newest value was held that waits or is on its way, as far as this replica knows; 0: none
}

// heldFor is how long after its window's end a value is believed to wait still, when nobody told of
// its going out: another replica may have sent it.
const heldFor = time.Minute

func endOf(at int64, window time.Duration) int64 {
	const ms = int64(time.Millisecond)
	return (at + int64(window) + ms - 1) / ms * ms
}

func newBursts(maxKeys int) *bursts {
	b := &bursts{most: max(maxKeys/shardsNum, 16)}
	for i := range b.shards {
		b.shards[i].until = map[dkey]burst{}
	}
	return b
}

// begin reports when the publish is due; if nothing is under way it begins a window, and the publish
// is the first of its burst.
func (b *bursts) begin(now time.Time, k dkey, window time.Duration) (due time.Time, first bool) {
	s := &b.shards[k.lo%shardsNum]
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now.UnixNano()
	w, known := s.until[k]
	switch {
	case known && w.until > at:
		s.until[k] = burst{w.until, at}
		return time.Unix(0, w.until), false
	case known && w.waits(at):
		s.until[k] = burst{endOf(at, window), at}
		return now, false
	case !known && len(s.until) >= b.most && !s.sweep(at):
		b.lost.Add(1)
		return time.Time{}, true
	}
	s.until[k] = burst{until: endOf(at, window)}
	return time.Time{}, true
}

func (w burst) waits(at int64) bool { return w.held != 0 && at-w.until < int64(heldFor) }

// waits reports whether a value is held under the key.
func (b *bursts) waits(now time.Time, k dkey) bool {
	s := &b.shards[k.lo%shardsNum]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until[k].waits(now.UnixNano())
}

// sweep forgets windows that are over and reports whether that made room. It looks at all keys of
// the shard, so not more than once in 100 ms.
func (s *burstShard) sweep(at int64) bool {
	if at-s.swept < int64(100*time.Millisecond) {
		return false
	}
	s.swept = at
	before := len(s.until)
	for k, w := range s.until {
		if w.until <= at && !w.waits(at) {
			delete(s.until, k)
		}
	}
	return len(s.until) < before
}

// again begins the next window: the newest of the last one goes out now. Where a newer one has
// begun it already, that one waits.
func (b *bursts) again(now time.Time, k dkey, window time.Duration) {
	s := &b.shards[k.lo%shardsNum]
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now.UnixNano()
	if w, known := s.until[k]; known && w.until <= at || !known && len(s.until) < b.most {
		s.until[k] = burst{endOf(at, window), w.held}
	}
}

// arrived ends the waiting of a value that was held at since, if none was held after it. Until then
// what comes must not overtake it.
func (b *bursts) arrived(k dkey, since time.Time) {
	s := &b.shards[k.lo%shardsNum]
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, known := s.until[k]; known && w.held <= since.UnixNano() {
		s.until[k] = burst{until: w.until}
	}
}

// end takes a window back that a publish began which then did not go out, unless another waits for
// its end.
func (b *bursts) end(k dkey) {
	s := &b.shards[k.lo%shardsNum]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until[k].held == 0 {
		delete(s.until, k)
	}
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
	if !r.conflates(j.c) {
		return Sent
	}
	k := j.a.burstKey(j.c)
	if j.c.Late {
		j.a.bursts.again(j.now, k, r.spec.Conflate)
		return Sent
	}
	due, first := j.a.bursts.begin(j.now, k, r.spec.Conflate)
	if first {
		j.v.burst, j.v.began = k, true
		return Sent
	}
	j.v.Due = due
	return j.refuse(Conflated, NewerValue, 0)
}

// overtakes reports whether the publish would overtake one that is held. Then it takes that one's
// place, even if the same was delivered before: A, B, A within a window must end with A.
func (j *judgement) overtakes(r *CompiledRule) bool {
	return r.spec.Dedupe > 0 && r.conflates(j.c) && j.a.bursts.waits(j.now, j.a.burstKey(j.c))
}
