package pusher

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"strconv"
	"sync"
	"time"
)

// clockGrace is the distance in seconds between auth_timestamp and the server's
// clock at which Pusher stops accepting a request.
const clockGrace = 600

// Key is one auth key with its secret. The HMAC state is pooled, so signing and
// verifying allocate nothing in steady state. It is safe for concurrent use, and
// its printed form is the key alone.
type Key struct {
	name    []byte
	escaped []byte    // name as it stands in a query
	macs    sync.Pool // of *mac; only its New holds what the secret can be made out of, where no format verb finds it
}

// mac is the working memory of one signature.
type mac struct {
	hash  hash.Hash
	text  []byte // the string to sign
	path  []byte // the decoded path
	pairs []pair // of a request to be signed
	sum   [sha256.Size]byte
	hex   [2 * sha256.Size]byte
	stamp [20]byte
	md5   [2 * md5.Size]byte
}

// NewKey returns a key. Both parts are taken as they are.
func NewKey(key, secret string) *Key {
	k := &Key{name: []byte(key), escaped: appendEscaped(nil, []byte(key))}
	k.macs.New = func() any { return &mac{hash: hmac.New(sha256.New, []byte(secret))} }
	return k
}

// Name is the public half.
func (k *Key) Name() string { return string(k.name) }

// String is Name, so that no format verb shows the secret.
func (k *Key) String() string { return string(k.name) }

// GoString is String for %#v.
func (k *Key) GoString() string { return "pusher.Key(" + string(k.name) + ")" }

// sign leaves the hexadecimal HMAC-SHA256 of text in m.hex.
func (m *mac) sign(text []byte) {
	m.hash.Reset()
	m.hash.Write(text)
	encodeHex(m.hex[:], m.hash.Sum(m.sum[:0]))
}

// hexPairs are the two digits of each byte, the first one in the low half.
var hexPairs = func() (t [256]uint16) {
	const digits = "0123456789abcdef"
	for i := range t {
		t[i] = uint16(digits[i>>4]) | uint16(digits[i&15])<<8
	}
	return t
}()

// encodeHex writes src in hexadecimal; dst has twice its length.
func encodeHex(dst, src []byte) {
	for i, c := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], hexPairs[c])
	}
}

// Verify reports why Pusher would not accept this request, or nil: auth_version,
// auth_timestamp (600 s or more away from now is refused), the signature in
// constant time, and body_md5 against the bytes of body, which the signature
// itself does not cover. A request with a body must have a body_md5; the MD5 of
// nothing on a request without one is fine (the Python SDK sends it).
//
// rawPath is the path as sent. Values are signed unescaped, as pusher-signature
// does. A path may be signed as sent or unescaped: Node's SDK signs the path that
// it was given and has its HTTP client escape it.
func (k *Key) Verify(method string, rawPath []byte, q *Query, body []byte, now time.Time) *Error {
	if name, ok := q.Get("auth_key"); !ok {
		return MissingParameter("auth_key")
	} else if !bytes.Equal(name, k.name) {
		return UnknownKey(name)
	}
	if version, ok := q.Get("auth_version"); !ok {
		return unauthorized("Version required: send auth_version=1.0.")
	} else if string(version) != "1.0" {
		return unauthorized("Version not supported: send auth_version=1.0, not ", quote(version, 20), ".")
	}
	if stamp, ok := q.Get("auth_timestamp"); !ok {
		return unauthorized("Timestamp required: send auth_timestamp, the seconds since 1970-01-01T00:00:00Z.")
	} else if e := checkStamp(stamp, now); e != nil {
		return e
	}
	sent, ok := q.Get("auth_signature")
	if !ok {
		return MissingParameter("auth_signature")
	}

	m := k.macs.Get().(*mac)
	defer k.macs.Put(m)
	if !m.matches(method, rawPath, q, sent) {
		m.text = appendText(m.text[:0], method, rawPath, q)
		return unauthorized("Invalid signature: you should have sent HmacSHA256Hex(", quote(WithoutSignatures(m.text), 1024),
			", your_secret_key). Check the secret, and that nothing between the caller and this server rewrites path or query.")
	}
	return m.checkBody(q, body)
}

// checkStamp compares auth_timestamp with the clock, in whole seconds as Pusher
// does. It reads the digits that a value begins with, as Ruby does.
func checkStamp(stamp []byte, now time.Time) *Error {
	given, numeric := leadingNumber(stamp)
	server := now.Unix()
	if d := given - server; d > -clockGrace && d < clockGrace {
		return nil
	}
	const iso = "2006-01-02T15:04:05Z"
	hint := ". Set the caller's clock (NTP), and sign a request when it is sent, not when it is queued."
	switch {
	case !numeric:
		hint = ". auth_timestamp must be whole seconds since 1970-01-01T00:00:00Z, not " + quote(stamp, 40) + "."
	case given > server*100:
		hint = ". auth_timestamp must be seconds since 1970-01-01T00:00:00Z; this looks like milliseconds."
	}
	return unauthorized("Timestamp expired: Given timestamp (", time.Unix(min(given, 253402300799), 0).UTC().Format(iso),
		") not within ", strconv.Itoa(clockGrace), "s of server time (", now.UTC().Format(iso), ")", hint)
}

// leadingNumber is Ruby's String#to_i for what fits into eighteen digits: blanks, a
// sign and digits are read, what follows is not. numeric is false if there is more
// to a value than that.
func leadingNumber(b []byte) (n int64, numeric bool) {
	all := len(b)
	b = bytes.TrimLeft(b, " \t\n\v\f\r")
	negative := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative, b = b[0] == '-', b[1:]
	}
	digits := 0
	for digits < len(b) && b[digits]-'0' <= 9 {
		if digits == 18 {
			return 0, false
		}
		n = n*10 + int64(b[digits]-'0')
		digits++
	}
	if negative {
		n = -n
	}
	return n, digits > 0 && digits == all
}

// matches tries the two forms of the string to sign, the one that Pusher
// documents first.
func (m *mac) matches(method string, rawPath []byte, q *Query, sent []byte) bool {
	if len(sent) != len(m.hex) {
		return false
	}
	m.text = appendText(m.text[:0], method, rawPath, q)
	m.sign(m.text)
	if subtleEqual(m.hex[:], sent) {
		return true
	}
	path, differs := m.decodePath(rawPath)
	if !differs {
		return false
	}
	m.text = appendText(m.text[:0], method, path, q)
	m.sign(m.text)
	return subtleEqual(m.hex[:], sent)
}

func subtleEqual(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// appendText appends the string to sign: method, path and the sorted pairs
// without auth_signature, values unescaped.
func appendText(dst []byte, method string, path []byte, q *Query) []byte {
	dst = append(dst, method...)
	dst = append(dst, '\n')
	dst = append(dst, path...)
	sep := byte('\n')
	for _, i := range q.order {
		p := &q.pairs[i]
		if string(p.key) == "auth_signature" {
			continue
		}
		dst = append(dst, sep)
		sep = '&'
		dst = append(dst, p.key...)
		dst = append(dst, '=')
		dst = append(dst, p.value...)
	}
	return dst
}

// decodePath undoes percent escapes in a path. differs is false when there is
// none, or one is broken and the path stands for itself only.
func (m *mac) decodePath(raw []byte) (path []byte, differs bool) {
	if bytes.IndexByte(raw, '%') < 0 {
		return nil, false
	}
	m.path = m.path[:0]
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) {
				return nil, false
			}
			hi, lo := hexValue[raw[i+1]], hexValue[raw[i+2]]
			if hi|lo > 15 {
				return nil, false
			}
			c = hi<<4 | lo
			i += 2
		}
		m.path = append(m.path, c)
	}
	return m.path, true
}

func (m *mac) checkBody(q *Query, body []byte) *Error {
	sent, ok := q.Get("body_md5")
	if !ok {
		if len(body) == 0 {
			return nil
		}
		return MissingParameter("body_md5")
	}
	if len(sent) == len(m.md5) {
		sum := md5.Sum(body)
		encodeHex(m.md5[:], sum[:])
		// Neither is secret: the caller sent both.
		if bytes.Equal(sent, m.md5[:]) || bytes.EqualFold(sent, m.md5[:]) {
			q.md5, q.md5Of = m.md5, body
			return nil
		}
	}
	return unauthorized("Invalid body_md5: the request says ", quote(sent, 40), ", but its body of ",
		strconv.Itoa(len(body)), " bytes has another MD5. Sign exactly the bytes that are sent.")
}

// sameBytes reports whether a and b are the very same memory.
func sameBytes(a, b []byte) bool {
	return len(a) == len(b) && len(a) > 0 && &a[0] == &b[0]
}

// AppendSigned appends a freshly signed query string to dst: the pairs of q that
// are not about signing (q nil: none), then auth_key, auth_timestamp,
// auth_version, body_md5 if there is a body, and auth_signature. rawPath is the
// path that will be sent, escapes and all, and signed so.
//
// Pairs are written in one form: a key in small letters, and a value that came
// with escapes escaped anew, so that no two readers see different values in it.
// Nothing of how the caller signed goes on.
func (k *Key) AppendSigned(dst []byte, method string, rawPath []byte, q *Query, body []byte, now time.Time) []byte {
	return k.appendSigned(dst, method, rawPath, q, body, now)
}

// AppendSignedUnescaped is AppendSigned with a signature over the unescaped path,
// as servers want it that unescape a path before they check. It is the same where
// nothing is escaped.
func (k *Key) AppendSignedUnescaped(dst []byte, method string, rawPath []byte, q *Query, body []byte, now time.Time) []byte {
	return k.appendSigned(dst, method, undoEscapes(rawPath), q, body, now)
}

func (k *Key) appendSigned(dst []byte, method string, path []byte, q *Query, body []byte, now time.Time) []byte {
	m := k.macs.Get().(*mac)
	defer k.macs.Put(m)

	m.pairs = m.pairs[:0]
	m.own(authKey, k.name, k.escaped)
	stamp := strconv.AppendInt(m.stamp[:0], now.Unix(), 10)
	m.own(authTimestamp, stamp, stamp)
	m.own(authVersion, versionOne, versionOne)
	if len(body) > 0 {
		if q != nil && sameBytes(q.md5Of, body) {
			m.md5 = q.md5
		} else {
			sum := md5.Sum(body)
			encodeHex(m.md5[:], sum[:])
		}
		m.own(bodyMD5, m.md5[:], m.md5[:])
	}
	if q != nil {
		for _, i := range q.order {
			if p := &q.pairs[i]; !bytes.HasPrefix(p.key, authPrefix) && string(p.key) != "body_md5" {
				m.insert(*p)
			}
		}
	}

	m.text = append(append(append(m.text[:0], method...), '\n'), path...)
	sep := byte('\n')
	for i := range m.pairs {
		p := &m.pairs[i]
		m.text = append(append(append(m.text, sep), p.key...), '=')
		if sep = '&'; i > 0 {
			dst = append(dst, '&')
		}
		dst = p.appendTo(dst)
		m.text = append(m.text, p.value...)
	}
	m.sign(m.text)
	clear(m.pairs)
	dst = append(dst, "&auth_signature="...)
	return append(dst, m.hex[:]...)
}

// appendTo appends a pair as it stands in a query: in the bytes in which it came
// where those are its only form.
func (p *pair) appendTo(dst []byte) []byte {
	if len(p.key) == len(p.rawKey) && (p.own || len(p.key) == 0 || &p.key[0] == &p.rawKey[0]) {
		dst = append(dst, p.rawKey...)
	} else {
		dst = appendEscaped(dst, p.key)
	}
	dst = append(dst, '=')
	if p.own || len(p.value) == len(p.rawValue) && (len(p.value) == 0 || &p.value[0] == &p.rawValue[0]) {
		return append(dst, p.rawValue...)
	}
	return appendEscaped(dst, p.value)
}

// own adds a pair of ours; escaped is its value as it stands in a query.
func (m *mac) own(key, value, escaped []byte) {
	m.insert(pair{rawKey: key, key: key, value: value, rawValue: escaped, own: true})
}

// insert keeps m.pairs sorted by key; pairs of equal keys stay in order.
func (m *mac) insert(p pair) {
	m.pairs = append(m.pairs, p)
	for j := len(m.pairs) - 1; j > 0 && bytes.Compare(m.pairs[j].key, m.pairs[j-1].key) < 0; j-- {
		m.pairs[j], m.pairs[j-1] = m.pairs[j-1], m.pairs[j]
	}
}

// appendEscaped escapes everything that RFC 3986 does not call unreserved.
func appendEscaped(dst, s []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range s {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

var (
	authPrefix    = []byte("auth_")
	authKey       = []byte("auth_key")
	authTimestamp = []byte("auth_timestamp")
	authVersion   = []byte("auth_version")
	bodyMD5       = []byte("body_md5")
	versionOne    = []byte("1.0")
)
