package proxy

import (
	"bytes"
	"time"
)

// Who leaves with whom.

// form makes groups of those that wait, in order, and returns their leaders,
// to be woken. With all false only full groups leave: other calls are still in
// flight, and whose end comes soon. f.mu is held.
func (f *folder) form(all bool) (leaders []*waiter) {
	for i, head := range f.queue {
		if head == nil {
			continue
		}
		picks, kind, full := f.gather(i)
		if !all && !full {
			break
		}
		head.group, head.kind = append(head.group[:0], head), kind
		f.queue[i] = nil
		for _, at := range picks {
			head.group = append(head.group, f.queue[at])
			f.queue[at] = nil
		}
		f.depart(head)
		leaders = append(leaders, head)
	}
	f.close()
	f.arm()
	return leaders
}

// close closes the gaps that those left who are gone. f.mu is held.
func (f *folder) close() {
	rest := f.queue[:0]
	for _, w := range f.queue {
		if w != nil {
			rest = append(rest, w)
		}
	}
	clear(f.queue[len(rest):])
	f.queue = rest
}

// overdue is how much of its window the longest waiting has left. f.mu is held.
func (f *folder) overdue() time.Duration {
	if len(f.queue) == 0 {
		return f.cfg.Window
	}
	return f.cfg.Window - moment().Sub(f.left)
}

// gather chooses the companions of the i-th waiter, by their place in the
// queue. Where both a publish to several channels and a batch are possible, the
// one that saves messages goes first: that is the publish to several channels,
// as Pusher counts it as one call.
func (f *folder) gather(i int) (picks []int, kind sharing, full bool) {
	head := f.queue[i]
	if head.publish == nil {
		return nil, bearsCall, true
	}
	if f.repeated(i) {
		picks = f.pick(f.picks[0][:0], i, f.cfg.Channels, sharesTrigger)
		f.picks[0] = picks
	}
	kind, full = sharesTrigger, len(picks)+1 >= f.cfg.Channels
	if (len(picks) == 0 || f.app.Billing.MultiChannelPerChannel) && !f.noBatch.Load() {
		batch := f.pick(f.picks[1][:0], i, f.cfg.Batch, sharesBatch)
		f.picks[1] = batch
		if len(batch) > len(picks) {
			picks, kind = batch, sharesBatch
			full = len(picks)+1 >= f.cfg.Batch
		}
	}
	if len(picks) == 0 {
		kind = bearsCall
	}
	return picks, kind, full
}

// repeated reports whether somebody behind the i-th waiter may have the same to
// say, which is seldom so and dear to find out in full.
func (f *folder) repeated(i int) bool {
	same := f.queue[i].same
	for _, w := range f.queue[i+1:] {
		if w != nil && w.same == same {
			return true
		}
	}
	return false
}

// pick finds up to most-1 companions for the i-th waiter in a call of a kind. One
// that would pass an earlier publish to its channel is none.
func (f *folder) pick(picks []int, i, most int, kind sharing) []int {
	head := f.queue[i]
	clear(f.passed)
	f.passed[head.channel] = struct{}{} // a publish names a channel once
	for at := i + 1; at < len(f.queue) && len(picks)+1 < most; at++ {
		w := f.queue[at]
		if w == nil || w.publish == nil {
			continue
		}
		if kind == sharesTrigger {
			// A hash that is equal by accident costs a call, no more.
			_, passes := f.passed[w.channel]
			f.passed[w.channel] = struct{}{}
			if passes || !sameButChannel(head, w) {
				continue
			}
		}
		picks = append(picks, at)
	}
	return picks
}

func sameButChannel(a, b *waiter) bool {
	p, q := a.publish, b.publish
	return a.same == b.same && q != nil && p.HasInfo == q.HasInfo &&
		bytes.Equal(p.Name, q.Name) && bytes.Equal(p.Data, q.Data) && bytes.Equal(p.SocketID, q.SocketID) && bytes.Equal(p.Info, q.Info) && bytes.Equal(p.Extra, q.Extra)
}

// arm sets the timer to the end of the window. f.mu is held.
func (f *folder) arm() {
	if len(f.queue) > 0 {
		f.timer.Reset(max(f.overdue(), 0))
	}
}

// timeIsOver lets those go whose window is over.
func (f *folder) timeIsOver() {
	f.mu.Lock()
	leaders := f.form(true)
	f.mu.Unlock()
	for _, w := range leaders {
		w.rouse()
	}
}
