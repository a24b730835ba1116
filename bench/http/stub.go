//go:build linux

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
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

// upstream stands for Pusher: the same for every row. It answers each POST with 200 {} and counts.
type upstream struct {
	counts  counts
	keys    map[string]*pusher.Key
	every   int64 // each so many calls a signature is checked
	query   pusher.Query
	poll    *poller
	listen  int
	conns   map[int]*peer
	latency time.Duration
	held    []heldAnswer // in order, since all wait equally long
}

type peer struct {
	fd  int
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
	fmt.Fprintln(stdout, ln.Addr())
	if u.listen, err = detach(ln.(*net.TCPListener)); err != nil {
		return err
	}
	if u.poll, err = newPoller(); err != nil {
		return err
	}
	if err := u.poll.add(u.listen); err != nil {
		return err
	}
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
			} else if p := u.conns[fd]; p != nil {
				u.serve(p)
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
		if err := u.poll.add(fd); err != nil {
			unix.Close(fd)
			continue
		}
		u.conns[fd] = &peer{fd: fd, in: make([]byte, 8<<10)}
	}
}

func (u *upstream) drop(p *peer) {
	delete(u.conns, p.fd)
	unix.Close(p.fd)
	p.fd = -1
}

// serve reads what there is and answers all requests that are complete.
func (u *upstream) serve(p *peer) {
	if p.n == len(p.in) {
		if p.n >= maxMessage {
			u.counts.Bad++
			u.drop(p)
			return
		}
		p.in = append(p.in, make([]byte, len(p.in))...)
	}
	n, err := unix.Read(p.fd, p.in[p.n:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return
	case err != nil || n == 0:
		u.drop(p)
		return
	}
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
			return
		}
		done += h.size
		if bytes.HasPrefix(h.first, []byte("POST ")) {
			u.count(h)
			posted = true
			p.out = append(p.out, answerOK...)
			continue
		}
		body := fmt.Sprintf(`{"calls":%d,"publishes":%d,"bad":%d}`, u.counts.Calls, u.counts.Publishes, u.counts.Bad)
		p.out = fmt.Appendf(p.out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	p.n = copy(p.in, p.in[done:p.n])
	if len(p.out) == 0 {
		return
	}
	if posted && u.latency > 0 {
		u.held = append(u.held, heldAnswer{time.Now().Add(u.latency), p, bytes.Clone(p.out)})
		return
	}
	u.write(p, p.out)
}

// write sends an answer. It is far smaller than a socket's buffer, so a short write means a peer that does not read.
func (u *upstream) write(p *peer, out []byte) {
	if p.fd < 0 {
		return
	}
	if n, err := unix.Write(p.fd, out); err != nil || n < len(out) {
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
