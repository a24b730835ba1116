package proxy

import (
	"bufio"
	"runtime/debug"

	"github.com/valyala/fasthttp"
)

// visit is what one request needs, from its parsing to its answer. It belongs to
// a worker, or, while a call to Pusher is under way for it and nobody waits, to
// the upConn of that call.
type visit struct {
	lane *lane
	conn *laneConn
	job  *job    // of a request that will go on
	call *upConn // what it goes on with
	ctx  fasthttp.RequestCtx
	out  *bufio.Writer
	// bytes is the answer, written.
	bytes []byte
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
	return v.lane.p.begin(&v.ctx, v), true
}

func (v *visit) survive() {
	if r := recover(); r != nil {
		v.lane.p.stats.panics.Add(1)
		v.lane.p.log.Error("a request made pushguard panic; its connection was closed", "panic", r, "stack", string(debug.Stack()))
		v.ctx.Request.Reset()
		v.ctx.Response.Reset()
		v.conn, v.job, v.call = nil, nil, nil
	}
}

// leave notes whose request will go on.
func (v *visit) leave(j *job) { v.job = j }

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

// answered sends what the handler answered.
func (v *visit) answered() {
	ctx := &v.ctx
	if ctx.IsHead() {
		ctx.Response.SkipBody = true
	}
	v.write(v.conn, ctx.Request.Header.ConnectionClose() || ctx.Response.Header.ConnectionClose())
}

// write sends the response.
func (v *visit) write(c *laneConn, last bool) {
	ctx := &v.ctx
	if last {
		ctx.Response.Header.SetConnectionClose()
	}
	if h := &ctx.Response.Header; h.StatusCode() >= 200 && h.StatusCode() != 204 && h.StatusCode() != 304 && !ctx.Response.SkipBody && !ctx.Response.IsBodyStream() {
		body := ctx.Response.Body()
		h.SetContentLength(len(body))
		v.bytes = append(h.AppendBytes(v.bytes[:0]), body...)
	} else {
		v.bytes = v.bytes[:0]
		v.out.Reset(v)
		if ctx.Response.Write(v.out) != nil || v.out.Flush() != nil {
			c.broken = true
		}
	}
	ctx.Request.Reset()
	ctx.Response.ReleaseBody(64 << 10) // one large answer must not stay pinned
	ctx.Response.Reset()
	c.last = last
	v.conn = nil
	v.lane.poll.out.put(c, v.bytes, false)
	if cap(v.bytes) > 64<<10 {
		v.bytes = nil
	}
}

// Write gathers an answer.
func (v *visit) Write(b []byte) (int, error) {
	v.bytes = append(v.bytes, b...)
	return len(b), nil
}
