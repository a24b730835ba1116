package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher/upstream/upstreamtest"

	"github.com/pushguard/pushguard/pusher/netpoll"

	"github.com/pushguard/pushguard/pusher"
)

// port is a data port that knows no app: it is about how requests are read.
var answerDates = regexp.MustCompile(`Date: [^\r]*\r\n`)

func port(t *testing.T, cfg Config, laned bool) (p *Proxy, addr string) {
	t.Helper()
	p = New(cfg)
	if !laned {
		p.lanes.Do(func() {})
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		if err := p.Serve(ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Error("shutdown:", err)
		}
		served.Wait()
		if n := p.lane.Load().count(); n != 0 {
			t.Errorf("%d connections are counted after the end", n)
		}
	})
	return p, ln.Addr().String()
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

const ask = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"

// publish is one that the lane reads by itself once it knows the host.
const publish = "POST /apps/7/events?auth_key=nobody HTTP/1.1\r\nHost: x\r\nX-Pusher-Library: a 1\r\nContent-Length: 2\r\n\r\n{}"

func askWith(body string, headers ...string) string {
	return fmt.Sprintf("POST /nothing HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", strings.Join(append(headers, ""), "\r\n"), len(body), body)
}

// readOne reads one answer.
func readOne(t *testing.T, r *bufio.Reader) (status int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Whatever comes down a connection, in whatever pieces, the lane answers what
// fasthttp's own server answers, byte for byte, and ends the connection where
// that does.
func TestTheLaneAnswersAsFasthttpDoes(t *testing.T) {
	cfg := Config{MaxBody: 100 << 10}
	_, laned := port(t, cfg, true)
	_, plain := port(t, cfg, false)
	streams := map[string]string{
		"one": ask, "two": ask + ask, "three and a part": ask + ask + ask + ask[:20],
		"a body": askWith("{}"), "a body, closing": askWith("{}", "Connection: close"), "closing": strings.Replace(ask, "Host", "Connection: close\r\nHost", 1),
		"keep-alive": askWith("{}", "Connection: keep-alive"), "odd connection": askWith("{}", "Connection: keep-alive, x"),
		"HEAD": strings.Replace(ask, "GET", "HEAD", 1), "PUT": strings.Replace(askWith("x"), "POST", "PUT", 1), "OPTIONS *": "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body on GET": strings.Replace(askWith("abc"), "POST", "GET", 1), "no host": "GET / HTTP/1.1\r\n\r\n", "a bad host": "GET / HTTP/1.1\r\nHost: [::\r\n\r\n",
		"two hosts": "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "HTTP/1.0": "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 keep-alive": "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + ask,
		"chunked": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + ask, "chunked and a length": askWith("0\r\n\r\n", "Transfer-Encoding: chunked"),
		"two lengths": askWith("{}", "Content-Length: 2"), "a spaced length": strings.Replace(askWith("{}"), "Length:", "Length :", 1), "folded": askWith("{}", "X: a\r\n b"),
		"bare line ends": strings.ReplaceAll(ask, "\r\n", "\n"), "mixed line ends": strings.Replace(askWith("{}"), "\r\nHost", "\nHost", 1),
		"large": askWith(strings.Repeat("x", 50<<10)) + ask, "too large": askWith(strings.Repeat("x", 200<<10)), "long head": askWith("", "X: "+strings.Repeat("y", 40<<10)),
		"nothing": "", "no HTTP": "\x00\x01\x02\r\n\r\n", "PRI": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad version": "GET / HTTP/3.1\r\nHost: x\r\n\r\n",
		"a publish": ask + publish, "a publish and another": publish + publish, "a publish, closing": strings.Replace(publish, "Host", "Connection: close\r\nHost", 1),
		"a publish of two libraries": strings.Replace(publish, "Host", "X-Pusher-Library: a\r\nX-Pusher-Library: b\r\nHost", 1), "a load test": strings.Replace(publish, "Host", "Pushguard-Load-Test: 1\r\nHost", 1),
		"a publish to nobody": strings.Replace(publish, "Host: x", "Host: ", 1), "a publish of chunks": strings.Replace(publish, "Content-Length: 2", "Transfer-Encoding: chunked", 1), "a large publish": strings.Replace(publish, "Content-Length: 2\r\n\r\n{}", "Content-Length: 9000\r\n\r\n", 1) + strings.Repeat("x", 9000),
		"absolute": "GET http://y/nothing HTTP/1.1\r\nHost: x\r\n\r\n", "a null in a value": askWith("{}", "X: a\x00b"), "multipart": askWith("--b\r\n", "Content-Type: multipart/form-data; boundary=b"),
		"a part of a head": ask[:len(ask)-2], "a part of a body": askWith("{}")[:40], "blank lines before": "\r\n\r\n" + ask, "an empty body by length": askWith(""),
	}
	exchange := func(addr, stream string, pieces int) string {
		c := dial(t, addr)
		go func() {
			for i := range pieces {
				if _, err := io.WriteString(c, stream[len(stream)*i/pieces:len(stream)*(i+1)/pieces]); err != nil {
					return // refused before it was said
				}
			}
			_ = c.CloseWrite()
		}()
		b, _ := io.ReadAll(c) // a reset after the answer is an end, too
		return answerDates.ReplaceAllString(string(b), "")
	}
	for name, stream := range streams {
		for _, pieces := range []int{1, 2, min(len(stream), 50)} {
			want, got := exchange(plain, stream, max(pieces, 1)), exchange(laned, stream, max(pieces, 1))
			if sortedHeads(got) != sortedHeads(want) {
				t.Errorf("%s, in %d pieces:\nfasthttp says %q\nthe lane says %q", name, pieces, want, got)
			}
		}
	}
}

// sortedHeads brings headers into an order, which means nothing.
func sortedHeads(s string) string {
	parts := strings.Split(s, "\r\n")
	for i := range parts {
		for k := i + 1; k < len(parts) && parts[k] != "" && parts[i] != "" && !strings.HasPrefix(parts[i], "HTTP/"); k++ {
			if parts[k] < parts[i] {
				parts[i], parts[k] = parts[k], parts[i]
			}
		}
	}
	return strings.Join(parts, "\n")
}

func TestTheLaneKeepsTimesAndBounds(t *testing.T) {
	p, addr := port(t, Config{ReadTimeout: 300 * time.Millisecond, IdleTimeout: 300 * time.Millisecond, MaxConnsPerIP: 4}, true)
	idle, slow, mute, late := dial(t, addr), dial(t, addr), dial(t, addr), dial(t, addr)
	began := time.Now()
	fifth := dial(t, addr)
	if status, _ := readOne(t, bufio.NewReader(fifth)); status != 429 {
		t.Errorf("the fifth connection of an address is answered %d", status)
	}
	fmt.Fprint(idle, ask)
	fmt.Fprint(slow, ask[:10])
	fmt.Fprint(late, ask)
	if status, _ := readOne(t, bufio.NewReader(late)); status != 404 {
		t.Errorf("answered %d", status)
	}
	fmt.Fprint(late, ask[:10]) // slow only in its second request
	var drip sync.WaitGroup
	drip.Go(func() { // a byte each time that the lane looks at its clock does not help
		clock, look := &p.lane.Load().ticks, time.NewTicker(time.Millisecond)
		defer look.Stop()
		for last := clock.Load(); ; <-look.C {
			now := clock.Load()
			if now == last {
				continue
			}
			last = now
			if _, err := slow.Write([]byte("a")); err != nil {
				return
			}
		}
	})
	defer func() { slow.Close(); drip.Wait() }()
	for name, want := range map[*net.TCPConn]string{idle: "HTTP/1.1 404", slow: "HTTP/1.1 408", mute: "HTTP/1.1 408", late: "HTTP/1.1 408"} {
		b, _ := io.ReadAll(name)
		if !bytes.HasPrefix(b, []byte(want)) {
			t.Errorf("%q, want %s", b, want)
		}
	}
	if took := time.Since(began); took < 250*time.Millisecond || took > 20*time.Second {
		t.Errorf("they were ended after %s", took)
	}
	again := dial(t, addr)
	fmt.Fprint(again, ask)
	if status, _ := readOne(t, bufio.NewReader(again)); status != 404 {
		t.Errorf("after they have gone, answered %d", status)
	}
}

// Many connections at once, each of which asks, breaks off, closes one side,
// resets or stays: everybody who waits for an answer gets it, and nothing is
// left at the end.
func TestManyUnrulyPeers(t *testing.T) {
	p, addr := port(t, Config{}, true)
	const peers = 400
	var all sync.WaitGroup
	var answered atomic.Int64
	for i := range peers {
		all.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			r := bufio.NewReader(c)
			for k := range 20 {
				switch m := askWith(strings.Repeat("x", i*k%9000)); i % 4 {
				case 0:
					_, err = io.WriteString(c, m)
				case 1: // in two
					if _, err = io.WriteString(c, m[:len(m)/2]); err == nil {
						_, err = io.WriteString(c, m[len(m)/2:])
					}
				case 2: // its head and its body
					at := strings.Index(m, "\r\n\r\n") + 4
					if _, err = io.WriteString(c, m[:at]); err == nil {
						_, err = io.WriteString(c, m[at:])
					}
				case 3: // from the third on, two at once, which fasthttp takes over
					if k == 3 {
						if _, err = io.WriteString(c, m); err == nil {
							_, err = io.WriteString(c, ask)
							if resp, e := http.ReadResponse(r, nil); e != nil {
								err = e
							} else {
								_, _ = io.Copy(io.Discard, resp.Body)
							}
						}
					} else {
						_, err = io.WriteString(c, m)
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Errorf("peer %d, request %d: %v", i, k, err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				answered.Add(1)
			}
			switch i % 3 {
			case 0: // a half-closed peer has its answer
				_, _ = io.WriteString(c, ask)
				_ = c.(*net.TCPConn).CloseWrite()
				b, err := io.ReadAll(r)
				// Where this machine is too slow for so many, some are told so: they wait with what is least important.
				if shed := bytes.Contains(b, []byte("Pushguard-Reason: overloaded\r\n")); err != nil || !shed && !bytes.HasPrefix(b, []byte("HTTP/1.1 404")) {
					t.Errorf("half closed: %q %v", b, err)
				}
			case 1: // a reset in the middle
				_, _ = io.WriteString(c, ask[:15])
				_ = c.(*net.TCPConn).SetLinger(0)
			}
		})
	}
	all.Wait()
	if n := answered.Load(); n != peers*20 {
		t.Errorf("%d of %d were answered", n, peers*20)
	}
	eventually(t, "the end of all connections", func() bool { return p.lane.Load().count() == 0 })
}

// A peer that reads slowly gets all of a long answer, and holds up nobody.
func TestASlowReaderHasItsAnswer(t *testing.T) {
	long := strings.Repeat("long ", 1<<20)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"x":"`+long+`"}`) }))
	defer up.Close()
	r := newRig(t, rigConfig{upstream: up.URL})
	signed := r.caller.AppendSigned(nil, "GET", []byte("/apps/7/channels"), nil, nil, time.Now())
	c := dial(t, r.addr)
	for range 2 {
		fmt.Fprintf(c, "GET /apps/7/channels?%s HTTP/1.1\r\nHost: x\r\n\r\n", signed)
		want(t, r.publish("e", "c", "x"), 200, "sent") // somebody else
		if status, body := readOne(t, bufio.NewReader(c)); status != 200 || len(body) != len(long)+8 {
			t.Fatalf("%d, %d bytes", status, len(body))
		}
	}
}

// Who is served while the port shuts down has an answer; who is idle is let go
// without one.
func TestTheLaneShutsDownInOrder(t *testing.T) {
	release := make(chan struct{})
	under := make(chan struct{}, 1)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		under <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "{}")
	}))
	defer up.Close()
	r := newRig(t, rigConfig{upstream: up.URL})
	idle := dial(t, r.addr)
	fmt.Fprint(idle, ask)
	ir := bufio.NewReader(idle)
	readOne(t, ir)
	got := make(chan reply, 1)
	go func() {
		a, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody("e", "c", "x"))
		if err != nil {
			t.Error(err)
		}
		got <- a
	}()
	<-under
	down := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		down <- r.proxy.Shutdown(ctx)
	}()
	if b, err := io.ReadAll(ir); err != nil || len(b) > 0 {
		t.Errorf("the idle connection ended with %q %v", b, err)
	}
	select {
	case err := <-down:
		t.Errorf("it was down before the last answer: %v", err)
	default:
	}
	close(release)
	want(t, <-got, 200, "sent")
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// An upstream that closes a kept-alive connection, says so or not, costs no
// publish: the connection is dropped when it closes, not when it is used.
func TestAClosedUpstreamConnectionIsNotUsed(t *testing.T) { upstreamtest.Each(t, closedUpstream) }

func closedUpstream(t *testing.T, over upstreamtest.Link) {
	ln, url, roots := over.Listen(t)
	var conns, calls atomic.Int64
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for n := 0; ; n++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					calls.Add(1)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
					switch calls.Load() % 4 {
					case 1: // silently
						if sec, ok := c.(*tls.Conn); ok && calls.Load()%8 == 1 { // or with TLS' own word alone
							_ = sec.CloseWrite()
							_, _ = io.Copy(io.Discard, c)
						}
						return
					case 2: // with a word that nobody asked for, as some balancers do
						_, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
					}
				}
			}()
		}
	}()
	r := newRig(t, rigConfig{upstream: url, roots: roots})
	const n = 40
	for i := range n {
		want(t, r.publish("e", "c", fmt.Sprint(i)), 200, "sent")
		if calls.Load()%4 == 1 || calls.Load()%4 == 2 {
			eventually(t, "the news of the close", func() bool { return r.app.Upstream.conns.Kept() == 0 })
		}
	}
	if calls.Load() != n {
		t.Errorf("%d publishes made %d calls", n, calls.Load())
	}
	if c := conns.Load(); c != n/2+1 {
		t.Errorf("%d connections, want the first, one after each of the %d ends, and none else", c, n/2)
	}
}

// A call ends when its time is over, each by itself, and its connection with it.
func TestAnUpstreamThatDoesNotAnswer(t *testing.T) { upstreamtest.Each(t, silentUpstream) }

func silentUpstream(t *testing.T, over upstreamtest.Link) {
	silent := make(chan struct{})
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		if bytes.Contains(b, []byte("silence")) {
			<-silent
		}
		_, _ = io.WriteString(w, "{}")
	}))
	roots := over.Start(up)
	defer up.Close()
	defer close(silent)
	r := newRig(t, rigConfig{upstream: up.URL, roots: roots, timeout: 400 * time.Millisecond})
	for round := range 3 {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				began := time.Now()
				got, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody("e", "c", fmt.Sprint("silence ", round, i)))
				if err != nil || got.status != 504 {
					t.Errorf("%v %v", got, err)
				}
				if took := time.Since(began); took < 350*time.Millisecond {
					t.Errorf("given up after %s", took)
				}
			})
		}
		for i := range 30 {
			want(t, r.publish("e", "c", fmt.Sprint(round, i)), 200, "sent")
		}
		all.Wait()
	}
}

// A large request goes out whole although it does not fit into the socket at
// once.
func TestALargeBatchGoesOut(t *testing.T) { upstreamtest.Each(t, largeBatch) }

func largeBatch(t *testing.T, over upstreamtest.Link) {
	var got atomic.Int64
	full := make(chan struct{})
	read := sync.OnceFunc(func() { close(full) })
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		<-full // it does not read yet
		n, _ := io.Copy(io.Discard, req.Body)
		got.Store(n)
		_, _ = io.WriteString(w, "{}")
	}))
	roots := over.Start(up)
	defer up.Close()
	defer read()
	r := newRig(t, rigConfig{upstream: up.URL, roots: roots, maxBody: 16 << 20})
	r.app.Limits = pusher.Limits{DataBytes: 1 << 20, Body: 16 << 20}
	body := `{"batch":[` + strings.Repeat(eventBody("e", "c", strings.Repeat("x", 900<<10))+",", 9) + eventBody("e", "c", "y") + `]}`
	var all sync.WaitGroup
	all.Go(func() { want(t, r.do("POST", "/apps/7/batch_events", nil, body), 200, "sent") })
	eventually(t, "the socket has taken what fits", func() bool { return r.app.Upstream.conns.Unanswered() > 0 })
	read()
	all.Wait()
	if got.Load() != int64(len(body)) {
		t.Errorf("%d of %d bytes arrived", got.Load(), len(body))
	}
}

// When there is more than can be done, what is under way is finished before anything new begins.
func TestWhatHasBegunGoesFirst(t *testing.T) {
	l := &lane{woken: true, poll: new(netpoll.Poller)} // so that nobody is started
	v := [2]*visit{{lane: l}, {lane: l}}
	c := [3]*laneConn{{lane: l}, {lane: l}, {lane: l}}
	l.arrive(c[0])
	l.arrive(c[1])
	l.goOn(v[0])
	l.arrive(c[2])
	l.goOn(v[1])
	w := &laneWorker{lane: l, run: make(chan struct{}, 1)}
	for i, want := range []task{v[0], v[1], c[0], c[1], c[2], nil} {
		if got := w.next(false); got != want {
			t.Fatalf("task %d is %p, want %p", i, got, want)
		}
	}
}

// A caller sends a body that is far too large, all of it, before it reads: it gets the refusal, not a reset.
func TestTheRefusalOfALargeBodyIsRead(t *testing.T) {
	_, addr := port(t, Config{}, true)
	body := strings.Repeat("x", 3<<20)
	for range 5 {
		c := dial(t, addr)
		fmt.Fprintf(c, "POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(body))
		for rest := body; rest != ""; rest = rest[1<<16:] { // as an SDK does, piece by piece
			if _, err := io.WriteString(c, rest[:1<<16]); err != nil {
				t.Fatal("sending:", err)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal("reading:", err)
		}
		said, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(said), "larger than any publish") {
			t.Fatalf("%d %q %v", resp.StatusCode, said, err)
		}
	}
}

// One that asks first, as PHP's and curl do with a large body, is told why not.
func TestAskingBeforeALargeBody(t *testing.T) {
	_, addr := port(t, Config{}, true)
	c := dial(t, addr)
	fmt.Fprintf(c, "POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", 3<<20)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || resp.Header.Get("Pushguard-Outcome") != "refused" || !strings.Contains(string(said), "larger than any publish") {
		t.Errorf("%d %v %q %v", resp.StatusCode, resp.Header, said, err)
	}
}

// An SDK that speaks TLS unless told otherwise is pointed at a plain port: its handshake fails at once, and the log
// says what to do, once.
func TestTLSSpokenToAPlainPort(t *testing.T) {
	log := &lockedBuffer{}
	_, addr := port(t, Config{Log: slog.New(slog.NewTextHandler(log, nil))}, true)
	for range 3 {
		c := tls.Client(dial(t, addr), &tls.Config{InsecureSkipVerify: true})
		if err := c.Handshake(); err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
			t.Fatal(err)
		}
	}
	if said := log.String(); strings.Count(said, "a caller speaks TLS to the data port") != 1 || !strings.Contains(said, "useTLS: false") || !strings.Contains(said, "from=127.0.0.1") {
		t.Error(said)
	}
}
