package upstream

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
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

// puppet is an upConn over TLS 1.3 whose poller does not run, and a crypto/tls server
// whose words the test hands over, when and in what pieces it likes.
type puppet struct {
	net.Conn // the upstream's end
	t        *testing.T
	conns    *Conns
	l        *conn
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
	p.l.Wake(unix.EPOLLIN)
}

func newPuppet(t *testing.T) *puppet {
	t.Helper()
	poll, err := netpoll.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(poll.Stop)
	return newPuppetOn(t, poll)
}

func newPuppetOn(t *testing.T, poll *netpoll.Poller) *puppet {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, roots := upstreamtest.Certificate()
	client, server := TLSConfig("127.0.0.1"), upstreamtest.Links[2].Server()
	client.RootCAs = roots
	p := &puppet{t: t}
	server.KeyLogWriter = &p.keys
	p.conns = NewConns(ln.Addr().String(), &fasthttp.HostClient{ReadTimeout: 30 * time.Second, MaxIdleConnDuration: time.Minute,
		MaxResponseBodySize: 1 << 20, IsTLS: true, TLSConfig: client},
		func(addr string, d time.Duration) (net.Conn, error) {
			c, err := net.DialTimeout("tcp", addr, d)
			if err != nil { // nobody listens after the first
				return nil, &NotSentError{err}
			}
			return c, nil
		}, oneSlot())
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
	t.Cleanup(func() { p.conns.Close(); _ = p.Close() })
	return p
}

// asked has a call made, up to where its answer is due.
func (p *puppet) asked(wire string) (answered chan error, resp *fasthttp.Response) {
	p.t.Helper()
	answered, resp = make(chan error, 1), &fasthttp.Response{}
	go func() { answered <- p.conns.Do([]byte(wire), false, resp, time.Now()) }()
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
