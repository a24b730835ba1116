package proxy

import (
	"time"

	"github.com/pushguard/pushguard/quota"
)

// What a fold's line does while the upstream answers nothing (silence). Whoever
// waits there has a place and is to be sent, but behind calls that hang for as long
// as the upstream's timeout is. To send it when they end would be to send it, late,
// into the same silence. So the line is as the one before it: who goes, goes to find
// out, and who has waited for as long as its patience is, is refused and has cost
// nothing.

// arm sets the timer for what is to happen next by itself. f.mu is held.
func (f *folder) arm() {
	switch {
	case len(f.queue) == 0:
	case f.door.silence.is.Load():
		first := f.queue[0].until
		for _, w := range f.queue[1:] {
			if w.until.Before(first) {
				first = w.until
			}
		}
		f.timer.Reset(max(first.Sub(moment()), 0))
	case f.full():
		f.timer.Reset(max(f.overdue(), silenceAfter/10)) // to look whether anything is answered
	default:
		f.timer.Reset(max(f.overdue(), 0))
	}
}

// timeIsOver lets those go whose window is over, or, in a silence, refuses those
// whose patience is.
func (f *folder) timeIsOver() {
	f.mu.Lock()
	silent := f.door.silence.is.Load()
	var leaving []*waiter
	if silent {
		leaving = f.give(moment())
		f.arm()
	} else {
		leaving = f.form(true)
	}
	full := len(f.queue) > 0 && f.full() && f.overdue() <= 0
	f.mu.Unlock()
	for _, w := range leaving {
		w.rouse()
	}
	if full && !silent {
		f.door.wanting()
	}
}

// give refuses those whose patience is over at now, and returns them, to be roused.
// f.mu is held.
func (f *folder) give(now time.Time) (up []*waiter) {
	got := f.app.Upstream.unasked()
	for i, w := range f.queue {
		if now.Before(w.until) {
			continue
		}
		f.queue[i] = nil
		w.got = got
		f.door.shed[w.class][ShedSilent].Add(1)
		up = append(up, w)
	}
	f.close()
	return up
}

// ask takes out of the line who is to find out whether the upstream still is silent:
// the most important that is at least of class, and of those the first. It goes alone, for its fate may be unknown, and is to be roused. nil:
// there is nobody.
func (f *folder) ask(class quota.Priority) *waiter {
	f.mu.Lock()
	defer f.mu.Unlock()
	best := -1
	for i, w := range f.queue {
		if w.class >= class && (best < 0 || w.class > f.queue[best].class) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	w := f.queue[best]
	f.queue[best] = nil
	f.close()
	w.group, w.kind, w.probe = append(w.group[:0], w), bearsCall, true
	f.depart(w)
	return w
}

// hears is told that the upstream has fallen silent, or speaks again. Then those
// nothing waits any more for calls that hang.
func (f *folder) hears(silent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !silent {
		f.era, f.calls = f.era+1, 0
	}
	if len(f.queue) > 0 {
		f.timer.Reset(0)
	}
}
