package limiter

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Flight is a publish that is under way and that others wait for. It is safe for concurrent use.
//
// A verdict with a Flight means: the same thing is being sent at this moment. Wait for its fate.
// If it is Delivered the verdict stands: call Done and answer. Else the verdict is void: do not
// call Done, and Admit the claim again.
type Flight struct {
	done chan struct{}
	fate Fate // set before done is closed
}

// Wait returns the fate of the publish under way, or Unknown when ctx ends first.
func (f *Flight) Wait(ctx context.Context) Fate {
	select {
	case <-f.done:
		return f.fate
	case <-ctx.Done():
		return Unknown
	}
}

// window remembers what was published, so that the same is not sent twice. An entry is pending
// from Admit to Done, then delivered until its window has passed; what was not delivered is
// forgotten at once, so a caller's own repeat is judged anew. A duplicate does not prolong the
// window: something that repeats for ever goes out once a window.
//
// It is bounded. When a place is needed an entry whose time has passed goes; failing that, the one
// whose time comes first, and lost counts it; a pending entry never goes before pendingFor. What is
// forgotten can go out twice, nothing is ever swallowed by it.
//
// Keys are 128 bits wide and seeded: no accident makes two different publishes equal.
type window struct {
	shards []windowShard
	lost   atomic.Int64
}

// pendingFor is how long a publish may be under way before it is taken for lost. It is longer
// than any upstream timeout; it only matters when a border forgets to call Done.
const pendingFor = 2 * time.Minute

type dkey struct{ lo, hi uint64 }

// ticket is an entry's place, so that Done finds it, and only it.
type ticket struct {
	key    dkey
	serial uint64 // 0: no entry
	window time.Duration
}

type windowSet struct {
	lo    [ways]uint64
	until [ways]int64 // unix ns; 0 free; above 0 delivered; below 0 pending, negated
	rest  [ways]struct {
		hi     uint64
		serial uint64
		at     int64 // delivered at, unix ns
	}
}

type windowShard struct {
	mu      sync.Mutex
	sets    []windowSet // a power of two
	max     int
	serial  uint64
	flights map[uint64]*Flight // by serial; only of entries that somebody waits for
}

func newWindow(maxKeys int) *window {
	w := &window{shards: make([]windowShard, shardsNum)}
	for i := range w.shards {
		w.shards[i].sets = make([]windowSet, 1)
		w.shards[i].max = setsFor(maxKeys)
	}
	return w
}

func (w *window) shard(k dkey) *windowShard { return &w.shards[k.hi>>(64-shardBits)] }

func (s *windowShard) set(k dkey) *windowSet { return &s.sets[k.lo&uint64(len(s.sets)-1)] }

func (set *windowSet) find(k dkey) int {
	for i := range set.lo {
		if set.lo[i] == k.lo && set.until[i] != 0 && set.rest[i].hi == k.hi {
			return i
		}
	}
	return -1
}

// begin says whether the publish is a duplicate: of one delivered (dup, no flight) or of one under
// way (dup and its flight). Else it becomes pending, and end must be called with the ticket. With
// join false nothing waits: flight stays nil.
//
// Of the two windows, that of the delivered publish and that of the new one, the shorter counts.
func (w *window) begin(now time.Time, k dkey, length time.Duration, join bool) (t ticket, dup bool, f *Flight) {
	ns := now.UnixNano()
	s := w.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.set(k)
	i := set.find(k)
	if i >= 0 {
		switch until, r := set.until[i], &set.rest[i]; {
		case until > 0 && ns < until && ns < r.at+int64(length):
			return ticket{}, true, nil
		case until < 0 && ns < -until:
			if join {
				f = s.flight(r.serial)
			}
			return ticket{}, true, f
		case until < 0:
			s.land(r.serial, Unknown)
		}
	} else if set, i = w.place(s, ns, k); i < 0 {
		w.lost.Add(1)
		return ticket{}, false, nil
	}
	s.serial++
	set.lo[i] = k.lo
	set.until[i] = -(ns + int64(pendingFor))
	set.rest[i].hi = k.hi
	set.rest[i].serial = s.serial
	return ticket{k, s.serial, length}, false, nil
}

// end says what became of a pending publish. A ticket of no entry, or of one taken for lost
// meanwhile, changes nothing.
func (w *window) end(now time.Time, t ticket, fate Fate) {
	if t.serial == 0 {
		return
	}
	s := w.shard(t.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.set(t.key)
	i := set.find(t.key)
	if i < 0 || set.rest[i].serial != t.serial || set.until[i] > 0 {
		return
	}
	if fate == Delivered {
		ns := now.UnixNano()
		set.rest[i].at = ns
		set.until[i] = ns + int64(t.window)
	} else {
		set.until[i] = 0
	}
	s.land(t.serial, fate)
}

// flight is what those wait on that repeat a pending entry.
func (s *windowShard) flight(serial uint64) *Flight {
	f := s.flights[serial]
	if f == nil {
		f = &Flight{done: make(chan struct{})}
		if s.flights == nil {
			s.flights = map[uint64]*Flight{}
		}
		s.flights[serial] = f
	}
	return f
}

// land wakes those who wait for the entry, if any.
func (s *windowShard) land(serial uint64, fate Fate) {
	if len(s.flights) == 0 {
		return
	}
	if f := s.flights[serial]; f != nil {
		delete(s.flights, serial)
		f.fate = fate
		close(f.done)
	}
}

// place finds a way for a new key, or -1 when all that could go are pending.
func (w *window) place(s *windowShard, ns int64, k dkey) (*windowSet, int) {
	for {
		set := s.set(k)
		first := -1
		for i, until := range set.until {
			switch {
			case until == 0:
				return set, i
			case until < 0 && ns >= -until:
				s.land(set.rest[i].serial, Unknown)
				return set, i
			case until > 0 && until <= ns:
				return set, i
			case until > 0 && (first < 0 || until < set.until[first]):
				first = i
			}
		}
		if len(s.sets) < s.max {
			s.grow()
			continue
		}
		if first >= 0 {
			w.lost.Add(1)
		}
		return set, first
	}
}

// grow doubles the shard. Every set parts in two, so none can overflow.
func (s *windowShard) grow() {
	old := s.sets
	s.sets = make([]windowSet, 2*len(old))
	for i := range old {
		o := &old[i]
		for w, until := range o.until {
			if until == 0 {
				continue
			}
			set := s.set(dkey{lo: o.lo[w]})
			for n := range set.until {
				if set.until[n] == 0 {
					set.lo[n], set.until[n], set.rest[n] = o.lo[w], until, o.rest[w]
					break
				}
			}
		}
	}
}
