package upstream

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher/upstream/upstreamtest"

	"github.com/pushguard/pushguard/pusher/netpoll"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// What TLS says to TLS costs no connection, in whatever pieces it comes to an idle
// one; what is said to whoever uses it, does, and so does its end.
func TestWhatAnIdleConnectionHears(t *testing.T) {
	for name, c := range map[string]struct {
		say  func(p *puppet) []byte
		kept bool
	}{
		"a ticket":                  {func(p *puppet) []byte { return p.word() }, true},
		"an unasked answer":         {func(p *puppet) []byte { return append(p.word(), p.says("HTTP/1.1 408 Request Timeout\r\n\r\n")...) }, false},
		"the end of what is said":   {func(p *puppet) []byte { return append(p.word(), p.ends()...) }, false},
		"a key update":              {func(p *puppet) []byte { return append(p.word(), newSealer(p, 1).update(0)...) }, true},
		"a key update, asked back":  {func(p *puppet) []byte { return append(p.word(), newSealer(p, 1).update(1)...) }, true},
		"a record that nobody made": {func(p *puppet) []byte { b := p.word(); b[len(b)-1] ^= 1; return b }, false},
		"no record":                 {func(p *puppet) []byte { return append(p.word(), "HTTP/1.1 400 Bad Request\r\n"...) }, false},
		"an endless record":         {func(p *puppet) []byte { return append(p.word(), 23, 3, 3, 0xff, 0xff, 0) }, false},
	} {
		for _, pieces := range []int{1, 2, 7} {
			t.Run(fmt.Sprint(name, " in ", pieces), func(t *testing.T) {
				p := newPuppet(t)
				p.conns.put(p.l, time.Now())
				said := c.say(p)
				for i := range pieces {
					if p.conns.Kept() == 0 && !c.kept {
						break // it was enough
					}
					p.hear(said[len(said)*i/pieces : len(said)*(i+1)/pieces])
				}
				if got := p.conns.Kept() == 1; got != c.kept {
					t.Fatalf("kept: %v", got)
				}
				if !c.kept {
					if again := p.conns.take(); again != nil {
						t.Error("it is used")
					}
				}
			})
		}
	}
}

// After all that TLS may say, calls go on, over the same connection, with new keys.
func TestCallsGoOnAfterNewKeys(t *testing.T) {
	p := newPuppet(t)
	p.conns.put(p.l, time.Now())
	ticket := p.word()
	s := newSealer(p, 1)
	p.hear(append(ticket, s.update(1)...))
	for i := range 3 {
		answered, resp := p.asked(aRequest) // with the keys that were asked for, or the server cannot read it
		p.hear(s.seal(23, []byte(anAnswer)))
		if err := <-answered; err != nil || string(resp.Body()) != "{}" {
			t.Fatalf("call %d: %v %q", i, err, resp.Body())
		}
	}
	if p.conns.Kept() != 1 {
		t.Error("the connection is not kept")
	}
}

// An answer may come with anything before, behind and in it.
func TestWhatComesWithAnAnswer(t *testing.T) {
	cut := func(b []byte, at ...int) (pieces [][]byte) {
		last := 0
		for _, i := range append(at, len(b)) {
			pieces = append(pieces, b[last:i])
			last = i
		}
		return pieces
	}
	for name, c := range map[string]struct {
		say  func(p *puppet) [][]byte
		kept bool
		fail bool
	}{
		"a ticket before": {func(p *puppet) [][]byte { return cut(append(p.word(), p.says(anAnswer)...)) }, true, false},
		"a key update behind": {func(p *puppet) [][]byte {
			return cut(append(append(p.word(), p.says(anAnswer)...), newSealer(p, 2).update(1)...))
		}, true, false},
		"half a record behind": {func(p *puppet) [][]byte { return cut(append(append(p.word(), p.says(anAnswer)...), 23, 3, 3, 0)) }, true, false},
		"another answer behind": {func(p *puppet) [][]byte {
			return cut(append(append(p.word(), p.says(anAnswer)...), p.says(anAnswer)...))
		}, false, false},
		"a part of another in it": {func(p *puppet) [][]byte { return cut(append(p.word(), p.says(anAnswer+"HTTP")...)) }, false, false},
		"its end behind":          {func(p *puppet) [][]byte { return cut(append(append(p.word(), p.says(anAnswer)...), p.ends()...)) }, false, false},
		"its end behind, in two": {func(p *puppet) [][]byte {
			b := append(append(p.word(), p.says(anAnswer)...), p.ends()...)
			return cut(b, len(b)-3)
		}, false, false},
		"byte by byte": {func(p *puppet) [][]byte { return bytes.SplitAfter(append(p.word(), p.says(anAnswer)...), nil) }, true, false},
		"many records": {func(p *puppet) [][]byte {
			b := p.word()
			for _, c := range []byte(anAnswer) {
				b = append(b, p.says(string(c))...)
			}
			return cut(b)
		}, true, false},
		"a key update in it": {func(p *puppet) [][]byte {
			b := append(p.word(), p.says(anAnswer[:20])...)
			s := newSealer(p, 2)
			b = append(b, s.update(1)...)
			return cut(append(b, s.seal(23, []byte(anAnswer[20:]))...))
		}, true, false},
		"only its end":             {func(p *puppet) [][]byte { return cut(append(p.word(), p.ends()...)) }, false, true},
		"the end in the middle":    {func(p *puppet) [][]byte { return cut(append(append(p.word(), p.says(anAnswer[:30])...), p.ends()...)) }, false, true},
		"something that is broken": {func(p *puppet) [][]byte { b := append(p.word(), p.says(anAnswer)...); b[len(b)-1] ^= 1; return cut(b) }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPuppet(t)
			p.conns.put(p.l, time.Now())
			answered, resp := p.asked(aRequest)
			for _, b := range c.say(p) {
				if _, err := p.Conn.Write(b); err != nil {
					t.Fatal(err)
				}
				p.l.Wake(unix.EPOLLIN)
				eventually(t, "the bytes read", func() bool { return !p.l.unread() || p.l.state.Load() == connDead })
			}
			var err error
			for waits := true; waits; { // the poller of a puppet is the test
				select {
				case err = <-answered:
					waits = false
				default:
					p.l.tell()
				}
			}
			if c.fail != (err != nil) || !c.fail && string(resp.Body()) != "{}" {
				t.Fatalf("%v %q", err, resp.Body())
			}
			var unsent *NotSentError
			if errors.As(err, &unsent) {
				t.Error("it is said not to have been sent")
			}
			eventually(t, "the connection's end, or not", func() bool {
				p.l.Wake(unix.EPOLLIN)
				return p.conns.Kept() == map[bool]int{true: 1}[c.kept]
			})
		})
	}
}

// New keys and what else TLS says to TLS may meet a connection at any moment, also
// while a call ends and the next begins.
func TestNewKeysAtAnyTime(t *testing.T) {
	p := newPuppetOn(t, netpoll.Default())
	p.conns.put(p.l, time.Now())
	said := p.word()
	s := newSealer(p, 1)
	for i := range 1000 {
		answered, resp := p.asked(aRequest)
		said = append(said, s.seal(23, []byte(anAnswer))...)
		if _, err := p.Conn.Write(said); err != nil {
			t.Fatal(err)
		}
		said = s.update(byte(i & 1))
		if i%3 == 0 {
			if _, err := p.Conn.Write(said[:7]); err != nil {
				t.Fatal(err)
			}
			said = said[7:]
		}
		if i%5 != 0 { // else it comes with the next answer
			if _, err := p.Conn.Write(said); err != nil {
				t.Fatal(err)
			}
			said = nil
		}
		if err := <-answered; err != nil || string(resp.Body()) != "{}" {
			t.Fatalf("call %d: %v %q", i, err, resp.Body())
		}
	}
}

// While a request waits to be written, what TLS says to TLS does not matter; what an
// upstream says unasked drops the connection, and the request stays unsent.
func TestWhatIsHeardBeforeARequestIsWritten(t *testing.T) {
	for _, unasked := range []bool{false, true} {
		t.Run(fmt.Sprint(unasked), func(t *testing.T) {
			p := newPuppet(t)
			out := &p.conns.poll.Writes
			out.Processors(1)
			out.Flush(true)
			p.conns.put(p.l, time.Now())
			failed := make(chan error, 1)
			go func() {
				var resp fasthttp.Response
				failed <- p.conns.Do([]byte(aRequest), false, &resp, time.Now())
			}()
			eventually(t, "a request that waits", func() bool { return p.l.writing.Load() == writeWaits })
			said := p.word()
			if unasked {
				said = append(said, p.says("HTTP/1.1 408 Request Timeout\r\n\r\n")...)
			}
			p.hear(said)
			out.Flush(true)
			if !unasked {
				if req, err := http.ReadRequest(bufio.NewReader(p.server)); err != nil || req.Method != "POST" {
					t.Fatal(err)
				}
				if _, err := p.Conn.Write(p.says(anAnswer)); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the answer", func() bool { p.l.Wake(unix.EPOLLIN); return p.conns.Kept() == 1 })
				if err := <-failed; err != nil {
					t.Error(err)
				}
				return
			}
			// No other connection can be made, for nobody listens any more.
			var unsent *NotSentError
			if err := <-failed; !errors.As(err, &unsent) {
				t.Errorf("%v", err)
			}
			if n, err := p.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("the upstream got %d bytes: %v", n, err)
			}
		})
	}
}

// A request that is taken back has not been sealed: nothing of it arrives, and the
// upstream is told properly that there will be no more.
func TestALateRequestIsTakenBackOverTLS(t *testing.T) {
	p := newPuppet(t)
	p.conns.timeout = 50 * time.Millisecond
	out := &p.conns.poll.Writes
	out.Processors(1)
	out.Flush(true)
	p.conns.put(p.l, time.Now())
	var resp fasthttp.Response
	var unsent *NotSentError
	if err := p.conns.Do([]byte(aRequest), false, &resp, time.Now()); !errors.As(err, &unsent) {
		t.Fatalf("%v", err)
	}
	out.Flush(true)
	const alert = 5 + 2 + 1 + 16
	if b, err := io.ReadAll(p.Conn); len(b) != alert || err != nil {
		t.Errorf("the upstream got %d bytes: %v", len(b), err)
	}
}

// A request that the socket does not take at once goes out whole, in its order.
func TestALargeRequestThroughANarrowSocket(t *testing.T) {
	p := newPuppetOn(t, netpoll.Default())
	if err := unix.SetsockoptInt(p.l.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10); err != nil {
		t.Fatal(err)
	}
	p.conns.put(p.l, time.Now())
	for i := range 3 {
		body := bytes.Repeat([]byte("0123456789"), 50_000+i)
		answered, resp := make(chan error, 1), &fasthttp.Response{}
		go func() {
			answered <- p.conns.Do(fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body), false, resp, time.Now())
		}()
		req, err := http.ReadRequest(bufio.NewReader(p.server))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(req.Body); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("request %d: %d bytes of %d: %v", i, len(got), len(body), err)
		}
		if _, err := p.Conn.Write(append(p.word(), p.says(anAnswer)...)); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil || string(resp.Body()) != "{}" {
			t.Fatalf("request %d: %v %q", i, err, resp.Body())
		}
	}
}

// Of a request that meets a broken connection nothing is sent, whatever that one was
// used for before; one that breaks in the middle is of unknown fate.
func TestABrokenConnection(t *testing.T) {
	for _, middle := range []bool{false, true} {
		t.Run(fmt.Sprint(middle), func(t *testing.T) {
			p := newPuppet(t)
			p.conns.put(p.l, time.Now())
			answered, _ := p.asked(aRequest)
			if middle {
				if err := unix.SetsockoptInt(p.l.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := p.Conn.Write(append(p.word(), p.says(anAnswer)...)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the answer", func() bool { p.l.Wake(unix.EPOLLIN); return p.conns.Kept() == 1 })
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			cut := func() {
				_ = p.Conn.(*net.TCPConn).SetLinger(0)
				_ = p.Close()
				eventually(t, "the news", p.l.unread)
			}
			request := aRequest
			if middle {
				request += strings.Repeat("x", 8<<20)
			} else {
				cut()
			}
			failed := make(chan error, 1)
			go func() {
				var resp fasthttp.Response
				failed <- p.conns.Do([]byte(request), false, &resp, time.Now())
			}()
			if middle {
				if _, err := p.server.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				cut()
				p.l.tell() // there would be room
			}
			var unsent *NotSentError
			if err := <-failed; err == nil || errors.As(err, &unsent) == middle {
				t.Errorf("%v", err)
			}
		})
	}
}

// Whatever the pieces, as many records are counted as there are.
func FuzzRecordsAreCounted(f *testing.F) {
	f.Add([]byte{23, 3, 3, 0, 2, 9, 9, 22, 3, 3, 0, 0, 21, 3}, []byte{1, 4, 2})
	f.Fuzz(func(t *testing.T, b, cuts []byte) {
		want, at := 0, 0
		for at+5 <= len(b) {
			n := 5 + int(b[at+3])<<8 + int(b[at+4])
			if at += n; at <= len(b) {
				want++
			}
		}
		var r records
		for i := 0; len(b) > 0; i++ {
			n := len(b)
			if i < len(cuts) {
				n = min(int(cuts[i]), n)
			}
			r.follow(b[:n])
			b = b[n:]
		}
		if r.whole != want {
			t.Errorf("%d records, want %d", r.whole, want)
		}
	})
}

// connsTo has connections to an upstream, over TLS if there are roots.
func connsTo(t *testing.T, addr string, roots *x509.CertPool) *Conns {
	t.Helper()
	c := &fasthttp.HostClient{ReadTimeout: 30 * time.Second, MaxIdleConnDuration: time.Minute, MaxResponseBodySize: 1 << 20}
	if roots != nil {
		c.IsTLS, c.TLSConfig = true, TLSConfig("127.0.0.1")
		c.TLSConfig.RootCAs = roots
	}
	s := NewConns(addr, c, func(addr string, d time.Duration) (net.Conn, error) { return net.DialTimeout("tcp", addr, d) }, oneSlot())
	t.Cleanup(s.Close)
	return s
}

// A call over TLS allocates nothing but what crypto/tls does: for each Read of either
// end, of which this process has both, a reader that counts.
func TestACallOverTLSAllocatesNothingOfItsOwn(t *testing.T) {
	if raceEnabled {
		return // the race detector allocates by itself
	}
	for _, w := range upstreamtest.Links {
		ln, _, roots := w.Listen(t)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b, answer := make([]byte, 4096), []byte(anAnswer)
			for {
				if _, err := c.Read(b); err != nil { // a request is one record
					return
				}
				if _, err := c.Write(answer); err != nil {
					return
				}
			}
		}()
		conns := connsTo(t, ln.Addr().String(), roots)
		var resp fasthttp.Response
		request := []byte(aRequest)
		got := math.Inf(1)
		for range 10 { // the ledger's heartbeat allocates, too
			got = min(got, testing.AllocsPerRun(100, func() {
				if err := conns.Do(request, false, &resp, time.Now()); err != nil {
					t.Fatal(err)
				}
			}))
		}
		if most := map[bool]float64{true: 0, false: 2}[w.Version == 0]; got > most {
			t.Errorf("%s: %v allocations a call, want %v", w.Name, got, most)
		}
	}
}
