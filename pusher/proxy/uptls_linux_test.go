package proxy

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// wire is how an upstream is spoken to in a test.
type wire struct {
	name    string
	version uint16 // of TLS; 0: plain
}

var wires = []wire{{"plain", 0}, {"TLS 1.2", tls.VersionTLS12}, {"TLS 1.3", tls.VersionTLS13}}

// overEach has a story about an upstream happen over each.
func overEach(t *testing.T, story func(t *testing.T, over wire)) {
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) { story(t, w) })
	}
}

// certificateFor makes a certificate for a name or an address, which is its own root.
func certificateFor(name string, until time.Time) (tls.Certificate, *x509.CertPool) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upstream"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		panic(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, roots
}

// upstreamCert is the certificate of all upstreams that are spoken to properly.
var upstreamCert = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	return certificateFor("127.0.0.1", time.Now().Add(time.Hour))
})

func (w wire) server() *tls.Config {
	cert, _ := upstreamCert()
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: w.version, MaxVersion: w.version}
}

// listen is an upstream's listener, with its URL and who signed for it.
func (w wire) listen(t testing.TB) (ln net.Listener, url string, roots *x509.CertPool) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if w.version == 0 {
		return ln, "http://" + ln.Addr().String(), nil
	}
	_, roots = upstreamCert()
	return tls.NewListener(ln, w.server()), "https://" + ln.Addr().String(), roots
}

// start has a server speak it.
func (w wire) start(s *httptest.Server) (roots *x509.CertPool) {
	if w.version == 0 {
		s.Start()
		return nil
	}
	s.TLS = w.server()
	s.StartTLS()
	_, roots = upstreamCert()
	return roots
}

// relay hands on what a client and an upstream say; what the upstream says goes
// through cut, which has it written in pieces.
func relay(t *testing.T, to string, cut func(b []byte, write func([]byte))) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				up, err := net.Dial("tcp", to)
				if err != nil {
					t.Error(err)
					return
				}
				defer up.Close()
				all.Go(func() {
					_, _ = io.Copy(up, c)
					_ = up.(*net.TCPConn).CloseWrite()
				})
				b := make([]byte, 64<<10)
				for {
					n, err := up.Read(b)
					if n > 0 {
						cut(b[:n], func(b []byte) { _, _ = c.Write(b) })
					}
					if err != nil {
						return
					}
				}
			})
		}
	})
	return ln.Addr().String()
}

// However an upstream's records are cut and joined on their way, every publish has
// its own answer, long ones too, and no connection is lost.
func TestRecordsCutAnywhere(t *testing.T) {
	for _, w := range wires[1:] {
		t.Run(w.name, func(t *testing.T) {
			var conns atomic.Int64
			up := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				body, _ := io.ReadAll(req.Body)
				for i, piece := range bytes.SplitAfter(body, []byte("9")) { // each a record
					if _, err := rw.Write(piece); err != nil {
						t.Error(err)
					}
					if i%3 == 0 {
						rw.(http.Flusher).Flush()
					}
				}
			}))
			up.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					conns.Add(1)
				}
			}
			roots := w.start(up)
			defer up.Close()
			var mu sync.Mutex
			seed := [2]uint64{mathrand.Uint64(), mathrand.Uint64()}
			dice := mathrand.New(mathrand.NewPCG(seed[0], seed[1]))
			addr := relay(t, up.Listener.Addr().String(), func(b []byte, write func([]byte)) {
				for len(b) > 0 {
					mu.Lock()
					n := 1 + dice.IntN(len(b))
					if dice.IntN(4) == 0 {
						n = min(len(b), 1+dice.IntN(6)) // inside of a header
					}
					mu.Unlock()
					write(b[:n])
					b = b[n:]
				}
			})
			r := newRig(t, rigConfig{upstream: "https://" + addr, roots: roots})
			for i := range 150 {
				said := strings.Repeat(fmt.Sprint(i, " "), 1+i*i%1900)
				got := r.publish("e", "c", said)
				if got.status != 200 || !strings.Contains(got.body, said) {
					t.Fatalf("publish %d of %d bytes, dice %d: %d, %d bytes", i, len(said), seed, got.status, len(got.body))
				}
			}
			if n := conns.Load(); n != 1 {
				t.Errorf("%d connections were made", n)
			}
		})
	}
}

// What is wrong with an upstream's TLS is said, and nothing was sent: whoever makes
// the connection.
func TestAnUpstreamWhoseTLSIsWrong(t *testing.T) {
	_, roots := upstreamCert()
	other, otherRoots := certificateFor("example.com", time.Now().Add(time.Hour))
	old, oldRoots := certificateFor("127.0.0.1", time.Now().Add(-time.Hour))
	right, _ := upstreamCert()
	for name, c := range map[string]struct {
		server *tls.Config // nil: no TLS at all
		mute   bool
		roots  *x509.CertPool
		words  string
	}{
		"another name":      {&tls.Config{Certificates: []tls.Certificate{other}}, false, otherRoots, "for another name"},
		"unknown authority": {&tls.Config{Certificates: []tls.Certificate{right}}, false, otherRoots, "does not trust"},
		"expired":           {&tls.Config{Certificates: []tls.Certificate{old}}, false, oldRoots, "has expired"},
		"old version":       {&tls.Config{Certificates: []tls.Certificate{right}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false, roots, "protocol version"},
		"no TLS":            {nil, false, roots, "does not speak TLS"},
		"mute":              {nil, true, roots, "took too long"},
	} {
		for _, polled := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", polled ", polled), func(t *testing.T) {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				var all sync.WaitGroup
				defer all.Wait()
				defer ln.Close()
				var heard atomic.Int64
				all.Go(func() {
					for {
						conn, err := ln.Accept()
						if err != nil {
							return
						}
						all.Go(func() {
							defer conn.Close()
							switch {
							case c.mute:
								_, _ = io.Copy(io.Discard, conn) // until the client gives up
							case c.server == nil:
								_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
								_, _ = io.Copy(io.Discard, conn)
							default:
								if n, _ := tls.Server(conn, c.server).Read(make([]byte, 1)); n > 0 {
									heard.Add(1)
								}
							}
						})
					}
				})
				r := newRig(t, rigConfig{upstream: "https://" + ln.Addr().String(), roots: c.roots, timeout: 500 * time.Millisecond})
				if !polled {
					r.app.Upstream.conns = nil
				}
				got := r.publish("e", "c", "x")
				if got.status != 502 || got.header.Get("Pushguard-Reason") != "upstream_unreachable" || !strings.Contains(got.body, c.words) || !strings.Contains(got.body, "was not sent") {
					t.Errorf("%d %v %q", got.status, got.header, got.body)
				}
				if heard.Load() != 0 || r.used() != 0 {
					t.Errorf("the upstream heard it (%d), or it cost %d messages", heard.Load(), r.used())
				}
			})
		}
	}
}

// A second connection resumes the session of the first.
func TestASessionIsResumed(t *testing.T) {
	for _, w := range wires[1:] {
		t.Run(w.name, func(t *testing.T) {
			ln, url, roots := w.listen(t)
			resumed := make(chan bool, 2)
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
						t.Error(err)
					}
					resumed <- c.(*tls.Conn).ConnectionState().DidResume
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
					_ = c.Close()
				}
			}()
			r := newRig(t, rigConfig{upstream: url, roots: roots})
			for i, want := range []bool{false, true} {
				if got := r.publish("e", "c", fmt.Sprint(i)); got.status != 200 {
					t.Fatal(got)
				}
				if got := <-resumed; got != want {
					t.Errorf("connection %d: resumed %v", i, got)
				}
			}
		})
	}
}

// puppet is an upConn over TLS 1.3 whose poller does not run, and a crypto/tls server
// whose words the test hands over, when and in what pieces it likes.
type puppet struct {
	net.Conn // the upstream's end
	t        *testing.T
	conns    *upConns
	l        *upConn
	server   *tls.Conn
	keys     lockedBuffer
	flown    bool         // the handshake's only flight has gone out
	said     bytes.Buffer // records
}

// Write keeps what the server says, but for its side of the handshake: there the
// last record, which is a ticket, is kept.
func (p *puppet) Write(b []byte) (int, error) {
	if p.flown {
		return p.said.Write(b)
	}
	p.flown = true
	last := 0
	for at := 0; at < len(b); at += 5 + int(b[at+3])<<8 + int(b[at+4]) {
		last = at
	}
	p.said.Write(b[last:])
	return p.Conn.Write(b[:last])
}

// SetWriteDeadline is called by who says that there will be no more.
func (p *puppet) SetWriteDeadline(time.Time) error { return nil }

// word takes out what the server has said.
func (p *puppet) word() []byte { return bytes.Clone(p.said.Next(p.said.Len())) }

// hear has bytes arrive at the upConn, and its poller see them.
func (p *puppet) hear(b []byte) {
	p.t.Helper()
	if _, err := p.Conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, "the bytes", p.l.unread)
	p.l.wake(unix.EPOLLIN)
}

func newPuppet(t *testing.T) *puppet {
	t.Helper()
	poll, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = poll.file.Close() })
	return newPuppetOn(t, poll)
}

func newPuppetOn(t *testing.T, poll *poller) *puppet {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, roots := upstreamCert()
	client, server := upstreamTLS("127.0.0.1"), wires[2].server()
	client.RootCAs = roots
	p := &puppet{t: t}
	server.KeyLogWriter = &p.keys
	p.conns = newUpConns(ln.Addr().String(), &fasthttp.HostClient{MaxConns: 1, ReadTimeout: 30 * time.Second, MaxIdleConnDuration: time.Minute,
		MaxResponseBodySize: 1 << 20, IsTLS: true, TLSConfig: client},
		func(addr string, d time.Duration) (net.Conn, error) {
			c, err := net.DialTimeout("tcp", addr, d)
			if err != nil { // nobody listens after the first
				return nil, &notSentError{err}
			}
			return c, nil
		})
	p.conns.poll = poll
	shaken := make(chan error, 1)
	go func() {
		var err error
		if p.Conn, err = ln.Accept(); err == nil {
			_ = p.SetDeadline(time.Now().Add(30 * time.Second))
			p.server = tls.Server(p, server)
			err = p.server.Handshake()
		}
		shaken <- err
	}()
	l, _, err := p.conns.get(time.Now().Add(20 * time.Second))
	if err = errors.Join(err, <-shaken); err != nil {
		t.Fatal(err)
	}
	p.l = l
	t.Cleanup(func() { p.conns.close(); _ = p.Close() })
	return p
}

// asked has a call made, up to where its answer is due.
func (p *puppet) asked(wire string) (answered chan error, resp *fasthttp.Response) {
	p.t.Helper()
	answered, resp = make(chan error, 1), &fasthttp.Response{}
	go func() { answered <- p.conns.do([]byte(wire), false, resp, time.Now()) }()
	req, err := http.ReadRequest(bufio.NewReader(p.server))
	if err != nil {
		select {
		case why := <-answered:
			p.t.Fatal(err, why)
		default:
			p.t.Fatal(err)
		}
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		p.t.Fatal(err)
	}
	return answered, resp
}

// says adds a record of s to the server's words; it returns and takes out all of them.
func (p *puppet) says(s string) []byte {
	p.t.Helper()
	if _, err := io.WriteString(p.server, s); err != nil {
		p.t.Fatal(err)
	}
	return p.word()
}

// ends is the record that says that there will be no more.
func (p *puppet) ends() []byte {
	p.t.Helper()
	if err := p.server.CloseWrite(); err != nil {
		p.t.Fatal(err)
	}
	return p.word()
}

const (
	aRequest = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
	anAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
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
					if p.conns.kept() == 0 && !c.kept {
						break // it was enough
					}
					p.hear(said[len(said)*i/pieces : len(said)*(i+1)/pieces])
				}
				if got := p.conns.kept() == 1; got != c.kept {
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
	if p.conns.kept() != 1 {
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
				p.l.wake(unix.EPOLLIN)
				eventually(t, "the bytes read", func() bool { return !p.l.unread() || p.l.state.Load() == upDead })
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
			var unsent *notSentError
			if errors.As(err, &unsent) {
				t.Error("it is said not to have been sent")
			}
			eventually(t, "the connection's end, or not", func() bool {
				p.l.wake(unix.EPOLLIN)
				return p.conns.kept() == map[bool]int{true: 1}[c.kept]
			})
		})
	}
}

// New keys and what else TLS says to TLS may meet a connection at any moment, also
// while a call ends and the next begins.
func TestNewKeysAtAnyTime(t *testing.T) {
	p := newPuppetOn(t, thePoller())
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
			out := &p.conns.poll.out
			out.processors(1)
			out.flush(true)
			p.conns.put(p.l, time.Now())
			failed := make(chan error, 1)
			go func() {
				var resp fasthttp.Response
				failed <- p.conns.do([]byte(aRequest), false, &resp, time.Now())
			}()
			eventually(t, "a request that waits", func() bool { return p.l.parcel.Load() == parcelWaits })
			said := p.word()
			if unasked {
				said = append(said, p.says("HTTP/1.1 408 Request Timeout\r\n\r\n")...)
			}
			p.hear(said)
			out.flush(true)
			if !unasked {
				if req, err := http.ReadRequest(bufio.NewReader(p.server)); err != nil || req.Method != "POST" {
					t.Fatal(err)
				}
				if _, err := p.Conn.Write(p.says(anAnswer)); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the answer", func() bool { p.l.wake(unix.EPOLLIN); return p.conns.kept() == 1 })
				if err := <-failed; err != nil {
					t.Error(err)
				}
				return
			}
			// No other connection can be made, for nobody listens any more.
			var unsent *notSentError
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
	out := &p.conns.poll.out
	out.processors(1)
	out.flush(true)
	p.conns.put(p.l, time.Now())
	var resp fasthttp.Response
	var unsent *notSentError
	if err := p.conns.do([]byte(aRequest), false, &resp, time.Now()); !errors.As(err, &unsent) {
		t.Fatalf("%v", err)
	}
	out.flush(true)
	const alert = 5 + 2 + 1 + 16
	if b, err := io.ReadAll(p.Conn); len(b) != alert || err != nil {
		t.Errorf("the upstream got %d bytes: %v", len(b), err)
	}
}

// A request that the socket does not take at once goes out whole, in its order.
func TestALargeRequestThroughANarrowSocket(t *testing.T) {
	p := newPuppetOn(t, thePoller())
	if err := unix.SetsockoptInt(p.l.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10); err != nil {
		t.Fatal(err)
	}
	p.conns.put(p.l, time.Now())
	for i := range 3 {
		body := bytes.Repeat([]byte("0123456789"), 50_000+i)
		answered, resp := make(chan error, 1), &fasthttp.Response{}
		go func() {
			answered <- p.conns.do(fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body), false, resp, time.Now())
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
			eventually(t, "the answer", func() bool { p.l.wake(unix.EPOLLIN); return p.conns.kept() == 1 })
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
				failed <- p.conns.do([]byte(request), false, &resp, time.Now())
			}()
			if middle {
				if _, err := p.server.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				cut()
				p.l.tell() // there would be room
			}
			var unsent *notSentError
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

// A call over TLS allocates nothing but what crypto/tls does: for each Read of either
// end, of which this process has both, a reader that counts.
func TestACallOverTLSAllocatesNothingOfItsOwn(t *testing.T) {
	if raceEnabled {
		return // the race detector allocates by itself
	}
	for _, w := range wires {
		ln, url, roots := w.listen(t)
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
		r := newRig(t, rigConfig{upstream: url, roots: roots})
		var resp fasthttp.Response
		request := []byte(aRequest)
		got := math.Inf(1)
		for range 10 { // the ledger's heartbeat allocates, too
			got = min(got, testing.AllocsPerRun(100, func() {
				if err := r.app.Upstream.conns.do(request, false, &resp, time.Now()); err != nil {
					t.Fatal(err)
				}
			}))
		}
		if most := map[bool]float64{true: 0, false: 2}[w.version == 0]; got > most {
			t.Errorf("%s: %v allocations a call, want %v", w.name, got, most)
		}
	}
}

// sealer makes records of a puppet's server that crypto/tls has no words for: from the
// first of its traffic keys on, after seq records.
type sealer struct {
	t      *testing.T
	secret []byte
	seq    uint64
}

func newSealer(p *puppet, seq uint64) *sealer {
	p.t.Helper()
	if suite := p.server.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		p.t.Fatalf("%s was agreed on, and this knows AES-128-GCM alone", tls.CipherSuiteName(suite))
	}
	for line := range strings.Lines(p.keys.String()) {
		if f := strings.Fields(line); f[0] == "SERVER_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				p.t.Fatal(err)
			}
			return &sealer{p.t, secret, seq}
		}
	}
	p.t.Fatal("no secret")
	return nil
}

// expand is HKDF-Expand-Label of RFC 8446, section 7.1, without a context.
func (s *sealer) expand(label string, n int) []byte {
	label = "tls13 " + label
	b, err := hkdf.Expand(sha256.New, s.secret, string([]byte{0, byte(n), byte(len(label))})+label+"\x00", n)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *sealer) seal(kind byte, b []byte) []byte {
	block, err := aes.NewCipher(s.expand("key", 16))
	if err != nil {
		s.t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		s.t.Fatal(err)
	}
	nonce := s.expand("iv", 12)
	seq := binary.BigEndian.AppendUint64(nil, s.seq)
	for i := range seq {
		nonce[4+i] ^= seq[i]
	}
	s.seq++
	n := len(b) + 1 + gcm.Overhead()
	header := []byte{23, 3, 3, byte(n >> 8), byte(n)}
	return gcm.Seal(header, nonce, append(bytes.Clone(b), kind), header)
}

// update announces new keys and goes on with them; with request 1 the other side is
// to do so, too.
func (s *sealer) update(request byte) []byte {
	b := s.seal(22, []byte{24, 0, 0, 1, request})
	s.secret, s.seq = s.expand("traffic upd", 32), 0
	return b
}
