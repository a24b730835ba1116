package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/pusher/netpoll"

	"github.com/pushguard/pushguard/pusher/wire"

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
	poll *netpoll.Poller
	// reading bounds a request from its first byte, idle the wait for a next
	// one; in ticks of tick, which is how often time is looked at.
	reading, idle int64
	tick          time.Duration
	ticks         atomic.Int64
	date          wire.Date // set anew with each tick

	// What there is to do, and those who do it. Requests that can go on are before
	// those that have not begun: when there is more than can be done, what is under
	// way is finished and what is new waits, not everything twice.
	queueMu sync.Mutex
	begun   taskQueue[*visit]
	arrived taskQueue[*laneConn]
	resting []*laneWorker
	woken   bool // a worker was woken and does not run yet

	// When there is more than can be done.
	crowd      crowd        // those who arrived and were told apart
	reads      int          // how many were read since one of them was done
	stuck      bool         // none of the crowd can go on
	looks      bool         // the timer for them is set
	wary       atomic.Int32 // how many that arrive are told apart although they are few
	turn       uint64       // the poller's, and how much was done in it
	done       int
	paused     atomic.Bool  // until the poller's next turn
	turnedAway atomic.Int64 // how many were refused unverified, with their sample

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
	acceptTurn   = 4
	shutdownLook = 5 * time.Millisecond
	// youngFor is how long a connection that has not sent anything yet is
	// waited for while shutting down, as fasthttp does.
	youngFor = 5 * time.Second
)

func newLane(p *Proxy) *lane {
	poll := netpoll.Default()
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
	l.date.Set(time.Now())
	poll.Join(l)
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
	for n := 1; ; n++ {
		if n%acceptTurn == 0 {
			runtime.Gosched() // a storm of connections must not hold up those that there are
		}
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
	if c.fd, err = netpoll.Detach(tcp); err == nil {
		c.due.Store(l.ticks.Load() + l.reading)
		if err = l.poll.Add(c.fd, netpoll.Readable, c); err != nil {
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
		status, fasthttp.StatusMessage(status), wire.ServerName, contentPlain, wire.HeaderOutcome, outcomeRefused, wire.HeaderReason, len(why), why)
}

// beginsTLS says whether b is how a TLS client begins: a handshake record.
func beginsTLS(b []byte) bool { return len(b) >= 3 && b[0] == 0x16 && b[1] == 3 && b[2] <= 4 }

// warnOfTLS tells the operator, once a minute at most, what the caller cannot
// read: the refusal of its handshake is plain text. Half of Pusher's SDKs speak
// TLS unless they are told not to.
func (p *Proxy) warnOfTLS(peer netip.Addr) {
	now, last := p.now().Unix(), p.toldTLS.Load()
	if now-last < 60 || !p.toldTLS.CompareAndSwap(last, now) {
		return
	}
	p.log.Warn("a caller speaks TLS to the data port, which does not: turn TLS off in its SDK (useTLS: false, ssl=False, scheme http), or give this port a certificate (tls in the config)", "from", peer)
}

// enter counts a connection, unless there are too many.
func (l *lane) enter(c *laneConn) (why string, status int) {
	l.connsMu.Lock()
	defer l.connsMu.Unlock()
	switch {
	case l.open.Load() >= int64(l.p.server.Concurrency):
		return "connection limit reached (max_connections); try again.", fasthttp.StatusServiceUnavailable
	case l.p.server.MaxConnsPerIP > 0 && l.peers[c.peer] >= l.p.server.MaxConnsPerIP:
		return "connection limit of this address reached (max_connections_per_peer); keep connections alive and reuse them, or close some.", fasthttp.StatusTooManyRequests
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

// sweep ends connections whose time is over.
func (l *lane) sweep() {
	t := time.NewTicker(l.tick)
	defer t.Stop()
	for {
		select {
		case <-l.swept:
			return
		case at := <-t.C:
			l.date.Set(at)
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
		l.poll.Leave(l)
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
