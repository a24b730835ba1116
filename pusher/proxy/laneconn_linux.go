package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/pusher/netpoll"

	"github.com/pushguard/pushguard/pusher/wire"
)

// laneRoom is the longest head and body together that the express lane takes.
const laneRoom = 16 << 10

// laneConn belongs to who made it busy.
type laneConn struct {
	lane   *lane
	fd     int
	peer   netip.Addr
	remote net.Addr
	state  atomic.Int32
	ended  atomic.Bool   // the peer sends no more: read on until that is seen
	due    atomic.Int64  // the tick at which its time is over
	in     *bufio.Reader // with the beginning of a request
	late   bool          // it was looked at because its time is over
	served bool          // it had an answer
	broken bool
	last   bool   // its answer is the last
	parsed bool   // no reading while fasthttp parses
	rest   []byte // what did not fit into the socket

	// While it is one of a crowd.
	stage  laneStage
	seems  seeming
	came   time.Time // when it was read
	behind *laneConn
}

// laneStage is what is done next with a connection that is busy.
type laneStage uint8

const (
	stageRead   laneStage = iota // it is read, and answered
	stageSort                    // it is read, and waits
	stageServe                   // what was read is answered
	stageRefuse                  // the same, unverified
)

const (
	connIdle  = iota
	connBusy  // somebody's
	connAgain // somebody's, and something came meanwhile
)

// Wake has the connection looked at by a worker, unless one does already.
func (c *laneConn) Wake(flags uint32) {
	if flags&netpoll.Ended != 0 {
		c.ended.Store(true)
	}
	if c.claim() {
		c.lane.arrive(c)
	}
}

// claim makes the connection busy for the caller, or tells whoever it belongs to
// that something came.
func (c *laneConn) claim() bool {
	for {
		switch c.state.Load() {
		case connIdle:
			if c.state.CompareAndSwap(connIdle, connBusy) {
				return true
			}
		case connBusy:
			if c.state.CompareAndSwap(connBusy, connAgain) {
				return false
			}
		default:
			return false
		}
	}
}

// release ends the claim. It reports false if something came meanwhile: the
// connection is still the caller's.
func (c *laneConn) release() bool {
	if c.state.CompareAndSwap(connBusy, connIdle) {
		return true
	}
	c.state.Store(connBusy)
	return false
}

// do does what there is to do on a connection that was claimed.
func (c *laneConn) do(w *laneWorker) {
	stage := c.stage
	c.stage = stageRead
	switch stage {
	case stageServe:
		if !w.serve(c) {
			return
		}
	case stageRefuse:
		w.turnAway(c)
		return
	case stageSort:
		if !w.sort(c) {
			return
		}
	case stageRead:
		if !w.step(c) {
			return
		}
	}
	for !c.release() {
		if !w.step(c) {
			return
		}
	}
}

// step reads once and answers what is whole. It reports false when the
// connection is the worker's no more.
func (w *laneWorker) step(c *laneConn) bool {
	in, b, still := w.read(c)
	if in == nil {
		return still
	}
	if w.quick(c, in, b) {
		return w.answer(c)
	}
	if whole, still := w.framed(c, in, b); !whole {
		return still
	}
	return w.parse(c, in, b)
}

// read reads once: in has b to offer, or is nil if there is nothing to be done now.
// still is false when the connection is the worker's no more.
func (w *laneWorker) read(c *laneConn) (in *bufio.Reader, b []byte, still bool) {
	l := w.lane
	in = c.in
	if in == nil {
		in = w.in
		in.Reset(c)
	}
	late := c.late
	c.late = false
	_, err := in.Peek(in.Buffered() + 1) // one read
	b, _ = in.Peek(in.Buffered())
	if err == nil {
		return in, b, true
	}
	switch {
	case err != netpoll.ErrAgain && len(b) == 0:
		return nil, nil, l.end(c)
	case err != netpoll.ErrAgain: // it ended inside a request: fasthttp's to answer
		return nil, nil, l.surrender(c, b)
	case late:
		return nil, nil, w.expire(c, len(b) > 0)
	}
	return nil, nil, true
}

// framed says whether b is a request that is whole. If it is not, still is false
// when the connection is the worker's no more.
func (w *laneWorker) framed(c *laneConn, in *bufio.Reader, b []byte) (whole, still bool) {
	switch wire.Frame(b, laneRoom) {
	case wire.Whole:
		if mayStream(b) {
			return false, w.lane.surrender(c, b)
		}
		return true, true
	case wire.Unusual:
		return false, w.lane.surrender(c, b)
	}
	if c.in == nil { // its first bytes
		c.due.Store(w.lane.ticks.Load() + w.lane.reading)
	}
	w.keep(c, in)
	c.again()
	return false, true
}

// mayStream reports whether the answer to a request can be longer than what is held in memory: a list of channels, or of
// whatever an endpoint that is not known has. fasthttp's server passes it on as it arrives.
func mayStream(b []byte) bool {
	if !bytes.HasPrefix(b, []byte("GET /apps/")) {
		return false
	}
	line := b[:bytes.IndexByte(b, '\n')]
	return !bytes.Contains(line, []byte("/channels/"))
}

// quick reads a request of the usual shape into the visit.
func (w *laneWorker) quick(c *laneConn, in *bufio.Reader, b []byte) bool {
	if !w.visit.read(b, w.host) {
		return false
	}
	_, _ = in.Discard(len(b))
	w.dispense(c)
	return true
}

// dispense gives back the buffer of a request that was taken over.
func (w *laneWorker) dispense(c *laneConn) {
	if c.in != nil {
		w.lane.buffers.Put(c.in)
		c.in = nil
	}
}

// keep leaves what was read with the connection.
func (w *laneWorker) keep(c *laneConn, in *bufio.Reader) {
	if c.in == nil {
		c.in, w.in = in, w.lane.buffers.Get().(*bufio.Reader)
	}
}

// serve answers a request that is whole and was kept.
func (w *laneWorker) serve(c *laneConn) bool {
	in := c.in
	b, _ := in.Peek(in.Buffered())
	if w.quick(c, in, b) {
		return w.answer(c)
	}
	return w.parse(c, in, b)
}

// parse answers a request that is whole, b, read by fasthttp.
func (w *laneWorker) parse(c *laneConn, in *bufio.Reader, b []byte) bool {
	l := w.lane
	ctx := &w.visit.ctx
	c.parsed = true
	err := ctx.Request.Header.Read(in)
	if err == nil {
		err = w.checkTarget(ctx.Request.Header.Host(), ctx.Request.Header.RequestURI())
	}
	if err == nil {
		err = ctx.Request.ContinueReadBody(in, l.p.server.MaxRequestBodySize, false)
	}
	c.parsed = false
	if err != nil || in.Buffered() > 0 || !ctx.Request.Header.IsHTTP11() {
		ctx.Request.Reset()
		return l.surrender(c, b)
	}
	w.dispense(c)
	return w.answer(c)
}

// checkTarget looks for what fasthttp's server would find wrong with where a
// request goes. A path that is not one of a URL with a host of its own has been
// looked at when the head was read, and most requests name the same host.
func (w *laneWorker) checkTarget(host, target []byte) error {
	path := len(target) > 0 && target[0] == '/' && (len(target) == 1 || target[1] != '/')
	if path && len(host) > 0 && bytes.Equal(host, w.host) {
		return nil
	}
	if err := w.uri.Parse(host, target); err != nil {
		return err
	}
	w.host = append(w.host[:0], host...)
	return nil
}

// answer has the handler answer the request that was parsed. The connection is
// no more the worker's.
func (w *laneWorker) answer(c *laneConn) bool {
	v := w.visit
	v.conn = c
	v.ctx.SetRemoteAddr(c.remote)
	switch later, ok := v.handle(); {
	case later: // it is not the worker's any more
		w.visit = w.lane.visits.Get().(*visit)
	case ok:
		v.answered()
	default:
		w.lane.end(c)
	}
	return false
}

// Transmit sends an answer and lets the connection go.
func (c *laneConn) Transmit(b []byte) {
	l := c.lane
	if !c.broken {
		c.send(b)
	}
	switch {
	case c.broken:
		l.end(c)
		return
	case len(c.rest) > 0: // it does not read as fast as it asks
		l.hand(c, nil, c.last)
		return
	case c.last:
		l.end(c)
		return
	}
	c.served = true
	c.due.Store(l.ticks.Load() + l.idle)
	c.again()
	if !c.release() {
		l.arrive(c)
	}
}

// again has the connection read once more where no event would say that there
// is something to read.
func (c *laneConn) again() {
	if c.ended.Load() {
		c.state.Store(connAgain)
	}
}

// expire ends a connection whose time is over. Who began a request, or never
// sent one, is told.
func (w *laneWorker) expire(c *laneConn, began bool) bool {
	l := w.lane
	switch left := c.due.Load() - l.ticks.Load(); {
	case left > 0 && !l.closing.Load(), left > 0 && began:
		return true // it was just in time, or may still go on
	case left > 0 && !c.served && left > l.reading-int64(youngFor/l.tick):
		return true
	case !began && (c.served || left > 0):
		return l.end(c)
	}
	v := w.visit
	v.conn = c
	r := l.p.unread(os.ErrDeadlineExceeded)
	v.take(&r)
	v.answered()
	return false
}

// end closes the connection.
func (l *lane) end(c *laneConn) bool {
	if c.in != nil {
		l.buffers.Put(c.in)
		c.in = nil
	}
	l.poll.Close(c.fd)
	l.leave(c)
	return false
}

// surrender gives the connection to fasthttp with the bytes that came.
func (l *lane) surrender(c *laneConn, unread []byte) bool {
	return l.hand(c, bytes.Clone(unread), false)
}

// hand gives the connection to fasthttp, or only closes it after what is still
// to be written.
func (l *lane) hand(c *laneConn, unread []byte, last bool) bool {
	if c.in != nil {
		l.buffers.Put(c.in)
		c.in = nil
	}
	l.poll.Forget(c.fd)
	plain, err := netpoll.Attach(c.fd)
	if err != nil {
		l.leave(c)
		return false
	}
	l.connsMu.Lock()
	delete(l.conns, c)
	l.connsMu.Unlock()
	if beginsTLS(unread) {
		l.p.warnOfTLS(c.peer)
	}
	h := &handedConn{Conn: plain, from: c, unread: unread}
	if len(c.rest) == 0 {
		l.give(h)
		return false
	}
	rest := c.rest
	c.rest = nil
	go func() {
		_ = h.SetWriteDeadline(time.Now().Add(l.p.server.WriteTimeout))
		if _, err := h.Write(rest); err != nil || last {
			_ = h.Close()
			return
		}
		l.give(h)
	}()
	return false
}

// Read reads once, for the worker's reader.
func (c *laneConn) Read(b []byte) (int, error) {
	if c.parsed {
		return 0, io.ErrUnexpectedEOF
	}
	return netpoll.Recv(c.fd, b)
}

// send sends what fits and keeps the rest.
func (c *laneConn) send(b []byte) {
	n, err := netpoll.Send(c.fd, b)
	switch {
	case err != nil && err != netpoll.ErrAgain:
		c.broken = true
	case n < len(b):
		c.rest = bytes.Clone(b[n:])
	}
}

// handedConn is a connection that left the lane: its first bytes were read
// already.
type handedConn struct {
	net.Conn
	from    *laneConn
	unread  []byte
	lingers bool
	once    sync.Once
}

func (h *handedConn) Read(b []byte) (int, error) {
	if len(h.unread) > 0 {
		n := copy(b, h.unread)
		if h.unread = h.unread[n:]; len(h.unread) == 0 {
			h.unread = nil
		}
		return n, nil
	}
	return h.Conn.Read(b)
}

// How long, and for how many bytes, a peer is listened to that goes on sending
// what was refused. Closed at once, the kernel would answer it with a reset, and
// many clients then never read the refusal.
const (
	lingerFor  = time.Second
	lingerMost = 32 << 20
)

func (h *handedConn) lingerOnClose() { h.lingers = true }

func (h *handedConn) Close() error {
	if tcp, ok := h.Conn.(*net.TCPConn); ok && h.lingers {
		_ = tcp.CloseWrite()
		_ = tcp.SetReadDeadline(time.Now().Add(lingerFor))
		_, _ = io.CopyN(io.Discard, tcp, lingerMost)
	}
	err := h.Conn.Close()
	h.once.Do(func() { h.from.lane.leave(h.from) })
	return err
}

// noConn stands where fasthttp wants a connection that only tells its address.
type noConn struct{ net.Conn }

func (noConn) RemoteAddr() net.Addr { return nil }
func (noConn) LocalAddr() net.Addr  { return nil }
