package detect

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// Key says of a publish what its excess could be blamed on.
type Key struct {
	Caller, Event string
	// Channel is the channel's name; Observe folds its ids.
	Channel string
	// Payload is a digest of the data, 0 when it is not known.
	Payload uint64
}

// Any stands in a key for values that are not told apart.
const Any = "*"

// series is one combination of caller, event and channel pattern, or one
// caller as a whole (event and channel Any).
//
// The counters are written by Observe from any goroutine; all the rest is the
// detector's, under its lock.
type series struct {
	id                     int32
	caller, event, channel string
	whole                  *series // the caller's; nil for a caller's own

	pending atomic.Int64  // seen here since the last tick
	cost    atomic.Int64  // messages of them
	remote  atomic.Int64  // reported by other replicas since the last tick
	held    atomic.Uint64 // math.Float64bits of the allowed rate; 0: not held
	deep    atomic.Uint64 // math.Float64bits of what may come at once while it is held
	crowd   atomic.Uint32 // of a whole: 1 channels, 2 events are no longer told apart

	delta int64 // seen here, not yet exported
	price price
	watch
	top float64 // the highest rate in the open incident
	due float64 // a second: what a known episode may bring now

	// Of a whole: what was seen here and on all replicas, half forgotten in a
	// minute.
	here, everywhere float64
	// The same, half forgotten in ten minutes and not while it is held: where
	// its ordinary traffic goes, which a runaway led elsewhere does not change.
	hereBefore, everywhereBefore float64
	ordinary                     atomic.Uint64 // math.Float64bits of ordinaryHere over partHere
}

// rates finds series by key. Reading takes no lock; a new series takes one
// that is for new series alone.
//
// It is bounded: a caller that has more than maxPerCaller series, or anybody
// when there are maxSeries, is counted from then on under its event with the
// channel Any, and failing that under itself alone. So one caller cannot push
// out another's series, and every caller's total stays exact.
type rates struct {
	seed      maphash.Seed
	maxSeries int
	maxPer    int

	table atomic.Pointer[[]atomic.Pointer[slot]]

	mu      sync.Mutex // of what follows, and of writing table
	list    []*series
	callers map[string]*callerEntry
	slots   int
}

// slot binds a hash to its series. Two keys of one hash would be counted as
// one; the hash has 64 bits and a secret seed.
type slot struct {
	hash   uint64
	series *series
}

type callerEntry struct {
	whole  *series
	series int
}

func newRates(maxSeries, maxPerCaller int) *rates {
	r := &rates{seed: maphash.MakeSeed(), maxSeries: maxSeries, maxPer: maxPerCaller, callers: map[string]*callerEntry{}}
	t := make([]atomic.Pointer[slot], 1024)
	r.table.Store(&t)
	return r
}

func (r *rates) hash(caller, event string, pattern []byte) uint64 {
	h := maphash.String(r.seed, caller)
	h = h*0x9e3779b97f4a7c15 ^ maphash.String(r.seed, event)
	h = h*0x9e3779b97f4a7c15 ^ maphash.Bytes(r.seed, pattern)
	return h ^ h>>29
}

func (r *rates) lookup(hash uint64) *series {
	t := *r.table.Load()
	for i := hash; ; i++ {
		s := t[i&uint64(len(t)-1)].Load()
		if s == nil {
			return nil
		}
		if s.hash == hash {
			return s.series
		}
	}
}

// find gives the series that a key is counted under, making it if there is
// room.
func (r *rates) find(k *Key) *series {
	var buf [256]byte
	pattern := Fold(buf[:0], k.Channel)
	hash := r.hash(k.Caller, k.Event, pattern)
	if s := r.lookup(hash); s != nil {
		return s
	}
	return r.add(hash, k.Caller, k.Event, pattern)
}

var anyPattern = []byte(Any)

func (r *rates) add(hash uint64, caller, event string, pattern []byte) *series {
	// Under pressure most new keys end where others ended before.
	if w := r.lookup(r.hash(caller, Any, anyPattern)); w != nil && w.crowd.Load() > 0 {
		if s := r.lookup(r.hash(caller, event, anyPattern)); s != nil {
			return s
		}
		if w.crowd.Load() > 1 {
			return w
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.lookup(hash); s != nil {
		return s
	}
	e := r.callers[caller]
	if e == nil {
		if len(r.callers) >= r.maxSeries/4 {
			caller = Any // more callers than any configuration names
			e = r.callers[caller]
		}
		if e == nil {
			caller = strings.Clone(caller)
			e = &callerEntry{whole: r.insert(r.hash(caller, Any, anyPattern), caller, Any, Any, nil)}
			r.callers[caller] = e
		}
	}
	if e.series >= r.maxPer || len(r.list) >= r.maxSeries || caller == Any {
		e.whole.crowd.CompareAndSwap(0, 1)
		hash = r.hash(caller, event, anyPattern)
		if s := r.lookup(hash); s != nil {
			return s
		}
		// A tenth more room for events whose channels are not told apart.
		if e.series >= r.maxPer+r.maxPer/10 || len(r.list) >= r.maxSeries+r.maxSeries/10 || caller == Any {
			e.whole.crowd.Store(2)
			return e.whole
		}
		pattern = anyPattern
	}
	e.series++
	return r.insert(hash, caller, strings.Clone(event), string(pattern), e.whole)
}

func (r *rates) insert(hash uint64, caller, event, pattern string, whole *series) *series {
	s := &series{id: int32(len(r.list)), caller: caller, event: event, channel: pattern, whole: whole}
	if whole != nil {
		s.deep.Store(whole.deep.Load())
		s.held.Store(whole.held.Load())
	}
	r.list = append(r.list, s)
	t := *r.table.Load()
	if r.slots++; 2*r.slots > len(t) {
		bigger := make([]atomic.Pointer[slot], 2*len(t))
		for i := range t {
			if s := t[i].Load(); s != nil {
				place(bigger, s)
			}
		}
		t = bigger
		place(t, &slot{hash, s})
		r.table.Store(&t)
		return s
	}
	place(t, &slot{hash, s})
	return s
}

func place(t []atomic.Pointer[slot], s *slot) {
	for i := s.hash; ; i++ {
		if p := &t[i&uint64(len(t)-1)]; p.Load() == nil {
			p.Store(s)
			return
		}
	}
}

// sweep forgets the series that drop says, and numbers the rest anew.
func (r *rates) sweep(drop func(*series) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var kept []*series
	for _, e := range r.callers {
		e.series = 0
	}
	for _, s := range r.list {
		if s.whole != nil && drop(s) {
			continue
		}
		if e := r.callers[s.caller]; s.whole != nil {
			e.series++
		} else {
			s.crowd.Store(0)
		}
		s.id = int32(len(kept))
		kept = append(kept, s)
	}
	alive := make(map[*series]bool, len(kept))
	for _, s := range kept {
		alive[s] = true
	}
	old := *r.table.Load()
	t := make([]atomic.Pointer[slot], len(old))
	r.list, r.slots = kept, 0
	for i := range old {
		if s := old[i].Load(); s != nil && alive[s.series] {
			place(t, s)
			r.slots++
		}
	}
	r.table.Store(&t)
}

// all gives the series there are now. Those made later are not in it.
func (r *rates) all() []*series {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list[:len(r.list):len(r.list)]
}

// own is the series of the caller as a whole.
func (s *series) own() *series {
	if s.whole != nil {
		return s.whole
	}
	return s
}

// leastPartHere is what a replica may let pass of a contained rate though the
// caller has not sent there lately: it may be led there at any time.
const leastPartHere = 0.05

// partHere is the part of the caller's publishes that this replica sees.
func (s *series) partHere() float64 {
	o := s.own()
	if o.everywhere <= o.here || o.everywhere < 1 {
		return 1
	}
	return max(leastPartHere, o.here/o.everywhere)
}

// ordinaryHere is the part of the caller's ordinary publishes that this replica
// may expect: what it saw before, or sees now, whichever is more. Over all
// replicas these add up to two at the most.
func (s *series) ordinaryHere() float64 {
	o := s.own()
	part := s.partHere()
	if o.everywhereBefore >= 1 {
		part = max(part, min(o.hereBefore/o.everywhereBefore, 1))
	}
	return part
}
