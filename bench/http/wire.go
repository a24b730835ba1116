//go:build linux

package main

import (
	"bytes"
	"errors"
	"strconv"
)

// head is what the two ends of the benchmark need to know of an HTTP/1.1 message. Its slices borrow from the buffer.
type head struct {
	first   []byte // request line or status line
	body    []byte
	outcome []byte // Pushguard-Outcome
	size    int    // bytes of the whole message
}

var errIncomplete = errors.New("message is not complete yet")

var blankLine = []byte("\r\n\r\n")

// readHead reads the message that b begins with. The body must have a Content-Length: chunks and messages that end
// with the connection are refused, since no row of the benchmark should meet them.
func readHead(b []byte) (h head, err error) {
	end := bytes.Index(b, blankLine)
	if end < 0 {
		return h, errIncomplete
	}
	length := 0
	rest := b[:end+2]
	for i := 0; len(rest) > 0; i++ {
		nl := bytes.IndexByte(rest, '\n')
		line := rest[:nl-1]
		rest = rest[nl+1:]
		switch {
		case i == 0:
			h.first = line
		case hasHeader(line, "content-length:"):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[15:]))); err != nil || length < 0 {
				return h, errors.New("a Content-Length that is no number")
			}
		case hasHeader(line, "transfer-encoding:"):
			return h, errors.New("a chunked message: the benchmark expects a Content-Length")
		case hasHeader(line, "pushguard-outcome:"):
			h.outcome = bytes.TrimSpace(line[18:])
		}
	}
	h.size = end + 4 + length
	if len(b) < h.size {
		return h, errIncomplete
	}
	h.body = b[end+4 : h.size]
	return h, nil
}

// hasHeader compares a line with a lower-case prefix; the first byte decides nearly always.
func hasHeader(line []byte, prefix string) bool {
	return len(line) >= len(prefix) && line[0]|0x20 == prefix[0] && bytes.EqualFold(line[:len(prefix)], []byte(prefix))
}

// status is the code of a status line, 0 if it is none.
func status(first []byte) int {
	if len(first) < 12 || !bytes.HasPrefix(first, []byte("HTTP/1.1 ")) {
		return 0
	}
	code := 0
	for _, c := range first[9:12] {
		if c < '0' || c > '9' {
			return 0
		}
		code = code*10 + int(c-'0')
	}
	return code
}

// publishes is how many (event, channel) pairs a body holds: what its callers published one by one, however it was
// folded on the way. It counts keys instead of parsing: inside of "data" quotes are escaped, so they cannot occur there.
func publishes(batch bool, body []byte) int64 {
	if batch {
		return int64(bytes.Count(body, []byte(`"channel":`)))
	}
	_, list, many := bytes.Cut(body, []byte(`"channels":[`))
	if !many {
		return 1
	}
	list, _, _ = bytes.Cut(list, []byte(`]`)) // channel names have neither brackets nor quotes
	return int64(bytes.Count(list, []byte(`"`)) / 2)
}
