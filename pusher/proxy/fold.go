package proxy

import (
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
)

// FoldConfig says how publishes share calls. The zero value has the defaults.
type FoldConfig struct {
	// Window caps how long a publish waits, so that it can leave together with others:
	// until a call in flight ends, or until so long after the last call left. 0 means 3 ms.
	Window time.Duration
	// Batch is the most events in one batch_events call: 10 on Pusher's shared
	// clusters. Channels is the most channels of one publish. 0 means the app's
	// limit.
	Batch, Channels int
}

// folder lets publishes of one app that wait at the same moment go upstream as
// few calls, as a database commits a group: a publish that finds the line idle
// leaves at once, and so does one that comes a window after the last call left; another
// waits for a call in flight to end, or for that window, and leaves with all that wait by
// then. So near Pusher a group leaves when the one before it is answered; far away, where
// that would take a round trip, a call leaves each window at most, or when it is full. The same name,
// data, socket_id and info to different channels make one publish to several
// channels; different events make one batch. So the busier the line, the fewer
// calls a publish costs, and an idle line pays nothing.
//
// Calls leave in the order in which their first publishes came, and none waits for
// another's answer: overlapping publishes have no order at Pusher. Rules that want
// one have it from order.
//
// There is no goroutine of its own: one of those that wait makes the call and
// wakes the others, each with its own true answer. Those of the express lane do
// not even wait: they are gone on with.
//
// Whoever waits has a place before the upstream already (admission), and so there are
// as many calls in flight as are needed.
type folder struct {
	app   *App
	cfg   FoldConfig
	seed  maphash.Seed
	timer *time.Timer
	call  func(j *job, out outgoing, now time.Time) answer

	mu     sync.Mutex
	queue  []*waiter           // in order of arrival
	calls  int                 // in flight
	left   time.Time           // when the last call left
	passed map[uint64]struct{} // scratch of pick
	picks  [2][]int            // likewise

	// noBatch: the upstream has no batch_events, as was learned from a 404. Publishes share calls to several channels only.
	noBatch atomic.Bool

	publishes, sent, splits atomic.Int64
}

// waiter is one request's place in the line. It belongs to its job; while it is
// in a group, only the group's leader touches it.
type waiter struct {
	j       *job
	publish *pusher.Publish // nil: not to be folded
	out     outgoing
	sending int // how many events it brings
	class   quota.Priority
	same    uint64 // equal where what must be equal is, to share a publish to several channels
	channel uint64 // hash of its one channel
	got     answer
	group   []*waiter // of a leader: who shares its call, itself first
	kind    sharing   // how the group shares
	wake    chan struct{}
	visit   *visit   // who goes on instead of being woken
	lanes   []uint64 // in which its order is strict
	ahead   int      // in how many of them somebody is before it
}

// rouse has the request go on. From here on w belongs to it.
func (w *waiter) rouse() {
	if v := w.visit; v != nil {
		v.goOn()
		return
	}
	w.wake <- struct{}{}
}

func (w *waiter) release() {
	w.j, w.publish, w.out, w.got, w.visit = nil, nil, outgoing{}, answer{}, nil
	clear(w.group[:cap(w.group)])
	w.group = w.group[:0]
}

func newFolder(a *App, cfg FoldConfig) *folder {
	cfg.Window = or(cfg.Window, 3*time.Millisecond)
	cfg.Batch = or(cfg.Batch, or(a.Limits.Batch, 10))
	cfg.Channels = or(cfg.Channels, or(a.Limits.Channels, 100))
	f := &folder{app: a, cfg: cfg, seed: maphash.MakeSeed(), call: a.Upstream.call, passed: map[uint64]struct{}{}}
	f.timer = time.AfterFunc(time.Hour, f.timeIsOver)
	f.timer.Stop()
	return f
}

// FoldStats says what folding saved: Publishes went out in Calls. Splits counts
// folded calls that Pusher refused and that were sent again in parts.
type FoldStats struct{ Publishes, Calls, Splits int64 }

// FoldStats are zero when folding is off.
func (a *App) FoldStats() FoldStats {
	if a.fold == nil {
		return FoldStats{}
	}
	return FoldStats{a.fold.publishes.Load(), a.fold.sent.Load(), a.fold.splits.Load()}
}

// send takes the request's events to Pusher, alone or with others, and returns
// the answer to them. With a visit it does not wait: left says that v goes on, by
// resumed, when there is an answer or its turn to lead has come, and that neither
// j nor v are the caller's any more.
func (f *folder) send(j *job, pr *principal, batch bool, sending int, out outgoing, now time.Time, v *visit) (got answer, left bool) {
	w := &j.wait
	w.asked(j, batch, sending, out)
	if p := w.publish; p != nil {
		w.channel = maphash.Bytes(f.seed, p.Channels[0])
		if w.same = j.items[0].claim.Digest[0]; w.same == 0 { // nobody else wanted a digest
			w.same = maphash.Bytes(f.seed, p.Data)
		}
	}

	f.mu.Lock()
	if f.mayGo(w) {
		w.group, w.kind = append(w.group[:0], w), bearsCall
		f.depart(w)
		f.mu.Unlock()
	} else {
		if w.visit = v; v != nil {
			v.leave(j)
		}
		f.queue = append(f.queue, w)
		if len(f.queue) == 1 {
			f.arm()
		}
		f.mu.Unlock()
		if v != nil {
			return answer{}, true
		}
		<-w.wake
	}
	return f.resumed(w, now), false
}

// asked notes what w wants sent.
func (w *waiter) asked(j *job, batch bool, sending int, out outgoing) {
	w.j, w.out, w.sending, w.publish = j, out, sending, nil
	w.group = w.group[:0]
	w.class = j.class()
	if !batch {
		w.publish = foldable(j.items[0].publish)
	}
}

// sendGroup makes the call of a group that is one already.
func (f *folder) sendGroup(leader *waiter, now time.Time) answer {
	f.mu.Lock()
	f.depart(leader)
	f.mu.Unlock()
	f.lead(leader, now)
	return leader.got
}

// resumed is the answer to one that was roused.
func (f *folder) resumed(w *waiter, now time.Time) answer {
	if len(w.group) > 0 { // else somebody else's call carried it
		f.lead(w, now)
	}
	return w.got
}

// foldable is p if it may share a call. Encrypted events and those to a user
// never do.
func foldable(p *pusher.Publish) *pusher.Publish {
	if p.Encrypted || p.ToUser || p.Alone || p.Lossy || p.Raw == nil || len(p.Channels) != 1 {
		return nil
	}
	return p
}

// mayGo reports whether w need not wait. f.mu is held.
func (f *folder) mayGo(w *waiter) bool {
	return w.j.turn.probe || w.publish == nil || len(f.queue) == 0 && (f.calls == 0 || moment().Sub(f.left) >= f.cfg.Window)
}

// depart marks a group as in flight. f.mu is held.
func (f *folder) depart(leader *waiter) {
	f.calls++
	if leader.publish != nil { // others wait for nobody, and hold nobody up
		f.left = moment()
	}
	for _, w := range leader.group {
		f.publishes.Add(int64(w.sending))
	}
}

// lead makes the group's call, then lets the next groups go and the followers
// have their answers.
func (f *folder) lead(leader *waiter, now time.Time) {
	landed := false
	defer func() {
		if !landed { // a defect: nobody may wait for ever, and what happened is unknown
			for _, w := range leader.group {
				w.got = answer{fate: limiter.Unknown, outcome: limiter.Unavailable, reason: limiter.UpstreamFailing, word: "internal_error",
					status: 500, text: "pushguard failed while this publish was under way; it may or may not have been delivered."}
			}
		}
		f.arrive(leader)
	}()
	f.fly(leader.group, leader.kind, now)
	landed = true
}

// arrive ends a call: the followers are woken, the next groups leave.
//
// In between the processor is yielded once. Whoever can run, runs before the
// next groups are made: followers, whose answers bring their callers' next
// publishes, and those who have been read already and are on their way here. So
// a busy processor makes large groups; on one that is not, a yield returns at
// once, and nothing waits for it.
func (f *folder) arrive(leader *waiter) {
	for _, w := range leader.group[1:] { // from here on each belongs to its request again
		w.rouse()
	}
	runtime.Gosched()
	f.mu.Lock()
	f.calls--
	leaders := f.form(f.calls == 0 || f.overdue() <= 0)
	f.mu.Unlock()
	for _, w := range leaders {
		w.rouse()
	}
}
