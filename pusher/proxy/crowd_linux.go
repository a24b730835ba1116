package proxy

import (
	"time"

	"github.com/pushguard/pushguard/quota"
)

// crowd is who waits when more comes than can be done: because the processor is
// busy, or because their upstream takes no more at this moment. They are requests
// that were read and not verified yet, by the app and the priority that they claim.
// What is critical is done first; apps take turns; an app's requests of one priority
// go first in, first out.
//
// They wait here, and not behind judgement, because verifying and judging a request
// costs a good part of what sending it does: who waits in vain must cost little.
//
// How long is too long follows "Fail at Scale" (B. Maurer, ACM Queue 13(8), 2015): a
// line that was empty a moment ago is a burst and is worked off; in one that stands,
// waiting helps nobody. It reads no clock and takes no lock. The zero value is empty.
type crowd struct {
	apps map[*App]*crowdOf
	ring []*crowdOf // those who wait, an app each
	next int        // whose turn it is
	n    int
	of   [quota.Priorities]int // the same, by class
	free []*crowdOf
	from time.Time // when it was last empty
}

// crowdOf are the requests of one app.
type crowdOf struct {
	app   *App // nil: whose key is of none
	lines [quota.Priorities]crowdLine
	n     int
	since time.Time // when it was last empty
}

type crowdLine struct{ first, last *laneConn }

const (
	// crowdFrom is how many may be ready to be read before they are told apart.
	crowdFrom = 64
	// crowdMost bounds those that were read: each holds a buffer of laneRoom.
	crowdMost = 2048
	// crowdStands is how long a line may last before it is a standing one, and
	// crowdPatience how long who is not critical then waits.
	crowdStands   = 200 * time.Millisecond
	crowdPatience = 20 * time.Millisecond
)

// put adds a request that was read at now. If it is one too many, who gives way to
// it is returned, or it itself.
func (w *crowd) put(now time.Time, c *laneConn) (out *laneConn) {
	if w.n >= crowdMost {
		if out = w.giveWay(c.seems.class); out == nil {
			return c
		}
	}
	if w.n == 0 {
		w.from = now
	}
	q := w.apps[c.seems.app]
	if q == nil {
		q = w.enter(now, c.seems.app)
	}
	c.came, c.behind = now, nil
	l := &q.lines[c.seems.class]
	if l.last == nil {
		l.first = c
	} else {
		l.last.behind = c
	}
	l.last = c
	q.n++
	w.of[c.seems.class]++
	w.n++
	return out
}

func (w *crowd) enter(now time.Time, a *App) (q *crowdOf) {
	if n := len(w.free); n > 0 {
		q, w.free = w.free[n-1], w.free[:n-1]
	} else {
		q = new(crowdOf)
	}
	if w.apps == nil {
		w.apps = map[*App]*crowdOf{}
	}
	q.app, q.since = a, now
	w.apps[a] = q
	w.ring = append(w.ring, q)
	return q
}

// giveWay takes out who must go for one of class: of the app that most wait for,
// the least important one that came first. There may be none.
func (w *crowd) giveWay(class quota.Priority) *laneConn {
	most := 0
	for i, q := range w.ring {
		if q.n > w.ring[most].n {
			most = i
		}
	}
	for c := range int(class) + 1 {
		if w.ring[most].lines[c].first != nil {
			return w.pop(most, c)
		}
	}
	return nil
}

func (w *crowd) pop(i, class int) *laneConn {
	q := w.ring[i]
	l := &q.lines[class]
	c := l.first
	if l.first = c.behind; l.first == nil {
		l.last = nil
	}
	c.behind = nil
	w.of[class]--
	w.n--
	if q.n--; q.n == 0 {
		delete(w.apps, q.app)
		q.app = nil
		w.free = append(w.free, q)
		last := len(w.ring) - 1
		w.ring[i] = w.ring[last]
		w.ring[last] = nil
		w.ring = w.ring[:last]
	}
	return c
}

// take takes who is next, or who has waited for too long: late. It returns nil if
// nobody can go on now; open says so of an app and a class.
func (w *crowd) take(now time.Time, open func(*App, quota.Priority) bool) (c *laneConn, late bool) {
	for i, q := range w.ring {
		for class := range q.lines {
			if first := q.lines[class].first; first != nil && now.Sub(first.came) > q.patience(now, quota.Priority(class)) {
				return w.pop(i, class), true
			}
		}
	}
	for class := quota.Priorities - 1; class >= 0; class-- {
		if c = w.takeFrom(quota.Priority(class), open); c != nil {
			return c, false
		}
	}
	return nil, false
}

// takeFrom takes who is next of a class, or returns nil.
func (w *crowd) takeFrom(class quota.Priority, open func(*App, quota.Priority) bool) *laneConn {
	if w.of[class] == 0 {
		return nil
	}
	for n := range w.ring {
		i := (w.next + n) % len(w.ring)
		if q := w.ring[i]; q.lines[class].first != nil && open(q.app, class) {
			w.next = i + 1
			return w.pop(i, int(class))
		}
	}
	return nil
}

func (q *crowdOf) patience(now time.Time, class quota.Priority) time.Duration {
	if class != quota.Critical && now.Sub(q.since) > crowdStands {
		return crowdPatience
	}
	return patience[class]
}
