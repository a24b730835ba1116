package proxy

import (
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/limiter"
)

// deadline is until when a request is answered, whatever it waits for: a place, an
// earlier publish, a duplicate's fate, the answer of Pusher. It begins with the
// judgement and lasts for the app's timeout. What could not be sent by then leaves
// every queue and is never sent.
//
// It is the one way to wait for something that may not come. The zero value is ready,
// with its time over.
type deadline struct {
	until time.Time
	timer *time.Timer
}

// begin sets the time if it is not set.
func (d *deadline) begin(now time.Time, timeout time.Duration) {
	if d.until.IsZero() {
		d.until = now.Add(timeout)
	}
}

// began is when it began, for a timeout: its connections count a call's time from there.
func (d *deadline) began(timeout time.Duration) time.Time { return d.until.Add(-timeout) }

// over reports whether the time is over.
func (d *deadline) over(now time.Time) bool { return !now.Before(d.until) }

// wait waits for something until the deadline, or an earlier time. When that is over it
// calls quit, which takes the request out of the queue it stands in and reports false if
// it stands there no more: then what it waits for is about to come.
func wait[T any](d *deadline, until time.Time, came <-chan T, quit func() bool) (got T, ok bool) {
	if until.IsZero() || d.until.Before(until) {
		until = d.until
	}
	left := until.Sub(moment())
	if d.timer == nil {
		d.timer = time.NewTimer(left)
	} else {
		d.timer.Reset(left)
	}
	select {
	case got = <-came:
		d.timer.Stop()
		return got, true
	case <-d.timer.C:
		if quit == nil || quit() {
			return got, false
		}
		return <-came, true
	}
}

// awaited is what a request that was not sent in time waited for.
type awaited string

const (
	awaitedPlace awaited = "waited_for_place"     // for a place before the upstream, or to share a call
	awaitedOrder awaited = "waited_for_order"     // for the answer to an earlier publish, in strict order
	awaitedTwin  awaited = "waited_for_duplicate" // for the fate of the publish that it repeats
)

func (a awaited) text() string {
	switch a {
	case awaitedOrder:
		return "an earlier publish to its channel, whose rule says order: strict, has no answer from Pusher yet"
	case awaitedTwin:
		return "the same publish is under way already and has no answer from Pusher yet"
	}
	return "the way to Pusher is full"
}

// late is the answer of what could not be sent in time.
func late(for_ awaited, timeout time.Duration) answer {
	return answer{
		fate: limiter.NotSent, outcome: limiter.Unavailable, reason: limiter.Overloaded, word: string(for_),
		status: fasthttp.StatusServiceUnavailable, retryAfter: time.Second, silent: true,
		text: "within " + timeout.String() + " this publish could not be sent, because " + for_.text() + "; it was not sent, cost no message, and can be repeated safely.",
	}
}
