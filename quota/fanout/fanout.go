// Package fanout estimates how many subscribers a channel has, and so what a publish to it costs.
package fanout

import (
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Pattern says how many subscribers a channel counts for until something better is known.
// In Pattern `*` stands for any run of characters, `?` for one.
type Pattern struct {
	Pattern     string
	Subscribers int64
}

// Source says where a subscriber count comes from.
type Source uint8

// The sources, least trusted first.
const (
	FromDefault Source = iota // the configuration
	FromPoll                  // GET channels: occupied or not
	FromInfo                  // the answer to a publish that asked for info
	FromWebhook               // Pusher's own word on each change
	FromSimilar               // the mean of channels of the same kind that were asked for; never stored
)

var sourceNames = [...]string{"default", "poll", "info", "webhook"}

// Sources are all there are, least trusted first.
func Sources() []Source {
	return []Source{FromDefault, FromSimilar, FromPoll, FromInfo, FromWebhook}
}

// String is a word for people.
func (s Source) String() string {
	if int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return "unknown"
}

// halfLife is after what time half of the difference from the configured count is forgotten, in seconds. A webhook
// tells of every change, so its silence means that nothing changed; the others were true when they were asked.
var halfLife = [...]float64{FromDefault: 60, FromPoll: 10 * 60, FromInfo: 30 * 60, FromWebhook: 12 * 3600, FromSimilar: 60}

// trustFor is for how long a source is believed against a less trusted one, in seconds.
const trustFor = 5 * 60

// Table estimates how many deliveries a publish to a channel causes. It is learned: from webhooks, from answers to
// info, from polls; what was learned drifts back to the configured count with age.
//
// Memory is bounded: 16 bytes a channel, 32 MB at most for the roughly two million channels of MaxLearned, and only
// those of which something was learned take a place. When a neighbourhood of the
// table is full the oldest entry is forgotten, which then counts as configured. Names are not kept, only 64 bits of
// hash. What a poll found occupied is kept beside it, see occupied.go.
//
// Safe for concurrent use; Estimate and KnownEmpty take no lock and do not allocate.
type Table struct {
	def      int64
	patterns []Pattern
	clock    atomic.Int64 // newest second heard of, since 2020
	shards   [fanoutShards]fanoutShard
	occupied atomic.Pointer[occupied]
	distrust atomic.Int64 // what was known to be empty by that second is not any more
	kinds    kinds        // what channels of one kind have in the mean
	scale    atomic.Int64 // of configured counts, in thousandths; 0: 1,000. See Scale

	mu     sync.Mutex
	fresh  []learned // learned here and not yet told to other replicas; bounded
	untold bool      // there was more
}

// MaxLearned is about how many channels a Table remembers.
const MaxLearned = fanoutShards * maxSets * setSize

const (
	fanoutShards = 64
	setSize      = 8
	maxSets      = 1 << 12
	maxFresh     = 4096
)

type fanoutShard struct {
	mu    sync.Mutex // for writers
	table atomic.Pointer[fanoutTable]
	used  int
}

type fanoutTable struct{ slots []fanoutSlot } // a power of two of sets

// A slot is free while val is 0. val is count<<36 | second<<4 | empty | source, seconds since 2020. With the flag empty
// the count is 0, and its place holds since how many seconds it was so when it was learned.
type fanoutSlot struct{ key, val atomic.Uint64 }

type learned struct{ key, val uint64 }

const (
	countBits  = 28
	secondBits = 32
	maxCount   = 1<<countBits - 1
	emptyFlag  = 8
	epoch2020  = 1577836800
)

// fact is a val taken apart.
type fact struct {
	count  int64
	second int64 // when it was true
	since  int64 // when the channel became empty, if it is
	empty  bool
	source Source
}

func (x fact) pack() uint64 {
	second := min(max(x.second, 1), 1<<secondBits-1)
	n, low := min(max(x.count, 0), maxCount), int64(x.source&7)
	if x.empty {
		n, low = min(max(second-x.since, 0), maxCount), low|emptyFlag
	}
	return uint64(n)<<(secondBits+4) | uint64(second)<<4 | uint64(low)
}

func unpack(v uint64) fact {
	x := fact{count: int64(v >> (secondBits + 4)), second: int64(v >> 4 & (1<<secondBits - 1)), source: Source(v & 7), empty: v&emptyFlag != 0}
	if x.empty {
		x.since, x.count = x.second-x.count, 0
	}
	return x
}

// uncounted says that somebody subscribes and nobody knows how many.
func (x fact) uncounted() bool { return x.count == 0 && !x.empty }

// sound says that a val of another process can be one.
func (x fact) sound() bool { return x.second > 0 && x.source <= FromWebhook }

func secondOf(now time.Time) int64 { return now.Unix() - epoch2020 }

func timeOf(second int64) time.Time { return time.Unix(second+epoch2020, 0).UTC() }

// New starts from the configured counts alone; the first pattern that matches wins,
// and def is for channels that match none. Negative counts are taken as zero.
func New(def int64, patterns []Pattern) *Table {
	f := &Table{def: max(def, 0), patterns: make([]Pattern, len(patterns))}
	for i, p := range patterns {
		f.patterns[i] = Pattern{p.Pattern, max(p.Subscribers, 0)}
	}
	return f
}

// configured is what the channel counts for by configuration.
func (f *Table) configured(channel string) int64 {
	for i := range f.patterns {
		if globMatch(f.patterns[i].Pattern, channel) {
			return f.patterns[i].Subscribers
		}
	}
	return f.def
}

// prior is what a channel counts for of which nothing is known: the mean of its kind, if channels of it were asked for,
// else the configured count, scaled.
func (f *Table) prior(channel string) (int64, Source) {
	if n, ok := f.kinds.mean(channel); ok {
		return n, FromSimilar
	}
	n := f.configured(channel)
	if by := f.scale.Load(); by > 0 {
		n = (n*by + 500) / 1000
	}
	return n, FromDefault
}

// Scale makes each configured count stand for by times as many: Pusher has shown that they are too low. 1 undoes it.
func (f *Table) Scale(by float64) { f.scale.Store(int64(min(max(by, 0.001), maxCount) * 1000)) }

// Scaled is what Scale was told last; 1 at first.
func (f *Table) Scaled() float64 {
	if by := f.scale.Load(); by > 0 {
		return float64(by) / 1000
	}
	return 1
}

// Estimate is the number of subscribers that channel counts for, as of the newest time that Learn or Tick heard of.
func (f *Table) Estimate(channel string) int64 {
	n, _, _ := f.Explain(channel)
	return n
}

// Explain is Estimate with its source and age; the age is 0 when nothing was learned.
func (f *Table) Explain(channel string) (n int64, source Source, age time.Duration) {
	def, from := f.prior(channel)
	h := xxhash.Sum64String(channel)
	x, ok := f.newest(h)
	if !ok || x.uncounted() {
		return def, from, 0
	}
	old := max(f.clock.Load()-x.second, 0)
	n = x.count
	if old > 0 && n != def {
		// Rounded up: an estimate that is too low costs more than one that is too high.
		n = int64(math.Ceil(float64(def) + float64(n-def)*math.Exp2(-float64(old)/halfLife[min(int(x.source), len(halfLife)-1)])))
	}
	return n, x.source, time.Duration(old) * time.Second
}

// newest is what is known of a channel: from the table, or from the last poll if that is newer.
func (f *Table) newest(h uint64) (fact, bool) {
	var x fact
	v, ok := f.shards[h>>58].load(h)
	if ok {
		x = unpack(v)
	}
	if o := f.occupied.Load(); o != nil && (!ok || o.outdates(x)) {
		switch occupied := o.has(h); {
		case !occupied:
			since := o.second
			if o.before != nil && !o.before.has(h) {
				since = o.before.second
			}
			if ok && x.empty {
				since = min(since, x.since)
			}
			return fact{second: o.second, since: since, empty: true, source: FromPoll}, true
		case ok && x.empty: // somebody came, nobody knows how many
			return fact{}, false
		}
	}
	return x, ok
}

// Emptiness is what is known of a channel that nobody subscribes to.
type Emptiness struct {
	Since  time.Time // when it was first seen empty; it may have been so before
	AsOf   time.Time // when it was last known to be
	Source Source    // FromWebhook: Pusher said so and would tell of a change; FromPoll, FromInfo: it was so at AsOf
}

// KnownEmpty says since when nobody subscribes to channel, and how fresh that is; false when somebody may. The word of
// a webhook holds until another says otherwise, for it tells of each change; that of the others is as old as AsOf, and
// whoever acts on it says how old it may be. Webhooks are told apart by the second in which Pusher sent them: of two of
// one second the one that says occupied wins.
func (f *Table) KnownEmpty(channel string) (Emptiness, bool) {
	x, ok := f.newest(xxhash.Sum64String(channel))
	if !ok || !x.empty || x.second <= f.distrust.Load() {
		return Emptiness{}, false
	}
	return Emptiness{Since: timeOf(x.since), AsOf: timeOf(x.second), Source: x.source}, true
}

// Distrust forgets which channels are empty: somebody may have come, and this replica not have heard of it.
func (f *Table) Distrust(now time.Time) {
	f.Tick(now)
	for s := secondOf(now); ; {
		d := f.distrust.Load()
		if s <= d || f.distrust.CompareAndSwap(d, s) {
			return
		}
	}
}

// Tick tells the time, so that estimates age when nothing is learned.
func (f *Table) Tick(now time.Time) {
	s := secondOf(now)
	for {
		c := f.clock.Load()
		if s <= c || f.clock.CompareAndSwap(c, s) {
			return
		}
	}
}

// Learn records a count that was seen at now. A less trusted source does not overrule a more trusted one that spoke in
// the last five minutes, and old news does not overrule newer.
func (f *Table) Learn(now time.Time, channel string, n int64, source Source) {
	f.Tick(now)
	h := xxhash.Sum64String(channel)
	second := secondOf(now)
	l := learned{h, fact{count: n, second: second, since: second, empty: n <= 0, source: source}.pack()}
	if f.put(l) {
		f.tell(l)
	}
}

// tell keeps news for the other replicas.
func (f *Table) tell(l learned) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.fresh) < maxFresh {
		f.fresh = append(f.fresh, l)
	} else {
		f.untold = true
	}
}

// LearnTaken records that somebody subscribes to a channel, and that nobody knows how many do: it counts as one of
// which nothing is known, and is not known to be empty any more.
func (f *Table) LearnTaken(now time.Time, channel string, source Source) {
	f.Tick(now)
	l := learned{xxhash.Sum64String(channel), fact{second: secondOf(now), source: source}.pack()}
	if f.put(l) {
		f.tell(l)
	}
}

// LearnAtLeast records that a channel had at least n subscribers, as the users of a presence channel tell, who may hold
// several connections each. An estimate that is higher stands.
func (f *Table) LearnAtLeast(now time.Time, channel string, n int64, source Source) {
	f.Tick(now)
	if n > f.Estimate(channel) {
		f.Learn(now, channel, n, source)
	}
}

// put stores what is newer than what is known.
func (f *Table) put(l learned) bool {
	s := &f.shards[l.key>>58]
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		t = &fanoutTable{make([]fanoutSlot, setSize)}
		s.table.Store(t)
	}
	next := unpack(l.val)
	set := t.set(l.key)
	victim := &set[0]
	oldest := int64(math.MaxInt64)
	for i := range set {
		v := set[i].val.Load()
		x := unpack(v)
		m := x.second
		if v != 0 && set[i].key.Load() == l.key {
			if m > next.second || x.source > next.source && next.second-m < trustFor && !x.uncounted() ||
				m == next.second && x.source == next.source && next.empty && !x.empty {
				return false
			}
			if next.empty && x.empty {
				next.since = min(x.since, next.since)
				l.val = next.pack()
			}
			set[i].val.Store(l.val)
			return true
		}
		if v == 0 {
			m = -1
		}
		if m < oldest {
			oldest, victim = m, &set[i]
		}
	}
	if oldest >= 0 && len(t.slots) < maxSets*setSize {
		s.grow(t)
		s.place(l)
		return true
	}
	if oldest < 0 {
		s.used++
	}
	// A reader must never see the new key with the old value: it takes a value only if the key was the same before
	// and after.
	victim.key.Store(0)
	victim.val.Store(l.val)
	victim.key.Store(l.key)
	return true
}

// set is where a key may lie. The shard took the topmost bits.
func (t *fanoutTable) set(key uint64) []fanoutSlot {
	sets := uint64(len(t.slots) / setSize)
	i := key & (sets - 1)
	return t.slots[i*setSize : (i+1)*setSize]
}

func (s *fanoutShard) load(key uint64) (uint64, bool) {
	t := s.table.Load()
	if t == nil {
		return 0, false
	}
	set := t.set(key)
	for i := range set {
		if set[i].key.Load() == key {
			if v := set[i].val.Load(); v != 0 && set[i].key.Load() == key {
				return v, true
			}
		}
	}
	return 0, false
}

// grow doubles the table. Readers go on with the old one.
func (s *fanoutShard) grow(t *fanoutTable) {
	bigger := &fanoutTable{make([]fanoutSlot, 2*len(t.slots))}
	s.table.Store(bigger)
	s.used = 0
	for i := range t.slots {
		if v := t.slots[i].val.Load(); v != 0 {
			s.place(learned{t.slots[i].key.Load(), v})
		}
	}
}

// place puts an entry where there is room, or in the oldest's stead.
func (s *fanoutShard) place(l learned) {
	set := s.table.Load().set(l.key)
	victim, oldest := &set[0], int64(math.MaxInt64)
	for i := range set {
		v := set[i].val.Load()
		if v == 0 {
			victim = &set[i]
			s.used++
			break
		}
		if m := unpack(v).second; m < oldest {
			victim, oldest = &set[i], m
		}
	}
	victim.key.Store(0)
	victim.val.Store(l.val)
	victim.key.Store(l.key)
}

// Learned is how many channels are remembered.
func (f *Table) Learned() (n int) {
	for i := range f.shards {
		f.shards[i].mu.Lock()
		n += f.shards[i].used
		f.shards[i].mu.Unlock()
	}
	return n
}

// Fresh returns what was learned here since the last call, for other replicas; nil if nothing. What does not fit
// into one message (4096 channels) is not told, but that there was more.
func (f *Table) Fresh() []byte {
	f.mu.Lock()
	fresh, untold := f.fresh, f.untold
	f.fresh, f.untold = nil, false
	f.mu.Unlock()
	var out []byte
	if untold {
		out = make([]byte, 16) // zeros: more than is told, see Merge
	}
	for _, l := range fresh {
		out = binary.BigEndian.AppendUint64(out, l.key)
		out = binary.BigEndian.AppendUint64(out, l.val)
	}
	return out
}

// Merge takes what another replica's Fresh returned. Nonsense is left out.
func (f *Table) Merge(msg []byte) {
	for ; len(msg) >= 16; msg = msg[16:] {
		l := learned{binary.BigEndian.Uint64(msg), binary.BigEndian.Uint64(msg[8:])}
		switch {
		case l == learned{}:
			f.Distrust(timeOf(f.clock.Load()))
		case unpack(l.val).sound():
			f.put(l)
		}
	}
}

// globMatch reports whether s matches pattern, byte by byte, in O(len(s)·len(pattern)) at worst.
func globMatch(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			if p++; p == len(pattern) {
				return true
			}
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
