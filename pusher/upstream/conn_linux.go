package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/pusher/netpoll"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// conn is one connection. While it is busy, its fields belong to the call that made it so, except
// the atomic ones, which the poller's goroutine and the timer use too.
type conn struct {
	of    *Conns
	fd    int
	sec   *secured // nil: plain
	in    *bufio.Reader
	ready chan struct{} // something came, or the time is over
	state atomic.Int32
	ended atomic.Bool // the upstream will send no more
	heard atomic.Bool // over TLS, it said something before the request was written
	used  time.Time   // when the last call began
	// later is the call that goes on when something comes, where nobody waits; or leavingCall, or
	// cameCall.
	later atomic.Pointer[Call]

	// What became of the request that was given to the write batch. sent and failed are the call's to
	// read once writing is writeDone.
	writing atomic.Int32
	sent    int
	failed  error

	// The timer runs on from call to call, and looks whether there is one whose
	// time is over: no call sets it.
	until atomic.Int64 // ns since epoch, or noCall, or overdue
	armed atomic.Bool
	timer *time.Timer
}

const (
	connIdle = iota
	connBusy
	connLooked // idle, and the poller reads what came over TLS
	connDead   // closed
)

const (
	writeNone  = iota // nothing is to be written
	writeWaits        // in the write batch; the call can take it back
	writeTaken        // is being written
	writeDone
)

var (
	leavingCall = new(Call) // somebody is about to go away until something comes
	cameCall    = new(Call) // and need not: it has
)

// clockStart is what the moments of calls are counted from, by the clock that is never set.
var clockStart = time.Now()

const (
	noCall  = 0
	overdue = -1
)

// errUnsent: the request's first byte could not be written.
var errUnsent = errors.New("the connection takes nothing")

func (l *conn) close() {
	l.state.Store(connDead)
	l.timer.Stop()
	if l.sec != nil && !l.ended.Load() {
		l.sec.bye()
	}
	l.of.poll.Close(l.fd)
}

// rest makes it idle, unless something came since the answer was read: nobody
// asked for that, and who wakes it now told the call, which is over.
func (l *conn) rest() bool {
	for {
		l.state.Store(connIdle)
		select {
		case <-l.ready:
		default:
			return true
		}
		for !l.state.CompareAndSwap(connIdle, connBusy) {
			if l.state.Load() == connDead {
				return false // closed by then
			}
			runtime.Gosched() // looked
		}
		if l.spoke() {
			l.close()
			return false
		}
	}
}

// spoke reports whether the upstream said anything, its end included. It is for whom
// the upConn belongs to.
func (l *conn) spoke() bool {
	if l.sec != nil {
		return l.sec.spoke()
	}
	return l.unread()
}

// unread reports whether there is anything to read, its end included.
func (l *conn) unread() bool {
	var b [1]byte
	_, _, err := unix.Recvfrom(l.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err != unix.EAGAIN && err != unix.EINTR
}

// Wake tells the call, or drops an idle one.
func (l *conn) Wake(flags uint32) {
	early := flags&unix.EPOLLIN != 0 && l.writing.Load() == writeWaits
	switch {
	case flags&netpoll.Ended != 0, early && l.sec == nil:
		l.ended.Store(true) // who speaks before it was asked has no answer to give
	case early:
		l.heard.Store(true) // if it was not TLS by itself
	}
	came := flags&(netpoll.Ended|unix.EPOLLIN) != 0
	if came && l.idleHears() {
		return
	}
	l.tell()
	// If the call ended in between, it did not hear.
	if came && l.state.Load() == connIdle && (l.sec != nil || l.unread()) {
		l.idleHears()
	}
}

// idleHears drops an idle one to which something came, unless that was for TLS
// alone. It reports false for one that is in use.
func (l *conn) idleHears() bool {
	if l.sec == nil || l.ended.Load() {
		if !l.state.CompareAndSwap(connIdle, connDead) {
			return false
		}
		l.close()
		return true
	}
	if !l.state.CompareAndSwap(connIdle, connLooked) {
		return false
	}
	if l.sec.spoke() {
		l.close()
		return true
	}
	l.state.Store(connIdle)
	if l.of.shut() && l.state.CompareAndSwap(connIdle, connDead) {
		l.close()
	}
	return true
}

// tell has who went away go on, or wakes who waits.
func (l *conn) tell() {
	for {
		switch v := l.later.Load(); v {
		case nil:
			select {
			case l.ready <- struct{}{}:
			default:
			}
			return
		case cameCall:
			return
		case leavingCall:
			if l.later.CompareAndSwap(v, cameCall) {
				return
			}
		default:
			then := v.then // v is not ours once it is out
			if l.later.CompareAndSwap(v, nil) {
				then.Resume()
				return
			}
		}
	}
}

// begin readies it for a call. What came unasked is no answer to it.
func (l *conn) begin(until time.Time) error {
	select {
	case <-l.ready:
		if l.spoke() {
			return errUnsent
		}
	default:
	}
	l.in.Reset(l)
	l.until.Store(int64(until.Sub(clockStart)))
	if !l.armed.Load() && l.armed.CompareAndSwap(false, true) {
		l.timer.Reset(time.Until(until))
	}
	return nil
}

// expire ends a call whose time is over, and looks again later if that is not
// yet so.
func (l *conn) expire() {
	for {
		until := l.until.Load()
		if until <= noCall {
			l.armed.Store(false)
			if l.until.Load() <= noCall || !l.armed.CompareAndSwap(false, true) {
				return // the next call sets the timer
			}
			continue
		}
		if left := time.Duration(until) - time.Since(clockStart); left > 0 {
			l.timer.Reset(left)
			return
		}
		if l.until.CompareAndSwap(until, overdue) {
			l.tell()
		}
	}
}

// wait returns when something may have come.
func (l *conn) wait() error {
	<-l.ready
	return l.overdue()
}

// overdue is an error once the call's time is over.
func (l *conn) overdue() error {
	if l.until.Load() == overdue {
		return fasthttp.ErrTimeout
	}
	return nil
}

// deliver has a request written and waits until something comes.
func (l *conn) deliver(wire []byte) error {
	l.writing.Store(writeWaits)
	l.of.poll.Writes.Put(l, wire, true)
	return l.delivered(wire, l.wait())
}

// delivered goes on when something has come, which may only be that there is
// room for more; late says that the time is over instead.
func (l *conn) delivered(wire []byte, late error) error {
	for ; ; late = l.wait() {
		if late != nil && l.writing.CompareAndSwap(writeWaits, writeNone) {
			return &NotSentError{fasthttp.ErrDialTimeout}
		}
		// Looked at once: what waits may be taken at any moment, and is the taker's then.
		parcel := l.writing.Load()
		for ; parcel == writeTaken; parcel = l.writing.Load() {
			runtime.Gosched()
		}
		switch {
		case late != nil:
			return late
		case parcel == writeWaits:
			continue
		case l.failed != nil:
			return l.failed
		case l.whole(wire):
			return nil
		}
		if l.write(wire); l.failed != nil {
			return l.failed // of which no event may tell any more
		}
	}
}

// Transmit writes the request, and wakes the call if that is not all.
func (l *conn) Transmit(wire []byte) {
	if !l.writing.CompareAndSwap(writeWaits, writeTaken) {
		return // it was taken back
	}
	l.sent, l.failed = 0, nil
	if l.ended.Load() || l.heard.Load() && l.heard.Swap(false) && l.spoke() {
		l.failed = errUnsent
	} else {
		l.write(wire)
	}
	whole := l.failed == nil && l.whole(wire)
	l.writing.Store(writeDone)
	if !whole {
		l.tell()
	}
}

// whole reports whether the socket has taken all of a request.
func (l *conn) whole(wire []byte) bool {
	return l.sent == len(wire) && (l.sec == nil || len(l.sec.rest) == 0)
}

func (l *conn) write(wire []byte) {
	if l.sec != nil {
		var err error
		switch l.sent, err = l.sec.write(wire, l.sent); {
		case err == nil || err == io.ErrShortWrite:
		case l.sec.taken == 0:
			l.failed = errUnsent
		default:
			l.failed = err
		}
		return
	}
	n, err := netpoll.Send(l.fd, wire[l.sent:])
	switch l.sent += n; {
	case err == nil || err == netpoll.ErrAgain:
	case l.sent == 0:
		l.failed = errUnsent
	default:
		l.failed = err
	}
}

// read has the answer in resp.
func (l *conn) read(resp *fasthttp.Response, head bool) error {
	if _, err := l.in.Peek(1); err != nil {
		return err
	}
	if !head {
		b, _ := l.in.Peek(l.in.Buffered())
		if contentType, body, ok := wire.ReadAnswer(b); ok && len(body) <= l.of.maxBody {
			resp.SetStatusCode(fasthttp.StatusOK)
			resp.Header.SetContentTypeBytes(contentType)
			resp.SetBody(body)
			_, err := l.in.Discard(len(b))
			return err
		}
	}
	resp.SkipBody = head
	err := resp.ReadLimitBody(l.in, l.of.maxBody)
	var small *fasthttp.ErrSmallBuffer
	if errors.As(err, &small) && l.in.Size() < l.of.maxHead {
		// A head that is longer than nearly all: nothing of it was taken out of the buffer.
		b, _ := l.in.Peek(l.in.Buffered())
		l.in = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(b)), l), l.of.maxHead)
		resp.Reset()
		resp.SkipBody = head
		err = resp.ReadLimitBody(l.in, l.of.maxBody)
	}
	return err
}

// surplus reports whether more was read than the answer.
func (l *conn) surplus() bool {
	return l.in.Buffered() > 0 || l.sec != nil && l.sec.surplus()
}

// Read reads of the answer, for bufio.
func (l *conn) Read(b []byte) (n int, err error) {
	for {
		if l.sec != nil {
			n, err = l.sec.read(b)
		} else {
			n, err = netpoll.Recv(l.fd, b)
		}
		if err != netpoll.ErrAgain {
			return n, err
		}
		if err := l.wait(); err != nil {
			return 0, err
		}
	}
}
