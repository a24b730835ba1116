package proxy

import (
	"bufio"
	"runtime/debug"

	"github.com/pushguard/pushguard/pusher/upstream"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/valyala/fasthttp"
)

// visit is what one request needs, from its parsing to its answer. It belongs to
// a worker, or, while a call to Pusher is under way for it and nobody waits, to
// the connection of that call.
type visit struct {
	lane *lane
	conn *laneConn
	job  *job          // of a request that will go on
	call upstream.Call // what it goes on with
	// The request: in, where the lane read it itself, from bytes that are copied
	// into raw; otherwise in ctx, by fasthttp.
	in   wire.Request
	mine bool // the lane read it
	// standsFor is set if it is one of so many that are refused.
	standsFor int
	raw       []byte
	ctx       fasthttp.RequestCtx
	out       *bufio.Writer
	// bytes is the answer, written; last says that the connection ends with it.
	bytes   []byte
	written bool // otherwise it is in ctx
	last    bool
}

// read reads the request that b is, if the lane can by itself.
func (v *visit) read(b, host []byte) bool {
	p := v.lane.p
	if p.cfg.Tracer != nil || !v.in.Read(b, host, p.server.MaxRequestBodySize) {
		return false
	}
	v.raw = append(v.raw[:0], b...)
	v.in.MoveTo(v.raw, cap(b))
	v.mine = true
	return true
}

// asked is the request, or nil if it is in ctx.
func (v *visit) asked() *wire.Request {
	if v == nil || !v.mine {
		return nil
	}
	return &v.in
}

// take takes the answer, whose parts live no longer than this call.
func (v *visit) take(r *wire.Response) {
	if v.last = r.Last || !v.mine && v.ctx.Request.Header.ConnectionClose(); v.last {
		r.Last = true
	}
	if v.written = r.Writable() && (v.mine || !v.ctx.IsHead()); v.written {
		v.bytes = r.Append(v.bytes[:0], v.lane.date.Get())
		return
	}
	v.ctx.Response.Header.SetServer(wire.ServerName)
	r.CopyTo(&v.ctx.Response)
}

// handle runs the handler, which itself survives its own defects. later says
// that it goes on when Pusher has answered.
func (v *visit) handle() (later, ok bool) {
	defer v.survive()
	if j := v.job; j != nil {
		v.job = nil
		v.lane.p.resume(&v.ctx, j, v)
		return false, true
	}
	later = v.lane.p.begin(&v.ctx, v)
	return later, true
}

func (v *visit) survive() {
	if r := recover(); r != nil {
		v.lane.p.stats.panics.Add(1)
		v.lane.p.log.Error("a request made pushguard panic; its connection was closed", "panic", r, "stack", string(debug.Stack()))
		v.ctx.Request.Reset()
		v.ctx.Response.Reset()
		v.conn, v.job, v.call, v.mine, v.written = nil, nil, upstream.Call{}, false, false
	}
}

// leave notes whose request will go on.
func (v *visit) leave(j *job) { v.job = j }

// sample is how many requests that are refused it stands for; 0: it is none of
// them.
func (v *visit) sample() (n int) {
	if v != nil {
		n, v.standsFor = v.standsFor, 0
	}
	return n
}

// full notes that its upstream takes no more at this moment, and the processor is
// busy.
func (v *visit) full() { v.lane.wary.Store(crowdWary) }

// Resume is goOn, for a call that was started.
func (v *visit) Resume() { v.goOn() }

// goOn has a worker go on with the request that left.
func (v *visit) goOn() { v.lane.goOn(v) }

// do goes on with a request whose answer from Pusher has come.
func (v *visit) do(*laneWorker) {
	l, c := v.lane, v.conn
	if _, ok := v.handle(); ok {
		v.answered()
	} else {
		l.end(c)
	}
	l.visits.Put(v)
}

// answered sends the answer that was taken.
func (v *visit) answered() {
	if !v.written {
		v.have()
	}
	if v.mine {
		v.in, v.mine = wire.Request{}, false
	} else {
		v.ctx.Request.Reset()
	}
	c := v.conn
	c.last = v.last
	v.conn = nil
	v.lane.poll.Writes.Put(c, v.bytes, false)
	if cap(v.bytes) > 64<<10 { // one large answer must not stay pinned
		v.bytes = nil
	}
}

// have has fasthttp write the answer.
func (v *visit) have() {
	ctx := &v.ctx
	ctx.Response.SkipBody = ctx.IsHead()
	v.bytes = v.bytes[:0]
	v.out.Reset(v)
	if ctx.Response.Write(v.out) != nil || v.out.Flush() != nil {
		v.conn.broken = true
	}
	ctx.Response.ReleaseBody(64 << 10)
	ctx.Response.Reset()
}

// Write gathers an answer.
func (v *visit) Write(b []byte) (int, error) {
	v.bytes = append(v.bytes, b...)
	return len(b), nil
}
