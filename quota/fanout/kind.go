package fanout

import (
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// kinds are what channels of one kind have in the mean, from questions about channels that were drawn at random from
// publishes priced without knowledge. Each publish had the same chance, so the mean is that of publishes, which is what
// a bill is made of; a channel that is published to often is learned by itself and is no part of it any more.
//
// A channel's kind is its name up to its first digit, cut after the last separator: "private-user-" of
// "private-user-17". 255 kinds are kept and the mean of all, for the others.
//
// mean takes no lock and does not allocate.
type kinds struct {
	mu    sync.Mutex // for writers
	used  int
	slots [256]kindSlot
	all   kindSlot
}

type kindSlot struct {
	key  atomic.Uint64
	mean atomic.Uint64 // a float64
	n    atomic.Int64  // answers, up to kindMemory
}

const (
	// kindLeast answers make a mean that is better than a default.
	kindLeast = 3
	// kindMemory is how many answers a mean is made of, about: the newest count most.
	kindMemory = 200
	kindProbes = 8
)

// kindOf is the part of a channel's name that its kind shares.
func kindOf(channel string) string {
	cut := 0
	for i := range len(channel) {
		switch c := channel[i]; {
		case c >= '0' && c <= '9':
			return channel[:cut]
		case c == '-' || c == '_' || c == '.' || c == ',' || c == ';' || c == '=' || c == '@' || c == '/' || c == ':':
			cut = i + 1
		}
	}
	return channel[:cut]
}

func (k *kinds) find(h uint64) *kindSlot {
	for i := range uint64(kindProbes) {
		if s := &k.slots[(h+i)%uint64(len(k.slots))]; s.key.Load() == h {
			return s
		}
	}
	return nil
}

// mean is a whole number whose mean over many channels is the kind's; false while nothing is known of it.
func (k *kinds) mean(channel string) (int64, bool) {
	if k.all.n.Load() < kindLeast {
		return 0, false
	}
	h := xxhash.Sum64String(kindOf(channel)) | 1
	s := k.find(h)
	if s == nil || s.n.Load() < kindLeast {
		s = &k.all
	}
	part := float64(xxhash.Sum64String(channel)>>11) / (1 << 53)
	return int64(math.Float64frombits(s.mean.Load()) + part), true
}

func (s *kindSlot) note(n int64) {
	k := s.n.Load()
	m := math.Float64frombits(s.mean.Load())
	m += (float64(n) - m) / float64(min(k+1, kindMemory))
	s.mean.Store(math.Float64bits(m))
	s.n.Store(min(k+1, kindMemory))
}

// LearnKind takes the count of a channel that was drawn at random from publishes to channels of which nothing was known.
func (f *Table) LearnKind(channel string, n int64) {
	k := &f.kinds
	n = max(n, 0)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all.note(n)
	if s := k.make(xxhash.Sum64String(kindOf(channel)) | 1); s != nil {
		s.note(n)
	}
}

// make finds a kind's slot, or a free one for it; nil: there is none. k.mu is held.
func (k *kinds) make(h uint64) *kindSlot {
	if s := k.find(h); s != nil {
		return s
	}
	for i := range uint64(kindProbes) {
		if s := &k.slots[(h+i)%uint64(len(k.slots))]; s.key.Load() == 0 {
			s.key.Store(h)
			k.used++
			return s
		}
	}
	return nil
}

// Sampled is how many answers the mean of a channel's kind is made of, up to 200.
func (f *Table) Sampled(channel string) int64 {
	if s := f.kinds.find(xxhash.Sum64String(kindOf(channel)) | 1); s != nil {
		return s.n.Load()
	}
	return 0
}

// learnedKinds is what is kept over restarts. Fields are only ever added.
type learnedKinds struct {
	Kinds map[string]kindMean `json:"kinds"` // by hash, "all" for all
}

type kindMean struct {
	Mean float64 `json:"mean"`
	N    int64   `json:"n"`
}

// SaveKinds is what was learned of kinds, for a store; nil: nothing.
func (f *Table) SaveKinds() []byte {
	k := &f.kinds
	k.mu.Lock()
	defer k.mu.Unlock()
	out := learnedKinds{Kinds: map[string]kindMean{}}
	put := func(name string, s *kindSlot) {
		if n := s.n.Load(); n > 0 {
			out.Kinds[name] = kindMean{math.Float64frombits(s.mean.Load()), n}
		}
	}
	put("all", &k.all)
	for i := range k.slots {
		if h := k.slots[i].key.Load(); h != 0 {
			put(fmt.Sprintf("%x", h), &k.slots[i])
		}
	}
	if len(out.Kinds) == 0 {
		return nil
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil
	}
	return b
}

// LoadKinds takes what SaveKinds returned. What was learned since the start stands.
func (f *Table) LoadKinds(b []byte) error {
	var in learnedKinds
	if err := json.Unmarshal(b, &in); err != nil {
		return fmt.Errorf("the stored numbers of subscribers: %w", err)
	}
	k := &f.kinds
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, m := range in.Kinds {
		s := &k.all
		if name != "all" {
			var h uint64
			if _, err := fmt.Sscanf(name, "%x", &h); err != nil || h == 0 {
				continue
			}
			s = k.make(h)
		}
		if s != nil && s.n.Load() == 0 && m.Mean >= 0 && m.Mean < maxCount && m.N > 0 {
			s.mean.Store(math.Float64bits(m.Mean))
			s.n.Store(min(m.N, kindMemory))
		}
	}
	return nil
}
