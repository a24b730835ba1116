//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pushguard/pushguard/pusher"
)

// counts is what the upstream saw since its start; GET /stats answers it.
type counts struct {
	Calls     int64 `json:"calls"`     // POST requests
	Publishes int64 `json:"publishes"` // (event, channel) pairs in them
	Bad       int64 `json:"bad"`       // malformed, or wrongly signed among those that were checked
}

// upstream stands for Pusher: the same for every row. It answers each POST with 200 {} and counts. GET /latency/100ms
// sets how long it takes for each answer.
type upstream struct {
	mu      sync.Mutex // conns, to which those over TLS are added when they have shaken hands
	counts  counts
	keys    map[string]*pusher.Key
	every   int64 // each so many calls a signature is checked
	query   pusher.Query
	poll    *poller
	listen  int
	conns   map[int]*peer
	secret  *tls.Config
	latency time.Duration
	held    []heldAnswer // in order, since all wait equally long
}

type peer struct {
	fd  int
	sec *tls.Conn // nil: plain
	raw *sealed   // below sec
	in  []byte
	n   int
	out []byte
}

type heldAnswer struct {
	due  time.Time
	peer *peer
	out  []byte
}

var answerOK = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

// maxMessage bounds one request: a batch of ten events of 10 kB.
const maxMessage = 256 << 10

func stub(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("stub", flag.ContinueOnError)
	addr := fs.String("listen", "127.0.0.1:0", "`address`; the chosen one is printed on standard output")
	latency := fs.Duration("latency", 0, "how long each answer takes")
	cert := fs.String("tls-cert", "", "PEM `file`; with it, there is a second address for TLS, printed after the first")
	certKey := fs.String("tls-key", "", "its key's `file`")
	keys := fs.String("keys", "", "`name:secret,…` that one in 256 requests is verified with; none: no signature is looked at")
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	u := &upstream{conns: map[int]*peer{}, latency: *latency, keys: map[string]*pusher.Key{}, every: 256}
	for pair := range strings.SplitSeq(*keys, ",") {
		if name, secret, ok := strings.Cut(pair, ":"); ok {
			u.keys[name] = pusher.NewKey(name, secret)
		}
	}
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	addrs := ln.Addr().String()
	var secure net.Listener
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *certKey)
		if err != nil {
			return err
		}
		if secure, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		defer secure.Close()
		addrs += " " + secure.Addr().String()
		u.secret = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	if u.listen, err = detach(ln.(*net.TCPListener)); err != nil {
		return err
	}
	if u.poll, err = newPoller(); err != nil {
		return err
	}
	if err := u.poll.add(u.listen); err != nil {
		return err
	}
	if secure != nil {
		go u.acceptTLS(secure)
	}
	fmt.Fprintln(stdout, addrs)
	for {
		wait := time.Duration(-1)
		if len(u.held) > 0 {
			wait = max(time.Until(u.held[0].due), 0)
		}
		ready, err := u.poll.wait(wait)
		if err != nil {
			return err
		}
		for _, e := range ready {
			if fd := int(e.Fd); fd == u.listen {
				u.accept()
			} else if p := u.peer(fd); p != nil {
				for more := u.serve(p, false); more; more = u.serve(p, true) {
				}
			}
		}
		u.release()
	}
}

func (u *upstream) accept() {
	for {
		fd, _, err := unix.Accept4(u.listen, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		u.adopt(&peer{fd: fd, in: make([]byte, 8<<10)})
	}
}

// adopt serves a peer from now on.
func (u *upstream) adopt(p *peer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conns[p.fd] = p
	if err := u.poll.add(p.fd); err != nil {
		delete(u.conns, p.fd)
		unix.Close(p.fd)
	}
}

func (u *upstream) peer(fd int) *peer {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.conns[fd]
}

func (u *upstream) drop(p *peer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.conns, p.fd)
	unix.Close(p.fd)
	p.fd = -1
}

// serve reads once and answers all requests that are complete. It reports whether there may be more that came with
// what was read, of which epoll does not know; inside says to look for that alone.
func (u *upstream) serve(p *peer, inside bool) (more bool) {
	if p.n == len(p.in) {
		if p.n >= maxMessage {
			u.counts.Bad++
			u.drop(p)
			return false
		}
		p.in = append(p.in, make([]byte, len(p.in))...)
	}
	n, err := p.read(p.in[p.n:], inside)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false
	case err != nil || n == 0:
		u.drop(p)
		return false
	}
	more = p.sec != nil
	p.n += n
	done := 0
	p.out = p.out[:0]
	posted := false
	for done < p.n {
		h, err := readHead(p.in[done:p.n])
		if errors.Is(err, errIncomplete) {
			break
		}
		if err != nil {
			u.counts.Bad++
			u.drop(p)
			return false
		}
		done += h.size
		if bytes.HasPrefix(h.first, []byte("POST ")) {
			u.count(h)
			posted = true
			p.out = append(p.out, answerOK...)
			continue
		}
		if text, ok := bytes.CutPrefix(h.first, []byte("GET /latency/")); ok {
			text, _, _ = bytes.Cut(text, []byte(" "))
			if d, err := time.ParseDuration(string(text)); err == nil && len(u.held) == 0 {
				u.latency = d // nothing waits, so what waits from now on waits equally long
			}
		}
		body := fmt.Sprintf(`{"calls":%d,"publishes":%d,"bad":%d}`, u.counts.Calls, u.counts.Publishes, u.counts.Bad)
		p.out = fmt.Appendf(p.out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	p.n = copy(p.in, p.in[done:p.n])
	if len(p.out) == 0 {
		return more
	}
	if posted && u.latency > 0 {
		u.held = append(u.held, heldAnswer{time.Now().Add(u.latency), p, bytes.Clone(p.out)})
		return more
	}
	u.write(p, p.out)
	return more && p.fd >= 0
}

// write sends an answer. It is far smaller than a socket's buffer, so a short write means a peer that does not read.
func (u *upstream) write(p *peer, out []byte) {
	if p.fd < 0 {
		return
	}
	if n, err := p.send(out); err != nil || n < len(out) {
		u.drop(p)
	}
}

func (u *upstream) release() {
	if len(u.held) == 0 {
		return
	}
	now := time.Now()
	n := 0
	for ; n < len(u.held) && !u.held[n].due.After(now); n++ {
		u.write(u.held[n].peer, u.held[n].out)
	}
	u.held = append(u.held[:0], u.held[n:]...)
}

func (u *upstream) count(h head) {
	u.counts.Calls++
	target := h.first[len("POST "):]
	target, _, _ = bytes.Cut(target, []byte(" "))
	path, query, _ := bytes.Cut(target, []byte("?"))
	u.counts.Publishes += publishes(bytes.HasSuffix(path, []byte("/batch_events")), h.body)
	if len(u.keys) > 0 && u.counts.Calls%u.every == 0 && !u.signed(path, query, h.body) {
		u.counts.Bad++
	}
}

func (u *upstream) signed(path, query, body []byte) bool {
	if err := u.query.Parse(query); err != nil {
		return false
	}
	name, _ := u.query.Get("auth_key")
	k := u.keys[string(name)]
	return k != nil && k.Verify("POST", path, &u.query, body, time.Now()) == nil
}
