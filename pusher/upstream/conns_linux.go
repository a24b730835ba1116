package upstream

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/pushguard/pushguard/pusher/netpoll"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// Conns are the kept-alive connections to an upstream, on the poller: a call costs
// one write and one read, and over TLS what sealing and opening them does.
//
// One that the upstream closes, or on which it speaks unasked, is dropped at
// that moment, not when the next request has been written into it.
type Conns struct {
	addr    string
	poll    *netpoll.Poller
	dial    Dial
	secure  *tls.Config // nil: plain
	timeout time.Duration
	keep    time.Duration // how long one may be idle
	maxBody int
	maxHead int    // the longest status line and headers of an answer
	Slots   *Slots // one a call under way

	mu     sync.Mutex // guards what follows
	idle   []*conn    // used last at the end
	reaper *time.Timer
	reaps  bool // the timer is set
	closed bool
}

// NewConns makes connections with c's settings. It is nil where the kernel gives no poller.
func NewConns(addr string, c *fasthttp.HostClient, dial Dial, most *Slots) *Conns {
	poll := netpoll.Default()
	if poll == nil {
		return nil
	}
	s := &Conns{addr: addr, poll: poll, dial: dial, timeout: c.ReadTimeout, keep: c.MaxIdleConnDuration,
		maxBody: c.MaxResponseBodySize, maxHead: c.ReadBufferSize, Slots: most}
	if c.IsTLS {
		s.secure = c.TLSConfig
	}
	s.reaper = time.AfterFunc(time.Hour, s.reap)
	s.reaper.Stop()
	return s
}

// Do sends a request once and reads its answer. began is when the call did. The
// caller has taken a slot.
func (s *Conns) Do(wire []byte, head bool, resp *fasthttp.Response, began time.Time) error {
	return s.try(nil, wire, head, resp, began)
}

// Resumer is who goes on with a call that nobody waits for. Resume runs on any goroutine, once a call
// that was started and is pending, and must not block.
type Resumer interface{ Resume() }

// Call is a call on its way: its connection and its slot. Its user keeps it from Reserve to Finish.
// The zero value is none.
type Call struct {
	conn *conn
	slot *Generation
	then Resumer
}

// Reserve takes a kept connection for a call, if there is one and a slot for it.
func (s *Conns) Reserve(v *Call) bool {
	slot := s.Slots.try()
	if slot == nil {
		return false
	}
	if v.conn = s.take(); v.conn == nil {
		slot.Free()
		return false
	}
	v.slot = slot
	return true
}

// Cancel gives back what Reserve took, when no call is made.
func (s *Conns) Cancel(v *Call) {
	s.put(v.conn, v.conn.used)
	slot := v.slot
	*v = Call{}
	slot.Free()
}

// Start has a request written on the reserved connection. pending says that then is resumed when
// something comes or the call's time is over; otherwise that is so already, and the caller goes on.
// Either way Finish ends the call.
func (s *Conns) Start(v *Call, wire []byte, began time.Time, then Resumer) (pending bool) {
	l := v.conn
	if l.begin(began.Add(s.timeout)) != nil { // it ended meanwhile
		l.sent, l.failed = 0, errUnsent
		l.writing.Store(writeDone)
		return false
	}
	v.then = then
	l.writing.Store(writeWaits)
	l.later.Store(leavingCall)
	s.poll.Writes.Put(l, wire, true)
	if l.later.CompareAndSwap(leavingCall, v) {
		return true
	}
	l.later.Store(nil)
	return false
}

// Finish ends a call that was started, and has its answer in resp. wire is the request again, for a
// connection that turned out to be closed before a byte was written. It may wait for the rest of an
// answer that has begun.
func (s *Conns) Finish(v *Call, wire []byte, resp *fasthttp.Response, began time.Time) error {
	l, slot := v.conn, v.slot
	*v = Call{}
	defer slot.Free()
	return s.try(l, wire, false, resp, began)
}

// try makes a call, or ends the one that is under way on l.
func (s *Conns) try(l *conn, wire []byte, head bool, resp *fasthttp.Response, began time.Time) error {
	until := began.Add(s.timeout)
	for {
		kept := l != nil
		var err error
		if kept {
			err = l.delivered(wire, l.overdue())
		} else {
			if l, kept, err = s.get(until); err != nil {
				return err
			}
			if err = l.begin(until); err == nil {
				err = l.deliver(wire)
			}
		}
		if err == nil {
			err = l.read(resp, head)
		}
		l.until.Store(noCall)
		if err != nil || resp.ConnectionClose() || l.surplus() {
			l.close()
		} else {
			s.put(l, began)
		}
		if errors.Is(err, errUnsent) {
			if kept { // it was closed meanwhile; of this request nothing left
				l = nil
				continue
			}
			return &NotSentError{err}
		}
		return err
	}
}

// get takes the idle connection that was used last, or makes one.
func (s *Conns) get(until time.Time) (l *conn, kept bool, err error) {
	if l = s.take(); l != nil {
		return l, true, nil
	}
	left := time.Until(until)
	if left <= 0 {
		return nil, false, fasthttp.ErrNoFreeConns
	}
	c, err := s.dial(s.addr, left)
	if err != nil {
		return nil, false, err // which says that nothing was sent
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close()
		return nil, false, &NotSentError{errors.New("no TCP connection")}
	}
	var sec *secured
	if s.secure != nil {
		if sec, err = newSecured(tcp, s.secure, until); err != nil {
			return nil, false, err
		}
	}
	l = &conn{of: s, sec: sec, ready: make(chan struct{}, 1)}
	l.state.Store(connBusy)
	l.in = bufio.NewReaderSize(l, 4<<10)
	l.timer = time.AfterFunc(time.Hour, l.expire)
	l.timer.Stop()
	if l.fd, err = netpoll.Detach(tcp); err == nil {
		if sec != nil {
			sec.over(l.fd)
		}
		if err = s.poll.Add(l.fd, netpoll.Both, l); err != nil {
			_ = unix.Close(l.fd)
		}
	}
	if err != nil {
		return nil, false, &NotSentError{err}
	}
	return l, false, nil
}

// take takes the idle connection that was used last, or nil.
func (s *Conns) take() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.idle); n > 0; n = len(s.idle) {
		l := s.idle[n-1]
		if l.state.Load() == connLooked { // some microseconds; a handshake is dearer
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
			continue
		}
		s.idle[n-1] = nil
		s.idle = s.idle[:n-1]
		switch {
		case !l.state.CompareAndSwap(connIdle, connBusy):
		case l.ended.Load():
			l.close()
		default:
			return l
		}
	}
	return nil
}

// shut reports whether nothing is to be kept any more.
func (s *Conns) shut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// put keeps one for the next call.
func (s *Conns) put(l *conn, used time.Time) {
	l.used = used
	if !l.rest() {
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		if l.state.CompareAndSwap(connIdle, connDead) {
			l.close()
		}
		return
	}
	s.idle = append(s.idle, l)
	if !s.reaps {
		s.reaps = true
		s.reaper.Reset(s.keep / 4)
	}
	s.mu.Unlock()
	if l.ended.Load() && l.state.CompareAndSwap(connIdle, connDead) {
		l.close()
	}
}

// reap closes upConns that were idle for long.
func (s *Conns) reap() { s.drop(time.Now().Add(-s.keep)) }

// close drops idle upConns; those in use go when their call ends.
func (s *Conns) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.drop(time.Now().Add(time.Hour))
}

// drop closes idle upConns that were used last before a time.
func (s *Conns) drop(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.idle[:0]
	for _, l := range s.idle {
		switch {
		case l.state.Load() == connDead:
		case l.used.Before(before) && l.state.CompareAndSwap(connIdle, connDead):
			l.close()
		default:
			rest = append(rest, l)
		}
	}
	clear(s.idle[len(rest):])
	s.idle = rest
	if s.reaps = len(rest) > 0; s.reaps {
		s.reaper.Reset(s.keep / 4)
	}
}

// Unanswered counts the calls whose request was written as far as the socket took it, and which have
// no answer yet.
func (s *Conns) Unanswered() (n int) {
	s.poll.Watched(func(w netpoll.Waker) {
		if l, ok := w.(*conn); ok && l.of == s && l.state.Load() == connBusy && l.writing.Load() == writeDone {
			n++
		}
	})
	return n
}

// Kept counts the connections that wait for a next call.
func (s *Conns) Kept() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		if c.state.Load() == connIdle {
			n++
		}
	}
	return n
}
