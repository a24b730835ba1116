package proxy

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

// upConns are the kept-alive connections to an upstream, on the poller: a call costs
// one write and one read, and over TLS what sealing and opening them does.
//
// One that the upstream closes, or on which it speaks unasked, is dropped at
// that moment, not when the next request has been written into it.
type upConns struct {
	addr    string
	poll    *netpoll.Poller
	dial    dialTCP
	secure  *tls.Config // nil: plain
	timeout time.Duration
	keep    time.Duration // how long one may be idle
	maxBody int
	slots   *slots // one a call under way

	mu     sync.Mutex
	idle   []*upConn // used last at the end
	reaper *time.Timer
	reaps  bool // the timer is set
	closed bool
}

// newUpConns has c's settings. It is nil where the kernel gives no poller.
func newUpConns(addr string, c *fasthttp.HostClient, dial dialTCP, most *slots) *upConns {
	poll := netpoll.Default()
	if poll == nil {
		return nil
	}
	s := &upConns{addr: addr, poll: poll, dial: dial, timeout: c.ReadTimeout, keep: c.MaxIdleConnDuration,
		maxBody: c.MaxResponseBodySize, slots: most}
	if c.IsTLS {
		s.secure = c.TLSConfig
	}
	s.reaper = time.AfterFunc(time.Hour, s.reap)
	s.reaper.Stop()
	return s
}

// do sends a request once and reads its answer. began is when the call did. It has a
// slot.
func (s *upConns) do(wire []byte, head bool, resp *fasthttp.Response, began time.Time) error {
	return s.try(nil, wire, head, resp, began)
}

// reserve takes a kept connection for a call that v will launch, if there is one
// and a slot for it.
func (s *upConns) reserve(v *visit) bool {
	slot := s.slots.try()
	if slot == nil {
		return false
	}
	if v.call = s.take(); v.call == nil {
		slot.free()
		return false
	}
	v.slot = slot
	return true
}

// unreserve gives back what reserve took.
func (s *upConns) unreserve(v *visit) {
	s.put(v.call, v.call.used)
	slot := v.slot
	v.call, v.slot = nil, nil
	slot.free()
}

// launch has the request in j.wire written, and v go on when something comes or
// its time is over. It reports false if that is so already: then v is still the
// caller's, to go on with.
func (s *upConns) launch(v *visit, j *job, began time.Time) bool {
	l := v.call
	if l.begin(began.Add(s.timeout)) != nil { // it ended meanwhile
		l.sent, l.failed = 0, errUnsent
		l.parcel.Store(parcelGone)
		return false
	}
	v.job = j
	l.parcel.Store(parcelWaits)
	l.later.Store(leavingVisit)
	s.poll.Writes.Put(l, j.wire, true)
	if l.later.CompareAndSwap(leavingVisit, v) {
		return true
	}
	l.later.Store(nil)
	v.job = nil
	return false
}

// landed ends the call that v launched.
func (s *upConns) landed(v *visit, wire []byte, resp *fasthttp.Response, began time.Time) error {
	l, slot := v.call, v.slot
	v.call, v.slot = nil, nil
	defer slot.free()
	return s.try(l, wire, false, resp, began)
}

// try makes a call, or ends the one that is under way on l.
func (s *upConns) try(l *upConn, wire []byte, head bool, resp *fasthttp.Response, began time.Time) error {
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
			return &notSentError{err}
		}
		return err
	}
}

// get takes the idle upConn that was used last, or makes one.
func (s *upConns) get(until time.Time) (l *upConn, kept bool, err error) {
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
		return nil, false, &notSentError{errors.New("no TCP connection")}
	}
	var sec *upTLS
	if s.secure != nil {
		if sec, err = newUpTLS(tcp, s.secure, until); err != nil {
			return nil, false, err
		}
	}
	l = &upConn{of: s, sec: sec, ready: make(chan struct{}, 1)}
	l.state.Store(upBusy)
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
		return nil, false, &notSentError{err}
	}
	return l, false, nil
}

// take takes the idle upConn that was used last, or nil.
func (s *upConns) take() *upConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.idle); n > 0; n = len(s.idle) {
		l := s.idle[n-1]
		if l.state.Load() == upLooked { // some microseconds; a handshake is dearer
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
			continue
		}
		s.idle[n-1] = nil
		s.idle = s.idle[:n-1]
		switch {
		case !l.state.CompareAndSwap(upIdle, upBusy):
		case l.ended.Load():
			l.close()
		default:
			return l
		}
	}
	return nil
}

// shut reports whether nothing is to be kept any more.
func (s *upConns) shut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// put keeps one for the next call.
func (s *upConns) put(l *upConn, used time.Time) {
	l.used = used
	if !l.rest() {
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		if l.state.CompareAndSwap(upIdle, upDead) {
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
	if l.ended.Load() && l.state.CompareAndSwap(upIdle, upDead) {
		l.close()
	}
}

// reap closes upConns that were idle for long.
func (s *upConns) reap() { s.drop(time.Now().Add(-s.keep)) }

// close drops idle upConns; those in use go when their call ends.
func (s *upConns) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.drop(time.Now().Add(time.Hour))
}

// drop closes idle upConns that were used last before a time.
func (s *upConns) drop(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.idle[:0]
	for _, l := range s.idle {
		switch {
		case l.state.Load() == upDead:
		case l.used.Before(before) && l.state.CompareAndSwap(upIdle, upDead):
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
