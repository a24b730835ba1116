package proxy

import (
	"bytes"
	"encoding/binary"

	"github.com/valyala/fasthttp"
)

// request is what a publish, or whatever else goes to Pusher, is judged by. It
// borrows from the bytes that came.
type request struct {
	method, target, body []byte
	// The caller's SDK, as it calls itself: by one header, or by two.
	library, libraryName, libraryVersion []byte
	loadTest                             []byte
}

var (
	headerLibrary        = []byte("X-Pusher-Library")
	headerLibraryName    = []byte("Pusher-Library-Name")
	headerLibraryVersion = []byte("Pusher-Library-Version")
	// headerLoadTest says of a request that it belongs to a load test and must not
	// go out. It gives no right and takes none away: who signs with the key of a
	// load_test caller is never sent, with or without it, and from anybody else it
	// is refused, so that a test with the wrong key costs nothing.
	headerLoadTest = []byte("Pushguard-Load-Test")
)

// from takes what fasthttp read.
func (r *request) from(req *fasthttp.Request) {
	h := &req.Header
	*r = request{method: h.Method(), target: h.RequestURI(), body: req.Body(), library: h.PeekBytes(headerLibrary), loadTest: h.PeekBytes(headerLoadTest)}
	if len(r.library) == 0 {
		r.libraryName, r.libraryVersion = h.PeekBytes(headerLibraryName), h.PeekBytes(headerLibraryVersion)
	}
}

var (
	publishLine = []byte("POST /apps/")

	nameHost           = []byte("host")
	nameLibrary        = bytes.ToLower(headerLibrary)
	nameLibraryName    = bytes.ToLower(headerLibraryName)
	nameLibraryVersion = bytes.ToLower(headerLibraryVersion)
	nameLoadTest       = bytes.ToLower(headerLoadTest)
)

// read reads a request as every SDK sends its publishes: POST to an app's path,
// to a host that was seen before, with a body of a given length, all of it there
// and nothing behind it. It reports false for whatever else b may be, which is
// then frame's and fasthttp's to look at from its first byte; so, as they do, it may
// refuse to say, and what it takes it must read as fasthttp does.
func (r *request) read(b, host []byte, maxBody int) bool {
	if !bytes.HasPrefix(b, publishLine) {
		return false
	}
	line := bytes.IndexByte(b, '\n')
	if line < 0 || !bytes.HasSuffix(b[:line+1], endOfFirstLine) {
		return false
	}
	*r = request{method: b[:len("POST")], target: b[len("POST "):][:line+1-len(endOfFirstLine)-len("POST ")]}
	if !printable(r.target) || bytes.IndexByte(r.target, ' ') >= 0 {
		return false
	}
	length, hosted := -1, false
	for at := line + 1; ; {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 1 || b[at+n-1] != '\r' {
			return false
		}
		field := b[at : at+n-1]
		at += n + 1
		if len(field) == 0 {
			r.body = b[at:]
			return hosted && len(r.body) == length && length <= maxBody
		}
		colon := 0
		for colon < len(field) && nameBytes[field[colon]] {
			colon++
		}
		if colon == 0 || colon == len(field) || field[colon] != ':' {
			return false
		}
		value := field[colon+1:]
		for len(value) > 0 && value[0] == ' ' {
			value = value[1:]
		}
		for len(value) > 0 && value[len(value)-1] == ' ' {
			value = value[:len(value)-1]
		}
		if !printable(value) {
			return false
		}
		var to *[]byte
		switch name := field[:colon]; colon { // few names are so long as one of these
		case len("host"):
			if !bytes.EqualFold(name, nameHost) {
				break
			}
			if hosted || len(value) == 0 || !bytes.Equal(value, host) {
				return false
			}
			hosted = true
		case len("content-length"):
			if !bytes.EqualFold(name, nameContentLength) {
				break
			}
			var ok bool
			if length >= 0 {
				return false
			}
			if length, ok = fieldNumber(value); !ok {
				return false
			}
		case len("connection"):
			if bytes.EqualFold(name, nameConnection) && !bytes.EqualFold(value, connectionIsToBeKept) {
				return false
			}
		case len("transfer-encoding"):
			if bytes.EqualFold(name, nameTransferEncoding) {
				return false
			}
		case len("expect"):
			if bytes.EqualFold(name, nameExpect) {
				return false
			}
		case len("trailer"): // as long as upgrade
			if bytes.EqualFold(name, nameTrailer) || bytes.EqualFold(name, nameUpgrade) {
				return false
			}
		case len("x-pusher-library"):
			if bytes.EqualFold(name, nameLibrary) {
				to = &r.library
			}
		case len("pusher-library-version"):
			if bytes.EqualFold(name, nameLibraryVersion) {
				to = &r.libraryVersion
			}
		case len("pushguard-load-test"): // as long as pusher-library-name
			switch {
			case bytes.EqualFold(name, nameLibraryName):
				to = &r.libraryName
			case bytes.EqualFold(name, nameLoadTest):
				to = &r.loadTest
			}
		}
		if to != nil {
			if *to != nil {
				return false // twice
			}
			*to = value
		}
	}
}

// moveTo has a request that was read from bytes of the given capacity borrow from
// b, a copy of them.
func (r *request) moveTo(b []byte, capacity int) {
	for _, part := range [...]*[]byte{&r.method, &r.target, &r.body, &r.library, &r.libraryName, &r.libraryVersion, &r.loadTest} {
		if n := len(*part); n > 0 {
			at := capacity - cap(*part) // nothing has cut a capacity
			*part = b[at : at+n : at+n]
		}
	}
}

var nameBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = fieldNameByte(byte(c))
	}
	return t
}()

// printable reports whether b is of printable ASCII alone, blanks included.
func printable(b []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	var bad uint64
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		// In the high bit of each byte: it is below a blank, or DEL, or not ASCII.
		// What a borrow from the byte below adds is there with a mark of its own.
		del := w ^ 0x7f*ones
		bad |= (w-' '*ones)&^w | (del-ones)&^del | w
		b = b[8:]
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return bad&highs == 0
}

var (
	protocol10       = []byte("HTTP/1.0")
	protocol11       = []byte("HTTP/1.1")
	headerLengthHead = []byte("\ncontent-length")
	foldedSpace      = []byte("\n ")
	foldedTab        = []byte("\n\t")
)

// smuggling says why a request is one that two servers in a row may read
// differently (RFC 9112, 6.3 and 11.2), or that no HTTP/1 client sends.
func smuggling(h *fasthttp.RequestHeader) string {
	if v := h.Protocol(); !bytes.Equal(v, protocol11) && !bytes.Equal(v, protocol10) {
		return "this port speaks HTTP/1.1."
	}
	// A folded line (RFC 9112, 5.2): who unfolds it and who does not see different
	// headers, a length among them.
	if raw := h.RawHeaders(); bytes.Contains(raw, foldedSpace) || bytes.Contains(raw, foldedTab) {
		return "a header line begins with a space: folded headers are not read."
	}
	if h.ContentLength() == -1 { // chunked: fasthttp drops a Content-Length beside it
		if raw := bytes.ToLower(h.RawHeaders()); bytes.HasPrefix(raw, headerLengthHead[1:]) || bytes.Contains(raw, headerLengthHead) {
			return "the request has both Content-Length and Transfer-Encoding; send one of them."
		}
	}
	return ""
}
