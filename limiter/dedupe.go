package limiter

import (
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

// Done is closed when the fate of the publish under way is known.
func (f *Flight) Done() <-chan struct{} { return f.done }

// Fate is what became of the publish, once Done is closed.
func (f *Flight) Fate() Fate { return f.fate }

// landed reports whether the fate of the publish is known already, and which it is.
func (f *Flight) landed() (fate Fate, known bool) {
	if f == nil {
		return Unknown, false
	}
	select {
	case <-f.done:
		return f.fate, true
	default:
		return Unknown, false
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
	serial uint32 // 0: no entry
	window uint32 // ms
}

// entry is one publish remembered: half a cache line.
type entry struct {
	key    dkey
	until  int64  // unix ns; 0 free; above 0 delivered, ends then; below 0 pending, given up then
	serial uint32 // which claim made it
	window uint32 // ms
}

type windowSet [ways]entry

type windowShard struct {
	mu      sync.Mutex
	sets    []windowSet // a power of two
	max     int
	serial  uint32
	flights map[uint32]*Flight // by serial; only of entries that somebody waits for
}

func newWindow(maxKeys int) *window {
	w := &window{shards: make([]windowShard, shardsNum)}
	for i := range w.shards {
		w.shards[i].renew(1)
		w.shards[i].max = setsFor(maxKeys)
	}
	return w
}

func (w *window) shard(k dkey) *windowShard { return &w.shards[k.hi>>(64-shardBits)] }

func (s *windowShard) set(k dkey) *windowSet { return &s.sets[k.lo&uint64(len(s.sets)-1)] }

func (s *windowShard) renew(sets int) {
	s.sets = make([]windowSet, sets)
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
	e, found := w.place(s, ns, k)
	if e == nil {
		return ticket{}, false, nil
	}
	if found {
		switch {
		case e.until > 0 && ns < e.until && ns < e.until-e.length()+int64(length):
			return ticket{}, true, nil
		case e.until < 0 && ns < -e.until:
			if join {
				f = s.flight(e.serial)
			}
			return ticket{}, true, f
		}
	}
	if e.until < 0 {
		s.land(e.serial, Unknown)
	}
	if s.serial++; s.serial == 0 {
		s.serial = 1
	}
	*e = entry{k, -(ns + int64(pendingFor)), s.serial, uint32(length.Milliseconds())}
	return ticket{k, e.serial, e.window}, false, nil
}

func (e *entry) length() int64 { return int64(e.window) * int64(time.Millisecond) }

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
	for i := range set {
		e := &set[i]
		if e.until >= 0 || e.serial != t.serial || e.key != t.key {
			continue
		}
		if fate == Delivered {
			e.until = now.UnixNano() + e.length()
		} else {
			e.until = 0
		}
		s.land(t.serial, fate)
		return
	}
}

// join is what those wait on that repeat the pending entry of a ticket; of a ticket of no entry,
// what its holder alone waits on.
func (w *window) join(t ticket) *Flight {
	if t.serial == 0 {
		return &Flight{done: make(chan struct{})}
	}
	s := w.shard(t.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flight(t.serial)
}

// learn is end with what another replica knows: the publish was delivered, and is forgotten at until.
func (w *window) learn(until time.Time, t ticket) {
	if t.serial != 0 {
		w.end(until.Add(-time.Duration(t.window)*time.Millisecond), t, Delivered)
	}
}

// flight is what those wait on that repeat a pending entry.
func (s *windowShard) flight(serial uint32) *Flight {
	f := s.flights[serial]
	if f == nil {
		f = &Flight{done: make(chan struct{})}
		if s.flights == nil {
			s.flights = map[uint32]*Flight{}
		}
		s.flights[serial] = f
	}
	return f
}

// land wakes those who wait for the entry, if any.
func (s *windowShard) land(serial uint32, fate Fate) {
	if len(s.flights) == 0 {
		return
	}
	if f := s.flights[serial]; f != nil {
		delete(s.flights, serial)
		f.fate = fate
		close(f.done)
	}
}

// place finds the entry of k, or one that may be overwritten for it; nil when all that could go are
// pending.
func (w *window) place(s *windowShard, ns int64, k dkey) (e *entry, found bool) {
	for {
		set := s.set(k)
		var free, first *entry
		for i := range set {
			e := &set[i]
			switch {
			case e.key == k && e.until != 0:
				return e, true
			case e.until == 0, e.until > 0 && e.until <= ns, e.until < 0 && -e.until <= ns:
				free = e
			case e.until > 0 && (first == nil || e.until < first.until):
				first = e
			}
		}
		switch {
		case free != nil:
			return free, false
		case len(s.sets) < s.max:
			s.grow()
			continue
		}
		w.lost.Add(1)
		return first, false
	}
}

// grow doubles the shard. Every set parts in two, so none can overflow.
func (s *windowShard) grow() {
	old := s.sets
	s.renew(2 * len(old))
	for i := range old {
		for _, e := range old[i] {
			if e.until == 0 {
				continue
			}
			set := s.set(e.key)
			for n := range set {
				if set[n].until == 0 {
					set[n] = e
					break
				}
			}
		}
	}
}
