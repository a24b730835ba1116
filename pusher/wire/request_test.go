package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

func publishOf(headers ...string) string {
	return "POST /apps/7/events?auth_key=k&a=%20 HTTP/1.1\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
}

func TestRequestRead(t *testing.T) {
	read := []string{
		publishOf("Host: x:1", "Content-Length: 2") + "{}",
		publishOf("HOST:x:1", "content-length:2", "Connection: Keep-Alive", "X-Pusher-Library: pusher-http-go 5.1.1", "Accept: */*", "Content-Type: application/json; charset=utf-8") + "{}",
		publishOf("Host: x:1 ", "Content-Length:  2  ", "Pusher-Library-Name: pusher-http-dotnet", "Pusher-Library-Version: 5.0.0", "Pushguard-Load-Test: 1", "X: ") + "{}",
		publishOf("Host: x:1", "Content-Length: 0"),
	}
	for _, in := range read {
		var r Request
		if !r.Read([]byte(in), []byte("x:1"), 2) {
			t.Errorf("not read: %q", in)
		}
	}
	var r Request
	b := []byte(read[2])
	if !r.Read(b[:len(b):len(b)], []byte("x:1"), 2) {
		t.Fatal("not read")
	}
	moved := append(make([]byte, 0, 4096), b...)
	r.MoveTo(moved, len(b))
	clear(b)
	if got, want := fmt.Sprintf("%s", r), "{POST /apps/7/events?auth_key=k&a=%20 {}  pusher-http-dotnet 5.0.0 1}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, in := range []string{
		"", "POST /apps/", read[0][:len(read[0])-1], read[0] + "P", strings.Replace(read[0], "POST", "PUT", 1), strings.Replace(read[0], "/apps/", "/users/", 1),
		strings.Replace(read[0], "HTTP/1.1", "HTTP/1.0", 1), strings.Replace(read[0], "auth_key", "auth key", 1), strings.Replace(read[0], "auth_key", "auth\x00key", 1), strings.Replace(read[0], "auth_key", "auth\xffkey", 1),
		strings.ReplaceAll(read[0], "\r\n", "\n"), strings.Replace(read[0], "x:1\r\n", "x:1\n", 1),
		publishOf("Host: y", "Content-Length: 2") + "{}", publishOf("Host: x:1", "Host: x:1", "Content-Length: 2") + "{}", publishOf("Content-Length: 2") + "{}",
		publishOf("Host: x:1", "Content-Length: 3") + "{} ", publishOf("Host: x:1", "Content-Length: 2", "Content-Length: 2") + "{}", publishOf("Host: x:1", "Content-Length: +2") + "{}",
		publishOf("Host: x:1") + "{}", publishOf("Host: x:1"), publishOf("Host: x:1", "Content-Length: 2", "Connection: close") + "{}", publishOf("Host: x:1", "Content-Length: 2", "Connection: keep-alive, close") + "{}",
		publishOf("Host: x:1", "Content-Length: 2", "Transfer-Encoding: chunked") + "{}", publishOf("Host: x:1", "Content-Length: 2", "Expect: 100-continue") + "{}",
		publishOf("Host: x:1", "Content-Length: 2", "Upgrade: h2c") + "{}", publishOf("Host: x:1", "Content-Length: 2", "Trailer: X") + "{}",
		publishOf("Host: x:1", "Content-Length: 2", " X: folded") + "{}", publishOf("Host: x:1", "Content-Length: 2", "X : a") + "{}", publishOf("Host: x:1", "Content-Length: 2", ": a") + "{}", publishOf("Host: x:1", "Content-Length: 2", "X") + "{}",
		publishOf("Host: x:1", "Content-Length: 2", "X: a\tb") + "{}", publishOf("Host: x:1", "Content-Length: 2", "X: abcdefg\x7fhijklmn") + "{}", publishOf("Host: x:1", "Content-Length: 2", "X: a\rb") + "{}",
		publishOf("Host: x:1", "Content-Length: 2", "X-Pusher-Library: a", "X-Pusher-Library: b") + "{}",
	} {
		if r.Read([]byte(in), []byte("x:1"), 2) {
			t.Errorf("read: %q", in)
		}
	}
}

// FuzzRequestRead: what the lane reads by itself, fasthttp reads as the same
// request, to the last byte, and keeps the connection.
func FuzzRequestRead(f *testing.F) {
	for _, seed := range []string{
		"Host: x\r\nContent-Length: 2\r\n\r\n{}", "host:x\r\nX-Pusher-Library: a 1\r\nContent-Length: 02\r\nConnection: Keep-alive\r\n\r\n{}",
		"Pusher-Library-Name: a\r\nPusher-Library-Version: b\r\nPushguard-Load-Test: 1\r\nHost: x\r\ncontent-length:2\r\n\r\n{}",
		"Host: x\r\nCookie: a=b\r\nContent-Encoding: gzip\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 2\r\n\r\n{}",
		"Host: x\r\nX_Y: a\r\nX-Pusher-Library:\r\nContent-Length: 0\r\n\r\n", "Host: x\r\nProxy-Connection: close\r\nContent-Length: 2\r\n\r\n{}",
		"Host: x\r\nX-Forwarded-For: ::1\r\nTE: trailers\r\nUser-Agent: a\r\nContent-Length: 2\r\n\r\n{}",
	} {
		f.Add([]byte("POST /apps/7/events?a=b HTTP/1.1\r\n"+seed), "x")
	}
	f.Fuzz(func(t *testing.T, b []byte, host string) {
		var got Request
		if len(b) > testRoom || !got.Read(b, []byte(host), 1<<20) {
			return
		}
		req, used, err := parse(b)
		if err != nil {
			t.Fatalf("%q: fasthttp says %v", b, err)
		}
		if used != len(b) || req.Header.ConnectionClose() || !req.Header.IsHTTP11() || Smuggling(&req.Header) != "" || string(req.Header.Host()) != host {
			t.Fatalf("%q: fasthttp reads %d of %d bytes, closing %v, %q", b, used, len(b), req.Header.ConnectionClose(), req.Header.String())
		}
		var want Request
		want.FromFasthttp(req)
		if len(got.Library) > 0 { // then they do not matter
			got.LibraryName, got.LibraryVersion = nil, nil
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Fatalf("%q: %q, fasthttp says %q", b, got, want)
		}
	})
}

func FuzzPrintable(f *testing.F) {
	f.Add([]byte("abcdefgh\x00"))
	f.Add([]byte(" ~\x7f\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		want := bytes.IndexFunc(b, func(r rune) bool { return r < ' ' || r > '~' }) < 0
		if got := Printable(b); got != want {
			t.Fatalf("%q: %v", b, got)
		}
	})
}

var dates = regexp.MustCompile(`Date: [^\r]*\r\n`)

// The lane writes what fasthttp would.
func TestResponseAppend(t *testing.T) {
	for _, r := range []Response{
		{Status: 200, ContentType: []byte("application/json"), Outcome: "sent", Body: []byte("{}")},
		{Status: 200, ContentType: []byte("application/json"), Encoding: []byte("gzip"), Outcome: "sent", Body: []byte("{}")},
		{Status: 429, ContentType: []byte("text/plain; charset=utf-8"), Outcome: "throttled", Reason: "rule_rate", RetryAfter: 12, Body: []byte("no.")},
		{Status: 200, ContentType: []byte("application/json"), Outcome: "sent, throttled", Reason: "caller_rate", Would: "throttled", Body: []byte("{}"), Last: true},
		{Status: 418, ContentType: []byte("text/html"), Body: nil, Last: true},
		{Status: 599, ContentType: []byte("text/plain; charset=utf-8"), Body: bytes.Repeat([]byte("x"), 70_000)},
		{Status: 204}, {Status: 304, ContentType: []byte("application/json")}, {Status: 101}, {Status: 600, ContentType: []byte("text/plain; charset=utf-8")}, {Status: 0},
	} {
		var resp fasthttp.Response
		resp.Header.SetServer(ServerName)
		r.CopyTo(&resp)
		var want bytes.Buffer
		out := bufio.NewWriter(&want)
		if err := resp.Write(out); err != nil {
			t.Fatal(err)
		}
		_ = out.Flush()
		if odd := r.Status < 200 || r.Status == 204 || r.Status == 304 || r.Status >= 600; r.Writable() == odd {
			t.Errorf("%d: writable %v", r.Status, r.Writable())
		} else if odd {
			continue
		}
		const at = "Wed, 25 Nov 2026 21:00:00 GMT"
		got := string(r.Append(nil, at))
		if want := dates.ReplaceAllString(want.String(), "Date: "+at+"\r\n"); got != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{-1: 0, 0: 0, 1: 1, time.Second: 1, time.Second + 1: 2, time.Minute: 60} {
		var r Response
		if r.RetryIn(d); r.RetryAfter != want {
			t.Errorf("%v: %d", d, r.RetryAfter)
		}
	}
}
