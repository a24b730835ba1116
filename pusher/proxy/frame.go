package proxy

import (
	"bytes"
)

// framing says what the bytes of a connection are, for the express lane.
type framing uint8

const (
	framePart    framing = iota // the beginning of one request: more must come
	frameWhole                  // exactly one request
	frameUnusual                // anything else: fasthttp's to read
)

var (
	endOfHead      = []byte("\r\n\r\n")
	endOfFirstLine = []byte(" HTTP/1.1\r\n")

	nameContentLength    = []byte("content-length")
	nameTransferEncoding = []byte("transfer-encoding")
	nameExpect           = []byte("expect")
)

// frame looks where a request ends, so that one is parsed only once it is there
// whole. It decides nothing else: fasthttp then reads the same bytes, and what
// it reads otherwise than frame did, by a single byte, goes to its own server
// loop. So frame may be as simple as it is, and refuse to say whatever it does
// not know.
func frame(b []byte, room int) framing {
	if len(b) == 0 {
		return framePart
	}
	if b[0] < 'A' || b[0] > 'Z' {
		return frameUnusual
	}
	line := bytes.IndexByte(b, '\n')
	if line < 0 {
		return partUpTo(b, room)
	}
	if !bytes.HasSuffix(b[:line+1], endOfFirstLine) {
		return frameUnusual
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
			return frameUnusual
		case 'c':
			if !isField(name, nameContentLength) {
				break
			}
			var ok bool
			if length, ok = fieldNumber(name[len(nameContentLength)+1:]); !ok || given {
				return frameUnusual
			}
			given = true
		case 't':
			if isField(name, nameTransferEncoding) {
				return frameUnusual
			}
		case 'e':
			if isField(name, nameExpect) {
				return frameUnusual
			}
		}
		at = next
	}
	switch whole := head + length; {
	case whole > room:
		return frameUnusual
	case len(b) < whole:
		return framePart
	case len(b) == whole:
		return frameWhole
	}
	return frameUnusual // more than one
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

// frameAnswer reads the answer that nearly every call gets: 200 with a length,
// all of it there and nothing behind it. ok is false for whatever else b may be,
// which is then fasthttp's to read from its first byte; so, as with frame, it may
// refuse to say. The results are parts of b.
func frameAnswer(b []byte) (contentType, body []byte, ok bool) {
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

func partUpTo(b []byte, room int) framing {
	if len(b) >= room {
		return frameUnusual
	}
	return framePart
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

// bodyOf is the body of a whole request.
func bodyOf(b []byte) []byte { return b[bytes.Index(b, endOfHead)+len(endOfHead):] }

// closes says whether a whole request, by its head, is the last of its connection.
func closes(b []byte) bool {
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
