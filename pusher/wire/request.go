package wire

import (
	"bytes"
	"encoding/binary"

	"github.com/valyala/fasthttp"
)

// Request is one request from an app server, as far as the guard looks at it. Its fields borrow
// from the bytes that were read.
type Request struct {
	Method, Target, Body []byte
	// The caller's SDK, as it calls itself: by one header, or by two.
	Library, LibraryName, LibraryVersion []byte
	LoadTest                             []byte
}

var (
	// HeaderLibrary names the caller's SDK.
	HeaderLibrary        = []byte("X-Pusher-Library")
	headerLibraryName    = []byte("Pusher-Library-Name")
	headerLibraryVersion = []byte("Pusher-Library-Version")
	// headerLoadTest says of a request that it belongs to a load test and must not
	// go out. It gives no right and takes none away: who signs with the key of a
	// load_test caller is never sent, with or without it, and from anybody else it
	// is refused, so that a test with the wrong key costs nothing.
	headerLoadTest = []byte("Pushguard-Load-Test")
)

// FromFasthttp takes the fields from a request that fasthttp has read.
func (r *Request) FromFasthttp(req *fasthttp.Request) {
	h := &req.Header
	*r = Request{Method: h.Method(), Target: h.RequestURI(), Body: req.Body(), Library: h.PeekBytes(HeaderLibrary), LoadTest: h.PeekBytes(headerLoadTest)}
	if len(r.Library) == 0 {
		r.LibraryName, r.LibraryVersion = h.PeekBytes(headerLibraryName), h.PeekBytes(headerLibraryVersion)
	}
}

var (
	publishLine = []byte("POST /apps/")

	nameHost           = []byte("host")
	nameLibrary        = bytes.ToLower(HeaderLibrary)
	nameLibraryName    = bytes.ToLower(headerLibraryName)
	nameLibraryVersion = bytes.ToLower(headerLibraryVersion)
	nameLoadTest       = bytes.ToLower(headerLoadTest)
)

// Read reads a publish in the form in which every SDK sends it: POST to an app's path, to the given
// host, with a Content-Length and the whole body in b, and nothing after it. It reports false for
// any other input, which fasthttp then reads from the first byte. A request that Read accepts means
// the same to fasthttp: FuzzRequestRead holds it to that.
func (r *Request) Read(b, host []byte, maxBody int) bool {
	if !bytes.HasPrefix(b, publishLine) {
		return false
	}
	line := bytes.IndexByte(b, '\n')
	if line < 0 || !bytes.HasSuffix(b[:line+1], endOfFirstLine) {
		return false
	}
	*r = Request{Method: b[:len("POST")], Target: b[len("POST "):][:line+1-len(endOfFirstLine)-len("POST ")]}
	if !Printable(r.Target) || bytes.IndexByte(r.Target, ' ') >= 0 {
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
			r.Body = b[at:]
			return hosted && len(r.Body) == length && length <= maxBody
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
		if !Printable(value) {
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
				to = &r.Library
			}
		case len("pusher-library-version"):
			if bytes.EqualFold(name, nameLibraryVersion) {
				to = &r.LibraryVersion
			}
		case len("pushguard-load-test"): // as long as pusher-library-name
			switch {
			case bytes.EqualFold(name, nameLibraryName):
				to = &r.LibraryName
			case bytes.EqualFold(name, nameLoadTest):
				to = &r.LoadTest
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

// MoveTo makes a request that was read from a buffer of the given capacity borrow from b instead,
// a copy of that buffer.
func (r *Request) MoveTo(b []byte, capacity int) {
	for _, part := range [...]*[]byte{&r.Method, &r.Target, &r.Body, &r.Library, &r.LibraryName, &r.LibraryVersion, &r.LoadTest} {
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

// Printable reports whether b is of printable ASCII alone, blanks included.
func Printable(b []byte) bool {
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

// Smuggling says why a request is one that two servers in a row may read
// differently (RFC 9112, 6.3 and 11.2), or that no HTTP/1 client sends.
func Smuggling(h *fasthttp.RequestHeader) string {
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
