package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher/upstream/upstreamtest"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/pushguard/pushguard/limiter"
)

// waiting is how many goroutines have a frame of that name on their stacks.
func waiting(frame string) int {
	b := make([]byte, 1<<20)
	for {
		if n := runtime.Stack(b, true); n < len(b) {
			return bytes.Count(b[:n], []byte(frame))
		}
		b = make([]byte, 2*len(b))
	}
}

// However many publishes of the lane wait for Pusher or for a call to share, no
// goroutine waits for each; and each has its answer.
func TestNoGoroutineWaitsForEachPublish(t *testing.T) { upstreamtest.Each(t, noGoroutineWaits) }

func noGoroutineWaits(t *testing.T, over upstreamtest.Link) {
	const many = 40
	for name, c := range map[string]struct {
		fold  *FoldConfig
		frame string // what would wait
		calls int64
		few   int // goroutines that may: who makes a call for all
	}{
		"alone":  {nil, "upstream.(*conn).wait(", many, 0},
		"folded": {&FoldConfig{Window: time.Minute}, "proxy.(*folder).send(", 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var gate atomic.Pointer[chan struct{}]
			var held, conns atomic.Int64
			up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				_, _ = io.ReadAll(req.Body)
				held.Add(1)
				<-*gate.Load()
				_, _ = io.WriteString(w, "{}")
			}))
			up.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					conns.Add(1)
				}
			}
			roots := over.Start(up)
			defer up.Close()
			r := newRig(t, rigConfig{upstream: up.URL, roots: roots, fold: c.fold, timeout: time.Minute})
			for round := range 3 { // the first one makes the connections
				shut := make(chan struct{})
				gate.Store(&shut)
				held.Store(0)
				var all sync.WaitGroup
				for i := range many {
					all.Go(func() {
						if got, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody("e", fmt.Sprint("c-", i), fmt.Sprint(round, i))); err != nil || got.status != 200 || got.outcome != "sent" {
							t.Errorf("%v %v", got, err)
						}
					})
				}
				eventually(t, "all of them with Pusher or in line", func() bool {
					return held.Load() == c.calls && r.proxy.InFlight() == many && (c.fold == nil || r.app.fold.inLine() == many-1)
				})
				if n := waiting(c.frame); round > 0 && n > c.few {
					t.Errorf("%d goroutines wait", n)
				}
				close(shut)
				all.Wait()
			}
			if c.fold == nil && conns.Load() != many {
				t.Errorf("%d connections were made", conns.Load())
			}
		})
	}
}

// inLine is how many publishes wait for a call.
func (f *folder) inLine() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue)
}

// A call that nobody waits for can end in every way in which one can that is
// waited for.
func TestEveryEndOfACallThatWasLeft(t *testing.T) { upstreamtest.Each(t, everyEnd) }

func everyEnd(t *testing.T, over upstreamtest.Link) {
	const plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
	ln, url, roots := over.Listen(t)
	var dialled atomic.Int64
	half, silent := make(chan struct{}), make(chan struct{})
	defer close(silent)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					body, err := io.ReadAll(req.Body)
					if err != nil {
						return
					}
					answer := plain
					switch {
					case bytes.Contains(body, []byte("pieces")):
						_, _ = io.WriteString(c, plain[:20])
						<-half
						answer = plain[20:]
					case bytes.Contains(body, []byte("chunks")):
						answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
					case bytes.Contains(body, []byte("close")):
						answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
					case bytes.Contains(body, []byte("more")):
						answer = plain + "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz"
					case bytes.Contains(body, []byte("fails")):
						answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
					case bytes.Contains(body, []byte("refuses")):
						answer = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig"
					case bytes.Contains(body, []byte("nonsense")):
						answer = "HELLO\r\n\r\n"
					case bytes.Contains(body, []byte("hangs up")):
						return
					case bytes.Contains(body, []byte("silence")):
						<-silent
						return
					}
					if _, err := io.WriteString(c, answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	r := newRig(t, rigConfig{upstream: url, roots: roots, timeout: 2 * time.Second})
	conns := r.app.Upstream.conns
	for _, c := range []struct {
		says   string
		status int
		words  string
		kept   bool // the connection goes on
	}{
		{"plain", 200, "{}", true},
		{"pieces", 200, "{}", true},
		{"chunks", 200, "{}", true},
		{"close", 200, "{}", false},
		{"more", 200, "{}", false},
		{"fails", 502, "Pusher answered 500", true},
		{"refuses", 413, "big", true},
		{"nonsense", 502, "may or may not", false},
		{"hangs up", 502, "may or may not", false},
		{"silence", 504, "may or may not", false},
		{"plain again", 200, "{}", true},
	} {
		want(t, r.publish("e", "c", "before "+c.says[:1]), 200, "sent")
		eventually(t, "a kept connection", func() bool { return conns.Kept() == 1 })
		before := dialled.Load()
		answered := make(chan reply, 1)
		go func() {
			got, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody("e", "c", c.says))
			if err != nil {
				t.Error(c.says, err)
			}
			answered <- got
		}()
		if c.says == "pieces" { // the call is gone on with, and only then the rest comes
			eventually(t, "a worker that waits for the rest", func() bool { return waiting("upstream.(*conn).wait(") == 1 })
			half <- struct{}{}
		}
		got := <-answered
		if got.status != c.status || !strings.Contains(got.body, c.words) {
			t.Errorf("%s: %d %q, want %d with %q", c.says, got.status, got.body, c.status, c.words)
		}
		if dialled.Load() != before {
			t.Errorf("%s: it did not go over the kept connection", c.says)
		}
		eventually(t, "the connection's end, or not", func() bool { return conns.Kept() == map[bool]int{true: 1}[c.kept] })
	}
	if o := r.app.Upstream.Overload(); o.UnderWay != 0 || conns.Slots.Taken() != 0 || r.proxy.InFlight() != 0 {
		t.Errorf("%d places, %d slots and %d requests were not given back", o.UnderWay, conns.Slots.Taken(), r.proxy.InFlight())
	}
}

// visited is a visit of the lane without a socket, and publishes as they come.
func visited(t testing.TB, policy limiter.Policy, event string) (v *visit, publishes [][]byte) {
	r := newRig(t, rigConfig{policy: policy})
	l := &lane{p: r.proxy}
	l.date.Set(time.Now())
	v = &visit{lane: l}
	v.ctx.Init2(noConn{}, quiet{}, false)
	for i := range 1024 {
		body := eventBody(event, fmt.Sprintf("private-user-%d", i), fmt.Sprintf(`{"n":%d,"text":"%0400d"}`, i, i))
		query := r.caller.AppendSigned(nil, "POST", []byte("/apps/7/events"), nil, []byte(body), time.Now())
		publishes = append(publishes, fmt.Appendf(nil, "POST /apps/7/events?%s HTTP/1.1\r\nHost: x\r\nX-Pusher-Library: pusher-http-go 5.1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			query, len(body), body))
	}
	return v, publishes
}

// answerTo does with b what a worker does.
func (v *visit) answerTo(b []byte) []byte {
	if !v.read(b, []byte("x")) || v.lane.p.begin(&v.ctx, v) || !v.written {
		return nil
	}
	v.in, v.mine = wire.Request{}, false
	return v.bytes
}

func refusing() limiter.Policy {
	return limiter.Policy{Rules: []limiter.Rule{{Name: "refused", Match: limiter.Match{Event: []string{"refused.*"}}, Rates: []limiter.Rate{{PerSecond: 1e-3, Burst: 1}}}}}
}

// A refusal allocates nothing from the bytes that came to those that go.
func TestARefusalAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return // the race detector allocates by itself; the same test runs without it in `make test`
	}
	v, publishes := visited(t, refusing(), "refused.created")
	i, refused := 0, 0
	got := math.Inf(1)
	for range 10 { // the ledger's heartbeat allocates in the background
		got = min(got, testing.AllocsPerRun(200, func() {
			if i++; bytes.HasPrefix(v.answerTo(publishes[i%len(publishes)]), []byte("HTTP/1.1 429 Too Many Requests\r\n")) {
				refused++
			}
		}))
	}
	if got != 0 || refused < 2000 {
		t.Errorf("%v allocations, %d refused", got, refused)
	}
}

func BenchmarkRefusal(b *testing.B) {
	v, publishes := visited(b, refusing(), "refused.created")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; v.answerTo(publishes[i%len(publishes)]) == nil {
			b.Fatal("not answered")
		}
	}
}
