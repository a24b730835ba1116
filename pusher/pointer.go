package pusher

import "strings"

// ValueAt is a 128-bit identity of the value at a JSON pointer (RFC 6901, not
// empty) in a publish's data: equal values have equal identities, however their
// bytes are written (see Digest). It reports false if data is no JSON text, has
// no such value, or has null there. Of a key that an object has twice the last
// one counts, as for JavaScript's JSON.parse. It does not allocate.
func (s *Seed) ValueAt(data []byte, pointer string) (id [2]uint64, ok bool) {
	w := walks.Get().(*walk)
	w.seed = *s
	w.keys = w.keys[:0]
	if need := len(data) + 8; cap(w.scratch) < need {
		w.scratch = make([]byte, 0, max(1024, need))
	}
	w.scan = scan{b: data}
	h, found, valid := w.at(pointer, 0)
	ok = found && valid && w.scan.end()
	w.scan = scan{}
	walks.Put(w)
	if !ok {
		return [2]uint64{}, false
	}
	h = s.block(h, h.b, h.a)
	return [2]uint64{h.a, h.b}, true
}

// at reads the value at the scanner's position to its end, and hashes of it
// what the rest of a pointer leads to.
func (w *walk) at(pointer string, depth int) (h sum, found, valid bool) {
	s := &w.scan
	c := s.space()
	if pointer == "" {
		null := c == 'n'
		h, valid = w.value(origin, depth)
		return h, !null, valid
	}
	token, rest := pointer[1:], ""
	if i := strings.IndexByte(token, '/'); i >= 0 {
		token, rest = token[:i], token[i:]
	}
	if c != '{' && c != '[' {
		return h, false, s.skip(depth)
	}
	if depth >= maxDepth {
		return h, false, false
	}
	s.i++
	for n := 0; ; n++ {
		more, ok := s.next(c+2, n == 0) // the closing byte of both is two further on
		if !ok || !more {
			return h, found, ok
		}
		wanted := c == '[' && indexIs(token, n)
		if c == '{' {
			w.scratch = w.scratch[:0]
			s.lossy = false
			key, ok := s.key(&w.scratch)
			if !ok {
				return h, false, false
			}
			wanted = !s.lossy && tokenIs(token, key)
		}
		if wanted {
			h, found, ok = w.at(rest, depth+1)
		} else {
			ok = s.skip(depth + 1)
		}
		if !ok {
			return h, false, false
		}
	}
}

// tokenIs compares a part of a pointer, in which ~1 stands for / and ~0 for ~,
// with a key.
func tokenIs(token string, key []byte) bool {
	at := 0
	for i := 0; i < len(token); i++ {
		c := token[i]
		if c == '~' && i+1 < len(token) {
			i++
			if c = '/'; token[i] == '0' {
				c = '~'
			}
		}
		if at == len(key) || key[at] != c {
			return false
		}
		at++
	}
	return at == len(key)
}

// indexIs reports whether a part of a pointer is the index n: digits without a
// zero in front.
func indexIs(token string, n int) bool {
	if token == "" || len(token) > 9 || token[0] == '0' && len(token) > 1 {
		return false
	}
	at := 0
	for i := range len(token) {
		d := token[i] - '0'
		if d > 9 {
			return false
		}
		at = at*10 + int(d)
	}
	return at == n
}
