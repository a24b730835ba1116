package wire

import (
	"bytes"
)

// Framing is what a connection's unread bytes are.
type Framing uint8

const (
	Part    Framing = iota // the beginning of one request: more must come
	Whole                  // exactly one request
	Unusual                // anything else: fasthttp's to read
)

var (
	endOfHead      = []byte("\r\n\r\n")
	endOfFirstLine = []byte(" HTTP/1.1\r\n")

	nameContentLength    = []byte("content-length")
	nameTransferEncoding = []byte("transfer-encoding")
	nameExpect           = []byte("expect")
)

// Frame finds the end of a request of at most room bytes, so that it is parsed only once it is there
// whole. It decides nothing else: fasthttp then reads the same bytes, and a request of which it uses
// one byte more or less goes to fasthttp's own server loop. So Frame may answer Unusual whenever it
// does not know.
func Frame(b []byte, room int) Framing {
	if len(b) == 0 {
		return Part
	}
	if b[0] < 'A' || b[0] > 'Z' {
		return Unusual
	}
	line := bytes.IndexByte(b, '\n')
	if line < 0 {
		return partUpTo(b, room)
	}
	if !bytes.HasSuffix(b[:line+1], endOfFirstLine) {
		return Unusual
	}
	head := bytes.Index(b[line-1:], endOfHead)
	if head < 0 {
		return partUpTo(b, room)
	}
	head += line - 1 + len(endOfHead)
	length, given := 0, false
	for at := line + 1; at < head-2; {
		next := bytes.IndexByte(b[at:head], '\n') + at + 1
		name := b[at:next]
		switch name[0] | 0x20 {
		case ' ', '\t' | 0x20: // a folded line
			return Unusual
		case 'c':
			if !isField(name, nameContentLength) {
				break
			}
			var ok bool
			if length, ok = fieldNumber(name[len(nameContentLength)+1:]); !ok || given {
				return Unusual
			}
			given = true
		case 't':
			if isField(name, nameTransferEncoding) {
				return Unusual
			}
		case 'e':
			if isField(name, nameExpect) {
				return Unusual
			}
		}
		at = next
	}
	switch whole := head + length; {
	case whole > room:
		return Unusual
	case len(b) < whole:
		return Part
	case len(b) == whole:
		return Whole
	}
	return Unusual // more than one
}

var (
	answerLine           = []byte("HTTP/1.1 200 OK\r\n")
	nameContentType      = []byte("content-type")
	nameContentEncoding  = []byte("content-encoding")
	nameConnection       = []byte("connection")
	nameTrailer          = []byte("trailer")
	nameUpgrade          = []byte("upgrade")
	connectionIsToBeKept = []byte("keep-alive")
)

// ReadAnswer reads the answer that nearly every call to Pusher gets: 200 with a Content-Length, the
// whole body in b and nothing after it. ok is false for any other input, which fasthttp then reads
// from the first byte. The results are parts of b.
func ReadAnswer(b []byte) (contentType, body []byte, ok bool) {
	if !bytes.HasPrefix(b, answerLine) {
		return nil, nil, false
	}
	length, given := 0, false
	for at := len(answerLine); ; {
		next := bytes.IndexByte(b[at:], '\n') + at + 1
		if next < at+2 || b[next-2] != '\r' {
			return nil, nil, false
		}
		line := b[at : next-2]
		at = next
		if len(line) == 0 {
			body = b[at:]
			return contentType, body, given && len(body) == length
		}
		colon := 0
		for ; colon < len(line) && fieldNameByte(line[colon]); colon++ {
		}
		if colon == 0 || colon == len(line) || line[colon] != ':' {
			return nil, nil, false
		}
		value := bytes.Trim(line[colon+1:], " ")
		for _, c := range value {
			if c < ' ' || c > '~' {
				return nil, nil, false
			}
		}
		switch line[0] | 0x20 {
		case 'c':
			switch {
			case isField(line, nameContentLength):
				n, digits := fieldNumber(value)
				if !digits || given {
					return nil, nil, false
				}
				length, given = n, true
			case isField(line, nameContentType):
				if contentType != nil || len(value) == 0 {
					return nil, nil, false
				}
				contentType = value
			case isField(line, nameConnection):
				if !bytes.EqualFold(value, connectionIsToBeKept) {
					return nil, nil, false
				}
			case isField(line, nameContentEncoding):
				return nil, nil, false
			}
		case 't':
			if isField(line, nameTransferEncoding) || isField(line, nameTrailer) {
				return nil, nil, false
			}
		case 'u':
			if isField(line, nameUpgrade) {
				return nil, nil, false
			}
		}
	}
}

// fieldNameByte reports whether c may stand in the names of headers that are in
// use; RFC 9110 allows some more.
func fieldNameByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

func partUpTo(b []byte, room int) Framing {
	if len(b) >= room {
		return Unusual
	}
	return Part
}

// isField reports whether a header line is of that name, given in lower case.
func isField(line, name []byte) bool {
	return len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], name)
}

// fieldNumber reads a header's value of a few digits and nothing else.
func fieldNumber(line []byte) (n int, ok bool) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || len(line) > 7 {
		return 0, false
	}
	for _, c := range line {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// BodyOf returns the body of a whole request.
func BodyOf(b []byte) []byte { return b[bytes.Index(b, endOfHead)+len(endOfHead):] }

// Closes reports whether a whole request asks, in its head, to close the connection.
func Closes(b []byte) bool {
	head := b[:bytes.Index(b, endOfHead)+2]
	for at := bytes.IndexByte(head, '\n') + 1; at < len(head); {
		next := bytes.IndexByte(head[at:], '\n') + at + 1
		if isField(head[at:next], nameConnection) && !bytes.EqualFold(bytes.TrimSpace(head[at+len(nameConnection)+1:next]), connectionIsToBeKept) {
			return true
		}
		at = next
	}
	return false
}
