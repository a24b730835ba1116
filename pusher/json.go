package pusher

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a JSON text.
const maxDepth = 64

// scan reads a JSON text (RFC 8259) from front to back, once, without
// allocating. It validates everything it passes over. Strings are taken as
// bytes: what is not valid UTF-8 stays as it is, because a publisher's payload
// must arrive as it was sent.
//
// The first fault is kept in fault and at, and every method returns false from
// then on.
type scan struct {
	b     []byte
	i     int
	fault string
	at    int
	// lossy is set where half a surrogate pair was read, which UTF-8 has no bytes
	// for: what was read stands for other texts as well.
	lossy bool
}

func (s *scan) fail(at int, fault string) bool {
	if s.fault == "" {
		s.fault, s.at = fault, at
	}
	return false
}

// refusal is the fault in a sentence.
func (s *scan) refusal() *Error {
	return badRequest("The body is not valid JSON: ", s.fault, " at byte ", strconv.Itoa(s.at), ".")
}

// space skips white space and returns the next byte, 0 at the end.
func (s *scan) space() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// expect skips white space and the byte c.
func (s *scan) expect(c byte, fault string) bool {
	if s.space() != c || s.i == len(s.b) {
		if s.i == len(s.b) {
			fault = "it ends too early"
		}
		return s.fail(s.i, fault)
	}
	s.i++
	return true
}

// end accepts white space and nothing more.
func (s *scan) end() bool {
	if s.space(); s.i < len(s.b) {
		return s.fail(s.i, "there is more after the end of the value")
	}
	return true
}

// next moves to the next member or element: more is false at the closing byte,
// which is skipped. first is true before the first one.
func (s *scan) next(closing byte, first bool) (more, ok bool) {
	c := s.space()
	switch {
	case s.i == len(s.b):
		return false, s.fail(s.i, "it ends too early")
	case c == closing:
		s.i++
		return false, true
	case first:
		return true, true
	case c != ',':
		return false, s.fail(s.i, "a comma is missing")
	}
	s.i++
	if c = s.space(); c == closing {
		return false, s.fail(s.i, "there is a comma too many")
	}
	return true, true
}

// key reads an object's key and the colon after it.
func (s *scan) key(scratch *[]byte) (key []byte, ok bool) {
	if s.space() != '"' {
		return nil, s.expect('"', "a key in double quotes is missing")
	}
	if key, ok = s.str(scratch); !ok {
		return nil, false
	}
	return key, s.expect(':', "a colon is missing after the key")
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks, in the high bit of its byte, the first byte of eight that is a
// quote, a backslash or a control character. Marks above the first may be false.
func special(w uint64) uint64 {
	quote := w ^ (ones * '"')
	slash := w ^ (ones * '\\')
	return ((quote-ones)&^quote | (slash-ones)&^slash | (w-ones*' ')&^w) & highs
}

// plainRun is how many bytes of b, from the first on, are no quote, backslash or
// control character. It may leave up to 31 at the end of b, or before one of them, unseen.
func plainRun(b []byte) (n int) {
	for ; len(b) >= 32; b = b[32:] { // four words at a time
		if special(binary.LittleEndian.Uint64(b))|special(binary.LittleEndian.Uint64(b[8:]))|
			special(binary.LittleEndian.Uint64(b[16:]))|special(binary.LittleEndian.Uint64(b[24:])) != 0 {
			break
		}
		n += 32
	}
	return n
}

// plain returns the index of the next quote, backslash or control character.
func (s *scan) plain(i int) int {
	// Most strings are short, and a call for them would cost more than it spares.
	if b := s.b[i:]; len(b) >= 64 &&
		special(binary.LittleEndian.Uint64(b))|special(binary.LittleEndian.Uint64(b[8:]))|
			special(binary.LittleEndian.Uint64(b[16:]))|special(binary.LittleEndian.Uint64(b[24:])) == 0 {
		i += 32 + plainRun(b[32:])
	}
	for i+8 <= len(s.b) {
		if m := special(binary.LittleEndian.Uint64(s.b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(s.b) {
		if c := s.b[i]; c == '"' || c == '\\' || c < ' ' {
			break
		}
		i++
	}
	return i
}

// str reads the string that starts at the current byte, a double quote. The
// result is a part of the text, or of *scratch where escapes had to be undone;
// *scratch must have room for what is left of the text and eight bytes more, so
// that it is never moved. A nil scratch only validates.
func (s *scan) str(scratch *[]byte) (val []byte, ok bool) {
	from := s.i + 1
	i := s.plain(from)
	if i < len(s.b) && s.b[i] == '"' {
		s.i = i + 1
		return s.b[from:i:i], true
	}
	if i == len(s.b) {
		return nil, s.fail(i, "it ends inside a string")
	}
	if s.b[i] < ' ' {
		return nil, s.fail(i, "a control character in a string is not escaped")
	}
	if scratch == nil {
		return nil, s.validateEscaped(i)
	}
	return s.unescape(from, i, scratch)
}

func (s *scan) validateEscaped(i int) bool {
	for {
		i = s.plain(i)
		switch {
		case i == len(s.b):
			return s.fail(i, "it ends inside a string")
		case s.b[i] == '"':
			s.i = i + 1
			return true
		case s.b[i] < ' ':
			return s.fail(i, "a control character in a string is not escaped")
		}
		_, n := s.escape(i)
		if n == 0 {
			return false
		}
		i += n
	}
}

// unescape finishes str from the first backslash, at i, on.
func (s *scan) unescape(from, i int, scratch *[]byte) (val []byte, ok bool) {
	b := s.b
	start := len(*scratch)
	// An escape is never shorter than what it stands for, so out cannot
	// outrun the text that is left.
	out := (*scratch)[:cap(*scratch)]
	o := start + copy(out[start:], b[from:i])
	for {
		// Eight bytes are copied whether they are wanted or not; only the
		// clean ones are kept.
		for from := i; i+8 <= len(b) && o+8 <= len(out); {
			w := binary.LittleEndian.Uint64(b[i:])
			binary.LittleEndian.PutUint64(out[o:], w)
			m := special(w)
			if m == 0 {
				if i, o = i+8, o+8; i == from+32 && len(b)-i >= 32 { // a long one
					n := copy(out[o:], b[i:i+plainRun(b[i:])])
					i, o = i+n, o+n
				}
				continue
			}
			n := bits.TrailingZeros64(m) >> 3
			i, o = i+n, o+n
			break
		}
		if i == len(b) {
			return nil, s.fail(i, "it ends inside a string")
		}
		switch c := b[i]; {
		case c == '"':
			*scratch = out[:o]
			s.i = i + 1
			return out[start:o:o], true
		case c < ' ':
			return nil, s.fail(i, "a control character in a string is not escaped")
		case c != '\\': // in the last seven bytes
			out[o] = c
			i, o = i+1, o+1
			continue
		}
		if i+1 < len(b) {
			if c := unescaped[b[i+1]]; c != 0 {
				out[o] = c
				i, o = i+2, o+1
				continue
			}
		}
		r, n := s.escape(i)
		if n == 0 {
			return nil, false
		}
		o += utf8.EncodeRune(out[o:o+4], r)
		i += n
	}
}

// unescaped maps the byte after a backslash to what the two stand for.
var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads the escape at i and returns what it stands for and its length, 0
// if it is broken. Half a surrogate pair stands for U+FFFD, as in encoding/json.
func (s *scan) escape(i int) (r rune, n int) {
	if i+1 == len(s.b) {
		s.fail(i, "it ends inside a string")
		return 0, 0
	}
	if c := unescaped[s.b[i+1]]; c != 0 {
		return rune(c), 2
	}
	if r = s.unicode(i); r < 0 {
		s.fail(i, "there is an escape that JSON does not know")
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if low := s.unicode(i + 6); low >= 0 {
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, 12
		}
	}
	s.lossy = true
	return utf8.RuneError, 6
}

// unicode reads \uXXXX at i, or returns -1.
func (s *scan) unicode(i int) rune {
	if i+6 > len(s.b) || s.b[i] != '\\' || s.b[i+1] != 'u' {
		return -1
	}
	a, b, c, d := hexValue[s.b[i+2]], hexValue[s.b[i+3]], hexValue[s.b[i+4]], hexValue[s.b[i+5]]
	if a|b|c|d > 15 {
		return -1
	}
	return rune(a)<<12 | rune(b)<<8 | rune(c)<<4 | rune(d)
}

// skip validates the value at the current position, which is depth levels deep,
// and moves behind it.
func (s *scan) skip(depth int) bool {
	c := s.space()
	if s.i == len(s.b) {
		return s.fail(s.i, "it ends too early")
	}
	switch c {
	case '"':
		_, ok := s.str(nil)
		return ok
	case '{', '[':
		if depth >= maxDepth {
			return s.fail(s.i, "it is nested too deeply")
		}
		s.i++
		for first := true; ; first = false {
			more, ok := s.next(c+2, first) // the closing byte of both is two further on
			if !ok || !more {
				return ok
			}
			if c == '{' {
				if _, ok := s.key(nil); !ok {
					return false
				}
			}
			if !s.skip(depth + 1) {
				return false
			}
		}
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

func (s *scan) literal(word string) bool {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return s.fail(s.i, "there is a word that JSON does not know")
	}
	s.i += len(word)
	return true
}

func (s *scan) number() bool {
	start := s.i
	if s.i < len(s.b) && s.b[s.i] == '-' {
		s.i++
	}
	switch {
	case s.i < len(s.b) && s.b[s.i] == '0':
		s.i++
	case !s.digits():
		return s.fail(start, "a value is missing or not JSON")
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		if s.i++; !s.digits() {
			return s.fail(s.i, "a number has no digit after its point")
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		if s.i++; s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if !s.digits() {
			return s.fail(s.i, "a number has no digit in its exponent")
		}
	}
	return true
}

func (s *scan) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' <= 9 {
		s.i++
	}
	return s.i > start
}
