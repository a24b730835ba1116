package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// lane is the express lane of the data port: plain connections whose requests
// come whole and one at a time, as every SDK sends them, are read and answered
// here with one system call each, by the same handler. What is no ordinary
// publish, fasthttp parses. A connection that does anything else is given to
// fasthttp's server with the bytes it sent so far, for good.
//
// A connection costs no goroutine and no buffer while it is idle.
type lane struct {
	p    *Proxy
	poll *poller
	// reading bounds a request from its first byte, idle the wait for a next
	// one; in ticks of tick, which is how often time is looked at.
	reading, idle int64
	tick          time.Duration
	ticks         atomic.Int64
	date          date // set anew with each tick

	// What there is to do, and those who do it. Requests that can go on are before
	// those that have not begun: when there is more than can be done, what is under
	// way is finished and what is new waits, not everything twice.
	queueMu sync.Mutex
	begun   taskQueue
	arrived taskQueue
	resting []*laneWorker
	woken   bool // a worker was woken and does not run yet

	quit bool // shut down: who rests goes home

	connsMu sync.Mutex
	conns   map[*laneConn]struct{}
	peers   map[netip.Addr]int
	open    atomic.Int64 // here and given to fasthttp

	unusual chan net.Conn // to fasthttp's server
	stopped sync.Once
	closed  chan struct{} // fasthttp accepts no more
	closing atomic.Bool
	ended   sync.Once
	swept   chan struct{}
	buffers sync.Pool
	visits  sync.Pool
}

const (
	laneOut      = 4 << 10
	restingMost  = 256
	shutdownLook = 5 * time.Millisecond
	// youngFor is how long a connection that has not sent anything yet is
	// waited for while shutting down, as fasthttp does.
	youngFor = 5 * time.Second
)

func newLane(p *Proxy) *lane {
	poll := thePoller()
	if poll == nil {
		return nil
	}
	reading, idle := p.server.ReadTimeout, p.server.IdleTimeout
	l := &lane{
		p: p, poll: poll, tick: min(max(min(reading, idle)/16, 5*time.Millisecond), time.Second),
		conns: map[*laneConn]struct{}{}, peers: map[netip.Addr]int{},
		unusual: make(chan net.Conn), closed: make(chan struct{}), swept: make(chan struct{}),
	}
	l.reading, l.idle = int64(reading/l.tick)+1, int64(idle/l.tick)+1
	l.buffers.New = func() any { return bufio.NewReaderSize(nil, laneRoom) }
	l.visits.New = func() any {
		v := &visit{lane: l, out: bufio.NewWriterSize(nil, laneOut)}
		v.ctx.Init2(noConn{}, quiet{}, false)
		return v
	}
	l.date.set(time.Now())
	go l.sweep()
	return l
}

// laneListener is what fasthttp's server listens on: the connections that are
// not for the lane.
type laneListener struct {
	net.Listener
	lane *lane
	err  chan error
}

// over accepts on ln for the lane and returns what is left for fasthttp.
func (l *lane) over(ln net.Listener) net.Listener {
	q := &laneListener{Listener: ln, lane: l, err: make(chan error, 1)}
	go q.accept()
	return q
}

func (q *laneListener) accept() {
	for {
		c, err := q.Listener.Accept()
		var netErr net.Error
		switch {
		case err == nil:
			if tcp, ok := c.(*net.TCPConn); !ok || !q.lane.adopt(tcp) {
				q.lane.give(c)
			}
		case errors.As(err, &netErr) && netErr.Timeout():
			time.Sleep(q.lane.tick) // as many descriptors as there may be are open
		default:
			q.err <- err
			return
		}
	}
}

func (q *laneListener) Accept() (net.Conn, error) {
	select {
	case c := <-q.lane.unusual:
		return c, nil
	case err := <-q.err:
		q.lane.stopped.Do(func() { close(q.lane.closed) })
		return nil, err
	}
}

// give hands a connection to fasthttp's server.
func (l *lane) give(c net.Conn) {
	select {
	case l.unusual <- c:
	case <-l.closed:
		go func() { _ = l.p.server.ServeConn(c) }()
	}
}

// adopt takes a new connection into the lane, or refuses it; false leaves it to
// fasthttp.
func (l *lane) adopt(tcp *net.TCPConn) bool {
	addr, ok := tcp.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	c := &laneConn{lane: l, remote: addr, peer: addr.AddrPort().Addr().Unmap()}
	c.state.Store(connBusy) // until it can be read
	if why, status := l.enter(c); status != 0 {
		l.p.stats.refused(status)
		_, _ = tcp.Write(refuseConnection(status, why))
		_ = tcp.Close()
		return true
	}
	_ = tcp.SetKeepAlive(true)
	var err error
	if c.fd, err = detach(tcp); err == nil {
		c.due.Store(l.ticks.Load() + l.reading)
		if err = l.poll.add(c.fd, pollReadable, c); err != nil {
			_ = unix.Close(c.fd)
		}
	}
	switch {
	case err != nil: // no descriptor left, and the connection is gone
		l.leave(c)
	case !c.release(): // it has said something already
		l.arrive(c)
	}
	return true
}

// refuseConnection is the answer to a connection that is one too many.
func refuseConnection(status int, why string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nServer: %s\r\nConnection: close\r\nContent-Type: %s\r\n%s: %s\r\n%s: too_many_connections\r\nContent-Length: %d\r\n\r\n%s",
		status, fasthttp.StatusMessage(status), serverName, contentPlain, headerOutcome, outcomeRefused, headerReason, len(why), why)
}

// enter counts a connection, unless there are too many.
func (l *lane) enter(c *laneConn) (why string, status int) {
	l.connsMu.Lock()
	defer l.connsMu.Unlock()
	switch {
	case l.open.Load() >= int64(l.p.server.Concurrency):
		return "pushguard has as many connections open as it may; try again.", fasthttp.StatusServiceUnavailable
	case l.p.server.MaxConnsPerIP > 0 && l.peers[c.peer] >= l.p.server.MaxConnsPerIP:
		return "this address has as many connections open as it may; use them again, or close some.", fasthttp.StatusTooManyRequests
	}
	l.open.Add(1)
	if l.p.server.MaxConnsPerIP > 0 {
		l.peers[c.peer]++
	}
	l.conns[c] = struct{}{}
	return "", 0
}

// count is how many connections are open, here and given to fasthttp.
func (l *lane) count() int64 {
	if l == nil {
		return 0
	}
	return l.open.Load()
}

// leave ends the counting of a connection.
func (l *lane) leave(c *laneConn) {
	l.connsMu.Lock()
	defer l.connsMu.Unlock()
	delete(l.conns, c)
	if l.p.server.MaxConnsPerIP > 0 {
		if l.peers[c.peer]--; l.peers[c.peer] <= 0 {
			delete(l.peers, c.peer)
		}
	}
	l.open.Add(-1)
}

// laneWorker is a goroutine that does what there is to do, one task after the
// other.
type laneWorker struct {
	lane  *lane
	run   chan struct{}
	uri   fasthttp.URI
	host  []byte // the last one that uri found no fault with
	in    *bufio.Reader
	visit *visit // for the next request
}

// task is a connection to be read, or a request to be gone on with.
type task interface{ do(w *laneWorker) }

// taskQueue is first in, first out. The zero value is empty.
type taskQueue struct {
	tasks []task
	first int
}

func (q *taskQueue) empty() bool { return q.first == len(q.tasks) }

func (q *taskQueue) put(t task) {
	if q.first > 0 && len(q.tasks) == cap(q.tasks) {
		n := copy(q.tasks, q.tasks[q.first:])
		clear(q.tasks[n:])
		q.tasks, q.first = q.tasks[:n], 0
	}
	q.tasks = append(q.tasks, t)
}

// take takes the first; there is one.
func (q *taskQueue) take() task {
	t := q.tasks[q.first]
	q.tasks[q.first] = nil
	if q.first++; q.empty() {
		q.tasks, q.first = q.tasks[:0], 0
	}
	return t
}

// arrive gives the workers a connection that was claimed.
func (l *lane) arrive(c *laneConn) { l.enqueue(&l.arrived, c) }

// goOn gives the workers a request that can go on.
func (l *lane) goOn(v *visit) { l.enqueue(&l.begun, v) }

func (l *lane) enqueue(q *taskQueue, t task) {
	l.queueMu.Lock()
	q.put(t)
	w, fresh := l.call()
	l.queueMu.Unlock()
	l.start(w, fresh)
}

// call picks who is woken for the queue: at most one at a time. Who runs calls
// the next before it begins, so a worker that waits for Pusher holds nobody up,
// and one that does not wait serves the whole queue. queueMu is held.
func (l *lane) call() (w *laneWorker, fresh bool) {
	if l.woken || l.begun.empty() && l.arrived.empty() {
		return nil, false
	}
	l.woken = true
	if n := len(l.resting); n > 0 {
		w = l.resting[n-1]
		l.resting = l.resting[:n-1]
		return w, false
	}
	return nil, true
}

func (l *lane) start(w *laneWorker, fresh bool) {
	switch {
	case w != nil:
		w.run <- struct{}{}
	case fresh:
		w = &laneWorker{lane: l, run: make(chan struct{}, 1)}
		w.in, w.visit = l.buffers.Get().(*bufio.Reader), l.visits.Get().(*visit)
		go w.work()
	}
}

// next is what the worker does now, or nil if it was sent home.
func (w *laneWorker) next(woke bool) task {
	l := w.lane
	l.queueMu.Lock()
	if woke {
		l.woken = false
	}
	q := &l.begun
	if q.empty() {
		q = &l.arrived
	}
	if q.empty() {
		keep := len(l.resting) < restingMost && !l.quit
		if keep {
			l.resting = append(l.resting, w)
		}
		l.queueMu.Unlock()
		if !keep {
			w.run = nil
		}
		return nil
	}
	t := q.take()
	other, fresh := l.call()
	l.queueMu.Unlock()
	l.start(other, fresh)
	return t
}

func (w *laneWorker) work() {
	woke := true
	for {
		t := w.next(woke)
		woke = false
		if t == nil {
			if w.run == nil {
				w.lane.buffers.Put(w.in)
				w.lane.visits.Put(w.visit)
				return
			}
			if _, ok := <-w.run; !ok {
				return
			}
			woke = true
			continue
		}
		t.do(w)
	}
}

// sweep ends connections whose time is over.
func (l *lane) sweep() {
	t := time.NewTicker(l.tick)
	defer t.Stop()
	for {
		select {
		case <-l.swept:
			return
		case at := <-t.C:
			l.date.set(at)
		}
		now := l.ticks.Add(1)
		l.each(func(c *laneConn) bool { return c.due.Load() <= now })
	}
}

// each has every idle connection for which f holds looked at as one whose time
// may be over.
func (l *lane) each(f func(*laneConn) bool) {
	l.connsMu.Lock()
	var due []*laneConn
	for c := range l.conns {
		if f(c) && c.state.CompareAndSwap(connIdle, connBusy) {
			c.late = true
			due = append(due, c)
		}
	}
	l.connsMu.Unlock()
	for _, c := range due {
		l.arrive(c)
	}
}

// shutdown ends idle connections and waits for the others.
func (l *lane) shutdown(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.closing.Store(true)
	tick := time.NewTicker(shutdownLook)
	defer tick.Stop()
	for {
		l.each(func(*laneConn) bool { return true })
		if l.open.Load() == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	l.ended.Do(func() {
		close(l.swept)
		l.queueMu.Lock()
		defer l.queueMu.Unlock()
		l.quit = true
		for _, w := range l.resting {
			close(w.run)
		}
		l.resting = nil
	})
	return nil
}
