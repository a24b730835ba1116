package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// testRoom is the longest request that the server's fast path takes.
const testRoom = 16 << 10

// parse has fasthttp read one request, as the lane does. used is how many bytes
// it took.
func parse(b []byte) (req *fasthttp.Request, used int, err error) {
	req = &fasthttp.Request{}
	r := bufio.NewReaderSize(bytes.NewReader(b), testRoom)
	if err = req.Header.Read(r); err == nil {
		err = req.ContinueReadBody(r, 1<<20, false)
	}
	return req, len(b) - r.Buffered(), err
}

func TestFrame(t *testing.T) {
	long := strings.Repeat("x", testRoom)
	for in, want := range map[string]Framing{
		"":                                   Part,
		"P":                                  Part,
		"POST /a HTTP/1.1\r":                 Part,
		"POST /a HTTP/1.1\r\n":               Part,
		"POST /a HTTP/1.1\r\nHost: x\r\n":    Part,
		"GET /a HTTP/1.1\r\nHost: x\r\n\r\n": Whole,
		"POST /a HTTP/1.1\r\ncontent-LENGTH: 2\r\n":                             Part,
		"POST /a HTTP/1.1\r\ncontent-LENGTH: 2\r\n\r\n{":                        Part,
		"POST /a HTTP/1.1\r\ncontent-LENGTH:  2 \r\n\r\n{}":                     Whole,
		"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}P":                      Unusual, // a second one
		"POST /a HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}":  Unusual,
		"POST /a HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}":                      Unusual,
		"POST /a HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{}":                Unusual,
		"POST /a HTTP/1.1\r\nContent-Length: 99999\r\n\r\n{}":                   Unusual, // longer than the room
		"POST /a HTTP/1.1\r\nContent-Length: \r\n\r\n":                          Unusual,
		"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":       Unusual,
		"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n": Unusual,
		"POST /a HTTP/1.1\r\nX: a\r\n b\r\n\r\n":                                Unusual, // folded
		"GET /a HTTP/1.0\r\n\r\n":                                               Unusual,
		"GET /a\r\n\r\n":                                                        Unusual,
		"GET /a HTTP/1.1\nHost: x\n\n":                                          Unusual,
		"\r\nGET /a HTTP/1.1\r\n\r\n":                                           Unusual,
		"\x16\x03\x01":                                                          Unusual,
		"GET /" + long:                                                          Unusual,
		"GET / HTTP/1.1\r\nX: " + long:                                          Unusual,
	} {
		if got := Frame([]byte(in), testRoom); got != want {
			t.Errorf("%.80q: %d, want %d", in, got, want)
		}
	}
}

// FuzzFrame: what frame calls whole, fasthttp reads to the last byte or not at
// all, without changing one; what it calls a part, fasthttp does not take as a
// request either. So nothing is answered that fasthttp's own server would read
// otherwise, and nothing waits that it would answer.
func FuzzFrame(f *testing.F) {
	for _, seed := range []string{
		"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length : 2\r\n\r\n{}", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n", "POST /a HTTP/1.1\r\nHost: x\nContent-Length: 3\r\n\r\nabc",
		"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\n\r\n\r\nabc", "POST  HTTP/1.1\r\n\r\n", "A HTTP/1.1\r\n\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\ncontent-length:\t2\r\n\r\n{}", "POST /a HTTP/1.1\r\n\r\nHost: x\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > testRoom {
			return
		}
		before := bytes.Clone(b)
		kind := Frame(b, testRoom)
		req, used, err := parse(b)
		switch kind {
		case Whole:
			if !bytes.Equal(b, before) {
				t.Fatalf("the bytes were changed: %q", before)
			}
			if err == nil && used != len(b) {
				t.Logf("left to fasthttp: it takes %d of %d", used, len(b)) // the lane sees that by what is left
			}
			if err == nil && used == len(b) && req.Header.ContentLength() == -1 {
				t.Fatalf("chunks were taken for one piece: %q", b)
			}
		case Part:
			if err == nil {
				t.Fatalf("it would wait for more of a request that is there: %q", b)
			}
		}
	})
}

func FuzzFieldNumber(f *testing.F) {
	f.Add([]byte(" 12\r\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		n, ok := fieldNumber(line)
		if !ok {
			return
		}
		var m int
		var rest string
		if k, _ := fmt.Sscanf(strings.TrimSpace(string(line)), "%d%s", &m, &rest); k != 1 || m != n {
			t.Fatalf("%q: %d, Sscanf says %d", line, n, m)
		}
	})
}

func TestFrameAnswer(t *testing.T) {
	const line = "HTTP/1.1 200 OK\r\n"
	for in, want := range map[string]string{
		line + "Content-Length: 2\r\n\r\n{}": "|{}",
		line + "content-type:application/json\r\nDate: Wed, 25 Nov 2026 21:00:00 GMT\r\ncontent-length: 2 \r\n\r\n{}": "application/json|{}",
		line + "Connection: keep-alive\r\nX-A: b\r\nContent-Length: 0\r\n\r\n":                                        "|",
		line + "Content-Length: 2\r\n\r\n{":                                                                           "",
		line + "Content-Length: 2\r\n\r\n{}H":                                                                         "",
		line + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}":                                                     "",
		line + "Content-Length: 0x2\r\n\r\n{}":                                                                        "",
		line + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}":                                            "",
		line + "Content-Length: 2\r\nTransfer-Encoding : chunked\r\n\r\n{}":                                           "",
		line + "Content-Length: 2\r\nConnection: close\r\n\r\n{}":                                                     "",
		line + "Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}":                                                "",
		line + "Content-Length: 2\r\n X: folded\r\n\r\n{}":                                                            "",
		line + "Content-Length: 2\n\r\n{}":                                                                            "",
		line + "Content-Length: 2\r\nX: a\rb\r\n\r\n{}":                                                               "",
		line + "Content-Type: a\r\nContent-Type: b\r\nContent-Length: 2\r\n\r\n{}":                                    "",
		line + "\r\n": "", line: "", "": "",
		"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n{}":      "",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}":        "",
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}": "",
	} {
		got := ""
		if contentType, body, ok := ReadAnswer([]byte(in)); ok {
			got = string(contentType) + "|" + string(body)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzFrameAnswer: what frameAnswer takes, fasthttp's client reads as the same
// answer, to the last byte, and keeps the connection.
func FuzzFrameAnswer(f *testing.F) {
	for _, seed := range []string{
		"Content-Length: 2\r\n\r\n{}", "content-type: application/json\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}",
		"Connection: Keep-Alive\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\n{}", "Content-Length: 2\r\nTrailer: X\r\n\r\n{}",
		"Content-Length: 02\r\n\r\n{}", "Content-Length: 2\r\nConnection: keep-alive, close\r\n\r\n{}", "Content-Length:2\r\nX:\r\n\r\n{}",
	} {
		f.Add([]byte("HTTP/1.1 200 OK\r\n" + seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		contentType, body, ok := ReadAnswer(b)
		if !ok {
			return
		}
		var resp fasthttp.Response
		r := bufio.NewReaderSize(bytes.NewReader(b), 64<<10)
		if err := resp.ReadLimitBody(r, 1<<20); err != nil {
			t.Fatalf("%q: fasthttp says %v", b, err)
		}
		if r.Buffered() > 0 || resp.StatusCode() != 200 || resp.ConnectionClose() || !bytes.Equal(resp.Body(), body) {
			t.Fatalf("%q: fasthttp reads %d %q and leaves %d, closing %v", b, resp.StatusCode(), resp.Body(), r.Buffered(), resp.ConnectionClose())
		}
		if got := resp.Header.ContentType(); contentType != nil && !bytes.Equal(got, contentType) {
			t.Fatalf("%q: fasthttp reads the type %q", b, got)
		}
	})
}
