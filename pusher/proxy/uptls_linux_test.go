package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher/upstream/upstreamtest"
)

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
	for _, w := range upstreamtest.Links[1:] {
		t.Run(w.Name, func(t *testing.T) {
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
			roots := w.Start(up)
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
	_, roots := upstreamtest.Certificate()
	other, otherRoots := upstreamtest.CertificateFor("example.com", time.Now().Add(time.Hour))
	old, oldRoots := upstreamtest.CertificateFor("127.0.0.1", time.Now().Add(-time.Hour))
	right, _ := upstreamtest.Certificate()
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
	for _, w := range upstreamtest.Links[1:] {
		t.Run(w.Name, func(t *testing.T) {
			ln, url, roots := w.Listen(t)
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
