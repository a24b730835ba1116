package limiter

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// Caller is somebody who publishes, with counters. Safe for concurrent use. It lives as long as
// the App and keeps its counters over reloads.
type Caller struct {
	name string
	id   int    // index in policy.callers
	hash uint64 // of the name, for buckets by caller

	outcomes [Outcomes]atomic.Int64
	would    [Outcomes]atomic.Int64
	refused  atomic.Int64
	today    dayCount
	late     dayCount
	minute   minuteRate
}

// Name is what the caller is called in the config, metrics and texts.
func (c *Caller) Name() string {
	if c == nil {
		return ""
	}
	return c.name
}

// key is the caller's part of the key of a bucket.
func (c *Caller) key() uint64 {
	if c == nil {
		return 0
	}
	return c.hash
}

// CallerStats is what a caller did.
type CallerStats struct {
	Name          string
	Rate1m        float64 // publishes a second over the last minute, whatever became of them
	MessagesToday int64   // as billed, since 00:00 UTC, on this replica
	LateToday     int64   // publishes that were answered before, held, and sent since 00:00 UTC, on this replica; in Sent too
	Outcomes      [Outcomes]int64
	Would         [Outcomes]int64 // decisions of observe mode that were not carried out
	Refused       int64           // publishes that Pusher itself answered 4xx; in no outcome
}

// Stats reads the counters, each by itself: they may be a publish apart.
func (c *Caller) Stats(now time.Time) CallerStats {
	s := CallerStats{
		Name:          c.name,
		Rate1m:        c.minute.perSecond(now),
		MessagesToday: c.today.get(now),
		LateToday:     c.late.get(now),
		Refused:       c.refused.Load(),
	}
	for o := range s.Outcomes {
		s.Outcomes[o] = c.outcomes[o].Load()
		s.Would[o] = c.would[o].Load()
	}
	return s
}

// minuteRate counts events in the last minute: one word a second, the second in the high bits.
// Two goroutines that disagree about the second at the moment a slot is taken over can miscount
// by one each; nothing is decided by it.
type minuteRate struct{ slots [64]atomic.Uint64 }

const rateWindow = 60 // seconds

func (r *minuteRate) add(now time.Time) {
	sec := uint64(now.Unix())
	slot := &r.slots[sec%uint64(len(r.slots))]
	for {
		old := slot.Load()
		if old>>24 >= sec&(1<<40-1) {
			slot.Add(1)
			return
		}
		if slot.CompareAndSwap(old, sec<<24|1) {
			return
		}
	}
}

func (r *minuteRate) perSecond(now time.Time) float64 {
	sec := uint64(now.Unix())
	var n uint64
	for i := range r.slots {
		w := r.slots[i].Load()
		if at := w >> 24; at <= sec && at+rateWindow > sec {
			n += w & (1<<24 - 1)
		}
	}
	return float64(n) / rateWindow
}

// dayCount counts messages of one UTC day: the day in the high 20 bits of a word, the count in
// the low 44.
type dayCount struct{ word atomic.Uint64 }

const dayBits = 44

func (d *dayCount) add(now time.Time, n int64) {
	if n <= 0 {
		return
	}
	day := uint64(quota.DayOf(now))
	for {
		old := d.word.Load()
		switch at := old >> dayBits; {
		case at == day:
			d.word.Add(uint64(n))
			return
		case at > day: // a message of yesterday, settled after midnight
			return
		case d.word.CompareAndSwap(old, day<<dayBits|uint64(n)):
			return
		}
	}
}

func (d *dayCount) get(now time.Time) int64 {
	w := d.word.Load()
	if w>>dayBits != uint64(quota.DayOf(now)) {
		return 0
	}
	return int64(w & (1<<dayBits - 1))
}

// MaxUnnamedCallers is how many callers that are not in the policy get counters of their own;
// those that come after share the counters of the caller OtherCallers.
const MaxUnnamedCallers = 1024

// OtherCallers is the name of the caller that all beyond MaxUnnamedCallers share.
const OtherCallers = "(others)"

// callers is the register of an App: read without a lock, grown under one, never shrunk.
type callers struct {
	seed    maphash.Seed
	byName  atomic.Pointer[map[string]*Caller]
	mu      sync.Mutex
	unnamed int
}

func (cs *callers) init(seed maphash.Seed) {
	cs.seed = seed
	cs.byName.Store(&map[string]*Caller{})
}

// get finds a caller or makes one; named ones do not count against the bound.
func (cs *callers) get(name string, named bool) *Caller {
	if c := (*cs.byName.Load())[name]; c != nil {
		return c
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	old := *cs.byName.Load()
	if c := old[name]; c != nil {
		return c
	}
	if !named {
		if cs.unnamed >= MaxUnnamedCallers {
			if c := old[OtherCallers]; c != nil {
				return c
			}
			name = OtherCallers
		}
		cs.unnamed++
	}
	name = strings.Clone(name)
	grown := make(map[string]*Caller, len(old)+1)
	for k, v := range old {
		grown[k] = v
	}
	c := &Caller{name: name, id: len(old), hash: maphash.String(cs.seed, name)}
	grown[name] = c
	cs.byName.Store(&grown)
	return c
}

// list returns all callers, in the order in which they first came.
func (cs *callers) list() []*Caller {
	m := *cs.byName.Load()
	all := make([]*Caller, len(m))
	for _, c := range m {
		all[c.id] = c
	}
	return all
}
