package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// puppet is an upstream that answers whatever it is told to. In what it answers, {target} is replaced by the target of the
// request, signature and all.
type puppetServer struct {
	addr   string
	answer atomic.Pointer[string]
	byPath func(path string) string
	calls  atomic.Int64
}

func newPuppetServer(t testing.TB) *puppetServer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	p := &puppetServer{addr: ln.Addr().String()}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *puppetServer) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		p.calls.Add(1)
		answer := ""
		if p.byPath != nil {
			answer = p.byPath(req.URL.Path)
		}
		if answer == "" {
			answer = *p.answer.Load()
		}
		target := req.RequestURI
		if _, err := c.Write([]byte(withLength(strings.ReplaceAll(answer, "{target}", target)))); err != nil {
			return
		}
		if strings.Contains(answer, "Connection: close") {
			return
		}
	}
}

// withLength adds a length where there is none.
func withLength(answer string) string {
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	if strings.Contains(head, "Content-Length:") || strings.Contains(head, "Transfer-Encoding:") || strings.Contains(head, " 204 ") || strings.Contains(head, " 304 ") {
		return answer
	}
	return fmt.Sprintf("%s\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body)
}

func (p *puppetServer) answers(a string) { p.answer.Store(&a) }

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.String()
}

var stamp = regexp.MustCompile(`auth_timestamp=\d+`)

var signature = regexp.MustCompile(`[0-9a-fA-F]{64}`)

type upstreamAnswer struct {
	name, raw string
	status    int
	outcome   string
	says      string // in the body
	retry     string // Retry-After; "": not looked at
	closes    bool   // the account is closed
}

const upstreamJSON = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

var upstreamAnswers = []upstreamAnswer{
	{name: "as Pusher", raw: upstreamJSON + "\r\n{}", status: 200, outcome: "sent", says: "{}"},
	{name: "blanks", raw: upstreamJSON + "\r\n { } \n", status: 200, outcome: "sent", says: " { } \n"},
	{name: "soketi", raw: upstreamJSON + "\r\n{\"ok\":true}", status: 200, outcome: "sent", says: `{"ok":true}`},
	{name: "no type", raw: "HTTP/1.1 200 OK\r\n\r\n{}", status: 200, outcome: "sent", says: "{}"},
	{name: "4.2 kB of headers", raw: upstreamJSON + "Set-Cookie: a=" + strings.Repeat("x", 4200) + "\r\n\r\n{}", status: 200, outcome: "sent", says: "{}"},
	{name: "60 kB of headers", raw: upstreamJSON + strings.Repeat("X-A: "+strings.Repeat("x", 990)+"\r\n", 60) + "\r\n{}", status: 200, outcome: "sent", says: "{}"},
	{name: "gzip", raw: upstreamJSON + "Content-Encoding: gzip\r\n\r\n" + gzipped(`{"x":1}`), status: 200, outcome: "sent", says: `{"x":1}`},
	{name: "a coding that is not known", raw: upstreamJSON + "Content-Encoding: br\r\n\r\n\x0b\x00\x80{}\x03", status: 200, outcome: "sent", says: "\x0b\x00\x80{}\x03"},
	{name: "HTML", raw: "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>login {target}</html>", status: 502, outcome: "unavailable", says: "an HTML page"},
	{name: "HTML called JSON", raw: upstreamJSON + "\r\n\n<!DOCTYPE html>", status: 502, outcome: "unavailable", says: "an HTML page"},
	{name: "empty", raw: upstreamJSON + "\r\n", status: 502, outcome: "unavailable", says: "an empty body"},
	{name: "204", raw: "HTTP/1.1 204 No Content\r\n\r\n", status: 502, outcome: "unavailable", says: "204 with an empty body"},
	{name: "202 with nothing", raw: "HTTP/1.1 202 Accepted\r\n\r\n", status: 502, outcome: "unavailable", says: "an empty body"},
	{name: "text", raw: "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nIt works!", status: 502, outcome: "unavailable", says: "no JSON object"},
	{name: "half an object", raw: upstreamJSON + "\r\n{\"channels\":{", status: 502, outcome: "unavailable", says: "no JSON object"},
	{name: "an array", raw: upstreamJSON + "\r\n[]", status: 502, outcome: "unavailable", says: "no JSON object"},
	{name: "an error object", raw: upstreamJSON + "\r\n" + `{"error":"The app does not exist {target}","code":401}`, status: 401, outcome: "refused", says: "does not accept what pushguard signs"},
	{name: "an error object of another code", raw: upstreamJSON + "\r\n" + `{"error":"The data is too large","code":413}`, status: 413, outcome: "refused", says: "The data is too large"},
	{name: "an error object without a code", raw: upstreamJSON + "\r\n" + `{"error":{"message":"no {target}"}}`, status: 502, outcome: "refused", says: "its body says that this failed"},
	{name: "not ok", raw: upstreamJSON + "\r\n" + `{"ok":false,"message":"nope"}`, status: 502, outcome: "refused", says: "nope"},
	{name: "an error object about the quota", raw: upstreamJSON + "\r\n" + `{"error":"daily message quota exceeded","code":403}`, status: 403, outcome: "over_budget", says: "quota", closes: true},
	{name: "an error that is none", raw: upstreamJSON + "\r\n" + `{"error":null,"x":1}`, status: 200, outcome: "sent", says: `{"error":null,"x":1}`},
	{name: "to https", raw: "HTTP/1.1 301 Moved\r\nLocation: https://{host}{target}\r\n\r\n", status: 502, outcome: "refused", says: "use https"},
	{name: "elsewhere", raw: "HTTP/1.1 302 Found\r\nLocation: http://other.example{target}\r\n\r\n{target}", status: 502, outcome: "refused", says: "http://other.example"},
	{name: "a redirect to nowhere", raw: "HTTP/1.1 307 X\r\n\r\n", status: 502, outcome: "refused", says: "a redirect"},
	{name: "a relative one", raw: "HTTP/1.1 308 X\r\nLocation: {target}\r\n\r\n", status: 502, outcome: "refused", says: "a redirect"},
	{name: "304", raw: "HTTP/1.1 304 Not Modified\r\n\r\n", status: 502, outcome: "refused", says: "304"},
	{name: "401 of Pusher", raw: "HTTP/1.1 401 Unauthorized\r\nContent-Type: text/plain\r\n\r\nInvalid signature: you should have sent HmacSHA256Hex(\"POST\\n{target}\", your_secret_key), but you sent \"" + strings.Repeat("ab", 32) + "\"\n", status: 401, outcome: "refused", says: "the app's key, secret or cluster"},
	{name: "401 about the clock", raw: "HTTP/1.1 401 Unauthorized\r\n\r\nTimestamp expired: Given timestamp (2020-01-01T00:00:00Z) not within 600s of server time", status: 401, outcome: "refused", says: "clock"},
	{name: "400 of Pusher", raw: "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nMissing required parameter: data", status: 400, outcome: "refused", says: "Missing required parameter: data"},
	{name: "400 that quotes", raw: "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nno such thing: {target}", status: 400, outcome: "refused", says: "no such thing: "},
	{name: "404 HTML", raw: "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<pre>Cannot POST {target}</pre>", status: 404, outcome: "refused", says: "with an HTML page"},
	{name: "403 HTML", raw: "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<h1>Access denied</h1>", status: 403, outcome: "refused", says: "with an HTML page"},
	{name: "403 disabled", raw: "HTTP/1.1 403 Forbidden\r\n\r\nForbidden: app disabled", status: 403, outcome: "refused", says: "app disabled"},
	{name: "403 quota", raw: "HTTP/1.1 403 Forbidden\r\n\r\n" + pusher.QuotaText, status: 403, outcome: "over_budget", says: "quota", closes: true},
	{name: "403 quota gzipped", raw: "HTTP/1.1 403 Forbidden\r\nContent-Encoding: gzip\r\n\r\n" + gzipped(pusher.QuotaText), status: 403, outcome: "over_budget", says: "quota", closes: true},
	{name: "413 quota", raw: "HTTP/1.1 413 Payload Too Large\r\n\r\nYou have exceeded your daily message quota", status: 403, outcome: "over_budget", says: "quota", closes: true},
	{name: "429 quota", raw: "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 77\r\n\r\nmessage quota exceeded", status: 403, outcome: "over_budget", says: "quota", retry: "77", closes: true},
	{name: "413 data", raw: "HTTP/1.1 413 Payload Too Large\r\n\r\nThe data content of this event exceeds the allowed maximum (10240 bytes).", status: 413, outcome: "refused", says: "10240"},
	{name: "429 of a front end", raw: "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Type: text/plain\r\n\r\nslow down", status: 429, outcome: "refused", says: "slow down", retry: "7"},
	{name: "429 about requests", raw: "HTTP/1.1 429 Too Many Requests\r\n\r\nquota exceeded for requests per minute", status: 429, outcome: "refused", says: "per minute"},
	{name: "403 about connections", raw: "HTTP/1.1 403 Forbidden\r\n\r\nAccount is over connection quota", status: 403, outcome: "refused", says: "connection quota"},
	{name: "503 with a time", raw: "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\n\r\n{target}", status: 503, outcome: "unavailable", says: "may or may not", retry: "9"},
	{name: "500", raw: "HTTP/1.1 500 Oops\r\n\r\n{target}", status: 502, outcome: "unavailable", says: "may or may not"},
	{name: "a type that quotes", raw: "HTTP/1.1 200 OK\r\nContent-Type: x/{target}\r\n\r\n{\"a\":1}", status: 200, outcome: "sent", says: `{"a":1}`},
	{name: "200 that quotes", raw: upstreamJSON + "\r\n{\"a\":\"{target}\"}", status: 200, outcome: "sent", says: `{"a":"/apps/7/events?auth_key`},
	{name: "chunked", raw: upstreamJSON + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", status: 200, outcome: "sent", says: "{}"},
	{name: "and closes", raw: upstreamJSON + "Connection: close\r\n\r\n{}", status: 200, outcome: "sent", says: "{}"},
}

// ways are the three that a request can take through the data port.
var ways = [...]string{"fast path", "fasthttp", "HTTP/2"}

func (r *rig) publishBy(t *testing.T, way, path, body string) reply {
	t.Helper()
	target := path + "?" + string(r.caller.AppendSigned(nil, "POST", []byte(path), nil, []byte(body), time.Now()))
	return r.sendBy(t, way, "POST", target, body)
}

func (r *rig) sendBy(t *testing.T, way, method, target, body string) reply {
	t.Helper()
	if way == "HTTP/2" {
		w := httptest.NewRecorder()
		req := &http.Request{Method: method, RequestURI: target, Host: "x", Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), RemoteAddr: "127.0.0.1:9"}
		r.proxy.h2.ServeHTTP(w, req)
		return reply{w.Code, w.Header().Get("Pushguard-Outcome"), w.Header(), w.Body.String()}
	}
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
	if way == "fasthttp" {
		raw = fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", method, target, len(body), body)
	}
	if _, err := c.Write([]byte(raw)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %s %s: %v", way, method, target, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header.Get("Pushguard-Outcome"), resp.Header, string(b)}
}

// Each answer is passed on or judged, the same on every way, and holds no signature.
func TestAnswersOfTheUpstream(t *testing.T) {
	up := newPuppetServer(t)
	for _, c := range upstreamAnswers {
		t.Run(c.name, func(t *testing.T) {
			up.answers(strings.ReplaceAll(c.raw, "{host}", up.addr))
			for _, way := range ways {
				r := newRig(t, rigConfig{upstream: "http://" + up.addr, policy: limiter.Policy{}})
				got := r.publishBy(t, way, "/apps/7/events", eventBody("e", "c", "d"))
				if got.status != c.status || got.outcome != c.outcome || !strings.Contains(got.body, c.says) {
					t.Errorf("%s: %d %s %q, want %d %s with %q", way, got.status, got.outcome, got.body, c.status, c.outcome, c.says)
				}
				if c.retry != "" && got.header.Get("Retry-After") != c.retry {
					t.Errorf("%s: Retry-After %q", way, got.header.Get("Retry-After"))
				}
				for _, text := range []string{got.body, fmt.Sprint(got.header), r.logs.String()} {
					if s := signature.FindString(text); s != "" {
						t.Errorf("%s: a signature is in %s", way, text)
					}
				}
				if got.status != 200 && got.header.Get("Pushguard-Reason") == "" {
					t.Errorf("%s: no reason", way)
				}
				if c.name == "a coding that is not known" && got.header.Get("Content-Encoding") != "br" {
					t.Errorf("%s: the coding is lost: %v", way, got.header)
				}
				before := up.calls.Load()
				again := r.publishBy(t, way, "/apps/7/events", eventBody("e", "c2", "d"))
				if closed := again.outcome == "over_budget" && up.calls.Load() == before; closed != c.closes {
					t.Errorf("%s: the next one: %d %s %s", way, again.status, again.outcome, again.body)
				}
			}
		})
	}
}

// 200 answers put together at random: 0 unjudged, no signature, no difference between the ways.
func TestAnswersDrawnFromATable(t *testing.T) {
	up := newPuppetServer(t)
	r := rand.New(rand.NewPCG(7, 8))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	statuses := []int{200, 200, 200, 201, 202, 204, 206, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 414, 418, 422, 426, 429, 431, 451, 499, 500, 501, 502, 503, 504, 520, 599}
	g := newRig(t, rigConfig{upstream: "http://" + up.addr})
	for i := range 200 {
		status := statuses[r.IntN(len(statuses))]
		body := pick("{}", "", "{\"ok\":true}", "<html>{target}</html>", "{\"error\":\"{target}\",\"code\":401}", "{\"error\":\"x\"}", "[]", "null", "ok", "{", "{target}", "Invalid signature: {target}",
			"\xff\xfe\x00", "{\"a\":{\"b\":[1,2,{\"c\":\"{target}\"}]}}", strings.Repeat("x", 5000), "app disabled", "Timestamp expired", strings.Repeat("{\"a\":", 100), "{\"channels\":{\"c\":{\"subscription_count\":3}}}")
		head := fmt.Sprintf("HTTP/1.1 %d Whatever\r\n", status)
		for _, h := range []string{
			pick("", "Content-Type: application/json\r\n", "Content-Type: text/html; charset=utf-8\r\n", "Content-Type: {target}\r\n", "Content-Type: text/plain\r\n"),
			pick("", "", "Retry-After: 3\r\n", "Retry-After: {target}\r\n", "Retry-After: -1\r\n", "Retry-After: 99999999999999999999\r\n", "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n"),
			pick("", "", "Location: https://x.example{target}\r\n", "Location: {target}\r\n", "Location: ://\r\n"),
			pick("", "", "X-Sent: {target}\r\n", "Set-Cookie: a="+strings.Repeat("y", 5000)+"\r\n", "Server: {target}\r\n"),
			pick("", "", "", "Connection: close\r\n"),
		} {
			head += h
		}
		if r.IntN(6) == 0 {
			head += "Content-Encoding: gzip\r\n"
			if r.IntN(3) > 0 {
				body = gzipped(body)
			}
		}
		up.answers(head + "\r\n" + body)
		var first reply
		for n, way := range ways {
			got := g.publishBy(t, way, "/apps/7/events", eventBody("e", fmt.Sprintf("c%d", i), "d"))
			got.body = stamp.ReplaceAllString(got.body, "auth_timestamp=0")
			if got.outcome == "" || got.status < 200 || got.status > 599 || got.status/100 == 3 {
				t.Fatalf("%q by %s: %d %s", head+body, way, got.status, got.outcome)
			}
			if got.status/100 == 2 && got.header.Get("Content-Encoding") == "" {
				if kind, _, _ := pusher.ReadAnswer([]byte(got.body)); kind != pusher.AnswerObject {
					t.Fatalf("%q by %s: %d %s %q", head+body, way, got.status, got.outcome, got.body)
				}
			}
			if signature.MatchString(got.body) || signature.MatchString(fmt.Sprint(got.header)) {
				t.Fatalf("%q by %s: a signature in %v %q", head+body, way, got.header, got.body)
			}
			if got.status >= 300 && len(got.body) == 0 {
				t.Fatalf("%q by %s: no word", head+body, way)
			}
			if n == 0 {
				first = got
			} else if got.status != first.status || got.outcome != first.outcome || got.body != first.body || got.header.Get("Content-Type") != first.header.Get("Content-Type") ||
				got.header.Get("Retry-After") != first.header.Get("Retry-After") || got.header.Get("Content-Encoding") != first.header.Get("Content-Encoding") || got.header.Get("Pushguard-Reason") != first.header.Get("Pushguard-Reason") {
				t.Fatalf("%q by %s: %+v\n%s: %+v", head+body, ways[0], first, way, got)
			}
		}
	}
}
