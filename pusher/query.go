package pusher

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// Bounds of a query string. Four parameters sign a request, five describe an
// event, and `channels[]` may be repeated; all the rest is room for endpoints
// that do not exist yet.
const (
	maxQueryPairs = 64 + 100
	maxQueryBytes = 96 << 10 // a 10 KiB `data`, every byte of it escaped, and 100 channels
)

// Query is a raw query string, cut into its pairs. net/url would drop pairs with
// a `;`, which is legal in channel names, and would forget how the values were
// written, which matters because SDKs differ in what they sign.
//
// The zero value is an empty query. It is reused by calling Parse again, and
// borrows the bytes it was given until then.
type Query struct {
	pairs []pair
	order []uint8 // indices into pairs, sorted by key; equal keys as they came
	buf   []byte  // unescaped and lower-cased bytes; never regrown while pairs point into it

	// md5 is the hex MD5 of md5Of, a body that was verified under this query: a
	// body passed on as it came need not be digested again.
	md5   [32]byte
	md5Of []byte
}

type pair struct {
	rawKey, rawValue []byte // as sent
	key, value       []byte // lower-cased and unescaped; unescaped
	own              bool   // made by AppendSigned, which signs it unescaped
}

const (
	queryUpper  = 1 << iota // A-Z
	queryEscape             // % or +
	queryBad                // control bytes, space, DEL, #
)

var queryClass = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c >= 'A' && c <= 'Z':
			t[c] = queryUpper
		case c == '%' || c == '+':
			t[c] = queryEscape
		case c <= ' ' || c == 0x7f || c == '#':
			t[c] = queryBad
		}
	}
	return t
}()

// Parse cuts raw into pairs at `&` only. It refuses control bytes, blanks, `#`,
// broken percent escapes, more than 164 pairs, and any key that comes twice
// without being an array (`k[]`): one reader would take the first, another the
// last, and the signature covers both.
//
// The error, if any, is always an *Error of status 400.
func (q *Query) Parse(raw []byte) error {
	q.pairs, q.order = q.pairs[:0], q.order[:0]
	q.md5Of = nil
	if len(raw) > maxQueryBytes {
		return badRequest("The query string is longer than ", strconv.Itoa(maxQueryBytes),
			" bytes. Send the parameters of a POST in its JSON body.")
	}
	if cap(q.buf) < len(raw) {
		q.buf = make([]byte, 0, max(512, len(raw)))
	}
	q.buf = q.buf[:0]
	plain := plainQuery(raw)
	for at := 0; at < len(raw); {
		end := len(raw)
		if n := bytes.IndexByte(raw[at:], '&'); n >= 0 {
			end = at + n
		}
		if end > at {
			if e := q.add(raw, at, end, plain); e != nil {
				q.pairs, q.order = q.pairs[:0], q.order[:0]
				return e
			}
		}
		at = end + 1
	}
	if e := q.sort(); e != nil {
		q.pairs, q.order = q.pairs[:0], q.order[:0]
		return e
	}
	return nil
}

// plainQuery reports whether no byte of b is one of queryEscape or queryBad, by
// words. It says no to a few more that are seldom: !, ", $ and what is not ASCII.
func plainQuery(b []byte) bool {
	var odd uint64
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		low := w &^ highs
		plus := w ^ '+'*ones
		// In the high bit of each byte: it is below &; it is DEL or not ASCII; it is +.
		odd |= ^(low + (0x80-'&')*ones) | (low + ones) | w | (plus-ones)&^plus
		b = b[8:]
	}
	var class uint8
	for _, c := range b {
		class |= queryClass[c]
	}
	return odd&highs == 0 && class&(queryEscape|queryBad) == 0
}

// add takes the pair at raw[at:end]; plain is plainQuery of it or of more.
func (q *Query) add(raw []byte, at, end int, plain bool) *Error {
	if len(q.pairs) == maxQueryPairs {
		return badRequest("The query string has more than ", strconv.Itoa(maxQueryPairs),
			" parameters. Send the parameters of a POST in its JSON body.")
	}
	var keyClass, valueClass uint8
	i := at
	for ; i < end && raw[i] != '='; i++ {
		keyClass |= queryClass[raw[i]]
	}
	n := len(q.pairs)
	if n == cap(q.pairs) {
		q.pairs = append(q.pairs, pair{})[:n]
	}
	p := &q.pairs[:n+1][n] // of this one every field is written
	p.rawKey, p.rawValue, p.own = raw[at:i:i], nil, false
	if i < end {
		p.rawValue = raw[i+1 : end : end]
	}
	if !plain {
		for _, c := range p.rawValue {
			valueClass |= queryClass[c]
		}
	}
	if (keyClass|valueClass)&queryBad != 0 {
		for j := at; j < end; j++ {
			if queryClass[raw[j]]&queryBad != 0 {
				return badRequest("The query string has a byte that must be percent-escaped, ",
					quote(raw[j:j+1], 1), ", at byte ", strconv.Itoa(j), ".")
			}
		}
	}
	p.key, p.value = p.rawKey, p.rawValue
	if keyClass != 0 {
		key, bad := q.unescape(p.rawKey)
		if bad >= 0 {
			return badEscape(at + bad)
		}
		for j, c := range key {
			if c >= 'A' && c <= 'Z' {
				key[j] = c + 'a' - 'A'
			}
		}
		p.key = key
	}
	if valueClass&queryEscape != 0 {
		value, bad := q.unescape(p.rawValue)
		if bad >= 0 {
			return badEscape(i + 1 + bad)
		}
		p.value = value
	}
	q.pairs = q.pairs[:n+1]
	return nil
}

func badEscape(at int) *Error {
	return badRequest("The query string has a broken percent escape at byte ", strconv.Itoa(at),
		"; write % itself as %25.")
}

// unescape appends the unescaped form of s to q.buf and returns it, or the index
// of a broken escape.
func (q *Query) unescape(s []byte) (out []byte, bad int) {
	from := len(q.buf)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if i+2 >= len(s) {
				return nil, i
			}
			hi, lo := hexValue[s[i+1]], hexValue[s[i+2]]
			if hi|lo > 15 {
				return nil, i
			}
			c = hi<<4 | lo
			i += 2
		}
		q.buf = append(q.buf, c)
	}
	return q.buf[from:len(q.buf):len(q.buf)], -1
}

// sort orders the pairs by key. Most SDKs send them sorted, or nearly so.
func (q *Query) sort() *Error {
	for i := range q.pairs {
		key := q.pairs[i].key
		q.order = append(q.order, uint8(i))
		for j := i; j > 0; j-- {
			c := bytes.Compare(key, q.pairs[q.order[j-1]].key)
			if c == 0 && !bytes.HasSuffix(key, arraySuffix) {
				return badRequest("The query parameter ", quote(key, 40), " is given twice. Send it once.")
			}
			if c >= 0 {
				break
			}
			q.order[j], q.order[j-1] = q.order[j-1], q.order[j]
		}
	}
	return nil
}

var arraySuffix = []byte("[]")

// Get returns the unescaped value of the first pair whose key, lower-cased, is
// key. It does not allocate.
func (q *Query) Get(key string) (value []byte, ok bool) {
	if q == nil {
		return nil, false
	}
	for i := range q.pairs {
		if string(q.pairs[i].key) == key {
			return q.pairs[i].value, true
		}
	}
	return nil, false
}

// Len is the number of pairs.
func (q *Query) Len() int {
	if q == nil {
		return 0
	}
	return len(q.pairs)
}

// At returns the i-th pair in the order of sending: the key lower-cased, both
// unescaped.
func (q *Query) At(i int) (key, value []byte) { return q.pairs[i].key, q.pairs[i].value }

// hexValue maps a hexadecimal digit to its value, and all else to 0xff.
var hexValue = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = byte(c - '0')
		case c >= 'a' && c <= 'f':
			t[c] = byte(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			t[c] = byte(c - 'A' + 10)
		default:
			t[c] = 0xff
		}
	}
	return t
}()
