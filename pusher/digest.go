package pusher

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync"
)

// Seed keys a Digest, so that nobody outside can choose two publishes that look
// alike. The zero value works, without that protection. It is safe for
// concurrent use.
type Seed struct{ k [8]uint64 }

// NewSeed returns a random seed, for digests that are compared in this process.
func NewSeed() Seed {
	var b [32]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return SeedFrom(b)
}

// SeedFrom returns a given seed, for digests that several replicas compare. Any
// 32 bytes will do that an outsider does not know.
func SeedFrom(b [32]byte) (s Seed) {
	for i := range 4 {
		s.k[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	// Four more, from the four given, for the blocks that end something.
	h := sum{s.k[0], s.k[2]}
	for i := 4; i < 8; i += 2 {
		h = s.block(s.block(h, uint64(i), phi), h.b, h.a)
		s.k[i], s.k[i+1] = h.a, h.b
	}
	return s
}

// Digest is a 128-bit identity of what a publish says: event, data, socket_id,
// info and whatever members and parameters are not known here, but not where it goes. Two publishes with equal digests say the same
// by value, however their bytes were written; the chance that two different ones
// agree is about 2^-128 for each pair.
//
// Data that is a JSON text is compared by structure: white space, escapes and
// the order of keys do not matter, numbers count by their text. Objects with a
// key twice or with more than 64 keys, where order may matter or is dear to
// ignore, count in order. A string with half a surrogate pair counts by its bytes,
// as any other data does.
func (s *Seed) Digest(p *Publish) [2]uint64 {
	w := walks.Get().(*walk)
	w.seed = *s
	h := w.seed.bytes(origin, tagString, p.Name)
	h = w.seed.bytes(h, tagString, p.SocketID)
	if p.HasInfo {
		h = w.seed.bytes(h, tagString, p.Info)
	}
	if len(p.Extra) > 0 || len(p.Params) > 0 {
		h = w.seed.bytes(w.seed.bytes(h, tagExtra, p.Extra), tagExtra, p.Params)
	}
	if p.Lossy {
		h = w.seed.bytes(h, tagExtra, p.Raw)
	}
	w.keys = w.keys[:0]
	if need := len(p.Data) + 8; cap(w.scratch) < need {
		w.scratch = make([]byte, 0, max(1024, need))
	}
	w.scan = scan{b: p.Data}
	whole, ok := w.value(h, 0)
	if !ok || !w.scan.end() {
		whole = w.seed.bytes(h, tagRaw, p.Data)
	}
	w.scan = scan{}
	walks.Put(w)
	// Two rounds more, so that every bit depends on every other.
	whole = s.block(whole, whole.b, whole.a)
	whole = s.block(whole, whole.b, whole.a)
	return [2]uint64{whole.a, whole.b}
}

// Identity is Digest with where the publish goes: its channels, in any order.
func (s *Seed) Identity(p *Publish) [2]uint64 {
	d := s.Digest(p)
	var where sum
	for _, ch := range p.Channels {
		h := s.bytes(origin, tagString, ch)
		h = s.block(h, h.b, h.a)
		where.a += h.a // a sum, so that a channel named twice does not vanish
		where.b += h.b
	}
	h := s.last(sum{d[0], d[1]}, where.a, where.b)
	h = s.block(h, h.b, h.a)
	return [2]uint64{h.a, h.b}
}

// walk is the working memory of one digest.
type walk struct {
	seed    Seed
	scan    scan
	scratch []byte
	keys    []uint64 // of the objects that are open, to find one that comes twice
}

var walks = sync.Pool{New: func() any { return new(walk) }}

// sum is a running hash: two lanes of 64 bits that never meet, each with keys of
// its own.
type sum struct{ a, b uint64 }

// The golden ratio and the square root of two, in 64 bits. They keep the zero
// seed from multiplying by zero.
const (
	phi = 0x9e3779b97f4a7c15
	rt2 = 0x6a09e667f3bcc909
)

var origin = sum{phi, rt2}

// block absorbs sixteen bytes into both lanes.
func (s *Seed) block(h sum, x, y uint64) sum {
	return sum{fold(h.a^x^s.k[0], y^s.k[1]^rt2), fold(h.b^y^s.k[2], x^s.k[3]^phi)}
}

// last absorbs a block that ends something. It has keys of its own, so that no
// run of blocks inside a long string looks like several short ones.
func (s *Seed) last(h sum, x, y uint64) sum {
	return sum{fold(h.a^x^s.k[4], y^s.k[5]^phi), fold(h.b^y^s.k[6], x^s.k[7]^rt2)}
}

// fold is the full product of two words, folded into one; what is added to it
// keeps a factor of zero from forgetting the other.
func fold(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	return hi ^ lo ^ bits.RotateLeft64(x, 32) ^ y
}

// A tag says what a last block ends. It shares a byte with the number of bytes
// of a string in that block, 0 to 15.
const (
	tagString uint64 = iota << 4
	tagRaw
	tagNumber
	tagWord // true, false, null
	tagObject
	tagOrdered
	tagArray
	tagEnd
	tagExtra // members that are not known, or bytes where a reading stands for several texts
)

// bytes absorbs a string.
func (s *Seed) bytes(h sum, tag uint64, b []byte) sum {
	for len(b) >= 16 {
		h = s.block(h, binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]))
		b = b[16:]
	}
	n := len(b)
	var x, y uint64
	switch {
	case n >= 8:
		x = binary.LittleEndian.Uint64(b)
		for i := n - 1; i >= 8; i-- {
			y = y<<8 | uint64(b[i])
		}
	default:
		for i := n - 1; i >= 0; i-- {
			x = x<<8 | uint64(b[i])
		}
	}
	return s.last(h, x, y|(tag|uint64(n))<<56)
}

// value absorbs the JSON value at the scanner's position.
func (w *walk) value(h sum, depth int) (sum, bool) {
	s := &w.scan
	c := s.space()
	if s.i == len(s.b) {
		return h, false
	}
	switch c {
	case '"':
		w.scratch = w.scratch[:0]
		from := s.i
		s.lossy = false
		val, ok := s.str(&w.scratch)
		if !ok {
			return h, false
		}
		if s.lossy {
			return w.seed.bytes(h, tagExtra, s.b[from:s.i]), true
		}
		return w.seed.bytes(h, tagString, val), true
	case '{':
		if depth >= maxDepth {
			return h, false
		}
		return w.object(h, depth)
	case '[':
		if depth >= maxDepth {
			return h, false
		}
		return w.array(h, depth)
	case 't':
		return w.seed.last(h, 't', tagWord<<56), s.literal("true")
	case 'f':
		return w.seed.last(h, 'f', tagWord<<56), s.literal("false")
	case 'n':
		return w.seed.last(h, 'n', tagWord<<56), s.literal("null")
	}
	from := s.i
	if !s.number() {
		return h, false
	}
	return w.seed.bytes(h, tagNumber, s.b[from:s.i]), true
}

func (w *walk) array(h sum, depth int) (sum, bool) {
	s := &w.scan
	s.i++
	h = w.seed.last(h, 0, tagArray<<56)
	for first := true; ; first = false {
		more, ok := s.next(']', first)
		if !ok {
			return h, false
		}
		if !more {
			return w.seed.last(h, 0, tagEnd<<56), true
		}
		if h, ok = w.value(h, depth+1); !ok {
			return h, false
		}
	}
}

// maxUnordered is the number of keys up to which an object's order is ignored.
const maxUnordered = 64

// object absorbs an object. Each member is hashed by itself; the members'
// hashes are added up, which forgets their order, and also chained, which keeps
// it, and the end shows which of the two is wanted.
func (w *walk) object(h sum, depth int) (sum, bool) {
	s := &w.scan
	s.i++
	var added sum
	chained := origin
	base := len(w.keys)
	n, ordered := uint64(0), false
	var seen [2]uint64 // two small Bloom filters: most keys need not be compared
	for {
		more, ok := s.next('}', n == 0)
		if !ok {
			return h, false
		}
		if !more {
			break
		}
		w.scratch = w.scratch[:0]
		s.space()
		from := s.i
		s.lossy = false
		key, ok := s.key(&w.scratch)
		if !ok {
			return h, false
		}
		m := w.seed.bytes(origin, tagString, key)
		if s.lossy {
			m = w.seed.bytes(origin, tagExtra, s.b[from:s.i])
		}
		if n++; n > maxUnordered {
			ordered = true
		}
		if !ordered {
			one, two := uint64(1)<<(m.a&63), uint64(1)<<(m.b&63)
			if seen[0]&one != 0 && seen[1]&two != 0 {
				for _, k := range w.keys[base:] {
					ordered = ordered || k == m.a
				}
			}
			seen[0] |= one
			seen[1] |= two
			w.keys = append(w.keys, m.a)
		}
		if m, ok = w.value(m, depth+1); !ok {
			return h, false
		}
		chained = w.seed.block(chained, m.a, m.b)
		// Sums of products would have a structure of their own; one more
		// round takes it away.
		m = w.seed.block(m, m.b, m.a)
		added.a += m.a
		added.b += m.b
	}
	w.keys = w.keys[:base]
	if ordered {
		h = w.seed.block(h, chained.a, chained.b)
		return w.seed.last(h, n, tagOrdered<<56), true
	}
	h = w.seed.block(h, added.a, added.b)
	return w.seed.last(h, n, tagObject<<56), true
}

// Mix is id, and another one for each set of members and parameters of p that are
// not known here: publishes that differ in one are different.
func (s *Seed) Mix(id [2]uint64, p *Publish) [2]uint64 {
	if len(p.Extra) == 0 && len(p.Params) == 0 {
		return id
	}
	h := s.bytes(s.bytes(sum{id[0] ^ phi, id[1] ^ rt2}, tagExtra, p.Extra), tagExtra, p.Params)
	h = s.block(h, h.b, h.a)
	return [2]uint64{h.a, h.b}
}
