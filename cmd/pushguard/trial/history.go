// Package trial answers what a rule would have done with the publishes of the
// last ten minutes, before anybody saves it: it remembers what was published,
// bounded, and takes that through the real limiter twice, with the rules in
// force and with the one in question.
package trial

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of what an account's History remembers. An entry is one second's
// publishes of the same app, caller, event, channels and payload, so a storm of
// repeats takes little room. When a shard is full within Window, or is given
// more than secondEntries new ones in a second, at which pace it soon would be,
// only the publishes of half the channels go on to be remembered, then of a
// quarter, and so on: all of a channel or nothing of it, so that what a rule does
// within a channel stays exact. So what a publish costs here falls as more of
// them come. One channel with ever new payloads is folded instead: past
// channelEntries in a second its further publishes count as one entry of distinct
// payloads.
const (
	Window         = 10 * time.Minute
	shards         = 16
	shardEntries   = 4096
	secondEntries  = shardEntries / 64
	channelEntries = 32
	maxLevel       = 20
)

// History is the newest publishes of one account on this replica: at most
// 65,536 entries, about 8 MB beside the names in them. It is safe for concurrent
// use; Note locks one of sixteen parts, by channel.
type History struct {
	seed   maphash.Seed
	level  atomic.Uint32 // one in 1<<level channels is remembered
	looked atomic.Int64  // the minute in which somebody looked whether it can fall
	shards [shards]shard
}

type shard struct {
	mu      sync.Mutex
	entries []entry
	second  int64
	fresh   int               // how many entries are of this second
	now     map[uint64]int32  // the entries of this second, by their hash
	crowd   map[uint64]uint16 // how many of them a channel has
	names   map[string]string
	last    [3]string // app, caller and event of the newest entry, which mostly are the next one's, too
	level   uint8
	lost    int64 // publishes forgotten inside Window although they were to be remembered
	lostAt  int64 // the newest of their seconds
}

type entry struct {
	second   int64
	channel  uint64 // hash of the first channel
	payload  uint64
	cost     int64 // of all n
	n        int32
	level    uint8 // in force when it was written
	distinct bool  // n different payloads
	app      string
	caller   string
	event    string
	channels []string
}

// NewHistory remembers nothing yet.
func NewHistory() *History { return &History{seed: maphash.MakeSeed()} }

// Note remembers one publish. It keeps none of its arguments, and allocates only
// for what it has not seen this second.
func (h *History) Note(now time.Time, app, caller, event string, channels []string, payload uint64, messages int64) {
	if len(channels) == 0 {
		return
	}
	channel := maphash.String(h.seed, channels[0])
	level := uint8(h.level.Load())
	if channel&(1<<level-1) != 0 {
		return
	}
	s := &h.shards[channel>>60]
	s.mu.Lock()
	defer s.mu.Unlock()
	if second := now.Unix(); second != s.second {
		h.roll(s, second)
	}
	if s.level < level {
		s.thin(level)
	}
	s.level = level
	key := h.key(app, caller, event, channels, payload)
	if i, ok := s.now[key]; ok {
		s.entries[i].n++
		s.entries[i].cost += messages
		return
	}
	distinct := s.crowd[channel] >= channelEntries
	if distinct {
		key = h.key(app, caller, event, channels, 0)
		if i, ok := s.now[key]; ok {
			s.entries[i].n++
			s.entries[i].cost += messages
			return
		}
	}
	if s.fresh >= secondEntries && h.halve(s) {
		if channel&(1<<s.level-1) != 0 {
			return
		}
	}
	s.fresh++
	if len(s.entries) >= shardEntries {
		h.makeRoom(s)
	}
	s.crowd[channel]++
	s.now[key] = int32(len(s.entries))
	e := entry{second: s.second, channel: channel, payload: payload, cost: messages, n: 1, level: s.level, distinct: distinct,
		app: s.again(0, app), caller: s.again(1, caller), event: s.again(2, event), channels: make([]string, len(channels))}
	for i, c := range channels {
		e.channels[i] = s.name(c)
	}
	s.entries = append(s.entries, e)
}

func (h *History) key(app, caller, event string, channels []string, payload uint64) uint64 {
	var m maphash.Hash
	m.SetSeed(h.seed)
	m.WriteString(app)
	m.WriteByte(0)
	m.WriteString(caller)
	m.WriteByte(0)
	m.WriteString(event)
	for _, c := range channels {
		m.WriteByte(0)
		m.WriteString(c)
	}
	var b [8]byte
	for i := range b {
		b[i] = byte(payload >> (8 * i))
	}
	m.Write(b[:])
	return m.Sum64()
}

// roll begins a second. Once a minute it looks whether more can be remembered
// again.
func (h *History) roll(s *shard, second int64) {
	if s.now == nil {
		s.now, s.crowd, s.names = map[uint64]int32{}, map[uint64]uint16{}, map[string]string{}
	}
	// Whoever is first in a minute looks, for all: the parts are alike.
	if level, minute := h.level.Load(), second/60; level > 0 && h.looked.Load() != minute && h.looked.Swap(minute) != minute {
		s.expire(second)
		if len(s.entries) < shardEntries/4 {
			h.level.CompareAndSwap(level, level-1)
		}
	}
	s.second, s.fresh = second, 0
	clear(s.now)
	clear(s.crowd)
}

// makeRoom forgets what is too old, else every second channel, else the oldest.
func (h *History) makeRoom(s *shard) {
	s.expire(s.second)
	if len(s.entries) <= shardEntries*3/4 {
		return
	}
	h.halve(s)
	if most := shardEntries * 3 / 4; len(s.entries) > most {
		for _, e := range s.entries[:len(s.entries)-most] {
			s.lost += int64(e.n)
			s.lostAt = max(s.lostAt, e.second)
		}
		s.keep(slices.Delete(s.entries, 0, len(s.entries)-most))
	}
}

// halve forgets every second channel that is still remembered.
func (h *History) halve(s *shard) bool {
	level := uint32(s.level)
	if level >= maxLevel {
		return false
	}
	h.level.CompareAndSwap(level, level+1)
	s.thin(uint8(level + 1))
	return true
}

func (s *shard) expire(second int64) {
	first := second - int64(Window/time.Second)
	n := 0
	for n < len(s.entries) && s.entries[n].second <= first {
		n++
	}
	if n > 0 {
		s.keep(slices.Delete(s.entries, 0, n))
	}
}

// thin forgets the channels that are no longer remembered.
func (s *shard) thin(level uint8) {
	s.level = level
	kept := slices.DeleteFunc(s.entries, func(e entry) bool { return e.channel&(1<<level-1) != 0 })
	for i := range kept {
		kept[i].level = max(kept[i].level, level)
	}
	s.fresh = 0
	for i := len(kept); i > 0 && kept[i-1].second == s.second; i-- {
		s.fresh++
	}
	s.keep(kept)
}

// keep takes entries that have moved: this second's are no longer found, and
// begin anew. Names that stand in no entry are let go.
func (s *shard) keep(entries []entry) {
	s.entries = entries
	clear(s.now)
	if len(s.names) > 2*shardEntries {
		clear(s.names)
	}
}

// again is name, for one that is likely to be as it was last time.
func (s *shard) again(field int, n string) string {
	if s.last[field] != n {
		s.last[field] = s.name(n)
	}
	return s.last[field]
}

func (s *shard) name(n string) string {
	if kept, ok := s.names[n]; ok {
		return kept
	}
	kept := strings.Clone(n)
	s.names[kept] = kept
	return kept
}

// taken is what of a History a trial goes by.
type taken struct {
	entries []entry // by second
	level   uint8
	from    int64 // whole from here on
}

// take copies what is remembered of an app since from, in order of time, of the
// channels that were remembered all the while.
func (h *History) take(app string, from, until int64) taken {
	out := taken{from: from, level: uint8(h.level.Load())}
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		out.level = max(out.level, s.level)
		for _, e := range s.entries {
			if e.second > from && e.second <= until {
				out.level = max(out.level, e.level)
				if e.app == app {
					out.entries = append(out.entries, e)
				}
			}
		}
		if s.lostAt > from {
			out.from = max(out.from, s.lostAt)
		}
		s.mu.Unlock()
	}
	out.entries = slices.DeleteFunc(out.entries, func(e entry) bool { return e.channel&(1<<out.level-1) != 0 || e.second <= out.from })
	slices.SortStableFunc(out.entries, func(a, b entry) int { return int(a.second - b.second) })
	return out
}
