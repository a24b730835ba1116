package upstream

import (
	"crypto/tls"
	"io"
	"net"
	"time"

	"github.com/pushguard/pushguard/pusher/netpoll"
)

// upTLS is TLS on an upConn: crypto/tls on a socket that does not block. Hands are
// shaken on a connection of package net; from then on TLS reads and writes by
// records, which says "nothing there yet" with an error that crypto/tls passes on
// and forgets, since it calls itself temporary.
//
// It belongs to whom the upConn belongs to. A request is sealed when it is written
// and not when it is put into the write batch: one that is taken back leaves no gap in
// the sequence of records.
type secured struct {
	conn *tls.Conn
	records
	one [1]byte
}

// records is what is below crypto/tls, with an account of what has passed.
type records struct {
	tcp net.Conn // until hands are shaken
	fd  int

	// What was read, by the headers of its records, which are not encrypted.
	header [5]byte
	headed int // bytes of header
	left   int // bytes of the present record still to come
	whole  int // records of which TLS may still hold what they bear

	rest   []byte // sealed, and not taken by the socket yet
	taken  int    // bytes that the socket took
	failed error  // the socket takes no more
}

// maxSealed is how much of a request is sealed at once, one record of the greatest
// size: more is, when the socket has taken that.
const maxSealed = 16 << 10

func (r *records) Read(b []byte) (n int, err error) {
	if r.tcp != nil {
		n, err = r.tcp.Read(b)
	} else {
		n, err = netpoll.Recv(r.fd, b)
	}
	r.follow(b[:n])
	return n, err
}

// follow counts the records that end in what was read.
func (r *records) follow(b []byte) {
	for len(b) > 0 {
		n := min(r.left, len(b))
		if r.left == 0 {
			n = copy(r.header[r.headed:], b)
			if r.headed += n; r.headed < len(r.header) {
				return
			}
			r.headed, r.left = 0, int(r.header[3])<<8|int(r.header[4])
		} else {
			r.left -= n
		}
		if b = b[n:]; r.left == 0 {
			r.whole++
		}
	}
}

// Write takes all, and keeps what the socket does not.
func (r *records) Write(b []byte) (int, error) {
	if r.tcp != nil {
		return r.tcp.Write(b)
	}
	n := 0
	if len(r.rest) == 0 {
		n = r.send(b)
	}
	if r.failed != nil {
		return n, r.failed
	}
	r.rest = append(r.rest, b[n:]...)
	return len(b), nil
}

func (r *records) send(b []byte) int {
	n, err := netpoll.Send(r.fd, b)
	if err != nil && err != netpoll.ErrAgain {
		r.failed = err
	}
	r.taken += n
	return n
}

// flush reports whether the socket has taken all there was.
func (r *records) flush() bool {
	if len(r.rest) > 0 && r.failed == nil {
		n := r.send(r.rest)
		r.rest = r.rest[:copy(r.rest, r.rest[n:])]
	}
	return len(r.rest) == 0 && r.failed == nil
}

// Close is the end of a handshake that failed; a socket is closed by its upConn.
func (r *records) Close() error {
	if r.tcp == nil {
		return nil
	}
	return r.tcp.Close()
}

func (r *records) SetDeadline(t time.Time) error {
	if r.tcp == nil {
		return nil // what does not block is never late
	}
	return r.tcp.SetDeadline(t)
}

func (r *records) SetReadDeadline(t time.Time) error  { return r.SetDeadline(t) }
func (r *records) SetWriteDeadline(t time.Time) error { return r.SetDeadline(t) }
func (r *records) LocalAddr() net.Addr                { return nil }
func (r *records) RemoteAddr() net.Addr               { return nil }

// newUpTLS shakes hands on a connection, or closes it.
func newSecured(c *net.TCPConn, cfg *tls.Config, until time.Time) (*secured, error) {
	t := &secured{records: records{tcp: c}}
	var err error
	t.conn, err = Handshake(&t.records, cfg, until)
	return t, err
}

// over goes on with the descriptor of the connection.
func (t *secured) over(fd int) { t.tcp, t.fd = nil, fd }

// read is the connection's Read, once; errAgain says that there is nothing.
func (t *secured) read(b []byte) (int, error) {
	n, err := t.conn.Read(b)
	switch {
	case n > 0 && err == netpoll.ErrAgain: // it looked for an alert, which is not whole yet
		t.whole = 0
		return n, nil
	case err == netpoll.ErrAgain, n > 0 && n < len(b) && t.whole == 1:
		t.whole = 0
	}
	return n, err
}

// spoke reports whether there is anything for whoever uses the connection, its end
// included. Tickets, new keys and such are TLS' own affair.
func (t *secured) spoke() bool {
	n, err := t.read(t.one[:])
	return n > 0 || err != netpoll.ErrAgain
}

// surplus reports whether TLS has read more than it was asked for.
func (t *secured) surplus() bool { return t.whole > 0 && t.spoke() }

// write seals and writes what of a request follows after the first sent bytes, and
// reports how far it came. With io.ErrShortWrite the socket has no room.
func (t *secured) write(wire []byte, sent int) (int, error) {
	for {
		switch {
		case t.flush():
		case t.failed != nil:
			return sent, t.failed
		default:
			return sent, io.ErrShortWrite
		}
		if sent == len(wire) {
			return sent, nil
		}
		if sent == 0 {
			t.taken = 0 // from here on it is of this request
		}
		n := min(len(wire)-sent, maxSealed)
		if _, err := t.conn.Write(wire[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
}

// bye tells the upstream that it was not cut off.
func (t *secured) bye() {
	if t.flush() {
		_ = t.conn.CloseWrite() // the socket is closed anyway
	}
}
