package proxy

import (
	"bytes"
	"time"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
)

const (
	// crowdReads is how many are read before one is done, and crowdTurn how many
	// are done before the poller looks again.
	crowdReads = 64
	crowdTurn  = 64
	// crowdWary: after a request found its upstream full, so many are told apart
	// before they are judged.
	crowdWary = 256
	// crowdLook is how often who waits is looked at when nothing else happens.
	crowdLook = 5 * time.Millisecond
	// crowdSample: of those that are refused unverified one in so many is verified
	// and judged nevertheless, and then refused; where the rates of callers are
	// watched it stands for all of them, which might be forged.
	crowdSample = 16
)

// seeming is what a request that was read and not verified says it is.
type seeming struct {
	app   *App // nil: of none that is known
	class quota.Priority
}

// seeming is what b, a whole request, says it is. What is no publish is normal; what
// will not be taken anyway is as bulk.
func (w *laneWorker) seeming(b []byte) (is seeming) {
	line := b[:max(bytes.IndexByte(b, '\r'), 0)]
	method, rest, _ := bytes.Cut(line, space)
	target, _, _ := bytes.Cut(rest, space)
	path, query := splitTarget(target)
	ep, id, channel := route(method, path)
	if ep == epNone || w.query.Parse(query) != nil {
		return seeming{}
	}
	if ep == epWebhook {
		return seeming{class: quota.Normal}
	}
	name, _ := w.query.Get("auth_key")
	pr := w.lane.p.table.Load().byKey[string(name)]
	if pr == nil || id != nil && string(id) != pr.app.ID {
		return seeming{}
	}
	is.app = pr.app
	body := wire.BodyOf(b)
	var events []pusher.Publish
	var e *pusher.Error
	switch ep {
	case epEvents:
		events, e = w.decoder.Events(body, &w.query, &pr.app.Limits)
	case epBatch:
		events, e = w.decoder.Batch(body, &pr.app.Limits)
	case epChannelEvents:
		events, e = w.decoder.ChannelEvent(unescaped(channel), body, &w.query, &pr.app.Limits)
	default:
		is.class = quota.Normal
	}
	if e != nil {
		return is
	}
	for i := range events {
		w.channels = w.channels[:0]
		for _, ch := range events[i].Channels {
			w.channels = append(w.channels, borrow(ch))
		}
		is.class = max(is.class, pr.app.Limiter.Match(borrow(events[i].Name), w.channels, pr.caller).Priority())
	}
	clear(w.channels)
	return is
}

var space = []byte(" ")

// sort reads a request and has it wait for its turn. It reports false when the
// connection is the worker's no more.
func (w *laneWorker) sort(c *laneConn) bool {
	in, b, still := w.read(c)
	if in == nil {
		return still
	}
	if whole, still := w.framed(c, in, b); !whole {
		return still
	}
	c.seems = w.seeming(b)
	w.keep(c, in)
	l := w.lane
	l.queueMu.Lock()
	l.stuck = false
	out := l.crowd.put(moment(), c)
	other, fresh := l.call()
	l.queueMu.Unlock()
	l.start(other, fresh)
	if out != nil {
		w.turnAway(out)
	}
	return false
}

// turnAway refuses a request that was read, unverified; but for a sample.
func (w *laneWorker) turnAway(c *laneConn) {
	l := w.lane
	b, _ := c.in.Peek(c.in.Buffered())
	sampled := l.turnedAway.Add(1)%crowdSample == 0
	if sampled || l.p.draining.Load() || bytes.HasPrefix(b, headMethod) {
		if sampled {
			w.visit.standsFor = crowdSample
		}
		if w.serve(c) && !c.release() {
			l.arrive(c)
		}
		return
	}
	if a := c.seems.app; a != nil {
		a.Upstream.admission.shed[c.seems.class][ShedProcessor].Add(1)
	}
	r := unverified()
	r.Last = l.p.retiring.Load() || wire.Closes(b)
	c.last = r.Last
	w.dispense(c)
	w.refusal = r.Append(w.refusal[:0], l.date.Get())
	l.poll.Writes.Put(c, w.refusal, false)
}

// unverified is the answer to a request that was not looked at closely.
func unverified() (r wire.Response) {
	refuse(&r, fasthttp.StatusServiceUnavailable, limiter.Overloaded.String(), overloadText)
	r.Outcome = limiter.Unavailable.String()
	r.RetryIn(time.Second)
	return r
}

var headMethod = []byte("HEAD ")
