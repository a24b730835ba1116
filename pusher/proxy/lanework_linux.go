package proxy

import (
	"bufio"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
)

// laneWorker is a goroutine that does what there is to do, one task after the
// other.
type laneWorker struct {
	lane  *lane
	run   chan struct{}
	uri   fasthttp.URI
	host  []byte // the last one that uri found no fault with
	in    *bufio.Reader
	visit *visit // for the next request

	// For what a request seems to be.
	query    pusher.Query
	decoder  pusher.Decoder
	channels []string
	refusal  []byte // the last one, written
}

// task is a connection to be read, a request to be gone on with, or one that was
// read, to be done or refused.
type task interface{ do(w *laneWorker) }

// taskQueue is first in, first out. The zero value is empty.
type taskQueue[T task] struct {
	tasks []T
	first int
}

func (q *taskQueue[T]) len() int { return len(q.tasks) - q.first }

func (q *taskQueue[T]) put(t T) {
	if q.first > 0 && len(q.tasks) == cap(q.tasks) {
		n := copy(q.tasks, q.tasks[q.first:])
		clear(q.tasks[n:])
		q.tasks, q.first = q.tasks[:n], 0
	}
	q.tasks = append(q.tasks, t)
}

// take takes the first; there is one.
func (q *taskQueue[T]) take() T {
	t := q.tasks[q.first]
	clear(q.tasks[q.first : q.first+1])
	if q.first++; q.len() == 0 {
		q.tasks, q.first = q.tasks[:0], 0
	}
	return t
}

// arrive gives the workers a connection that was claimed.
func (l *lane) arrive(c *laneConn) {
	l.queueMu.Lock()
	l.arrived.put(c)
	w, fresh := l.call()
	l.queueMu.Unlock()
	l.start(w, fresh)
}

// goOn gives the workers a request that can go on.
func (l *lane) goOn(v *visit) {
	l.queueMu.Lock()
	l.begun.put(v)
	w, fresh := l.call()
	l.queueMu.Unlock()
	l.start(w, fresh)
}

// pick takes what is done next, or nil if there is nothing. queueMu is held.
func (l *lane) pick() task {
	n := l.arrived.len()
	switch {
	case l.begun.len() > 0:
		return l.begun.take()
	case n+l.crowd.n == 0:
		return nil
	case l.crowd.n == 0 && n <= crowdFrom && !l.careful():
		return l.arrived.take()
	}
	open := hasRoom
	now := l.crowd.from
	if l.crowd.n > 0 {
		if now = moment(); now.Sub(l.crowd.from) > crowdPatience { // the processor does not keep up
			open = hasFree
		}
	}
	c, late := l.crowd.takeFrom(quota.Critical, open), false
	switch {
	case c != nil:
	case n > 0 && (l.crowd.n == 0 || l.reads < crowdReads):
		return l.toSort()
	default:
		l.reads = 0
		c, late = l.crowd.take(now, open)
		switch {
		case c != nil:
		case n > 0:
			return l.toSort()
		default:
			c, late = l.crowd.take(now, hasRoom)
		}
	}
	if c == nil {
		l.stuck = true
		l.unstick()
		return nil
	}
	if c.stage = stageServe; late {
		c.stage = stageRefuse
	}
	return c
}

func (l *lane) toSort() task {
	l.reads++
	l.stuck = false
	c := l.arrived.take()
	c.stage = stageSort
	return c
}

// turnOver says that, while there is a crowd, so much was done since the poller
// looked that it must look again before more is: it may know of something that is
// more important, and what was answered is sent by it. queueMu is held.
func (l *lane) turnOver() bool {
	if turn := l.poll.Turns.Load(); turn != l.turn {
		l.turn, l.done = turn, 0
	}
	if l.done < crowdTurn || l.crowd.n+l.arrived.len() <= crowdFrom || l.poll.Asleep.Load() {
		l.done++
		return false
	}
	l.paused.Store(true)
	if l.poll.Asleep.Load() || l.poll.Turns.Load() != l.turn { // it did so meanwhile
		l.paused.Store(false)
		return false
	}
	return true
}

// Pressed says whether more waits than can be done soon, and something of it can be.
func (l *lane) Pressed() bool {
	l.queueMu.Lock()
	defer l.queueMu.Unlock()
	return !l.stuck && l.crowd.n+l.arrived.len() > crowdFrom
}

// Looked goes on after the poller has looked.
func (l *lane) Looked() {
	if !l.paused.Load() {
		return
	}
	l.queueMu.Lock()
	l.paused.Store(false)
	w, fresh := l.call()
	l.queueMu.Unlock()
	l.start(w, fresh)
}

// unstick has who waits looked at again, if nothing else does. queueMu is held.
func (l *lane) unstick() {
	if l.looks {
		return
	}
	l.looks = true
	time.AfterFunc(crowdLook, func() {
		l.queueMu.Lock()
		l.looks, l.stuck = false, false
		w, fresh := l.call()
		l.queueMu.Unlock()
		l.start(w, fresh)
	})
}

// careful says whether one that arrives is told apart although few wait: a moment
// ago an upstream was full, while the processor was.
func (l *lane) careful() bool {
	n := l.wary.Load()
	if n <= 0 {
		return false
	}
	l.wary.Store(n - 1)
	return true
}

// hasFree says whether an app's upstream takes one more of a class.
func hasFree(a *App, class quota.Priority) bool {
	return a == nil || a.Upstream.admission.free(class)
}

// hasRoom says so too where the processor has the time for one that then stands in
// line.
func hasRoom(a *App, class quota.Priority) bool {
	return a == nil || !a.Upstream.admission.busy.Load() || a.Upstream.admission.free(class)
}

// call picks who is woken for the queue: at most one at a time. Who runs calls
// the next before it begins, so a worker that waits for Pusher holds nobody up,
// and one that does not wait serves the whole queue. queueMu is held.
func (l *lane) call() (w *laneWorker, fresh bool) {
	if l.woken || l.paused.Load() || l.begun.len()+l.arrived.len() == 0 && (l.crowd.n == 0 || l.stuck) {
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
	var t task
	if !l.turnOver() {
		t = l.pick()
	}
	if t == nil {
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
